//! SwiGLU backward: of silu(gate) · up. Nothing of the forward pass is kept: the gate's SiLU is
//! made again, with its slope. In float64, where a value costs little beside what is read and
//! written for it; nothing fuses, so every instruction set gives the same bits.

use super::pointwise::{self, Pointwise, store, vectors};
use crate::activation::wide::exp2;
use crate::blocks::activation::AT_ONCE;
use crate::error::Error;
use crate::run::Run;
use crate::run::buffer::try_zeroed;
use crate::run::work::{Work, at_once};
use crate::simd::Wide;
use crate::tensor::gradients::{bind, check_alike, check_gradient};
use crate::tensor::output::Output;
use crate::tensor::{Data, Tensor};

/// Gradients of `silu(gate) · up`, float32: as [`swiglu_backward`] returns them, or
/// (`SwigluGradients<&mut [f32]>`) where a [`SwigluBackward`] writes them.
#[derive(Debug, Clone, PartialEq)]
pub struct SwigluGradients<T = Vec<f32>> {
    /// Of the gate, in its shape.
    pub dgate: T,
    /// Of up, in its shape.
    pub dup: T,
}

/// A checked call of [`swiglu_backward`].
#[derive(Debug)]
pub struct SwigluBackward<'a> {
    dy: Data<'a>,
    gate: Data<'a>,
    up: Data<'a>,
    shape: Vec<usize>,
    run: Run,
}

/// dgate and dup of dy, gate and up.
#[derive(Debug, Clone, Copy)]
struct Slopes;

impl Pointwise<3, 2> for Slopes {
    const COST: usize = 8;

    #[inline(always)]
    unsafe fn map<W: Wide>(self, inputs: [*const f32; 3], outputs: [*mut f32; 2]) {
        // SAFETY: (all of it) the caller's promise.
        let load = |at: *const f32| unsafe { vectors::<W>(at) };
        let [dy, gate, mut up] = inputs.map(load);
        let [mut silu, slope] = silu_and_slope(gate);
        for i in 0..AT_ONCE {
            up[i] = dy[i].mul(up[i]).mul(slope[i]);
            silu[i] = dy[i].mul(silu[i]);
        }
        for (to, values) in outputs.into_iter().zip([up, silu]) {
            // SAFETY: as above.
            unsafe { store(values, to) };
        }
    }
}

/// x · σ(x) and its slope `σ(x) · (1 + x · (1 − σ(x)))`; 1 − σ(x) is σ(−x), which loses no digit.
#[inline(always)]
fn silu_and_slope<W: Wide, const N: usize>(x: [W; N]) -> [[W; N]; 2] {
    /// Past it both have long had their limits in float32, and powers are normal numbers.
    const FAR: f64 = 700.0;
    let mut power = x;
    for i in 0..N {
        // (A NaN passes through the minimum's second operand.)
        let size = W::splat(FAR).min(x[i].abs());
        power[i] = size.mul(W::splat(-std::f64::consts::LOG2_E));
    }
    let (mut silu, mut slope) = (x, exp2(power));
    for i in 0..N {
        let high = W::splat(1.0).div(W::splat(1.0).add(slope[i]));
        let low = slope[i].mul(high);
        let (gate, rest) = (x[i].by_sign(low, high), x[i].by_sign(high, low));
        let near = W::splat(-FAR).max(x[i]);
        silu[i] = near.mul(gate);
        slope[i] = gate.mul(W::splat(1.0).add(W::splat(FAR).min(near).mul(rest)));
    }
    [silu, slope]
}

impl<'a> SwigluBackward<'a> {
    /// Checks everything. All three have one shape, of any rank, and one element type.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) or
    /// [`ErrorKind::Dtype`](crate::ErrorKind::Dtype), naming the argument.
    pub fn new(dy: Tensor<'a>, gate: Tensor<'a>, up: Tensor<'a>, run: Run) -> Result<Self, Error> {
        check_gradient(&dy, ("gate", &gate))?;
        check_alike(("up", &up), ("gate", &gate))?;
        Ok(Self {
            dy: dy.data,
            gate: gate.data,
            up: up.data,
            shape: gate.shape,
            run,
        })
    }

    /// The shape of both gradients: the gate's.
    #[must_use]
    pub fn output_shape(&self) -> &[usize] {
        &self.shape
    }

    /// The work of the call into `gradients`. What they hold before does not matter.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) naming a gradient of another length.
    pub fn into_work<'o>(self, gradients: SwigluGradients<&'o mut [f32]>) -> Result<Work<'o>, Error>
    where
        'a: 'o,
    {
        let len = self.gate.len();
        let dgate = Output::F32(bind("dgate", len, gradients.dgate)?);
        let dup = Output::F32(bind("dup", len, gradients.dup)?);
        let inputs = [self.dy, self.gate, self.up];
        let run = self.run;
        Ok(Work::new(pointwise::units(len), move |pace| async move {
            pointwise::work(Slopes, run, &pace, inputs, [&dgate, &dup]).await
        }))
    }
}

/// Gradients of `silu(gate) · up`, as gated MLPs have it (arXiv 2002.05202), for `dy`, the gradient
/// of its result: dgate is `dy · up · σ(gate)(1 + gate · (1 − σ(gate)))` and dup `dy · silu(gate)`,
/// rounded once. Every instruction set gives the same bits. All three tensors have one shape, of
/// any rank, and one element type.
///
/// ```
/// use diffattn::{Run, Tensor, swiglu_backward};
///
/// let (dy, gate, up) = ([1.0], [0.0], [3.0]);
/// let tensor = |x| Tensor::f32(x, &[1]);
/// let gradients = swiglu_backward(tensor(&dy), tensor(&gate), tensor(&up), Run::default())?;
/// assert_eq!((gradients.dgate, gradients.dup), (vec![1.5], vec![0.0]));
/// # Ok::<(), diffattn::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape) or [`ErrorKind::Dtype`](crate::ErrorKind::Dtype)
/// for tensors that do not fit; [`Error::out_of_memory`] when memory is refused.
pub fn swiglu_backward(
    dy: Tensor<'_>,
    gate: Tensor<'_>,
    up: Tensor<'_>,
    run: Run,
) -> Result<SwigluGradients, Error> {
    let call = SwigluBackward::new(dy, gate, up, run)?;
    let len = call.gate.len();
    let (mut dgate, mut dup) = (try_zeroed(len)?, try_zeroed(len)?);
    let outputs = [
        &Output::F32(bind("dgate", len, &mut dgate)?),
        &Output::F32(bind("dup", len, &mut dup)?),
    ];
    let inputs = [call.dy, call.gate, call.up];
    at_once(async |pace| pointwise::work(Slopes, run, pace, inputs, outputs).await)?;
    Ok(SwigluGradients { dgate, dup })
}
