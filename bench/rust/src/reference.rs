//! What a case's answer should be, in float64 by `diffattn-reference`: of one result only the rows
//! or groups of the asked elements are computed, each once. Of several, gradients and what an
//! optimizer moved, `gradients.rs` computes all.

mod gradients;

pub use gradients::{Results, results};

use crate::case::{BLOCK, Case, Channels, Heads, Work};
use crate::inputs::{EPS, LAMBDA, value};
use diffattn::{Activation, CacheDType, ChannelLayout};
use diffattn_reference::{
    AttentionSpec, GroupNorm, Head, Norm, Pairing, Tensor, attention, group_norm, plan,
    quantise_int8_rows, rms_norm,
};
use half::{bf16, f16};
use std::collections::HashMap;

/// The values of the only result at flat indices `at`.
///
/// # Panics
/// For a case of several results, or of a norm with channels last, which no case has alone.
#[must_use]
pub fn values(case: &Case, at: &[usize]) -> Vec<f64> {
    let (shape, of): (usize, Box<dyn Fn(usize) -> Vec<f64>>) = match &case.work {
        Work::Attention(heads) | Work::Decode(heads) => (case.out[3], attention_rows(case, heads)),
        Work::GroupNorm(channels) if channels.layout == ChannelLayout::Nchw => {
            let len = channels.x[1..].iter().product::<usize>() / channels.groups;
            let channels = channels.clone();
            (len, Box::new(move |index| one_group(&channels, index)))
        }
        Work::RmsNorm { x } => {
            let width = x[x.len() - 1];
            (width, Box::new(move |index| rms_row(width, index)))
        }
        other => panic!("no one result of {other:?}"),
    };
    let mut parts = HashMap::new();
    at.iter()
        .map(|&i| parts.entry(i / shape).or_insert_with(|| of(i / shape))[i % shape])
        .collect()
}

/// `len` values of tensor number `t` from element `first` on.
fn part(t: usize, first: usize, len: usize) -> Vec<f64> {
    (first..first + len).map(|i| value(t, i).into()).collect()
}

/// What a cache of that type holds of rows of `width` numbers.
fn held(values: Vec<f64>, width: usize, dtype: CacheDType) -> Vec<f64> {
    let each = |of: fn(f64) -> f64| values.iter().copied().map(of).collect();
    match dtype {
        CacheDType::F32 => values,
        CacheDType::F16 => each(|x| f16::from_f32(x as f32).to_f64()),
        CacheDType::Bf16 => each(|x| bf16::from_f32(x as f32).to_f64()),
        CacheDType::Int8 => {
            let values: Vec<f32> = each(|x| x).iter().map(|&x: &f64| x as f32).collect();
            quantise_int8_rows(&values, width).values()
        }
    }
}

/// The q, k and v heads of each output head.
fn plans(heads: &Heads) -> Vec<Head> {
    let ratio = heads.ratio.unwrap_or(1);
    let pairing = match heads.pairing {
        diffattn::Pairing::Interleaved => Pairing::default(),
        diffattn::Pairing::Halves => Pairing::Halves,
        diffattn::Pairing::Grouped => Pairing::Grouped { ratio },
        diffattn::Pairing::Shared => Pairing::Shared { ratio },
    };
    let counts = [heads.q[1], heads.k[1], heads.v[1]];
    plan(pairing, counts, &[1.0, -1.0])
}

/// Gives output row `index`, counted over batch, heads and queries.
fn attention_rows(case: &Case, heads: &Heads) -> Box<dyn Fn(usize) -> Vec<f64>> {
    let plans = plans(heads);
    let (out, heads) = (case.out.clone(), heads.clone());
    Box::new(move |index| {
        let (row, h, b) = (
            index % out[2],
            index / out[2] % out[1],
            index / out[2] / out[1],
        );
        one_row(&heads, &plans[h], b, row)
    })
}

/// One query of one output head, whose q, k and v heads alone are made.
fn one_row(heads: &Heads, head: &Head, b: usize, row: usize) -> Vec<f64> {
    let position = row + heads.k[2] - heads.q[2];
    // Keys that causality or the window hide are not made.
    let end = if heads.causal {
        position + 1
    } else {
        heads.k[2]
    };
    let tensor = |t: usize, shape: [usize; 4], list: &[usize], first: usize, rows: usize| {
        let [_, n, length, width] = shape;
        let rows_of = |&h: &usize| part(t, ((b * n + h) * length + first) * width, rows * width);
        let data: Vec<f64> = list.iter().flat_map(rows_of).collect();
        let data = match t {
            0 => data,
            _ => held(data, width, heads.held()),
        };
        Tensor::new(&[1, list.len(), rows, width], data)
    };
    let own = Head {
        q: (0..head.q.len()).collect(),
        k: (0..head.k.len()).collect(),
        v: (0..head.v.len()).collect(),
        coefficients: head.coefficients.clone(),
    };
    let spec = AttentionSpec {
        lambda: Some(Tensor::scalar(LAMBDA.into())),
        mask: row_of_blocks(heads, row),
        causal: heads.causal,
        window: heads.window.unwrap_or([None, None]),
        query_offset: Some(vec![position as i64]),
        ..AttentionSpec::new(
            tensor(0, heads.q, &head.q, row, 1),
            tensor(1, heads.k, &head.k, 0, end),
            tensor(2, heads.v, &head.v, 0, end),
            vec![own],
        )
    };
    attention::<f64>(&spec).out.data
}

/// What a block mask leaves of the keys to a query, key by key.
fn row_of_blocks(heads: &Heads, row: usize) -> Option<Tensor<bool>> {
    let blocks = heads.blocks()?;
    let [_, columns] = heads.blocks_shape();
    let keys = heads.k[2];
    let sees = |key: usize| blocks[row / BLOCK * columns + key / BLOCK] != 0;
    Some(Tensor::new(&[1, 1, 1, keys], (0..keys).map(sees).collect()))
}

fn one_group(
    Channels {
        x,
        groups,
        activation,
        ..
    }: &Channels,
    index: usize,
) -> Vec<f64> {
    let (width, group) = (x[1] / groups, index % groups);
    let positions = x[2..].iter().product::<usize>();
    let len = width * positions;
    let input = Tensor::new(&[1, width, positions], part(0, index * len, len));
    let spec = GroupNorm {
        weight: Some(part(1, group * width, width)),
        bias: Some(part(2, group * width, width)),
        eps: EPS.into(),
        silu: *activation == Some(Activation::Silu),
        ..GroupNorm::new(1)
    };
    group_norm(&input, &spec).data
}

/// RMS norm of every case.
fn rms(width: usize) -> Norm {
    Norm {
        eps: EPS.into(),
        weight: Some(part(1, 0, width)),
        scale: 1.0,
    }
}

fn rms_row(width: usize, index: usize) -> Vec<f64> {
    rms_norm(
        &Tensor::new(&[width], part(0, index * width, width)),
        &rms(width),
    )
    .data
}
