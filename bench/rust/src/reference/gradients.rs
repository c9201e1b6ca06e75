//! The results of cases that have several, whole: gradients of operators and of a layer, and what a
//! step of AdamW moves. A gradient of a weight sums over everything, so nothing less is computed.

use super::{part, plans, rms};
use crate::case::{Case, Channels, Heads, Layer, Work};
use crate::inputs::{ADAMW, ADAMW_STEP, EPS, LAMBDA, second_moment};
use diffattn::{Activation, ChannelLayout};
use diffattn_reference::gradients::{
    AdamW, Named, attention_backward, group_norm_backward, linear_backward, rms_norm_backward,
};
use diffattn_reference::{
    AttentionSpec, GroupNorm, Norm, Pairing, Tensor, attention, linear, plan,
};
use std::collections::BTreeMap;

/// Results by name.
pub type Results = Vec<(&'static str, Vec<f64>)>;

/// A layer's projections have tensors 1 to 4 times this, so that scores are of the order of one.
const PROJECTION: f64 = 1.0 / 16.0;

/// λ_init of a layer whose vectors of λ are zeros, which makes it λ.
const LAMBDA_INIT: f64 = 0.35;

/// All results of a case that has several; none of another.
#[must_use]
pub fn results(case: &Case) -> Results {
    match &case.work {
        Work::AttentionBackward(heads) => of_attention(case, heads),
        Work::GroupNormBackward(channels) => of_group_norm(channels),
        Work::RmsNormBackward { x } => of_rms_norm(x),
        Work::LayerBackward(layer) => of_layer(layer),
        Work::AdamW { count } => of_adamw(*count),
        _ => Vec::new(),
    }
}

/// Tensor number `t`.
fn whole(t: usize, shape: &[usize]) -> Tensor<f64> {
    Tensor::new(shape, part(t, 0, shape.iter().product()))
}

fn of_attention(case: &Case, heads: &Heads) -> Results {
    let spec = AttentionSpec {
        lambda: Some(Tensor::scalar(LAMBDA.into())),
        causal: heads.causal,
        window: heads.window.unwrap_or([None, None]),
        ..AttentionSpec::new(
            whole(0, &heads.q),
            whole(1, &heads.k),
            whole(2, &heads.v),
            plans(heads),
        )
    };
    let gradients = attention_backward::<f64>(&spec, &whole(3, &case.out));
    vec![
        ("dq", gradients.dq.data),
        ("dk", gradients.dk.data),
        ("dv", gradients.dv.data),
    ]
}

fn of_group_norm(channels: &Channels) -> Results {
    let count = channels.count();
    let spec = GroupNorm {
        weight: Some(part(1, 0, count)),
        bias: Some(part(2, 0, count)),
        eps: EPS.into(),
        channels_last: channels.layout == ChannelLayout::Nhwc,
        silu: channels.activation == Some(Activation::Silu),
        ..GroupNorm::new(channels.groups)
    };
    let gradients = group_norm_backward(&whole(0, &channels.x), &spec, &whole(3, &channels.x));
    let of = |gradient: Option<Tensor<f64>>| gradient.map_or_else(Vec::new, |one| one.data);
    vec![
        ("dx", gradients.dx.data),
        ("dweight", of(gradients.dweight)),
        ("dbias", of(gradients.dbias)),
    ]
}

fn of_rms_norm(x: &[usize]) -> Results {
    let norm = rms(x[x.len() - 1]);
    let gradients = rms_norm_backward(&whole(0, x), &norm, &whole(3, x));
    let dweight = gradients.dweight.map_or_else(Vec::new, |one| one.data);
    vec![("dx", gradients.dx.data), ("dweight", dweight)]
}

/// Heads of `[B, L, H · d]` as `[B, H, L, d]`, or the other way.
fn exchanged(x: &Tensor<f64>, [b, outer, inner, d]: [usize; 4]) -> Vec<f64> {
    let mut data = Vec::with_capacity(x.data.len());
    for b in 0..b {
        for i in 0..inner {
            for o in 0..outer {
                let at = ((b * outer + o) * inner + i) * d;
                data.extend_from_slice(&x.data[at..at + d]);
            }
        }
    }
    data
}

fn of_layer(
    &Layer {
        x: [b, length, width],
        heads,
        head_dim,
    }: &Layer,
) -> Results {
    let x = whole(0, &[b, length, width]);
    let weight = |t: usize, [outputs, inputs]: [usize; 2]| {
        let values = part(t, 0, outputs * inputs);
        let scaled = values.into_iter().map(|value| value * PROJECTION).collect();
        Tensor::new(&[outputs, inputs], scaled)
    };
    let inner = 2 * heads * head_dim;
    let [wq, wk, wv] = [1, 2, 3].map(|t| weight(t, [inner, width]));
    let wo = weight(4, [width, inner]);
    // (q and k have two heads for each of the result's.)
    let narrow = [b, 2 * heads, length, head_dim];
    let wide = [b, heads, length, 2 * head_dim];
    let projected = |w: &Tensor<f64>, [b, n, l, d]: [usize; 4]| {
        Tensor::new(&[b, n, l, d], exchanged(&linear(&x, w, None), [b, l, n, d]))
    };
    let spec = AttentionSpec {
        lambda: Some(Tensor::scalar(LAMBDA_INIT)),
        causal: true,
        norm: Some(Norm {
            eps: EPS.into(),
            weight: Some(part(5, 0, 2 * head_dim)),
            scale: 1.0 - LAMBDA_INIT,
        }),
        ..AttentionSpec::new(
            projected(&wq, narrow),
            projected(&wk, narrow),
            projected(&wv, wide),
            plan(
                Pairing::default(),
                [2 * heads, 2 * heads, heads],
                &[1.0, -1.0],
            ),
        )
    };
    let joined = |x: &Tensor<f64>, [b, n, l, d]: [usize; 4]| {
        Tensor::new(&[b, l, n * d], exchanged(x, [b, n, l, d]))
    };
    let rows = joined(&attention::<f64>(&spec).out, wide);
    let of_output = linear_backward(&rows, &wo, &whole(6, &[b, length, width]));
    let drows = exchanged(&of_output.dx, [b, length, heads, 2 * head_dim]);
    let of_heads = attention_backward::<f64>(&spec, &Tensor::new(&wide, drows));
    let parts = [
        (&wq, &of_heads.dq, narrow),
        (&wk, &of_heads.dk, narrow),
        (&wv, &of_heads.dv, wide),
    ];
    let [q, k, v] = parts.map(|(w, d, shape)| linear_backward(&x, w, &joined(d, shape)));
    let sum = |at: usize| q.dx.data[at] + k.dx.data[at] + v.dx.data[at];
    let dnorm = of_heads.dnorm_weight.map_or_else(Vec::new, |one| one.data);
    vec![
        ("dx", (0..x.data.len()).map(sum).collect()),
        ("q_proj.weight", q.dweight.data),
        ("k_proj.weight", k.dweight.data),
        ("v_proj.weight", v.dweight.data),
        ("o_proj.weight", of_output.dweight.data),
        ("subln.weight", dnorm),
    ]
}

fn of_adamw(count: usize) -> Results {
    const NAME: &str = "parameters";
    let named = |x: Tensor<f64>| Named::from([(NAME.to_owned(), x)]);
    let moments = (0..count).map(|i| second_moment(i).into()).collect();
    let decay = BTreeMap::from([(NAME.to_owned(), ADAMW.weight_decay)]);
    let mut adamw = AdamW {
        steps: i32::from(ADAMW_STEP) - 1,
        m: named(whole(2, &[count])),
        v: named(Tensor::new(&[count], moments)),
        ..AdamW::new(ADAMW.betas, ADAMW.eps, decay)
    };
    let mut parameters = named(whole(0, &[count]));
    adamw.step(&mut parameters, &named(whole(1, &[count])), ADAMW.lr, None);
    let mut all = [parameters, adamw.m, adamw.v].map(|mut named| named.remove(NAME));
    ["parameters", "first_moments", "second_moments"]
        .into_iter()
        .zip(
            all.iter_mut()
                .map(|one| one.take().map_or_else(Vec::new, |x| x.data)),
        )
        .collect()
}
