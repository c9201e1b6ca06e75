//! The limit that benchmarks divide by: multiply-adds from registers alone, with nothing to load.
//! Not an operator.

use super::isa::{Isa, Kernel};
use super::vector::Vector;

/// Independent sums: enough to hide a latency of five cycles at two per cycle, few enough for
/// sixteen registers.
const SUMS: usize = 12;

struct Peak {
    rounds: usize,
}

impl Kernel for Peak {
    type Output = (f64, f32);
    #[inline(always)]
    fn run<V: Vector>(self) -> (f64, f32) {
        let (a, b) = (
            V::splat(std::hint::black_box(0.999)),
            V::splat(std::hint::black_box(0.001)),
        );
        let mut sums = [V::splat(0.5); SUMS];
        for _ in 0..self.rounds {
            // Spelled out: a build for size does not unroll twelve.
            let [c, d, e, f, g, h, i, j, k, l, m, n] = sums;
            sums = [
                c.mul_add(a, b),
                d.mul_add(a, b),
                e.mul_add(a, b),
                f.mul_add(a, b),
                g.mul_add(a, b),
                h.mul_add(a, b),
                i.mul_add(a, b),
                j.mul_add(a, b),
                k.mul_add(a, b),
                l.mul_add(a, b),
                m.mul_add(a, b),
                n.mul_add(a, b),
            ];
        }
        let mut total = V::splat(0.0);
        for sum in sums {
            total = total.add(sum);
        }
        let mut lanes = [0.0; 16];
        // SAFETY: no vector has more than 16 lanes.
        unsafe { total.store(lanes.as_mut_ptr()) };
        ((2 * self.rounds * SUMS * V::LANES) as f64, lanes[0])
    }
}

/// Runs `rounds` rounds of independent multiply-adds on `isa` and returns how many FLOPs that were
/// (two per multiply-add and lane), for a benchmark to time.
#[must_use]
pub fn fma_flops(isa: Isa, rounds: usize) -> f64 {
    let (flops, result) = isa.run(false, Peak { rounds });
    std::hint::black_box(result);
    flops
}
