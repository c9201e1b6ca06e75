//! The maps of a layer as a job: projections of q and k, then the maps, in slices.

use crate::attend::{LayerMask, Mapping, Operands};
use crate::layer::DiffAttnLayer;
use crate::options::ForwardOptions;
use crate::projection::{Projection, Run, Wanted};
use diffattn::{Error, MapOutputs, Slices, Tensor, checked_len};
use self_cell::MutBorrow;

/// The maps of a layer, float32.
#[derive(Debug, Clone, PartialEq)]
pub struct Maps {
    /// `[B, H, L, L]`.
    pub shape: [usize; 4],
    /// The softmax of each term, of that shape.
    pub terms: Vec<Vec<f32>>,
    /// `map₁ − λ · map₂`.
    pub diff: Vec<f32>,
}

/// A checked maps call of a layer: made by [`DiffAttnLayer::maps_job`], given its outputs by [`LayerMaps::bind`], worked off
/// by [`Slices::step`].
pub struct LayerMaps<'a> {
    layer: &'a DiffAttnLayer,
    run: Run,
    outputs: Option<MapOutputs<'a>>,
    is_bound: bool,
    stage: Stage<'a>,
    /// Units of each stage.
    units: [usize; 2],
}

enum Stage<'a> {
    /// q, k and λ.
    Project {
        projection: Box<Projection<'a>>,
        mask: Option<LayerMask<'a>>,
    },
    Map(Mapping<'a>),
    Done,
    /// A step failed.
    Failed,
}

impl std::fmt::Debug for LayerMaps<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerMaps")
            .field("run", &self.run)
            .field("done", &self.done())
            .finish_non_exhaustive()
    }
}

impl<'a> LayerMaps<'a> {
    pub(crate) fn new(
        layer: &'a DiffAttnLayer,
        x: Tensor<'a>,
        options: &ForwardOptions<'a>,
    ) -> Result<Self, Error> {
        let (run, x) = Run::new(layer, &x, 0, options)?;
        let mask = LayerMask::check(options.attn_mask.as_ref(), layer, &run)?;
        checked_len("x", &[run.batch, layer.num_heads(), run.length, run.length])?;
        let projection = Box::new(Projection::new(layer, run, x, Wanted::Maps));
        let units = [
            projection.units(),
            run.batch
                .saturating_mul(run.length.div_ceil(16))
                .saturating_mul(layer.num_heads()),
        ];
        let stage = match run.rows() {
            0 => Stage::Done,
            _ => Stage::Project { projection, mask },
        };
        Ok(Self {
            layer,
            run,
            outputs: None,
            is_bound: false,
            stage,
            units,
        })
    }

    /// Maps besides the difference: two.
    #[must_use]
    pub fn terms(&self) -> usize {
        2
    }

    /// `[B, H, L, L]`.
    #[must_use]
    pub fn map_shape(&self) -> [usize; 4] {
        [
            self.run.batch,
            self.layer.num_heads(),
            self.run.length,
            self.run.length,
        ]
    }

    /// Gives the outputs, each of [`LayerMaps::map_shape`].
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) when one does not fit.
    pub fn bind(&mut self, outputs: MapOutputs<'a>) -> Result<(), Error> {
        outputs.check(self.terms(), &self.map_shape())?;
        (self.outputs, self.is_bound) = (Some(outputs), true);
        Ok(())
    }

    /// Works on `count` units of the stage at most; returns how many.
    fn advance(&mut self, count: usize) -> Result<usize, Error> {
        if !self.is_bound {
            return Err(Error::Internal(
                "a layer was stepped before its outputs were bound".to_owned(),
            ));
        }
        let (stage, worked) = match std::mem::replace(&mut self.stage, Stage::Failed) {
            Stage::Project {
                mut projection,
                mask,
            } => {
                let worked = projection.step(count, None)?;
                match self
                    .outputs
                    .take_if(|_| projection.units_done() == projection.units())
                {
                    None => (Stage::Project { projection, mask }, worked),
                    Some(outputs) => {
                        let attended = MutBorrow::new(Vec::new());
                        let projected = projection.into_projected();
                        let operands = Operands {
                            layer: self.layer,
                            run: self.run,
                            projected,
                            mask,
                            cache: None,
                            attended,
                        };
                        (Stage::Map(operands.map(outputs)?), worked)
                    }
                }
            }
            Stage::Map(mut mapping) => {
                let (worked, finished) = mapping.with_dependent_mut(|_, call| {
                    let before = call.done();
                    call.step(count)?;
                    Ok((call.done() - before, call.done() == call.total()))
                })?;
                (
                    if finished {
                        Stage::Done
                    } else {
                        Stage::Map(mapping)
                    },
                    worked,
                )
            }
            Stage::Done => (Stage::Done, 0),
            Stage::Failed => {
                return Err(Error::Internal(
                    "a layer was stepped after a step that failed".to_owned(),
                ));
            }
        };
        self.stage = stage;
        Ok(worked)
    }
}

impl Slices for LayerMaps<'_> {
    fn total(&self) -> usize {
        self.units.iter().sum()
    }

    fn done(&self) -> usize {
        let [projection, maps] = self.units;
        match &self.stage {
            Stage::Project { projection, .. } => projection.units_done(),
            Stage::Map(mapping) => mapping
                .with_dependent(|_, call| projection + call.done() * maps / call.total().max(1)),
            Stage::Done => self.total(),
            Stage::Failed => 0,
        }
    }

    fn step(&mut self, count: usize) -> Result<(), Error> {
        let mut left = count.max(1);
        while left > 0 && !matches!(self.stage, Stage::Done) {
            left -= self.advance(left)?.clamp(1, left);
        }
        Ok(())
    }
}
