//! Every op on every instruction set against plain Rust, and the elementary functions against float64.

use super::{Vector, math};
use crate::isa::{Isa, Kernel};

/// An elementary function and its float64 truth.
#[derive(Clone, Copy, Debug)]
enum Function {
    Exp2,
    Tanh,
    Sigmoid,
    Silu,
}

impl Function {
    const ALL: [Self; 4] = [Self::Exp2, Self::Tanh, Self::Sigmoid, Self::Silu];

    fn exact(self, x: f64) -> f64 {
        // By the exponential of a negative number on both sides: nothing cancels or overflows.
        let e = libm::exp(-x.abs());
        let logistic = if x < 0.0 {
            e / (1.0 + e)
        } else {
            1.0 / (1.0 + e)
        };
        match self {
            Self::Exp2 => libm::exp2(x),
            Self::Tanh => libm::tanh(x),
            Self::Sigmoid => logistic,
            Self::Silu => x * logistic,
        }
    }

    /// The bound of the contract, in units of the last place of the exact value.
    fn bound(self) -> f64 {
        match self {
            Self::Exp2 => 1.0,
            Self::Tanh | Self::Sigmoid | Self::Silu => 2.0,
        }
    }

    fn of(self, isa: Isa, deterministic: bool, values: &mut [f32]) {
        isa.run(
            deterministic,
            Apply {
                function: self,
                values,
            },
        );
    }
}

struct Apply<'v> {
    function: Function,
    values: &'v mut [f32],
}

impl Kernel for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        match self.function {
            Function::Exp2 => math::map_in_place(self.values, math::exp2::<V>),
            Function::Tanh => math::map_in_place(self.values, math::tanh::<V>),
            Function::Sigmoid => math::map_in_place(self.values, math::sigmoid::<V>),
            Function::Silu => math::map_in_place(self.values, math::silu::<V>),
        }
    }
}

/// The distance in units of the last place of `exact` as a float32, denormals included.
fn ulps(got: f32, exact: f64) -> f64 {
    let exponent = ((exact.to_bits() >> 52) & 0x7ff) as i32 - 1023;
    (f64::from(got) - exact).abs() / libm::exp2(f64::from(exponent.max(-126) - 23))
}

/// Checks `function` on the floats of `bits` on every instruction set, fused and unfused, and that each class has
/// one set of bits. Gives the largest error of each class (fused, unfused) and its argument.
fn check(function: Function, mut bits: impl Iterator<Item = u32>) -> [(f64, f32); 2] {
    let mut worst = [(0.0, 0.0_f32); 2];
    loop {
        let x: Vec<f32> = bits.by_ref().take(1 << 12).map(f32::from_bits).collect();
        if x.is_empty() {
            return worst;
        }
        let exact: Vec<f64> = x.iter().map(|&x| function.exact(f64::from(x))).collect();
        let mut classes: [Option<Vec<f32>>; 2] = [None, None];
        for isa in Isa::available() {
            for deterministic in [false, true] {
                let mut y = x.clone();
                function.of(isa, deterministic, &mut y);
                let class =
                    usize::from(deterministic || isa.name() == "scalar" || isa.name() == "simd128");
                match &classes[class] {
                    Some(first) => {
                        let differs = (0..x.len()).find(|&i| y[i].to_bits() != first[i].to_bits());
                        assert_eq!(
                            differs.map(|i| (x[i], y[i], first[i])),
                            None,
                            "{function:?} on {isa:?}, {deterministic}"
                        );
                    }
                    None => classes[class] = Some(y),
                }
            }
        }
        for (worst, y) in worst.iter_mut().zip(classes) {
            for (i, y) in y.into_iter().flatten().enumerate() {
                let error = ulps(y, exact[i]);
                if error.is_nan() || error > worst.0 {
                    *worst = (error, x[i]);
                }
            }
        }
    }
}

/// The floats from 0 to `last` in magnitude, every `step`-th, of one sign.
fn floats(last: f32, negative: bool, step: usize) -> impl Iterator<Item = u32> {
    (0..=last.to_bits())
        .step_by(step)
        .map(move |bits| bits | u32::from(negative) << 31)
}

fn check_bound(function: Function, step: usize) {
    let signs: &[bool] = if matches!(function, Function::Exp2) {
        &[true]
    } else {
        &[false, true]
    };
    let last = if matches!(function, Function::Exp2) {
        126.0
    } else {
        f32::MAX
    };
    for &negative in signs {
        let worst = check(function, floats(last, negative, step));
        for (error, x) in worst {
            assert!(
                error <= function.bound(),
                "{function:?}({x:e}): {error} ulp"
            );
        }
    }
}

#[test]
fn functions_keep_their_bounds() {
    for function in Function::ALL {
        check_bound(function, 4099);
    }
}

#[test]
#[ignore = "a minute per function: every float32"]
fn exp2_on_every_float() {
    check_bound(Function::Exp2, 1);
}

#[test]
#[ignore = "minutes: every float32"]
fn tanh_on_every_float() {
    check_bound(Function::Tanh, 1);
}

#[test]
#[ignore = "minutes: every float32"]
fn sigmoid_on_every_float() {
    check_bound(Function::Sigmoid, 1);
}

#[test]
#[ignore = "minutes: every float32"]
fn silu_on_every_float() {
    check_bound(Function::Silu, 1);
}
