//! RMS norm backward: reference cases, values, refusals. What all norms share is in `norms`.

use diffattn::{
    NormGradients, RmsNormBackward, RmsNormOptions, Run, Tensor, rms_norm, rms_norm_backward,
};
use diffattn_reference::Accuracy;

use crate::norms::{Case, Kind};
use crate::support::{Halves, cases, refusal, said};

#[test]
fn reference_cases() {
    let mut accuracy = Accuracy::new();
    for fixture in cases("rms_norm", 7) {
        let x = fixture.f32("x");
        let case = Case {
            kind: Kind::Rms {
                scale: fixture.number("scale").map_or(1.0, |scale| scale as f32),
            },
            shape: x.shape,
            x: x.data,
            dy: fixture.f32("dy").data,
            weight: fixture.flag("affine").then(|| fixture.f32("weight").data),
            bias: None,
            eps: fixture.number("eps").unwrap() as f32,
        };
        case.check_reference(&fixture, &mut accuracy);
    }
    accuracy.pooled().unwrap();
}

/// The gradient is the slope of the forward operator.
#[test]
fn it_is_the_slope_of_the_forward_pass() {
    let (x, dy, weight) = (
        [1.0, -2.0, 0.5, 3.0],
        [0.3, 0.1, -0.7, 0.2],
        [1.0, 0.5, -1.0, 2.0],
    );
    let options = RmsNormOptions {
        weight: Some(&weight),
        scale: 0.8,
        ..RmsNormOptions::default()
    };
    let result = |x: &[f32]| -> f64 {
        let y = rms_norm(Tensor::f32(x, &[4]), &options).unwrap();
        y.iter()
            .zip(dy)
            .map(|(&y, dy)| f64::from(y) * f64::from(dy))
            .sum()
    };
    let got = rms_norm_backward(Tensor::f32(&dy, &[4]), Tensor::f32(&x, &[4]), &options).unwrap();
    for i in 0..4 {
        let (mut above, mut below) = (x, x);
        above[i] += 1.0 / 128.0;
        below[i] -= 1.0 / 128.0;
        let slope = (result(&above) - result(&below)) * 64.0;
        assert!(
            (f64::from(got.dx[i]) - slope).abs() < 1e-4,
            "{} {slope}",
            got.dx[i]
        );
    }
}

#[test]
fn refusals_name_the_argument() {
    let values = [0.0; 24];
    let options = RmsNormOptions::default;
    let call = |dy: &[usize], x: &[usize], options: &RmsNormOptions<'_>| {
        refusal(rms_norm_backward(
            Tensor::f32(&values, dy),
            Tensor::f32(&values, x),
            options,
        ))
    };
    assert_eq!(
        call(&[24], &[2, 12], &options()),
        said("SHAPE", "dy: expected shape [2, 12] as x, got [24]")
    );
    assert_eq!(
        call(&[2, 12], &[2, 13], &options()),
        said("SHAPE", "x: expected 26 elements for shape [2, 13], got 24")
    );
    assert_eq!(
        refusal(rms_norm_backward(
            Tensor::f32(&values[..23], &[2, 12]),
            Tensor::f32(&values, &[2, 12]),
            &options()
        )),
        said(
            "SHAPE",
            "dy: expected 24 elements for shape [2, 12], got 23"
        )
    );
    assert_eq!(
        call(&[], &[], &options()),
        said("SHAPE", "x: expected 1 axis or more, got []")
    );
    let halves = Halves::of(diffattn::DType::F16, &values);
    assert_eq!(
        refusal(rms_norm_backward(
            halves.tensor(&[2, 12]),
            Tensor::f32(&values, &[2, 12]),
            &options()
        )),
        said("DTYPE", "dy: expected float32 as x, got float16")
    );
    let weight = Some(&values[..2]);
    assert_eq!(
        call(
            &[2, 12],
            &[2, 12],
            &RmsNormOptions {
                weight,
                ..options()
            }
        ),
        said(
            "SHAPE",
            "weight: expected 12 elements for shape [12], got 2"
        )
    );
    assert_eq!(
        call(
            &[2, 12],
            &[2, 12],
            &RmsNormOptions {
                eps: -1.0,
                ..options()
            }
        ),
        said("OPTION", "eps: expected a number of at least 0, got -1")
    );
}

#[test]
fn outputs_must_fit() {
    let values = [0.5; 24];
    let job = |weight: bool| {
        let options = RmsNormOptions {
            weight: weight.then_some(&values[..12]),
            run: Run::default(),
            ..RmsNormOptions::default()
        };
        let tensor = || Tensor::f32(&values, &[2, 12]);
        RmsNormBackward::new(tensor(), tensor(), &options).unwrap()
    };
    assert_eq!(job(true).dx_shape(), [2, 12]);
    assert_eq!(
        (job(true).dweight_len(), job(true).dbias_len()),
        (Some(12), None)
    );
    let into = |weight, dx: usize, dweight: Option<usize>, dbias: Option<usize>| {
        let (mut a, mut b, mut c) = ([0.0; 24], [0.0; 24], [0.0; 24]);
        refusal(job(weight).into_work(NormGradients {
            dx: &mut a[..dx],
            dweight: dweight.map(|len| &mut b[..len]),
            dbias: dbias.map(|len| &mut c[..len]),
        }))
    };
    assert_eq!(
        into(false, 23, None, None),
        said("SHAPE", "dx: expected 24 elements for shape [24], got 23")
    );
    assert_eq!(
        into(true, 24, Some(11), None),
        said(
            "SHAPE",
            "dweight: expected 12 elements for shape [12], got 11"
        )
    );
    assert_eq!(
        into(true, 24, None, None),
        said(
            "SHAPE",
            "dweight: expected 12 elements, as the call has what it is the gradient of, got none"
        )
    );
    assert_eq!(
        into(false, 24, Some(12), None),
        said(
            "OPTION",
            "dweight: expected none, as the call does not have what it is the gradient of, got one"
        )
    );
    assert_eq!(into(true, 24, Some(12), Some(12)).0, "OPTION");
}
