//! Gates that act on what other channels carry: SiLU of one slice times another. Works value by
//! value.

use crate::error::Error;
use crate::run::Run;
use crate::run::threads::{Disjoint, for_each, thread_count};
use crate::simd::math::{MAX_LANES, silu};
use crate::simd::{Kernel, Vector};
use crate::tensor::shape::check_len;

/// Values of one item of work: some tens of microseconds.
const ITEM: usize = 1 << 13;

/// Multiply-adds that one value costs.
const VALUE_WORK: usize = 32;

/// Some of the values.
struct Gate<'c> {
    gates: &'c mut [f32],
    carried: &'c [f32],
}

impl Kernel for Gate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        debug_assert_eq!(self.gates.len(), self.carried.len());
        let mut gates = self.gates.chunks_exact_mut(V::LANES);
        let mut carried = self.carried.chunks_exact(V::LANES);
        for (gate, carried) in (&mut gates).zip(&mut carried) {
            // SAFETY: both have LANES values.
            unsafe { through::<V>(gate.as_mut_ptr(), carried.as_ptr()) };
        }
        let (gates, carried) = (gates.into_remainder(), carried.remainder());
        if !gates.is_empty() {
            let (mut gate, mut other) = ([0.0; MAX_LANES], [0.0; MAX_LANES]);
            gate[..gates.len()].copy_from_slice(gates);
            other[..carried.len()].copy_from_slice(carried);
            // SAFETY: MAX_LANES is at least LANES.
            unsafe { through::<V>(gate.as_mut_ptr(), other.as_ptr()) };
            gates.copy_from_slice(&gate[..gates.len()]);
        }
    }
}

/// One vector of gates by what passes through it.
///
/// # Safety
/// LANES values are writable at `gate` and readable at `carried`.
#[inline(always)]
unsafe fn through<V: Vector>(gate: *mut f32, carried: *const f32) {
    // SAFETY: the caller's promise.
    unsafe { silu(V::load(gate)).mul(V::load(carried)).store(gate) };
}

/// Replaces each gate g by `g · σ(g) · c`, c the value of `carried` in its place: what Mamba (arXiv
/// 2312.00752) and gated memory units (arXiv 2507.06607) do with a gate.
///
/// ```
/// let mut gates = [0.0, f32::NEG_INFINITY, 100.0];
/// diffattn::silu_gate(&mut gates, &[7.0, 2.0, 0.5], diffattn::Run::default())?;
/// assert_eq!(gates, [0.0, 0.0, 50.0]);
/// # Ok::<(), diffattn::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape) naming `carried` unless there is one for each.
pub fn silu_gate(gates: &mut [f32], carried: &[f32], run: Run) -> Result<(), Error> {
    check_len("carried", &[gates.len()], carried.len())?;
    let threads = thread_count(run.threads(), gates.len().saturating_mul(VALUE_WORK));
    if threads == 1 {
        run.kernel(Gate { gates, carried });
        return Ok(());
    }
    let gates = Disjoint::new(gates);
    for_each(threads, carried.len().div_ceil(ITEM), |_, item| {
        let range = item * ITEM..((item + 1) * ITEM).min(carried.len());
        run.kernel(Gate {
            // SAFETY: an item is worked on once, and no two overlap.
            gates: unsafe { gates.part(range.clone()) },
            carried: &carried[range],
        });
    });
    Ok(())
}
