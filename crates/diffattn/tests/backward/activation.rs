//! SwiGLU and GELU backward: reference cases, accuracy by the rule, ends, bits, refusals.

use diffattn::{
    DType, DataMut, Error, GeluBackward, Isa, Run, SwigluBackward, SwigluGradients, Tensor,
    gelu_backward, gelu_tanh_backward, swiglu_backward,
};
use diffattn_reference::testing::{bits_with_one_nan, noise};
use diffattn_reference::{Accuracy, Real};

use crate::support::{Halves, cases, every_run, near, on, refusal, said, step_by_step};

fn swiglu(values: [&[f32]; 3], run: Run) -> SwigluGradients {
    let [dy, gate, up] = values.map(|values| Tensor::f32(values, &[values.len()]));
    swiglu_backward(dy, gate, up, run).unwrap()
}

fn all_bits(gradients: &SwigluGradients) -> Vec<u32> {
    bits_with_one_nan(&[&gradients.dgate[..], &gradients.dup[..]].concat())
}

/// The gradients, which are the same on every instruction set and any threads, fused or not.
fn swiglu_everywhere(values: [&[f32]; 3]) -> SwigluGradients {
    let first = swiglu(values, on(Isa::available()[0], 1, false));
    for run in every_run() {
        assert!(
            all_bits(&swiglu(values, run)) == all_bits(&first),
            "{run:?}"
        );
    }
    first
}

type Gelu = fn(Tensor<'_>, Tensor<'_>, Run) -> Result<Vec<f32>, Error>;

/// Both forms.
const GELUS: [Gelu; 2] = [gelu_backward, gelu_tanh_backward];

fn gelu_everywhere(gelu: Gelu, dy: &[f32], x: &[f32]) -> Vec<f32> {
    let call = |run| {
        let [dy, x] = [dy, x].map(|values| Tensor::f32(values, &[values.len()]));
        gelu(dy, x, run).unwrap()
    };
    let first = call(on(Isa::available()[0], 1, false));
    for run in every_run() {
        assert!(
            bits_with_one_nan(&call(run)) == bits_with_one_nan(&first),
            "{run:?}"
        );
    }
    first
}

#[test]
fn reference_cases() {
    for fixture in cases("swiglu", 1) {
        let [dy, gate, up] = ["dy", "gate", "up"].map(|name| fixture.f32(name).data);
        let got = swiglu_everywhere([&dy, &gate, &up]);
        near(
            &fixture.name,
            &fixture.expected("dgate").unwrap().data,
            &got.dgate,
        );
        near(
            &fixture.name,
            &fixture.expected("dup").unwrap().data,
            &got.dup,
        );
    }
    for fixture in cases("gelu", 1) {
        let [dy, x] = ["dy", "x"].map(|name| fixture.f32(name).data);
        let got = gelu_everywhere(gelu_backward, &dy, &x);
        near(&fixture.name, &fixture.expected("dx").unwrap().data, &got);
    }
}

fn swiglu_formula<R: Real>([dy, gate, up]: [f32; 3]) -> [R; 2] {
    let [dy, gate, up] = [dy, gate, up].map(|x| R::from_f64(f64::from(x)));
    let [zero, one] = [0.0, 1.0].map(R::from_f64);
    let sigmoid = one / (one + (zero - gate).exp());
    [
        dy * up * sigmoid * (one + gate * (one - sigmoid)),
        dy * gate * sigmoid,
    ]
}

fn gelu_formula<R: Real>(erf: impl Fn(R) -> R, [dy, x]: [f32; 2]) -> R {
    let r = R::from_f64;
    let (dy, x) = (r(f64::from(dy)), r(f64::from(x)));
    let below = r(0.5) * (r(1.0) + erf(x * r(std::f64::consts::FRAC_1_SQRT_2)));
    let density = r(0.398_942_280_401_432_7) * (r(-0.5) * x * x).exp();
    dy * (below + x * density)
}

fn gelu_tanh_formula<R: Real>([dy, x]: [f32; 2]) -> R {
    let r = R::from_f64;
    let (dy, x) = (r(f64::from(dy)), r(f64::from(x)));
    let (root, cube) = (r(0.797_884_560_802_865_4), r(0.044_715));
    let u = root * (x + cube * x * x * x);
    let (up, down) = (u.exp(), (r(0.0) - u).exp());
    // (1 + tanh u) / 2 and 1 − tanh² u, of which neither cancels.
    let above = r(1.0) / (r(1.0) + down * down);
    let bell = r(4.0) / ((up + down) * (up + down));
    let steep = root * (r(1.0) + r(3.0) * cube * x * x);
    dy * (above + r(0.5) * x * bell * steep)
}

#[test]
fn never_worse_than_plain_float32() {
    let len = 20_011;
    for scale in [1.0, 6.0, 30.0] {
        let (dy, up) = (noise(len, 1), noise(len, 2));
        let x: Vec<f32> = noise(len, 3).iter().map(|x| scale * x).collect();
        let inputs = |i: usize| [dy[i], x[i], up[i]];
        let exact: Vec<_> = (0..len).map(|i| swiglu_formula::<f64>(inputs(i))).collect();
        let plain: Vec<_> = (0..len).map(|i| swiglu_formula::<f32>(inputs(i))).collect();
        let mut accuracy = Accuracy::new();
        let got = swiglu_everywhere([&dy, &x, &up]);
        for (which, got) in [&got.dgate, &got.dup].into_iter().enumerate() {
            let exact: Vec<f64> = exact.iter().map(|both| both[which]).collect();
            let plain: Vec<f32> = plain.iter().map(|both| both[which]).collect();
            let name = format!("{which}, {scale}");
            accuracy.case(&name, &exact, &plain, got).unwrap();
        }
        accuracy.pooled().unwrap();
        let mut accuracy = Accuracy::new();
        let inputs = |i: usize| [dy[i], x[i]];
        let exact: Vec<_> = (0..len)
            .map(|i| gelu_formula::<f64>(libm::erf, inputs(i)))
            .collect();
        let plain: Vec<_> = (0..len)
            .map(|i| gelu_formula::<f32>(libm::erff, inputs(i)))
            .collect();
        let got = gelu_everywhere(gelu_backward, &dy, &x);
        accuracy.case("gelu", &exact, &plain, &got).unwrap();
        accuracy.pooled().unwrap();
        let mut accuracy = Accuracy::new();
        let exact: Vec<f64> = (0..len).map(|i| gelu_tanh_formula(inputs(i))).collect();
        let plain: Vec<f32> = (0..len).map(|i| gelu_tanh_formula(inputs(i))).collect();
        let got = gelu_everywhere(gelu_tanh_backward, &dy, &x);
        accuracy.case("gelu_tanh", &exact, &plain, &got).unwrap();
        accuracy.pooled().unwrap();
    }
}

/// dy through GELU is rounded once, wherever x lies.
#[test]
fn gelu_is_rounded_once() {
    for i in 0..60_000 {
        let x = (i as f32 - 30_000.0) / 1500.0;
        let [got] = gelu_backward(
            Tensor::f32(&[1.0], &[1]),
            Tensor::f32(&[x], &[1]),
            Run::default(),
        )
        .unwrap()[..] else {
            panic!("one value");
        };
        // (libm's erf loses digits below; there both functions vanish.)
        if x > -5.0 {
            let expected = gelu_formula::<f64>(libm::erf, [1.0, x]);
            let bound = 6.1e-8 * expected.abs() + 1e-10;
            assert!(
                (f64::from(got) - expected).abs() <= bound,
                "{x}: {got} {expected}"
            );
        }
        let one = |values| Tensor::f32(values, &[1]);
        let got = gelu_tanh_backward(one(&[1.0]), one(&[x]), Run::default()).unwrap()[0];
        let expected = gelu_tanh_formula::<f64>([1.0, x]);
        let bound = 6.1e-8 * expected.abs() + 1e-10;
        let off = (f64::from(got) - expected).abs();
        assert!(off <= bound, "by tanh, {x}: {got} {expected}");
    }
}

#[test]
fn ends_have_their_limits() {
    let gate = [
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        0.0,
        -0.0,
        3e38,
        -3e38,
        1e-40,
    ];
    let got = swiglu_everywhere([&[2.0; 8], &gate, &[3.0; 8]]);
    assert_eq!(got.dgate[..2], [6.0, 0.0]);
    assert!(got.dgate[2].is_nan() && got.dup[2].is_nan());
    assert_eq!(got.dgate[3..], [3.0, 3.0, 6.0, 0.0, 3.0]);
    assert_eq!(got.dup[..2], [f32::INFINITY, 0.0]);
    assert_eq!(got.dup[6], 0.0);
    for gelu in GELUS {
        let got = gelu_everywhere(gelu, &[2.0; 8], &gate);
        assert_eq!(got[..2], [2.0, 0.0]);
        assert!(got[2].is_nan());
        assert_eq!(got[3..], [1.0, 1.0, 2.0, 0.0, 1.0]);
    }
}

#[test]
fn slices_and_neighbours_change_no_bit() {
    let len = 100_003;
    let [dy, x, up] = [1, 2, 3].map(|seed| noise(len, seed));
    for run in [on(Isa::detect(), 1, false), on(Isa::detect(), 3, true)] {
        let whole = swiglu([&dy, &x, &up], run);
        let mut got = SwigluGradients {
            dgate: vec![f32::NAN; len],
            dup: vec![f32::NAN; len],
        };
        let [a, b, c] = [&dy, &x, &up].map(|values| Tensor::f32(values, &[len]));
        let call = SwigluBackward::new(a, b, c, run).unwrap();
        assert_eq!(call.output_shape(), [len]);
        let outputs = SwigluGradients {
            dgate: &mut got.dgate[..],
            dup: &mut got.dup[..],
        };
        assert!(step_by_step(call.into_work(outputs).unwrap()) > 2);
        assert_eq!(got, whole);
        for at in [0, 1, 8191, 65_536, len - 1] {
            let alone = swiglu([&dy[at..=at], &x[at..=at], &up[at..=at]], run);
            assert_eq!(
                (alone.dgate[0], alone.dup[0]),
                (whole.dgate[at], whole.dup[at])
            );
        }
    }
    for (gelu, new) in GELUS
        .into_iter()
        .zip([GeluBackward::new, GeluBackward::by_tanh])
    {
        let whole = gelu_everywhere(gelu, &dy, &x);
        let mut dx = vec![f32::NAN; len];
        let [a, b] = [&dy, &x].map(|values| Tensor::f32(values, &[len]));
        let call = new(a, b, Run::default()).unwrap();
        assert!(step_by_step(call.into_work(DataMut::F32(&mut dx)).unwrap()) > 2);
        assert_eq!(dx, whole);
        assert_eq!(gelu_everywhere(gelu, &dy[7..8], &x[7..8]), whole[7..8]);
    }
}

#[test]
fn halves_give_what_their_values_give() {
    for dtype in [DType::F16, DType::Bf16] {
        let [dy, x, up] = [1, 2, 3].map(|seed| Halves::of(dtype, &noise(2077, seed)));
        let shape = [31, 67];
        for run in every_run() {
            let halves = [&dy, &x, &up].map(|values| values.tensor(&shape));
            let [a, b, c] = halves.clone();
            let got = swiglu_backward(a, b, c, run).unwrap();
            assert_eq!(
                got,
                swiglu([&dy.values, &x.values, &up.values], run),
                "{run:?}"
            );
            for gelu in GELUS {
                let [a, b, _] = halves.clone();
                let [c, d] = [&dy, &x].map(|values| Tensor::f32(&values.values, &shape));
                assert_eq!(gelu(a, b, run), gelu(c, d, run), "{run:?}");
            }
        }
    }
}

#[test]
fn empty_tensors_give_empty_gradients() {
    for shape in [vec![0], vec![3, 0], vec![0, 7]] {
        let empty = || Tensor::f32(&[], &shape);
        let got = swiglu_backward(empty(), empty(), empty(), Run::default()).unwrap();
        assert!(got.dgate.is_empty() && got.dup.is_empty());
        for gelu in GELUS {
            assert_eq!(gelu(empty(), empty(), Run::default()), Ok(vec![]));
        }
    }
}

#[test]
fn refusals_name_the_argument() {
    let x = [0.0; 6];
    let t = |shape: &[usize]| Tensor::f32(&x, shape);
    let run = Run::default;
    assert_eq!(
        refusal(swiglu_backward(t(&[6]), t(&[2, 3]), t(&[2, 3]), run())),
        said("SHAPE", "dy: expected shape [2, 3] as gate, got [6]")
    );
    assert_eq!(
        refusal(swiglu_backward(t(&[2, 3]), t(&[2, 3]), t(&[3, 2]), run())),
        said("SHAPE", "up: expected shape [2, 3] as gate, got [3, 2]")
    );
    assert_eq!(
        refusal(swiglu_backward(t(&[6]), t(&[7]), t(&[6]), run())),
        said("SHAPE", "gate: expected 7 elements for shape [7], got 6")
    );
    let halves = Halves::of(DType::F16, &x);
    assert_eq!(
        refusal(swiglu_backward(
            t(&[6]),
            t(&[6]),
            halves.tensor(&[6]),
            run()
        )),
        said("DTYPE", "up: expected float32 as gate, got float16")
    );
    for gelu in GELUS {
        assert_eq!(
            refusal(gelu(halves.tensor(&[6]), t(&[6]), run())),
            said("DTYPE", "dy: expected float32 as x, got float16")
        );
        assert_eq!(
            refusal(gelu(t(&[3, 2]), t(&[6]), run())),
            said("SHAPE", "dy: expected shape [6] as x, got [3, 2]")
        );
    }
    let call = || SwigluBackward::new(t(&[6]), t(&[6]), t(&[6]), run()).unwrap();
    let into = |dgate: usize, dup: usize| {
        let (mut a, mut b) = ([0.0; 7], [0.0; 7]);
        refusal(call().into_work(SwigluGradients {
            dgate: &mut a[..dgate],
            dup: &mut b[..dup],
        }))
    };
    assert_eq!(
        into(5, 6),
        said("SHAPE", "dgate: expected 6 elements for shape [6], got 5")
    );
    assert_eq!(
        into(6, 7),
        said("SHAPE", "dup: expected 6 elements for shape [6], got 7")
    );
}
