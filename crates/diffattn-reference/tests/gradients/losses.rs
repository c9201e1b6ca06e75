//! Losses and their gradients against the reference cases.

use diffattn_reference::gradients::{
    DistillationLoss, HeadGradients, cross_entropy, cross_entropy_backward, distillation,
    distillation_backward, linear_cross_entropy, linear_cross_entropy_backward,
    linear_distillation, linear_distillation_backward,
};
use diffattn_reference::{Real, Tensor};

use crate::support::Case;

fn tensors<R: Real, const N: usize>(case: &Case, names: [&str; N]) -> [Tensor<R>; N] {
    names.map(|name| case.fixture.f64(name).cast())
}

fn compare_head<R: Real>(case: &mut Case, gradients: &HeadGradients<R>) {
    case.compare("dhidden", &gradients.dhidden);
    case.compare("dweight", &gradients.dweight);
}

pub(crate) fn of_logits<R: Real>(case: &mut Case) {
    let (options, labels) = (
        case.fixture.cross_entropy(),
        case.fixture.i64("labels").data,
    );
    let [logits] = tensors::<R, 1>(case, ["logits"]);
    let loss = cross_entropy(&logits, &labels, &options);
    case.compare("loss", &Tensor::scalar(loss.loss));
    case.compare("rows", &loss.rows);
    let dlogits = cross_entropy_backward(&logits, &labels, &options);
    case.compare("dlogits", &dlogits);
}

pub(crate) fn of_hidden<R: Real>(case: &mut Case) {
    let (options, labels) = (
        case.fixture.cross_entropy(),
        case.fixture.i64("labels").data,
    );
    let [hidden, weight] = tensors::<R, 2>(case, ["hidden", "weight"]);
    let loss = linear_cross_entropy(&hidden, &weight, &labels, &options).loss;
    case.compare("loss", &Tensor::scalar(loss));
    let gradients = linear_cross_entropy_backward(&hidden, &weight, &labels, &options);
    compare_head(case, &gradients);
}

pub(crate) fn of_teacher<R: Real>(case: &mut Case) {
    let (alpha, labels) = (
        case.fixture.distillation_alpha(),
        case.fixture.i64("labels").data,
    );
    let [teacher] = tensors::<R, 1>(case, ["teacher_logits"]);
    let means = |case: &mut Case, loss: &DistillationLoss<R>| {
        case.compare("loss", &Tensor::scalar(loss.loss));
        case.compare("ce", &Tensor::scalar(loss.ce));
        case.compare("kl", &Tensor::scalar(loss.kl));
    };
    match case.fixture.text("op") {
        Some("distillation_backward") => {
            let [logits] = tensors(case, ["logits"]);
            let loss = distillation(&logits, &teacher, &labels, alpha);
            means(case, &loss);
            case.compare("rows", &loss.rows);
            let dlogits = distillation_backward(&logits, &teacher, &labels, alpha);
            case.compare("dlogits", &dlogits);
        }
        Some("linear_distillation_backward") => {
            let [hidden, weight] = tensors(case, ["hidden", "weight"]);
            let loss = linear_distillation(&hidden, &weight, &teacher, &labels, alpha);
            means(case, &loss);
            let gradients =
                linear_distillation_backward(&hidden, &weight, &teacher, &labels, alpha);
            compare_head(case, &gradients);
        }
        other => panic!("{}: op {other:?}", case.fixture.name),
    }
}
