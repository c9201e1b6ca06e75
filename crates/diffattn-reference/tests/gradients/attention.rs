//! Attention's gradients against the reference cases.

use diffattn_reference::fixture::AttentionGradientCase;
use diffattn_reference::gradients::attention_backward;
use diffattn_reference::{AttentionSpec, Real, attention};

use crate::support::Case;

pub(crate) fn attend<R: Real>(case: &mut Case) {
    let AttentionGradientCase {
        spec,
        dy,
        lambda_form,
    } = case.fixture.attention_gradient();
    let lambda = lambda_form.as_ref().map(|form| form.value::<R>());
    let spec = AttentionSpec {
        lambda: lambda.as_ref().map_or(spec.lambda, |x| Some(x.widen())),
        ..spec
    };
    case.compare("y", &attention::<R>(&spec).out);
    let gradients = attention_backward::<R>(&spec, &dy);
    case.compare("dq", &gradients.dq);
    case.compare("dk", &gradients.dk);
    case.compare("dv", &gradients.dv);
    case.compare_some("dnorm_weight", gradients.dnorm_weight.as_ref());
    case.compare_some("dbias", gradients.dbias.as_ref());
    case.compare_some("dsinks", gradients.dsinks.as_ref());
    if case.fixture.has("coefficients") {
        case.compare_some("dcoefficients", gradients.dcoefficients.as_ref());
    }
    let (Some(lambda), Some(form), Some(dlambda)) = (&lambda, &lambda_form, &gradients.dlambda)
    else {
        case.compare_some("dlambda", gradients.dlambda.as_ref());
        return;
    };
    case.compare("lambda_value", lambda);
    case.compare("dlambda_value", dlambda);
    for (name, d) in form.backward(dlambda) {
        case.compare(name, &d);
    }
}
