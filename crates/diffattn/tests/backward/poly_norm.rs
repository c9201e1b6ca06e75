//! PolyNorm backward: reference cases, accuracy by the rule, bits, values, refusals.

use diffattn::{
    DType, Isa, PolyNormBackward, PolyNormGradients, PolyNormOptions, Tensor, poly_norm_backward,
};
use diffattn_reference::testing::{bits, bits_with_one_nan, noise};
use diffattn_reference::{Accuracy, Real};

use crate::support::{Halves, cases, every_run, near, on, refusal, said, step_by_step};

fn all_bits(gradients: &PolyNormGradients) -> Vec<Vec<u32>> {
    let PolyNormGradients {
        dx,
        dweight,
        dbias,
        dfactors,
    } = gradients;
    let factors = dfactors.as_deref().unwrap_or(&[]);
    [dx, dweight, dbias, factors]
        .map(bits_with_one_nan)
        .to_vec()
}

/// The gradients, which are the same on every instruction set and any threads, fused or not.
fn everywhere(
    dy: &[f32],
    x: &[f32],
    shape: &[usize],
    options: &PolyNormOptions<'_>,
) -> PolyNormGradients {
    let call = |run| {
        let options = PolyNormOptions {
            run,
            ..options.clone()
        };
        poly_norm_backward(Tensor::f32(dy, shape), Tensor::f32(x, shape), &options).unwrap()
    };
    let first = call(on(Isa::available()[0], 1, false));
    for run in every_run() {
        assert!(all_bits(&first) == all_bits(&call(run)), "{run:?}");
    }
    first
}

/// dx, dweight, dbias and dfactors with plain loops.
fn formula<R: Real>(
    dy: &[f32],
    x: &[f32],
    width: usize,
    options: &PolyNormOptions<'_>,
) -> [Vec<R>; 4] {
    let r = |x: f32| R::from_f64(f64::from(x));
    let (zero, one) = (r(0.0), r(1.0));
    let power = |x: R, k: usize| (0..k).fold(one, |product, _| product * x);
    let mut dx = vec![zero; x.len()];
    let (mut dweight, mut dbias) = (vec![zero; 3], vec![zero]);
    let mut dfactors = vec![zero; x.len()];
    for row in 0..x.len() / width {
        let elements = row * width..(row + 1) * width;
        let n = r(width as f32);
        let mut results = vec![r(options.bias); width];
        let g = |i: usize| r(dy[i]) * options.factors.map_or(one, |factors| r(factors[i]));
        for (which, k) in [3, 2, 1].into_iter().enumerate() {
            let (mut squares, mut products) = (zero, zero);
            for i in elements.clone() {
                squares += power(r(x[i]), k) * power(r(x[i]), k);
                products += g(i) * power(r(x[i]), k);
            }
            let spread = (squares / n + r(options.eps)).sqrt();
            let divided = |x: R| if spread == zero { zero } else { x / spread };
            let weight = r(options.weight[which]);
            dweight[which] += divided(products);
            for i in elements.clone() {
                let normed = divided(power(r(x[i]), k));
                let du = weight * divided(g(i) - normed * divided(products) / n);
                dx[i] += du * r(k as f32) * power(r(x[i]), k - 1);
                results[i - row * width] += weight * normed;
            }
        }
        for i in elements {
            dbias[0] += g(i);
            dfactors[i] = r(dy[i]) * results[i - row * width];
        }
    }
    [dx, dweight, dbias, dfactors]
}

fn check(name: &str, (dy, x): (&[f32], &[f32]), shape: &[usize], options: &PolyNormOptions<'_>) {
    let got = everywhere(dy, x, shape, options);
    let width = shape[shape.len() - 1];
    let exact = formula::<f64>(dy, x, width, options);
    let plain = formula::<f32>(dy, x, width, options);
    let mut accuracy = Accuracy::new();
    let dfactors = got.dfactors.as_deref();
    let all = [
        Some(&got.dx[..]),
        Some(&got.dweight),
        Some(&got.dbias),
        dfactors,
    ];
    for (which, got) in all.into_iter().enumerate() {
        let Some(got) = got else { continue };
        let name = format!("{name}: {which}");
        near(&name, &exact[which], got);
        accuracy
            .case(&name, &exact[which], &plain[which], got)
            .unwrap();
    }
    accuracy.pooled().unwrap();
    assert_eq!(got.dfactors.is_some(), options.factors.is_some());
}

#[test]
fn reference_cases() {
    for fixture in cases("polynorm", 7) {
        let [x, dy, weight, bias] = ["x", "dy", "weight", "bias"].map(|name| fixture.f32(name));
        let options = PolyNormOptions {
            weight: weight.data.try_into().unwrap(),
            bias: bias.data[0],
            eps: fixture.number("eps").unwrap() as f32,
            ..PolyNormOptions::default()
        };
        let got = everywhere(&dy.data, &x.data, &x.shape, &options);
        for (name, got) in [
            ("dx", got.dx),
            ("dweight", got.dweight),
            ("dbias", got.dbias),
        ] {
            near(&fixture.name, &fixture.expected(name).unwrap().data, &got);
        }
        check(&fixture.name, (&dy.data, &x.data), &x.shape, &options);
    }
}

#[test]
fn gradients_of_noise() {
    for (seed, [rows, width]) in [[3, 1], [40, 5], [150, 64], [20, 333]]
        .into_iter()
        .enumerate()
    {
        let seed = 10 * seed as u64;
        let [dy, x, factors] = [1, 2, 3].map(|which| noise(rows * width, seed + which));
        let x: Vec<f32> = x.iter().map(|x| 2.0 * x).collect();
        for factors in [None, Some(&factors[..])] {
            let options = PolyNormOptions {
                weight: [0.3, -0.7, 1.2],
                bias: 0.4,
                factors,
                ..PolyNormOptions::default()
            };
            check(
                &format!("{rows} {width}"),
                (&dy, &x),
                &[rows, width],
                &options,
            );
        }
    }
}

#[test]
fn slices_halves_and_other_rows_change_no_bit() {
    let (rows, width) = (3000, 96);
    let [dy, x, factors] = [1, 2, 3].map(|seed| noise(rows * width, seed));
    let options = PolyNormOptions {
        factors: Some(&factors),
        ..PolyNormOptions::default()
    };
    let shape = [rows, width];
    let whole = everywhere(&dy, &x, &shape, &options);
    let mut got = PolyNormGradients {
        dx: vec![f32::NAN; dy.len()],
        dweight: vec![f32::NAN; 3],
        dbias: vec![f32::NAN; 1],
        dfactors: Some(vec![f32::NAN; dy.len()]),
    };
    let call =
        PolyNormBackward::new(Tensor::f32(&dy, &shape), Tensor::f32(&x, &shape), &options).unwrap();
    assert_eq!(call.dx_shape(), shape);
    let outputs = PolyNormGradients {
        dx: &mut got.dx[..],
        dweight: &mut got.dweight[..],
        dbias: &mut got.dbias[..],
        dfactors: got.dfactors.as_deref_mut(),
    };
    assert!(step_by_step(call.into_work(outputs).unwrap()) > 2);
    assert!(all_bits(&got) == all_bits(&whole));

    let row = 1234 * width..1235 * width;
    let alone = PolyNormOptions {
        factors: Some(&factors[row.clone()]),
        ..options.clone()
    };
    let alone = everywhere(&dy[row.clone()], &x[row.clone()], &[width], &alone);
    assert_eq!(bits(&alone.dx), bits(&whole.dx[row]));

    for dtype in [DType::F16, DType::Bf16] {
        let [dy, x] = [&dy, &x].map(|values| Halves::of(dtype, &values[..50 * width]));
        let options = PolyNormOptions::default();
        let shape = [50, width];
        let expected = everywhere(&dy.values, &x.values, &shape, &options);
        let got = poly_norm_backward(dy.tensor(&shape), x.tensor(&shape), &options).unwrap();
        assert!(all_bits(&got) == all_bits(&expected), "{dtype:?}");
    }
}

#[test]
fn rows_of_zeros_and_of_no_numbers() {
    let (dy, mut x) = (noise(120, 1), noise(120, 2));
    x[40..80].fill(0.0);
    let options = PolyNormOptions {
        eps: 0.0,
        ..PolyNormOptions::default()
    };
    let got = everywhere(&dy, &x, &[3, 40], &options);
    assert!(got.dx[40..80].iter().all(|&dx| dx == 0.0));
    assert!(got.dweight.iter().all(|dweight| dweight.is_finite()));
    for poison in [f32::NAN, f32::INFINITY] {
        x[50] = poison;
        let poisoned = everywhere(&dy, &x, &[3, 40], &options);
        assert!(poisoned.dx[40..80].iter().all(|dx| dx.is_nan()), "{poison}");
        assert!(
            poisoned.dweight.iter().all(|dweight| dweight.is_nan()),
            "{poison}"
        );
        assert_eq!(poisoned.dbias, got.dbias);
        assert_eq!(bits(&poisoned.dx[..40]), bits(&got.dx[..40]));
        assert_eq!(bits(&poisoned.dx[80..]), bits(&got.dx[80..]));
    }
    // Values at the ends of float32 neither over- nor underflow on the way.
    for size in [1e-38, 1e36] {
        let x: Vec<f32> = noise(40, 3).iter().map(|x| x * size).collect();
        let dy: Vec<f32> = noise(40, 4).iter().map(|dy| dy * size).collect();
        let exact = formula::<f64>(&dy, &x, 40, &options);
        let got = everywhere(&dy, &x, &[1, 40], &options);
        // (In float64, too, cubes of these overflow when they are squared twice.)
        near(&format!("{size}"), &exact[0], &got.dx);
    }
}

#[test]
fn empty_tensors_give_empty_gradients() {
    for shape in [vec![0, 4], vec![2, 0], vec![0]] {
        let empty = || Tensor::f32(&[], &shape);
        let got = poly_norm_backward(empty(), empty(), &PolyNormOptions::default()).unwrap();
        assert!(got.dx.is_empty());
        assert_eq!((got.dweight, got.dbias), (vec![0.0; 3], vec![0.0]));
        let options = PolyNormOptions::default();
        let call = PolyNormBackward::new(empty(), empty(), &options).unwrap();
        let (mut dweight, mut dbias) = ([f32::NAN; 3], [f32::NAN]);
        let outputs = PolyNormGradients {
            dx: &mut [][..],
            dweight: &mut dweight[..],
            dbias: &mut dbias[..],
            dfactors: None,
        };
        step_by_step(call.into_work(outputs).unwrap());
        assert_eq!((dweight, dbias), ([0.0; 3], [0.0]));
    }
}

#[test]
fn refusals_name_the_argument() {
    let x = [0.0; 24];
    let options = PolyNormOptions::default;
    let call = |dy: &[usize], of: &[usize], options: &PolyNormOptions<'_>| {
        refusal(poly_norm_backward(
            Tensor::f32(&x, dy),
            Tensor::f32(&x, of),
            options,
        ))
    };
    assert_eq!(
        call(&[24], &[2, 12], &options()),
        said("SHAPE", "dy: expected shape [2, 12] as x, got [24]")
    );
    assert_eq!(
        call(&[], &[], &options()),
        said("SHAPE", "x: expected 1 axis or more, got []")
    );
    assert_eq!(
        call(
            &[24],
            &[24],
            &PolyNormOptions {
                eps: -1.0,
                ..options()
            }
        ),
        said("OPTION", "eps: expected a number of at least 0, got -1")
    );
    let factors = Some(&x[..5]);
    assert_eq!(
        call(
            &[24],
            &[24],
            &PolyNormOptions {
                factors,
                ..options()
            }
        ),
        said(
            "SHAPE",
            "factors: expected 24 elements for shape [24], got 5"
        )
    );
    let job = || {
        let t = || Tensor::f32(&x, &[24]);
        PolyNormBackward::new(t(), t(), &PolyNormOptions::default()).unwrap()
    };
    let into = |lens: [usize; 3], dfactors: Option<usize>| {
        let (mut a, mut b, mut c, mut d) = ([0.0; 24], [0.0; 24], [0.0; 24], [0.0; 24]);
        refusal(job().into_work(PolyNormGradients {
            dx: &mut a[..lens[0]],
            dweight: &mut b[..lens[1]],
            dbias: &mut c[..lens[2]],
            dfactors: dfactors.map(|len| &mut d[..len]),
        }))
    };
    assert_eq!(
        into([23, 3, 1], None),
        said("SHAPE", "dx: expected 24 elements for shape [24], got 23")
    );
    assert_eq!(
        into([24, 2, 1], None),
        said("SHAPE", "dweight: expected 3 elements for shape [3], got 2")
    );
    assert_eq!(
        into([24, 3, 2], None),
        said("SHAPE", "dbias: expected 1 elements for shape [1], got 2")
    );
    assert_eq!(into([24, 3, 1], Some(24)).0, "OPTION");
}
