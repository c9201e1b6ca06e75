//! Ranges of keys that each hold a part of a call: two phases over them are bit for bit the whole
//! call.

use crate::accuracy::random_spec;
use crate::gradients::run_backward;
use crate::support::{How, Owned, Values, bits, every_way, run, to_f32};
use diffattn::{
    AttentionGradients, AttentionNeeds, AttentionOptions, Data, DataMut, DiffAttentionBackward,
    Error, ErrorKind, GradientOptions, PartialAttention, PartialStatistics, RowStatistics, Tensor,
    WholeRows,
};
use diffattn_reference::{AttentionSpec, Norm, Tensor as Reference};

/// Where the keys of `lk` are cut.
fn cuts(lk: usize) -> Vec<Vec<usize>> {
    let every = |step: usize| {
        (0..=lk.div_ceil(step))
            .map(|i| (i * step).min(lk))
            .collect()
    };
    vec![
        vec![0, lk],
        every(256),
        every(512),
        vec![0, 256, lk],
        vec![0, 512, 512, lk],
    ]
}

/// Columns `from..to` of the last axis.
fn columns<T: Copy>(data: &[T], last: usize, from: usize, to: usize) -> Vec<T> {
    let rows = data.chunks(last.max(1));
    rows.flat_map(|row| row[from..to].to_vec()).collect()
}

/// What one range sees of a specification: its keys, values and masks, all counted from its first
/// key.
fn part(spec: &AttentionSpec, from: usize, to: usize) -> AttentionSpec {
    let [lq, lk] = [spec.q.shape[2], spec.k.shape[2]];
    let keys = |x: &Reference<f64>| {
        let width = x.shape[3];
        let data = columns(&x.data, lk * width, from * width, to * width);
        Reference::new(&[x.shape[0], x.shape[1], to - from, width], data)
    };
    let last = |shape: &[usize]| {
        let mut shape = shape.to_vec();
        if let Some(last) = shape.last_mut() {
            *last = to - from;
        }
        shape
    };
    let whole_offset = vec![lk as i64 - lq as i64; spec.q.shape[0]];
    let offsets = spec.query_offset.clone().unwrap_or(whole_offset);
    let blocks = |x: &Reference<bool>| {
        let (first, end) = (from / 64, to.div_ceil(64));
        let mut shape = x.shape.clone();
        shape[3] = end - first;
        Reference::new(&shape, columns(&x.data, x.shape[3], first, end))
    };
    AttentionSpec {
        k: keys(&spec.k),
        v: keys(&spec.v),
        mask: spec
            .mask
            .as_ref()
            .map(|x| Reference::new(&last(&x.shape), columns(&x.data, lk, from, to))),
        bias: spec
            .bias
            .as_ref()
            .map(|x| Reference::new(&last(&x.shape), columns(&x.data, lk, from, to))),
        block_mask: spec.block_mask.as_ref().map(blocks),
        key_lengths: spec
            .key_lengths
            .as_ref()
            .map(|lengths| lengths.iter().map(|&n| n.clamp(from, to) - from).collect()),
        query_offset: Some(offsets.iter().map(|offset| offset - from as i64).collect()),
        ..spec.clone()
    }
}

/// The result and log-sum-exps of a call in ranges that end at `ends`.
fn in_ranges(
    spec: &AttentionSpec,
    how: &How,
    ends: &[usize],
) -> Result<(Vec<f32>, Vec<f32>), Error> {
    let parts: Vec<_> = ends
        .windows(2)
        .map(|ends| part(spec, ends[0], ends[1]))
        .collect();
    let owned: Vec<_> = parts
        .iter()
        .map(|part| Owned::new(part, how.layout))
        .collect();
    let options: Vec<_> = owned
        .iter()
        .zip(&parts)
        .map(|(owned, part)| owned.options(part, how))
        .collect();
    let mut ranges = Vec::new();
    for (owned, options) in owned.iter().zip(&options) {
        ranges.push(PartialAttention::new(
            owned.q(),
            owned.k(),
            owned.v(),
            options,
        )?);
    }
    // In any order: the last first.
    let mut statistics: Vec<PartialStatistics> = Vec::new();
    for range in ranges.iter().rev() {
        statistics.insert(0, range.statistics()?);
    }
    let rows = ranges[0].merge(&statistics)?;
    let mut accumulator = vec![0.0; ranges[0].accumulator_shape().iter().product()];
    for range in &ranges {
        range.accumulate(&rows, &mut accumulator)?;
    }
    let mut out = vec![f32::NAN; accumulator.len()];
    let mut lse = vec![f32::NAN; rows.row_max.len()];
    let last = ranges.len() - 1;
    ranges[last].finish(
        &rows,
        &mut accumulator,
        DataMut::F32(&mut out),
        Some(&mut lse),
    )?;
    Ok((out, lse))
}

fn check(spec: &AttentionSpec, what: &str) {
    for how in every_way() {
        let whole = run(spec, &how).unwrap();
        for ends in cuts(spec.k.shape[2]) {
            let (out, lse) = in_ranges(spec, &how, &ends).unwrap();
            assert_eq!(bits(&out), bits(&whole.0), "{what} {how:?} cut at {ends:?}");
            assert_eq!(
                bits(&lse),
                bits(&whole.1),
                "lse of {what} {how:?} cut at {ends:?}"
            );
        }
    }
}

/// Masks, windows, biases, λ of every form, shared heads and norms, as the random calls have them.
#[test]
fn ranges_of_random_calls_equal_the_whole() {
    for (seed, &(lq, lk, d, dv)) in [(20, 600, 8, 16), (70, 1030, 16, 5), (3, 700, 20, 24)]
        .iter()
        .enumerate()
    {
        for n in 0..4 {
            let spec = random_spec(7000 + 10 * seed as u64 + n, lq, lk, d, dv, n == 3);
            check(&spec, &format!("call {seed} {n}"));
        }
    }
}

/// One term to four, causal and windowed, heads in groups, a norm, sinks and a block mask.
#[test]
fn ranges_of_every_number_of_terms_equal_the_whole() {
    let mut values = Values(99);
    for terms in 1..=4 {
        let (heads, groups) = (4, 2);
        let (lq, lk, width) = (67, 800, 12);
        let coefficients: Vec<f64> = (0..terms).map(|t| [1.0, -0.5, 0.25, 0.125][t]).collect();
        let q = values.tensor(&[2, heads * terms, lq, width]);
        let k = values.tensor(&[2, groups * terms, lk, width]);
        let v = values.tensor(&[2, groups, lk, 20]);
        let pairing = diffattn_reference::Pairing::Interleaved { flat: false };
        let plan = diffattn_reference::plan(
            pairing,
            [heads * terms, groups * terms, groups],
            &coefficients,
        );
        let norm = Norm {
            eps: 1e-5,
            weight: None,
            scale: 0.8,
        };
        let plain = AttentionSpec {
            causal: true,
            norm: Some(norm),
            ..AttentionSpec::new(q, k, v, plan)
        };
        let blocks = (0..2 * heads * 2 * 13).map(|_| values.chance(3)).collect();
        let special = AttentionSpec {
            sinks: Some(values.tensor(&[heads, terms])),
            block_mask: Some(Reference::new(&[2, heads, 2, 13], blocks)),
            window: [Some(500), None],
            ..plain.clone()
        };
        check(&plain, &format!("{terms} terms"));
        check(
            &special,
            &format!("{terms} terms, sinks, window and block mask"),
        );
    }
}

/// The gradients of a call in ranges: statistics merged, δ added up, then each range's part. dq adds
/// up, dk, dv and the bias's lie one behind the other, the others are whole from any range.
fn gradients_in_ranges(
    spec: &AttentionSpec,
    dy: &Reference<f64>,
    pre_norm: &[f32],
    how: &How,
    ends: &[usize],
) -> Vec<AttentionGradients> {
    let parts: Vec<_> = ends
        .windows(2)
        .map(|ends| part(spec, ends[0], ends[1]))
        .collect();
    let owned: Vec<_> = (parts.iter())
        .map(|part| Owned::new(part, how.layout))
        .collect();
    let options: Vec<_> = (owned.iter().zip(&parts))
        .map(|(owned, part)| AttentionOptions {
            return_lse: false,
            ..owned.options(part, how)
        })
        .collect();
    let mut statistics = Vec::new();
    let mut ranges = Vec::new();
    for (owned, options) in owned.iter().zip(&options) {
        let range = PartialAttention::new(owned.q(), owned.k(), owned.v(), options).unwrap();
        statistics.push(range.statistics().unwrap());
        ranges.push(range);
    }
    let rows = ranges[0].merge(&statistics).unwrap();
    let data = to_f32(&dy.data);
    let call = |index: usize, delta: Option<&[f64]>| {
        let gradients = GradientOptions {
            needs: Some(AttentionNeeds {
                attn_bias: options[index].attn_bias.is_some(),
                ..AttentionNeeds::given(&options[index])
            }),
            pre_norm: (options[index].norm.is_some()).then(|| Tensor::f32(pre_norm, &dy.shape)),
            whole_rows: Some(WholeRows {
                statistics: &rows,
                delta,
            }),
        };
        let of = &owned[index];
        let qkv = [of.q(), of.k(), of.v()];
        let dy = Tensor::f32(&data, &dy.shape);
        let call = DiffAttentionBackward::new(dy, qkv, &options[index], &gradients).unwrap();
        let shapes = call.shapes().clone();
        match delta {
            None => (call.deltas().unwrap(), AttentionGradients::default()),
            Some(_) => {
                let mut out = shapes.zeros().unwrap();
                call.into_work(out.as_outputs()).unwrap().finish().unwrap();
                (Vec::new(), out)
            }
        }
    };
    let mut delta = call(0, None).0;
    for index in 1..ranges.len() {
        for (sum, of) in delta.iter_mut().zip(call(index, None).0) {
            *sum += of;
        }
    }
    (0..ranges.len())
        .map(|index| call(index, Some(&delta)).1)
        .collect()
}

/// What gradients in ranges may be off by, of the largest: the backstop of gradients.
const BACKSTOP: f64 = 2e-6;

/// The gradients of ranges, put together, are those of the whole call.
#[test]
fn gradients_in_ranges_are_those_of_the_whole() {
    for seed in 0..6_u64 {
        let [lq, lk, d, dv] = [[40, 700, 8, 16], [70, 1030, 16, 8]][(seed % 2) as usize];
        let mut spec = random_spec(7100 + seed, lq, lk, d, dv, seed == 3);
        // The result before its norm is the call without one.
        let plain = AttentionSpec {
            norm: None,
            ..spec.clone()
        };
        spec.causal = seed != 2;
        let how = How::new(diffattn::Isa::detect());
        let plain = AttentionSpec {
            causal: spec.causal,
            ..plain
        };
        let (pre_norm, _) = run(&plain, &how).unwrap();
        let shape = {
            let heads = spec.heads.len();
            let width = pre_norm.len() / (spec.q.shape[0] * heads * lq);
            [spec.q.shape[0], heads, lq, width]
        };
        let mut values = Values(seed + 1);
        let dy = values.tensor(&shape);
        let whole = run_backward(&spec, &dy, &how).unwrap();
        for ends in cuts(lk) {
            let parts = gradients_in_ranges(&spec, &dy, &pre_norm, &how, &ends);
            for (name, expected) in &whole {
                let of = |part: &AttentionGradients| {
                    let named = [
                        ("dq", &part.dq),
                        ("dk", &part.dk),
                        ("dv", &part.dv),
                        ("dlambda", &part.dlambda),
                        ("dcoefficients", &part.dcoefficients),
                        ("dnorm_weight", &part.dnorm_weight),
                        ("dbias", &part.dattn_bias),
                        ("dsinks", &part.dsinks),
                    ];
                    let found = named.into_iter().find(|(of, _)| of == name);
                    found
                        .and_then(|(_, values)| values.clone())
                        .unwrap_or_default()
                };
                let mut got = of(&parts[0]);
                if *name == "dq" {
                    for part in &parts[1..] {
                        got.iter_mut()
                            .zip(of(part))
                            .for_each(|(sum, value)| *sum += value);
                    }
                } else if ["dk", "dv", "dbias"].contains(name) {
                    let width = match *name {
                        "dk" => d,
                        "dv" => spec.v.shape[3],
                        _ => 1,
                    };
                    let rows = expected.len() / (lk * width);
                    got = Vec::new();
                    for row in 0..rows {
                        for (part, ends) in parts.iter().zip(ends.windows(2)) {
                            let len = (ends[1] - ends[0]) * width;
                            got.extend(&of(part)[row * len..][..len]);
                        }
                    }
                }
                assert_eq!(got.len(), expected.len(), "{name}");
                let largest = expected.iter().fold(0.0, |max: f32, x| max.max(x.abs()));
                let off = (got.iter().zip(expected))
                    .map(|(x, y)| f64::from((x - y).abs()))
                    .fold(0.0, f64::max);
                let limit = if *name == "dlambda" || *name == "dsinks" {
                    10.0 * BACKSTOP
                } else {
                    BACKSTOP
                };
                assert!(
                    off <= limit * f64::from(largest),
                    "call {seed} cut at {ends:?}: {name} is off by {off} of {largest}"
                );
            }
        }
    }
}

/// What of whole rows does not fit is named.
#[test]
fn other_whole_rows_are_refused() {
    let values = vec![0.5_f32; 4 * 300];
    let tensor = |len: usize| Tensor::f32(&values[..4 * len], &[1, 1, len, 4]);
    let options = AttentionOptions {
        coefficients: Some(&[1.0]),
        ..AttentionOptions::default()
    };
    let range = PartialAttention::new(tensor(2), tensor(300), tensor(300), &options).unwrap();
    let rows = range.merge(&[range.statistics().unwrap()]).unwrap();
    let call =
        |statistics: &RowStatistics, delta: Option<&[f64]>, options: &AttentionOptions<'_>| {
            let gradients = GradientOptions {
                whole_rows: Some(WholeRows { statistics, delta }),
                ..GradientOptions::default()
            };
            let qkv = [tensor(2), tensor(300), tensor(300)];
            DiffAttentionBackward::new(tensor(2), qkv, options, &gradients).map(|call| {
                let mut out = call.shapes().zeros().unwrap();
                let deltas = call.deltas().map(|_| ());
                let again = DiffAttentionBackward::new(
                    tensor(2),
                    [tensor(2), tensor(300), tensor(300)],
                    options,
                    &gradients,
                );
                let work = again.unwrap().into_work(out.as_outputs()).map(|_| ());
                (deltas, work)
            })
        };
    let (deltas, work) = call(&rows, None, &options).unwrap();
    assert!(deltas.is_ok());
    assert!(work.unwrap_err().to_string().contains("whole_rows"));
    let (deltas, work) = call(&rows, Some(&[0.0; 2]), &options).unwrap();
    assert!(deltas.unwrap_err().to_string().contains("whole_rows"));
    assert!(work.is_ok());
    let short = RowStatistics {
        row_max: vec![0.0],
        row_sum: vec![0.0],
    };
    let refused = [
        call(&short, None, &options),
        call(&rows, Some(&[0.0]), &options),
        call(
            &rows,
            None,
            &AttentionOptions {
                is_causal: true,
                ..options.clone()
            },
        ),
    ];
    for refused in refused {
        let error = refused.map(|_| ()).unwrap_err();
        assert!(
            matches!(error.kind(), Some(ErrorKind::Shape | ErrorKind::Option)),
            "{error}"
        );
    }
}

/// NaN and infinities among the values, rows that see nothing of some ranges, or nothing at all.
#[test]
fn ranges_keep_what_is_special() {
    let mut spec = random_spec(7777, 40, 900, 8, 16, false);
    spec.causal = true;
    spec.query_offset = Some(vec![-10; spec.q.shape[0]]);
    for (at, value) in [
        (3, f64::NAN),
        (4000, f64::INFINITY),
        (9000, f64::NEG_INFINITY),
    ] {
        let len = spec.v.data.len();
        spec.v.data[at % len] = value;
    }
    check(&spec, "special values");
}

#[test]
fn ranges_are_checked() {
    let (q, k) = ([0.5; 16], [0.5; 1200]);
    let tensor = |data, shape: [usize; 4]| Tensor {
        data: Data::F32(data),
        shape: shape.to_vec(),
    };
    let make = |options: &AttentionOptions<'static>, keys: usize| {
        let kv = |data| tensor(data, [1, 1, keys, 4]);
        PartialAttention::new(
            tensor(&q[..4], [1, 1, 1, 4]),
            kv(&k[..keys * 4]),
            kv(&k[..keys * 4]),
            options,
        )
        .map(|partial| partial.statistics_shape())
    };
    let options = AttentionOptions {
        coefficients: Some(&[1.0]),
        is_causal: true,
        ..AttentionOptions::default()
    };
    let refused = make(&options, 3).unwrap_err();
    assert_eq!(refused.kind(), Some(ErrorKind::Option));
    assert_eq!(
        refused.to_string(),
        "query_offset: expected the first query's key position in the range, got none"
    );
    let options = AttentionOptions {
        query_offset: Some(vec![299]),
        ..options
    };
    assert_eq!(make(&options, 3).unwrap(), [1, 1, 1, 1]);
    let range = |keys: usize| {
        let kv = tensor(&k[..keys * 4], [1, 1, keys, 4]);
        PartialAttention::new(tensor(&q[..4], [1, 1, 1, 4]), kv.clone(), kv, &options).unwrap()
    };
    let (short, rest) = (range(100), range(200));
    let statistics = [short.statistics().unwrap(), rest.statistics().unwrap()];
    assert_eq!(
        short.merge(&statistics).unwrap_err().to_string(),
        "statistics: expected ranges of multiples of 256 keys before the last, got 100"
    );
    let rows = short.merge(&statistics[..1]).unwrap();
    assert!(
        short
            .accumulate(&rows, &mut [0.0; 3])
            .unwrap_err()
            .to_string()
            .starts_with("accumulator: ")
    );
}
