//! Group norm backward: reference cases, values, refusals. What all norms share is in `norms`.

use diffattn::{ChannelLayout, GroupNormOptions, Tensor, group_norm_backward};
use diffattn_reference::Accuracy;

use crate::norms::{Case, Kind};
use crate::support::{Halves, cases, refusal, said};

#[test]
fn reference_cases() {
    let mut accuracy = Accuracy::new();
    for fixture in cases("group_norm", 11) {
        let x = fixture.f32("x");
        let affine = |name| fixture.flag("affine").then(|| fixture.f32(name).data);
        let case = Case {
            kind: Kind::Group {
                num_groups: fixture.count("num_groups").unwrap(),
                layout: match fixture.text("layout").unwrap() {
                    "nchw" => ChannelLayout::Nchw,
                    _ => ChannelLayout::Nhwc,
                },
                silu: fixture.text("activation") == Some("silu"),
            },
            shape: x.shape,
            x: x.data,
            dy: fixture.f32("dy").data,
            weight: affine("weight"),
            bias: affine("bias"),
            eps: fixture.number("eps").unwrap() as f32,
        };
        case.check_reference(&fixture, &mut accuracy);
    }
    accuracy.pooled().unwrap();
}

/// Large groups are cut otherwise where there are threads, and a mean far off cancels nothing.
#[test]
fn a_mean_far_off_costs_no_digit() {
    for layout in [ChannelLayout::Nchw, ChannelLayout::Nhwc] {
        let kind = Kind::Group {
            num_groups: 1,
            layout,
            silu: false,
        };
        let near = Case::noise(kind, &[1, 2, 5000, 2], 7);
        // Whole numbers, so that what is added is no rounding.
        let whole = |x: &f32| (x * 1000.0).round();
        let near = Case {
            x: near.x.iter().map(whole).collect(),
            eps: 0.0,
            ..near
        };
        let far = Case {
            x: near.x.iter().map(|x| x + 1e6).collect(),
            ..near.clone()
        };
        let (near, far) = (near.everywhere("near"), far.everywhere("far"));
        for (a, b) in [
            (near.dx, far.dx),
            (near.dweight.unwrap(), far.dweight.unwrap()),
        ] {
            let largest = a.iter().fold(0.0f32, |max, x| max.max(x.abs()));
            for (a, b) in a.iter().zip(&b) {
                assert!((a - b).abs() <= 3e-7 * largest, "{a} {b}");
            }
        }
    }
}

#[test]
fn refusals_name_the_argument() {
    let values = [0.0; 24];
    let options = GroupNormOptions::default;
    let call = |dy: &[usize], x: &[usize], options: &GroupNormOptions<'_>| {
        refusal(group_norm_backward(
            Tensor::f32(&values, dy),
            Tensor::f32(&values, x),
            options,
        ))
    };
    assert_eq!(
        call(&[2, 12], &[2, 12, 1], &options()),
        said("SHAPE", "dy: expected shape [2, 12, 1] as x, got [2, 12]")
    );
    assert_eq!(
        call(&[24], &[24], &options()),
        said("SHAPE", "x: expected 2 axes or more, got [24]")
    );
    assert_eq!(
        call(
            &[2, 6, 2],
            &[2, 6, 2],
            &GroupNormOptions {
                num_groups: 4,
                ..options()
            }
        ),
        said(
            "SHAPE",
            "num_groups: expected a divisor of 6 channels, got 4"
        )
    );
    let halves = Halves::of(diffattn::DType::Bf16, &values);
    assert_eq!(
        refusal(group_norm_backward(
            Tensor::f32(&values, &[2, 12]),
            halves.tensor(&[2, 12]),
            &options()
        )),
        said("DTYPE", "dy: expected bfloat16 as x, got float32")
    );
    let short = Some(&values[..5]);
    assert_eq!(
        call(
            &[2, 6, 2],
            &[2, 6, 2],
            &GroupNormOptions {
                weight: short,
                ..options()
            }
        ),
        said("SHAPE", "weight: expected 6 elements for shape [6], got 5")
    );
    assert_eq!(
        call(
            &[2, 6, 2],
            &[2, 6, 2],
            &GroupNormOptions {
                bias: short,
                ..options()
            }
        ),
        said("SHAPE", "bias: expected 6 elements for shape [6], got 5")
    );
    assert_eq!(
        call(
            &[2, 12],
            &[2, 12],
            &GroupNormOptions {
                eps: f32::NAN,
                ..options()
            }
        ),
        said("OPTION", "eps: expected a number of at least 0, got NaN")
    );
}
