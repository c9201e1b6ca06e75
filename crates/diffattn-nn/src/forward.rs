//! A forward pass as a job: projections, cache, attention, output projection, each in slices. Computes nothing itself.

use crate::attend::{Attending, CacheLoan, LayerMask, Operands};
use crate::layer::{DiffAttnLayer, Fusion, HeadNorm};
use crate::options::ForwardOptions;
use crate::projection::{Projection, Run, Wanted, unit_rows};
use diffattn::{
    DType, DataMut, Error, KvCache, KvCacheOptions, RmsNorm, RmsNormOptions, Slices, Tensor,
    check_len, try_zeroed,
};
use self_cell::MutBorrow;

/// Queries of a unit of attention, as far as the job's count of units goes.
const ATTENTION_ROWS: usize = 48;

/// Values of k and v per unit of filling the cache: some tenths of a millisecond.
const APPEND_VALUES: usize = 1 << 18;

/// A checked forward pass of a layer: made by [`DiffAttnLayer::forward_job`], given its output by [`Forward::bind`], worked
/// off by [`Slices::step`]. The cache, if any, is longer once it is done; a job that fails or is dropped before leaves it
/// as it was.
pub struct Forward<'a> {
    layer: &'a DiffAttnLayer,
    run: Run,
    out: Option<&'a mut [f32]>,
    stage: Stage<'a>,
    /// Units of each stage.
    units: [usize; 4],
}

enum Stage<'a> {
    /// q, k, v and λ.
    Project {
        projection: Box<Projection<'a>>,
        mask: Option<LayerMask<'a>>,
        cache: Option<CacheLoan<'a>>,
    },
    /// The way of k and v into the cache, `next` the tokens done.
    Append {
        operands: Box<Operands<'a>>,
        next: usize,
    },
    Attend(Attending<'a>),
    /// The output projection of what attention made, `next` the rows done.
    Output {
        attended: Vec<f32>,
        cache: Option<CacheLoan<'a>>,
        next: usize,
    },
    Done,
    /// A step failed.
    Failed,
}

impl std::fmt::Debug for Forward<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forward")
            .field("run", &self.run)
            .field("done", &self.done())
            .finish_non_exhaustive()
    }
}

impl<'a> Forward<'a> {
    pub(crate) fn new(
        layer: &'a DiffAttnLayer,
        x: Tensor<'a>,
        cache: Option<&'a mut KvCache>,
        options: &ForwardOptions<'a>,
    ) -> Result<Self, Error> {
        let (run, x) = Run::new(
            layer,
            &x,
            cache.as_ref().map_or(0, |cache| cache.len()),
            options,
        )?;
        if let Some(cache) = &cache {
            check_cache(cache.options(), &layer.cache_options(run.batch, 0))?;
        }
        let mask = LayerMask::check(options.attn_mask.as_ref(), layer, &run)?;
        let wanted = if cache.is_some() {
            Wanted::Cache
        } else {
            Wanted::Attention
        };
        let projection = Box::new(Projection::new(layer, run, x, wanted));
        let append = cache
            .as_ref()
            .map_or(0, |cache| run.length.div_ceil(append_unit(&run, cache)));
        let units = units(layer, &run, &projection, append);
        let stage = match run.rows() {
            0 => Stage::Done,
            _ => Stage::Project {
                projection,
                mask,
                cache: cache.map(CacheLoan::new),
            },
        };
        Ok(Self {
            layer,
            run,
            out: None,
            stage,
            units,
        })
    }

    /// `[B, L, embed_dim]`, as x.
    #[must_use]
    pub fn output_shape(&self) -> [usize; 3] {
        [self.run.batch, self.run.length, self.layer.embed_dim()]
    }

    /// Gives the output, float32.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) or [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype) when it does not fit.
    pub fn bind(&mut self, out: DataMut<'a>) -> Result<(), Error> {
        let DataMut::F32(out) = out else {
            return Err(Error::dtype("out", "float32", out.dtype().name()));
        };
        check_len("out", &self.output_shape(), out.len())?;
        self.out = Some(out);
        Ok(())
    }

    /// Works on `count` units of the stage at most; returns how many.
    fn advance(&mut self, count: usize) -> Result<usize, Error> {
        let Self {
            layer, run, out, ..
        } = self;
        let out = out.as_deref_mut().ok_or_else(|| {
            Error::Internal("a layer was stepped before its output was bound".to_owned())
        })?;
        // Whatever fails leaves the job failed, and thereby the cache as it was.
        let (stage, worked) = match std::mem::replace(&mut self.stage, Stage::Failed) {
            Stage::Project {
                mut projection,
                mask,
                cache,
            } => {
                let worked = projection.step(count, cache.as_ref().map(|loan| &*loan.cache))?;
                if projection.units_done() < projection.units() {
                    (
                        Stage::Project {
                            projection,
                            mask,
                            cache,
                        },
                        worked,
                    )
                } else {
                    let attended = MutBorrow::new(Vec::new());
                    let projected = projection.into_projected();
                    let operands = Operands {
                        layer,
                        run: *run,
                        projected,
                        mask,
                        cache,
                        attended,
                    };
                    (
                        Stage::Append {
                            operands: Box::new(operands),
                            next: 0,
                        },
                        worked,
                    )
                }
            }
            Stage::Append { mut operands, next } => {
                let Some(loan) = &operands.cache else {
                    self.stage = Stage::Attend(operands.attend()?);
                    return Ok(0);
                };
                let unit = append_unit(run, loan.cache);
                let end = next
                    .saturating_add(count.saturating_mul(unit))
                    .min(run.length);
                operands.append(next..end)?;
                let worked = (end - next).div_ceil(unit);
                if end < run.length {
                    (
                        Stage::Append {
                            operands,
                            next: end,
                        },
                        worked,
                    )
                } else {
                    (Stage::Attend(operands.attend()?), worked)
                }
            }
            Stage::Attend(mut attending) => {
                let (worked, finished) = attending.with_dependent_mut(|_, call| {
                    let before = call.done();
                    call.step(count)?;
                    Ok((call.done() - before, call.done() == call.total()))
                })?;
                if finished {
                    let Operands {
                        attended, cache, ..
                    } = attending.into_owner();
                    (
                        Stage::Output {
                            attended: attended.into_inner(),
                            cache,
                            next: 0,
                        },
                        worked,
                    )
                } else {
                    (Stage::Attend(attending), worked)
                }
            }
            Stage::Output {
                attended,
                mut cache,
                next,
            } => {
                let unit = output_unit(layer);
                let end = next
                    .saturating_add(count.saturating_mul(unit))
                    .min(run.rows());
                let y = &mut out[next * layer.embed_dim()..end * layer.embed_dim()];
                output_rows(layer, run, &attended, [next, end], y)?;
                let worked = (end - next).div_ceil(unit);
                if end < run.rows() {
                    (
                        Stage::Output {
                            attended,
                            cache,
                            next: end,
                        },
                        worked,
                    )
                } else {
                    if let Some(loan) = &mut cache {
                        loan.keep = true;
                    }
                    (Stage::Done, worked)
                }
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

impl Slices for Forward<'_> {
    fn total(&self) -> usize {
        self.units.iter().sum()
    }

    fn done(&self) -> usize {
        let [projection, append, attention, _] = self.units;
        let attended = projection + append + attention;
        match &self.stage {
            Stage::Project { projection, .. } => projection.units_done(),
            Stage::Append { operands, next } => match &operands.cache {
                None => projection,
                Some(loan) => projection + next / append_unit(&self.run, loan.cache),
            },
            Stage::Attend(attending) => {
                let part = attending
                    .with_dependent(|_, call| call.done() * attention / call.total().max(1));
                projection + append + part
            }
            Stage::Output { next, .. } => attended + next / output_unit(self.layer),
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

/// Units of each stage.
fn units(
    layer: &DiffAttnLayer,
    run: &Run,
    projection: &Projection<'_>,
    append: usize,
) -> [usize; 4] {
    [
        projection.units(),
        append,
        // (Without tokens there may be any number of sequences.)
        run.batch
            .saturating_mul(run.length.div_ceil(ATTENTION_ROWS))
            .saturating_mul(layer.num_heads()),
        run.rows().div_ceil(output_unit(layer)),
    ]
}

/// Units of a forward pass without a cache, before there is an x for it.
#[cfg(feature = "models")]
pub(crate) fn forward_units(layer: &DiffAttnLayer, run: &Run) -> usize {
    let projection = Projection::new(layer, *run, &[], Wanted::Attention);
    units(layer, run, &projection, 0).iter().sum()
}

/// Tokens per unit of filling the cache.
fn append_unit(run: &Run, cache: &KvCache) -> usize {
    let KvCacheOptions {
        groups,
        terms,
        head_dim,
        value_dim,
        ..
    } = cache.options();
    let token = run
        .batch
        .saturating_mul(*groups)
        .saturating_mul(terms * head_dim + value_dim);
    (APPEND_VALUES / token.max(1)).max(1)
}

/// Rows per unit of the output projection.
fn output_unit(layer: &DiffAttnLayer) -> usize {
    unit_rows(layer.out.inputs().saturating_mul(layer.out.outputs()))
}

/// Rows `first..end` of y: mixes and normalises where the attention could not, then projects.
fn output_rows(
    layer: &DiffAttnLayer,
    run: &Run,
    heads: &[f32],
    [first, end]: [usize; 2],
    y: &mut [f32],
) -> Result<(), Error> {
    let (Some(fusion), Some(norm)) = (&layer.fusion, &layer.norm) else {
        let width = layer.out.inputs();
        return layer
            .out
            .forward(&heads[first * width..end * width], y, run.run);
    };
    let mixed = mix(layer, fusion, heads, first, end)?;
    let mut normed = try_zeroed(mixed.len())?;
    normalise(layer, run, norm, &mixed, &mut normed)?;
    layer.out.forward(&normed, y, run.run)
}

/// `(1 − fusion) · plain + fusion · differences` for the heads that take part.
fn mix(
    layer: &DiffAttnLayer,
    fusion: &Fusion,
    heads: &[f32],
    first: usize,
    end: usize,
) -> Result<Vec<f32>, Error> {
    let (width, mixing) = (
        layer.out.inputs(),
        fusion.heads * layer.heads.dimensions.head_width,
    );
    let (keep, add) = ((1.0 - fusion.fusion) as f32, fusion.fusion as f32);
    let mut mixed = try_zeroed((end - first) * width)?;
    let rows = heads[first * (width + mixing)..].chunks_exact(width + mixing);
    for (to, from) in mixed.chunks_exact_mut(width).zip(rows) {
        let (plain, differences) = from.split_at(width);
        to[mixing..].copy_from_slice(&plain[mixing..]);
        for (to, (plain, difference)) in to.iter_mut().zip(plain.iter().zip(differences)) {
            *to = keep * plain + add * difference;
        }
    }
    Ok(mixed)
}

fn normalise(
    layer: &DiffAttnLayer,
    run: &Run,
    norm: &HeadNorm,
    from: &[f32],
    to: &mut [f32],
) -> Result<(), Error> {
    let width = layer.heads.dimensions.head_width;
    let options = RmsNormOptions {
        eps: norm.eps,
        weight: norm.weight.as_deref(),
        scale: norm.scale,
        run: run.run,
    };
    let call = RmsNorm::new(Tensor::f32(from, &[from.len() / width, width]), &options)?;
    call.finish_into(DataMut::F32(to))
}

/// The cache must be made for such a layer and batch; its capacity is its own affair.
fn check_cache(given: &KvCacheOptions, wanted: &KvCacheOptions) -> Result<(), Error> {
    if given.dtype != wanted.dtype {
        return Err(Error::dtype(
            "cache",
            DType::name(wanted.dtype),
            given.dtype.name(),
        ));
    }
    let sizes = |options: &KvCacheOptions| {
        let KvCacheOptions {
            batch,
            groups,
            terms,
            head_dim,
            value_dim,
            ..
        } = options;
        format!(
            "batch {batch}, groups {groups}, terms {terms}, head_dim {head_dim}, value_dim {value_dim}"
        )
    };
    let (given, wanted) = (sizes(given), sizes(wanted));
    if given == wanted {
        Ok(())
    } else {
        Err(Error::shape("cache", wanted, given))
    }
}
