//! The other operators' gradients against the reference cases.

use diffattn_reference::gradients::{
    AdamW, Named, apply_rope_backward, embedding, embedding_backward, gelu, gelu_backward,
    group_norm_backward, layer_norm, layer_norm_backward, linear_backward, poly_norm_backward,
    rms_norm_backward, sequence_difference_backward, sequence_fused_attention_backward, swiglu,
    swiglu_backward,
};
use diffattn_reference::{
    Real, Tensor, apply_rope, group_norm, linear, poly_norm, rms_norm, sequence_difference,
    sequence_fused_attention,
};

use crate::support::Case;

/// x and dy.
fn inputs<R: Real>(case: &Case) -> (Tensor<R>, Tensor<R>) {
    let input = |name| case.fixture.f64(name).cast();
    (input("x"), input("dy"))
}

pub(crate) fn rms<R: Real>(case: &mut Case) {
    let ((x, dy), norm) = (inputs::<R>(case), case.fixture.rms_norm());
    let gradients = rms_norm_backward(&x, &norm, &dy);
    case.compare("y", &rms_norm(&x, &norm));
    case.compare("dx", &gradients.dx);
    case.compare_some("dweight", gradients.dweight.as_ref());
}

pub(crate) fn group<R: Real>(case: &mut Case) {
    let ((x, dy), norm) = (inputs::<R>(case), case.fixture.group_norm());
    let gradients = group_norm_backward(&x, &norm, &dy);
    case.compare("y", &group_norm(&x, &norm));
    case.compare("dx", &gradients.dx);
    case.compare_some("dweight", gradients.dweight.as_ref());
    case.compare_some("dbias", gradients.dbias.as_ref());
}

pub(crate) fn layer<R: Real>(case: &mut Case) {
    let ((x, dy), norm) = (inputs::<R>(case), case.fixture.layer_norm());
    let gradients = layer_norm_backward(&x, &norm, &dy);
    case.compare("y", &layer_norm(&x, &norm));
    case.compare("dx", &gradients.dx);
    case.compare_some("dweight", gradients.dweight.as_ref());
    case.compare_some("dbias", gradients.dbias.as_ref());
}

pub(crate) fn poly<R: Real>(case: &mut Case) {
    let ((x, dy), norm) = (inputs::<R>(case), case.fixture.poly_norm());
    let gradients = poly_norm_backward(&x, &norm, &dy);
    case.compare("y", &poly_norm(&x, &norm));
    case.compare("dx", &gradients.dx);
    case.compare("dweight", &gradients.dweight);
    case.compare("dbias", &gradients.dbias);
}

pub(crate) fn rope<R: Real>(case: &mut Case) {
    let ((x, dy), rope) = (inputs::<R>(case), case.fixture.rope());
    let positions = case.fixture.positions();
    case.compare("y", &apply_rope(&x, &rope, &positions));
    case.compare("dx", &apply_rope_backward(&dy, &rope, &positions));
}

fn difference<R: Real>(case: &mut Case) {
    let Some(order) = case.fixture.count("order") else {
        panic!("{}: no order", case.fixture.name)
    };
    let (x, dy) = inputs::<R>(case);
    case.compare("y", &sequence_difference(&x, order));
    case.compare("dx", &sequence_difference_backward(&dy, order));
}

fn fused<R: Real>(case: &mut Case) {
    let (spec, dy) = (case.fixture.attention_spec(), case.fixture.f64("dy"));
    let Some(fusion) = case.fixture.sequence_fusion() else {
        panic!("{}: no order", case.fixture.name)
    };
    let gradients = sequence_fused_attention_backward::<R>(&spec, &fusion, &dy);
    case.compare("y", &sequence_fused_attention(&spec, &fusion));
    case.compare("dq", &gradients.dq);
    case.compare("dk", &gradients.dk);
    case.compare("dv", &gradients.dv);
}

pub(crate) fn sequence<R: Real>(case: &mut Case) {
    match case.fixture.text("op") {
        Some("sequence_difference_backward") => difference::<R>(case),
        Some("sequence_diff_attention_backward") => fused::<R>(case),
        other => panic!("{}: op {other:?}", case.fixture.name),
    }
}

pub(crate) fn linear_map<R: Real>(case: &mut Case) {
    case.fixture.plain_operator(&["x", "weight", "bias", "dy"]);
    let (x, dy) = inputs::<R>(case);
    let weight = case.fixture.f64("weight").cast();
    let bias = case.fixture.has("bias");
    let bias = bias.then(|| case.fixture.f64("bias").cast());
    let gradients = linear_backward(&x, &weight, &dy);
    case.compare("y", &linear(&x, &weight, bias.as_ref()));
    case.compare("dx", &gradients.dx);
    case.compare("dweight", &gradients.dweight);
    case.compare_some("dbias", bias.map(|_| &gradients.dbias));
}

pub(crate) fn gated<R: Real>(case: &mut Case) {
    case.fixture.plain_operator(&["gate", "up", "dy"]);
    let [gate, up, dy] = ["gate", "up", "dy"].map(|name| case.fixture.f64(name).cast::<R>());
    let gradients = swiglu_backward(&gate, &up, &dy);
    case.compare("y", &swiglu(&gate, &up));
    case.compare("dgate", &gradients.dgate);
    case.compare("dup", &gradients.dup);
}

pub(crate) fn error_linear<R: Real>(case: &mut Case) {
    case.fixture.plain_operator(&["x", "dy"]);
    let (x, dy) = inputs::<R>(case);
    case.compare("y", &gelu(&x));
    case.compare("dx", &gelu_backward(&x, &dy));
}

pub(crate) fn embed<R: Real>(case: &mut Case) {
    case.fixture.plain_operator(&["weight", "ids", "dy"]);
    let (weight, ids) = (
        case.fixture.f64("weight").cast::<R>(),
        case.fixture.i64("ids"),
    );
    let dy = case.fixture.f64("dy").cast::<R>();
    case.compare("y", &embedding(&weight, &ids));
    case.compare("dweight", &embedding_backward(weight.shape[0], &ids, &dy));
}

fn cast<R: Real>(named: &Named<f64>) -> Named<R> {
    let cast = |(name, x): (&String, &Tensor<f64>)| (name.clone(), x.cast());
    named.iter().map(cast).collect()
}

pub(crate) fn steps<R: Real>(case: &mut Case) {
    let run = case.fixture.adamw();
    let mut optimizer = AdamW::<R>::new(run.betas, run.eps, run.weight_decay);
    let mut parameters = cast::<R>(&run.parameters);
    let mut norms = Vec::new();
    for (at, (gradients, lr)) in run.steps.iter().enumerate() {
        norms.push(optimizer.step(&mut parameters, &cast(gradients), *lr, run.max_norm));
        for (name, parameter) in &parameters {
            case.compare(&format!("step_{}.{name}", at + 1), parameter);
        }
    }
    for name in parameters.keys() {
        case.compare(&format!("m.{name}"), &optimizer.m[name]);
        case.compare(&format!("v.{name}"), &optimizer.v[name]);
    }
    case.compare("gradient_norms", &Tensor::new(&[norms.len()], norms));
}
