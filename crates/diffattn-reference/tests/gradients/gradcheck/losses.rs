//! T2 of the losses, of logits and through a head; the upstream gradient is any number.

use diffattn_reference::Tensor;
use diffattn_reference::gradients::{
    CrossEntropy, IGNORED, cross_entropy, cross_entropy_backward, distillation,
    distillation_backward, linear_cross_entropy, linear_cross_entropy_backward,
    linear_distillation, linear_distillation_backward,
};

use super::{Check, noise};

const LABELS: [i64; 5] = [3, IGNORED, 0, 6, 3];

/// The upstream gradient of a loss is 1.
fn of_loss(name: &str) -> Check {
    let mut check = Check::new(name, &Tensor::scalar(0.0), 1);
    check.dy = Tensor::scalar(1.0);
    check
}

fn options() -> Vec<CrossEntropy> {
    let of = |[label_smoothing, z_loss]: [f64; 2]| CrossEntropy {
        label_smoothing,
        z_loss,
    };
    [[0.0, 0.0], [0.1, 0.0], [0.0, 1e-2], [0.2, 0.1]]
        .map(of)
        .to_vec()
}

#[test]
fn cross_entropies() {
    let logits = noise(&[5, 7], 2);
    for options in options() {
        let mut check = of_loss("cross entropy");
        let d = cross_entropy_backward(&logits, &LABELS, &options);
        check.input("logits", &logits, &d, |x| {
            Tensor::scalar(cross_entropy(x, &LABELS, &options).loss)
        });
        check.done();
    }
}

#[test]
fn cross_entropies_through_a_head() {
    let (hidden, weight) = (noise(&[5, 4], 3), noise(&[7, 4], 4));
    for options in options() {
        let f = |hidden: &Tensor<f64>, weight: &Tensor<f64>| {
            Tensor::scalar(linear_cross_entropy(hidden, weight, &LABELS, &options).loss)
        };
        let mut check = of_loss("linear cross entropy");
        let d = linear_cross_entropy_backward(&hidden, &weight, &LABELS, &options);
        check.input("hidden", &hidden, &d.dhidden, |x| f(x, &weight));
        check.input("weight", &weight, &d.dweight, |w| f(&hidden, w));
        check.done();
    }
}

#[test]
fn distillations() {
    let (logits, teacher) = (noise(&[5, 7], 2), noise(&[5, 7], 5));
    let (hidden, weight) = (noise(&[5, 4], 3), noise(&[7, 4], 4));
    for alpha in [0.0, 0.3, 1.0] {
        let mut check = of_loss("distillation");
        let d = distillation_backward(&logits, &teacher, &LABELS, alpha);
        check.input("logits", &logits, &d, |x| {
            Tensor::scalar(distillation(x, &teacher, &LABELS, alpha).loss)
        });
        check.done();
        let f = |hidden: &Tensor<f64>, weight: &Tensor<f64>| {
            Tensor::scalar(linear_distillation(hidden, weight, &teacher, &LABELS, alpha).loss)
        };
        let mut check = of_loss("linear distillation");
        let d = linear_distillation_backward(&hidden, &weight, &teacher, &LABELS, alpha);
        check.input("hidden", &hidden, &d.dhidden, |x| f(x, &weight));
        check.input("weight", &weight, &d.dweight, |w| f(&hidden, w));
        check.done();
    }
}
