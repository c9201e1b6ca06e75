//! Linear maps in training: forward as they are, backward into the gradients of what of them moves.
//! Runs in slices. Knows no layers.

use super::arena::{Arena, ParameterId};
use diffattn::{
    Error, Linear, LinearBackward, LinearGradients, Pace, Run, Tensor, Work, try_zeroed,
};

/// Multiply-adds of a unit of work: a few milliseconds, in WebAssembly too.
const UNIT_WORK: usize = 1 << 25;

/// Rows of a unit at least.
const LEAST_ROWS: usize = 32;

/// Which parameters a map is made of; what is `None` is frozen or not there.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct MapIds {
    pub(crate) weight: Option<ParameterId>,
    pub(crate) bias: Option<ParameterId>,
    pub(crate) low_rank: Option<LowRankIds>,
}

/// The low-rank difference of a map, B A times a factor that the map's own B has in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LowRankIds {
    pub(crate) a: ParameterId,
    pub(crate) b: ParameterId,
    pub(crate) factor: f32,
}

impl MapIds {
    /// Whether anything of it moves.
    pub(crate) fn moves(&self) -> bool {
        self.weight.is_some() || self.bias.is_some() || self.low_rank.is_some()
    }
}

/// Rows of a unit of work of a map.
fn unit_rows(linear: &Linear) -> usize {
    let work = linear.inputs().saturating_mul(linear.outputs()).max(1);
    (UNIT_WORK / work)
        .max(LEAST_ROWS)
        .next_multiple_of(LEAST_ROWS)
}

/// Units of work of a map of `rows` rows, forward.
pub(super) fn units(linear: &Linear, rows: usize) -> usize {
    rows.div_ceil(unit_rows(linear))
}

/// All of a call's work, which counts as many units as it does itself.
pub(super) async fn finish(pace: &Pace, mut work: Work<'_>) -> Result<(), Error> {
    let units = work.total();
    pace.within(&mut work, units).await
}

/// y of rows of x, x met as floats whatever the weight's format.
pub(super) async fn forward(
    pace: &Pace,
    linear: &Linear,
    x: &[f32],
    y: &mut [f32],
    run: Run,
) -> Result<(), Error> {
    let (inputs, outputs) = (linear.inputs(), linear.outputs());
    let rows = x.len() / inputs.max(1);
    pace.rows(0..rows, unit_rows(linear), |rows| {
        let x = &x[rows.start * inputs..rows.end * inputs];
        linear.forward_float(x, &mut y[rows.start * outputs..rows.end * outputs], run)
    })
    .await
}

/// What a backward pass of a map reads and where it writes.
pub(super) struct MapBackward<'b> {
    pub(super) linear: &'b Linear,
    pub(super) ids: MapIds,
    pub(super) dy: &'b [f32],
    /// Read where anything of the map moves.
    pub(super) x: &'b [f32],
    /// dx, and whether it is added to what is there.
    pub(super) dx: Option<(&'b mut [f32], bool)>,
}

impl MapBackward<'_> {
    /// dx, and the gradients of what moves, added to the arena's.
    pub(super) async fn run(self, pace: &Pace, arena: &mut Arena, run: Run) -> Result<(), Error> {
        let Self {
            linear,
            ids,
            dy,
            x,
            dx,
        } = self;
        let rows = dy.len() / linear.outputs().max(1);
        let (dx, adds_dx) = match dx {
            Some((dx, adds)) => (Some(dx), adds),
            None => (None, false),
        };
        if dx.is_some() || ids.weight.is_some() || ids.bias.is_some() {
            let [dweight, dbias] = arena.gradient_pair([ids.weight, ids.bias])?;
            let gradients = LinearGradients {
                dx,
                adds_dx,
                dweight,
                dbias,
            };
            let call = LinearBackward::new(linear, dy, x, run);
            let units = 2 * units(linear, rows);
            pace.within(&mut call.into_work(gradients)?, units).await?;
        }
        if let (Some(ids), Some([lora_a, lora_b])) = (ids.low_rank, linear.low_rank()) {
            // y = … + (x Aᵀ) Bᵀ, B with its factor: dA = (dy B)ᵀ x, dB = factor · dyᵀ (x Aᵀ).
            let mut thin = try_zeroed(rows * lora_a.outputs())?;
            lora_a.forward(x, &mut thin, run)?;
            if ids.factor != 1.0 {
                thin.iter_mut().for_each(|value| *value *= ids.factor);
            }
            let gradients = LinearGradients {
                dweight: Some(arena.gradient(ids.b)),
                ..LinearGradients::default()
            };
            LinearBackward::new(lora_b, dy, &thin, run).finish_into(gradients)?;
            let gradients = LinearGradients {
                dx: Some(&mut thin),
                ..LinearGradients::default()
            };
            LinearBackward::new(lora_b, dy, &[], run).finish_into(gradients)?;
            let gradients = LinearGradients {
                dweight: Some(arena.gradient(ids.a)),
                ..LinearGradients::default()
            };
            LinearBackward::new(lora_a, &thin, x, run).finish_into(gradients)?;
            pace.granted().await;
        }
        Ok(())
    }
}

/// Packs what moved of a map over what it was.
pub(super) fn repack(linear: &mut Linear, ids: MapIds, arena: &Arena) -> Result<(), Error> {
    if ids.weight.is_some() || ids.bias.is_some() {
        let mut weight = Vec::new();
        let values = match ids.weight {
            Some(id) => arena.value(id),
            None => {
                weight = weight_values(linear)?;
                &weight
            }
        };
        let bias = match ids.bias {
            Some(id) => Some(arena.value(id).to_vec()),
            None => linear.bias().map(<[f32]>::to_vec),
        };
        let shape = [linear.outputs(), linear.inputs()];
        let bias = bias.as_ref().map(|bias| Tensor::f32(bias, &shape[..1]));
        linear.repack(&Tensor::f32(values, &shape), bias.as_ref())?;
        drop(weight);
    }
    if let (Some(ids), Some([lora_a, lora_b])) = (ids.low_rank, linear.low_rank_mut()) {
        let a = arena.value(ids.a);
        lora_a.repack(&Tensor::f32(a, &[lora_a.outputs(), lora_a.inputs()]), None)?;
        let b: Vec<f32> = arena.value(ids.b).iter().map(|b| b * ids.factor).collect();
        lora_b.repack(&Tensor::f32(&b, &[lora_b.outputs(), lora_b.inputs()]), None)?;
    }
    Ok(())
}

/// The weight of a map in float32, `[outputs, inputs]`.
pub(super) fn weight_values(linear: &Linear) -> Result<Vec<f32>, Error> {
    let inputs = linear.inputs();
    let mut values = try_zeroed(linear.outputs() * inputs)?;
    for (row, to) in values.chunks_exact_mut(inputs.max(1)).enumerate() {
        linear.weight_row(row, to)?;
    }
    Ok(values)
}
