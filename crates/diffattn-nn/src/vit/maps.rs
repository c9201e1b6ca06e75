//! The maps of one block as a job: the blocks before it, then its maps, in slices.

use super::forward::unbound;
use super::trunk::{Trunk, forward_options};
use super::{DiffViT, DiffViTOptions};
use crate::maps::LayerMaps;
use crate::projection::Run;
use diffattn::{Error, MapOutputs, Slices, Tensor, checked_len};
use self_cell::self_cell;

/// What the maps of a block borrow.
struct Operands<'a> {
    model: &'a DiffViT,
    layer: usize,
    run: Run,
    normed: Vec<f32>,
}

self_cell!(
    /// A block's maps call and what it borrows.
    struct Mapping<'a> {
        owner: Operands<'a>,
        #[not_covariant]
        dependent: LayerMaps,
    }
);

impl<'a> Operands<'a> {
    fn map(self, outputs: MapOutputs<'a>) -> Result<Mapping<'a>, Error> {
        Mapping::try_new(self, |operands| {
            let layer = &operands.model.blocks[operands.layer].attention;
            let Run { batch, length, .. } = operands.run;
            let x = Tensor::f32(&operands.normed, &[batch, length, layer.embed_dim()]);
            let mut job = layer.maps_job(x, &forward_options(&operands.run))?;
            job.bind(outputs)?;
            Ok(job)
        })
    }
}

enum Stage<'a> {
    /// The blocks before; the outputs wait.
    Blocks(Option<MapOutputs<'a>>),
    Map(Mapping<'a>),
    Done,
    /// A step failed.
    Failed,
}

/// A checked maps call of a model: made by [`DiffViT::maps_job`], given its outputs by [`DiffViTMaps::bind`], worked off by
/// [`Slices::step`].
pub struct DiffViTMaps<'a> {
    trunk: Trunk<'a>,
    layer: usize,
    stage: Stage<'a>,
    /// Units of the maps.
    units: usize,
}

impl std::fmt::Debug for DiffViTMaps<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiffViTMaps")
            .field("run", &self.trunk.run)
            .field("layer", &self.layer)
            .field("done", &self.done())
            .finish_non_exhaustive()
    }
}

impl<'a> DiffViTMaps<'a> {
    pub(super) fn new(
        model: &'a DiffViT,
        pixels: &Tensor<'a>,
        layer: usize,
        options: &DiffViTOptions,
    ) -> Result<Self, Error> {
        let depth = model.blocks.len();
        if layer >= depth {
            let expected = format!("0 to {}", depth.saturating_sub(1));
            return Err(Error::option("layer", expected, layer));
        }
        let trunk = Trunk::new(model, pixels, layer, options)?;
        let Run { batch, length, .. } = trunk.run;
        checked_len("pixels", &[batch, model.num_heads(), length, length])?;
        let units = batch
            .saturating_mul(length.div_ceil(16))
            .saturating_mul(model.num_heads());
        let stage = match batch {
            0 => Stage::Done,
            _ => Stage::Blocks(None),
        };
        Ok(Self {
            trunk,
            layer,
            stage,
            units,
        })
    }

    /// Maps besides the difference: two.
    #[must_use]
    pub fn terms(&self) -> usize {
        2
    }

    /// `[B, H, N, N]`.
    #[must_use]
    pub fn map_shape(&self) -> [usize; 4] {
        let Run { batch, length, .. } = self.trunk.run;
        [batch, self.trunk.model.num_heads(), length, length]
    }

    /// Gives the outputs, each of [`DiffViTMaps::map_shape`].
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) when one does not fit.
    pub fn bind(&mut self, outputs: MapOutputs<'a>) -> Result<(), Error> {
        outputs.check(self.terms(), &self.map_shape())?;
        if let Stage::Blocks(waiting) = &mut self.stage {
            *waiting = Some(outputs);
        }
        Ok(())
    }

    /// Works on `count` units of the stage at most; returns how many.
    fn advance(&mut self, count: usize) -> Result<usize, Error> {
        let (stage, worked) = match std::mem::replace(&mut self.stage, Stage::Failed) {
            Stage::Blocks(Some(outputs)) => {
                if self.trunk.is_done() {
                    let operands = Operands {
                        model: self.trunk.model,
                        layer: self.layer,
                        run: self.trunk.run,
                        normed: std::mem::take(&mut self.trunk.normed),
                    };
                    (Stage::Map(operands.map(outputs)?), 0)
                } else {
                    let worked = self.trunk.advance(count)?;
                    (Stage::Blocks(Some(outputs)), worked)
                }
            }
            Stage::Blocks(None) => {
                self.stage = Stage::Blocks(None);
                return Err(unbound());
            }
            Stage::Map(mut mapping) => {
                let (worked, finished) = mapping.with_dependent_mut(|_, call| {
                    let before = call.done();
                    call.step(count)?;
                    Ok((call.done() - before, call.done() == call.total()))
                })?;
                if finished {
                    (Stage::Done, worked)
                } else {
                    (Stage::Map(mapping), worked)
                }
            }
            Stage::Done => (Stage::Done, 0),
            Stage::Failed => {
                return Err(Error::Internal(
                    "a model was stepped after a step that failed".to_owned(),
                ));
            }
        };
        self.stage = stage;
        Ok(worked)
    }
}

impl Slices for DiffViTMaps<'_> {
    fn total(&self) -> usize {
        self.trunk.units() + self.units
    }

    fn done(&self) -> usize {
        match &self.stage {
            Stage::Blocks(_) => self.trunk.units_done(),
            Stage::Map(mapping) => {
                let part = mapping
                    .with_dependent(|_, call| call.done() * self.units / call.total().max(1));
                self.trunk.units() + part
            }
            Stage::Done => self.total(),
            Stage::Failed => 0,
        }
    }

    fn step(&mut self, count: usize) -> Result<(), Error> {
        let mut left = count.max(1);
        while left > 0 && !matches!(self.stage, Stage::Done) {
            left -= self.advance(left)?.min(left);
        }
        Ok(())
    }
}
