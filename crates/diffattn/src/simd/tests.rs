//! Every op on every instruction set against plain Rust, and the elementary functions against
//! float64.

#![expect(
    clippy::print_stdout,
    reason = "tests that are run once tell what they found"
)]

use super::dots::{BLOCK, Dot, Dots};
use super::element::Element;
use super::isa::{Isa, Kernel};
use super::math;
use super::vector::Vector;
use half::{bf16, f16};

/// 2^x for x ≤ 0, as the kernels have it with a scale of their own: within 1 ulp on [−126, 0],
/// exactly 0 below −126 (so at −∞), NaN for NaN.
#[inline(always)]
fn exp2<V: Vector>(x: V) -> V {
    math::exp2_scaled([x], &math::ExponentScale::new(1.0))[0]
}

/// An elementary function and its float64 truth.
#[derive(Clone, Copy, Debug)]
enum Function {
    Exp2,
    Tanh,
    Sigmoid,
    Silu,
}

impl Function {
    fn exact(self, x: f64) -> f64 {
        // By the exponential of a negative number on both sides: nothing cancels or overflows.
        let e = (-x.abs()).exp();
        let logistic = if x < 0.0 {
            e / (1.0 + e)
        } else {
            1.0 / (1.0 + e)
        };
        match self {
            Self::Exp2 => x.exp2(),
            Self::Tanh => x.tanh(),
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
            Function::Exp2 => math::map_in_place::<V, Exp2>(self.values),
            Function::Tanh => math::map_in_place::<V, Tanh>(self.values),
            Function::Sigmoid => math::map_in_place::<V, math::Sigmoid>(self.values),
            Function::Silu => math::map_in_place::<V, math::Silu>(self.values),
        }
    }
}

struct Exp2;

impl math::Function for Exp2 {
    #[inline(always)]
    fn of<V: Vector>(x: V) -> V {
        exp2(x)
    }
}

struct Tanh;

impl math::Function for Tanh {
    #[inline(always)]
    fn of<V: Vector>(x: V) -> V {
        math::tanh(x)
    }
}

/// The distance in units of the last place of `exact` as a float32, denormals included.
fn ulps(got: f32, exact: f64) -> f64 {
    let exponent = ((exact.to_bits() >> 52) & 0x7ff) as i32 - 1023;
    (f64::from(got) - exact).abs() / libm::exp2(f64::from(exponent.max(-126) - 23))
}

/// Checks `function` on the floats of `bits` on every instruction set, fused and unfused, and that
/// each class has one set of bits. Gives the largest error of each class (fused, unfused) and its
/// argument.
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

/// Every `step`-th float of one sign whose magnitude lies in `from..=to`.
fn floats(negative: bool, from: f32, to: f32, step: usize) -> impl Iterator<Item = u32> {
    let sign = u32::from(negative) << 31;
    (from.to_bits()..=to.to_bits())
        .step_by(step)
        .map(move |bits| bits | sign)
}

fn check_bound(function: Function, magnitudes: std::ops::RangeInclusive<f32>, step: usize) {
    let signs: &[bool] = match function {
        Function::Exp2 => &[true],
        Function::Tanh | Function::Sigmoid | Function::Silu => &[false, true],
    };
    for &negative in signs {
        let bits = floats(negative, *magnitudes.start(), *magnitudes.end(), step);
        let worst = check(function, bits);
        let sign = if negative { '-' } else { '+' };
        println!(
            "{function:?} {sign}{magnitudes:?}: fused {:?}, unfused {:?}",
            worst[0], worst[1]
        );
        for (error, x) in worst {
            assert!(
                error <= function.bound(),
                "{function:?}({x:e}): {error} ulp"
            );
        }
    }
}

/// FNV-1a over the bits of some values.
fn hash(values: &[f32]) -> u64 {
    let bytes = values.iter().flat_map(|x| x.to_bits().to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// One machine has no two architectures, so the bits they share are written down: fused, unfused.
#[test]
fn bits_are_those_of_every_machine() {
    for (function, expected) in [
        (
            Function::Exp2,
            [0x7095_3321_5565_e3eb, 0x03f2_fc5b_91e7_3c3d],
        ),
        (
            Function::Tanh,
            [0xe59a_8b94_b279_c7b5, 0x2e3f_beb2_d7de_09dd],
        ),
        (
            Function::Sigmoid,
            [0xcf6f_d7cf_3fd8_4c5a, 0xf9b5_c1de_bbaa_cb87],
        ),
        (
            Function::Silu,
            [0x6ed0_2ac6_1246_c328, 0x2801_591c_bfb1_6790],
        ),
    ] {
        let negative = floats(true, *CURVED.start(), *CURVED.end(), 4099).map(f32::from_bits);
        let x: Vec<f32> = match function {
            Function::Exp2 => negative.collect(),
            _ => negative.flat_map(|x| [x, -x]).collect(),
        };
        for isa in Isa::available() {
            for deterministic in [false, true] {
                let mut y = x.clone();
                function.of(isa, deterministic, &mut y);
                let class =
                    usize::from(deterministic || isa.name() == "scalar" || isa.name() == "simd128");
                assert_eq!(
                    hash(&y),
                    expected[class],
                    "{function:?} on {isa:?}, {deterministic}"
                );
            }
        }
    }
}

/// Where the functions are neither linear nor constant to float32.
const CURVED: std::ops::RangeInclusive<f32> = 1.0 / (1 << 27) as f32..=128.0;

#[test]
fn functions_keep_their_bounds() {
    check_bound(Function::Exp2, 0.0..=126.0, 4099);
    for function in [Function::Tanh, Function::Sigmoid, Function::Silu] {
        check_bound(function, 0.0..=f32::MAX, 4099);
        check_bound(function, CURVED, 509);
    }
}

#[test]
fn functions_at_their_ends() {
    const NAN: f32 = f32::NAN;
    const INF: f32 = f32::INFINITY;
    let below = f32::from_bits(126.0_f32.to_bits() + 1);
    let tiny = f32::from_bits(1);
    for (function, x, expected) in [
        (Function::Exp2, 0.0, 1.0),
        (Function::Exp2, -0.0, 1.0),
        (Function::Exp2, -126.0, f32::MIN_POSITIVE),
        (Function::Exp2, -below, 0.0),
        (Function::Exp2, -127.5, 0.0),
        (Function::Exp2, -1e4, 0.0),
        (Function::Exp2, f32::MIN, 0.0),
        (Function::Exp2, -INF, 0.0),
        (Function::Exp2, NAN, NAN),
        (Function::Tanh, 0.0, 0.0),
        (Function::Tanh, -0.0, -0.0),
        (Function::Tanh, tiny, tiny),
        (Function::Tanh, 20.0, 1.0),
        (Function::Tanh, f32::MAX, 1.0),
        (Function::Tanh, INF, 1.0),
        (Function::Tanh, -INF, -1.0),
        (Function::Tanh, NAN, NAN),
        (Function::Sigmoid, 0.0, 0.5),
        (Function::Sigmoid, f32::MAX, 1.0),
        (Function::Sigmoid, INF, 1.0),
        (Function::Sigmoid, f32::MIN, 0.0),
        (Function::Sigmoid, -INF, 0.0),
        (Function::Sigmoid, NAN, NAN),
        (Function::Silu, 0.0, 0.0),
        (Function::Silu, -0.0, -0.0),
        (Function::Silu, f32::MAX, f32::MAX),
        (Function::Silu, INF, INF),
        (Function::Silu, f32::MIN, -0.0),
        (Function::Silu, -INF, -0.0),
        (Function::Silu, NAN, NAN),
    ] {
        for isa in Isa::available() {
            for deterministic in [false, true] {
                let mut y = [x];
                function.of(isa, deterministic, &mut y);
                let same =
                    y[0].to_bits() == expected.to_bits() || y[0].is_nan() && expected.is_nan();
                assert!(
                    same,
                    "{function:?}({x:e}) on {isa:?}: {:e} instead of {expected:e}",
                    y[0]
                );
            }
        }
    }
}

/// Largest error: EXP2_RESULT.
#[test]
#[ignore = "every float32 from -126 to 0, some minutes"]
fn exp2_on_every_float() {
    check_bound(Function::Exp2, 0.0..=126.0, 1);
}

/// Largest error: TANH_RESULT.
#[test]
#[ignore = "every float32 from 2^-27 to 128 and a part of the others, some minutes"]
fn tanh_on_every_float() {
    check_bound(Function::Tanh, CURVED, 1);
    check_bound(Function::Tanh, 0.0..=f32::MAX, 61);
}

/// Largest error: SIGMOID_RESULT.
#[test]
#[ignore = "every float32 from 2^-27 to 128 and a part of the others, some minutes"]
fn sigmoid_on_every_float() {
    check_bound(Function::Sigmoid, CURVED, 1);
    check_bound(Function::Sigmoid, 0.0..=f32::MAX, 61);
}

/// Largest error: SILU_RESULT.
#[test]
#[ignore = "every float32 from 2^-27 to 128 and a part of the others, some minutes"]
fn silu_on_every_float() {
    check_bound(Function::Silu, CURVED, 1);
    check_bound(Function::Silu, 0.0..=f32::MAX, 61);
}

/// Every op of the trait on some triples of values: `results[op][i]`.
struct Ops<'v> {
    a: &'v [f32],
    b: &'v [f32],
    c: &'v [f32],
}

/// The ops, in the order of the results of [`Ops`].
const OPS: [&str; 13] = [
    "splat",
    "load",
    "add",
    "sub",
    "mul",
    "div",
    "mul_add",
    "max",
    "round",
    "scale_by_pow2",
    "lt",
    "abs",
    "copysign",
];

impl Kernel for Ops<'_> {
    type Output = Vec<Vec<f32>>;

    #[inline(always)]
    fn run<V: Vector>(self) -> Self::Output {
        let mut results = vec![vec![0.0; self.a.len()]; OPS.len()];
        for at in (0..self.a.len()).step_by(V::LANES) {
            assert!(at + V::LANES <= self.a.len(), "a multiple of the lanes");
            // SAFETY: LANES values are readable from `at` on, as just asserted; so many does each
            // result have, too.
            let [a, b, c] =
                [self.a, self.b, self.c].map(|x| unsafe { V::load(x.as_ptr().add(at)) });
            let exponent = a.max(V::splat(-126.0)).max(V::splat(0.0).sub(c)).round();
            let values = [
                V::splat(self.a[at]),
                a,
                a.add(b),
                a.sub(b),
                a.mul(b),
                a.div(b),
                a.mul_add(b, c),
                a.max(b),
                V::select(a.abs().lt(V::splat(4e6)), a.round(), a),
                V::select(exponent.lt(V::splat(128.0)), b.scale_by_pow2(exponent), b),
                V::select(a.lt(b), V::splat(1.0), c),
                a.abs(),
                a.copysign(b),
            ];
            for (result, value) in results.iter_mut().zip(values) {
                // SAFETY: as above.
                unsafe { value.store(result.as_mut_ptr().add(at)) };
            }
        }
        results
    }
}

/// What the ops promise, in plain Rust; `at` counts the triples.
fn expected_op(op: &str, [a, b, c]: [f32; 3], first: f32, fused: bool) -> f32 {
    let maximum = |x: f32, y: f32| if x > y { x } else { y };
    match op {
        "splat" => first,
        "load" => a,
        "add" => a + b,
        "sub" => a - b,
        "mul" => a * b,
        "div" => a / b,
        "mul_add" if fused => a.mul_add(b, c),
        "mul_add" => a * b + c,
        "max" => maximum(a, b),
        "round" if a.abs() < 4e6 => a.round_ties_even(),
        "round" => a,
        "scale_by_pow2" => {
            let exponent = maximum(maximum(a, -126.0), 0.0 - c).round_ties_even();
            match exponent < 128.0 {
                true => (f64::from(b) * libm::exp2(f64::from(exponent))) as f32,
                false => b,
            }
        }
        "lt" => {
            if a < b {
                1.0
            } else {
                c
            }
        }
        "abs" => a.abs(),
        _ => a.copysign(b),
    }
}

#[test]
fn ops_keep_their_promises() {
    let special = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        1.5,
        -2.5,
        1e-40,
        -1e-45,
        3.0e38,
        -3.3e38,
        127.0,
        -126.0,
        0.1,
        123.456,
        -4_000_001.5,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::MIN_POSITIVE,
    ];
    let mut triples = Vec::new();
    for a in special {
        for b in special {
            for c in special {
                triples.push([a, b, c]);
            }
        }
    }
    assert!(
        triples.len().is_multiple_of(16),
        "{} triples",
        triples.len()
    );
    // One value off any alignment.
    let column = |i: usize| -> Vec<f32> {
        std::iter::once(0.0)
            .chain(triples.iter().map(|triple| triple[i]))
            .collect()
    };
    let (a, b, c) = (column(0), column(1), column(2));
    for isa in Isa::available() {
        for deterministic in [false, true] {
            let fused = !deterministic && isa.name() != "scalar" && isa.name() != "simd128";
            let ops = Ops {
                a: &a[1..],
                b: &b[1..],
                c: &c[1..],
            };
            let lanes = isa.run(deterministic, Lanes);
            for (op, result) in OPS.iter().zip(isa.run(deterministic, ops)) {
                for (i, (&triple, y)) in triples.iter().zip(result).enumerate() {
                    let expected = expected_op(op, triple, triples[i / lanes * lanes][0], fused);
                    let same = y.to_bits() == expected.to_bits() || y.is_nan() && expected.is_nan();
                    assert!(
                        same,
                        "{op} of {triple:?} on {isa:?}, {deterministic}: {y:e} instead of {expected:e}"
                    );
                }
            }
        }
    }
}

struct Widen<'v, E>(&'v [E]);

impl<E: Element> Kernel for Widen<'_, E> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<V: Vector>(self) -> Vec<f32> {
        let mut widened = vec![0.0; self.0.len()];
        for at in (0..self.0.len()).step_by(V::LANES) {
            assert!(at + V::LANES <= self.0.len(), "a multiple of the lanes");
            // SAFETY: LANES values are readable and writable from `at` on, as just asserted.
            unsafe { E::load::<V>(self.0.as_ptr().add(at)).store(widened.as_mut_ptr().add(at)) };
        }
        widened
    }
}

#[test]
fn bytes_widen_exactly() {
    // One value off any alignment.
    let bytes: Vec<i8> = std::iter::once(0).chain(i8::MIN..=i8::MAX).collect();
    for isa in Isa::available() {
        let widened = isa.run(false, Widen(&bytes[1..]));
        let expected: Vec<f32> = bytes[1..].iter().map(|&byte| byte.into()).collect();
        assert_eq!(widened, expected, "{isa:?}");
    }
}

/// Every one, by its bits.
#[test]
fn halves_widen_exactly() {
    fn check<E: Element>(of_bits: fn(u16) -> E, to_f32: fn(E) -> f32) {
        // One value off any alignment.
        let halves: Vec<E> = std::iter::once(0)
            .chain(0..=u16::MAX)
            .map(of_bits)
            .collect();
        for isa in Isa::available() {
            for deterministic in [false, true] {
                let widened = isa.run(deterministic, Widen(&halves[1..]));
                for (bits, y) in (0..=u16::MAX).zip(widened) {
                    let expected = to_f32(of_bits(bits));
                    let same = y.to_bits() == expected.to_bits() || y.is_nan() && expected.is_nan();
                    assert!(
                        same,
                        "{bits:#06x} on {isa:?}: {y:e} instead of {expected:e}"
                    );
                }
            }
        }
    }
    check(f16::from_bits, f16::to_f32_const);
    check(bf16::from_bits, bf16::to_f32_const);
}

struct Lanes;

impl Kernel for Lanes {
    type Output = usize;

    #[inline(always)]
    fn run<V: Vector>(self) -> usize {
        V::LANES
    }
}

#[test]
fn a_tail_passes_through_the_same_function() {
    for isa in Isa::available() {
        let x: Vec<f32> = (0..67).map(|i| -0.37 * i as f32).collect();
        let mut whole = x.clone();
        Function::Exp2.of(isa, false, &mut whole);
        for len in 0..x.len() {
            let mut part = x[..len].to_vec();
            Function::Exp2.of(isa, false, &mut part);
            assert_eq!(part, whole[..len], "{isa:?}, {len}");
        }
    }
}

/// Some dot products of a block by every kind that the set and this machine have, each with its
/// name.
struct DotsOf<'v> {
    codes: &'v [u8],
    x: &'v [i8],
}

impl DotsOf<'_> {
    /// `Σ_i codes[i] · x[i]` of the first lane, whose neighbours have the same codes.
    #[inline(always)]
    fn of<V: Vector, P: Dot<Bytes = D::Bytes, Ints = D::Ints>, D>(&self) -> f32
    where
        D: Dots<Ints = <V::Dots as Dots>::Ints>,
    {
        let mut sums = P::zero();
        for (codes, x) in self.codes.chunks(4).zip(self.x.chunks(4)) {
            let codes = codes.repeat(V::LANES);
            // SAFETY: four codes for every lane, and four values.
            unsafe { sums = P::add(sums, D::load(codes.as_ptr()), P::four(x.as_ptr())) };
        }
        let mut lanes = [0.0; 16];
        // SAFETY: a vector has 16 lanes at most.
        unsafe { V::of_ints(P::ints(sums)).store(lanes.as_mut_ptr()) };
        assert!(lanes[1..V::LANES].iter().all(|&lane| lane == lanes[0]));
        lanes[0]
    }
}

impl Kernel for DotsOf<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<V: Vector>(self) -> Vec<f32> {
        let mut found = vec![self.of::<V, <V::Dots as Dots>::Byte, V::Dots>()];
        if V::has_fast_dots() {
            found.push(self.of::<V, <V::FastDots as Dots>::Byte, V::FastDots>());
        }
        if self.codes.iter().all(|&code| code < 16) {
            found.push(self.of::<V, <V::Dots as Dots>::Nibble, V::Dots>());
            if V::has_fast_dots() {
                found.push(self.of::<V, <V::FastDots as Dots>::Nibble, V::FastDots>());
            }
        }
        found
    }
}

#[test]
fn dots_are_exact() {
    let mut state = 7u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let mut cases: Vec<(Vec<u8>, Vec<i8>)> = Vec::new();
    for code in [15, 255] {
        for x in [127, -127, -128] {
            cases.push((vec![code; BLOCK], vec![x; BLOCK]));
        }
        for _ in 0..100 {
            let codes = (0..BLOCK).map(|_| noise() & code).collect();
            cases.push((codes, (0..BLOCK).map(|_| noise() as i8).collect()));
        }
    }
    for (codes, x) in cases {
        let products = codes
            .iter()
            .zip(&x)
            .map(|(&code, &x)| i32::from(code) * i32::from(x));
        let expected = products.sum::<i32>() as f32;
        for isa in Isa::available() {
            let found = isa.run(
                true,
                DotsOf {
                    codes: &codes,
                    x: &x,
                },
            );
            assert!(
                found.iter().all(|&dot| dot == expected),
                "{isa:?}: {found:?}, {expected}"
            );
        }
    }
}
