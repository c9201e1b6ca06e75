//! Layer norm backward: reference cases, refusals. What all norms share is in `norms`.

use diffattn::{LayerNormOptions, Tensor, layer_norm_backward};
use diffattn_reference::Accuracy;

use crate::norms::{Case, Kind};
use crate::support::{cases, refusal, said};

#[test]
fn reference_cases() {
    let mut accuracy = Accuracy::new();
    for fixture in cases("layer_norm", 4) {
        let x = fixture.f32("x");
        let affine = |name| fixture.has(name).then(|| fixture.f32(name).data);
        let case = Case {
            kind: Kind::Layer,
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

#[test]
fn refusals_name_the_argument() {
    let values = [0.0; 24];
    let options = LayerNormOptions::default;
    let call = |dy: &[usize], x: &[usize], options: &LayerNormOptions<'_>| {
        refusal(layer_norm_backward(
            Tensor::f32(&values, dy),
            Tensor::f32(&values, x),
            options,
        ))
    };
    assert_eq!(
        call(&[4, 6], &[2, 12], &options()),
        said("SHAPE", "dy: expected shape [2, 12] as x, got [4, 6]")
    );
    assert_eq!(
        call(&[], &[], &options()),
        said("SHAPE", "x: expected 1 axis or more, got []")
    );
    let short = Some(&values[..5]);
    assert_eq!(
        call(
            &[4, 6],
            &[4, 6],
            &LayerNormOptions {
                weight: short,
                ..options()
            }
        ),
        said("SHAPE", "weight: expected 6 elements for shape [6], got 5")
    );
    assert_eq!(
        call(
            &[4, 6],
            &[4, 6],
            &LayerNormOptions {
                bias: short,
                ..options()
            }
        ),
        said("SHAPE", "bias: expected 6 elements for shape [6], got 5")
    );
    assert_eq!(
        call(
            &[4, 6],
            &[4, 6],
            &LayerNormOptions {
                eps: -1.0,
                ..options()
            }
        ),
        said("OPTION", "eps: expected a number of at least 0, got -1")
    );
}
