//! Ranges of keys that each hold a part of a call: two phases over them are bit for bit the whole
//! call.

use crate::accuracy::random_spec;
use crate::support::{How, Owned, Values, bits, every_way, run};
use diffattn::{
    AttentionOptions, Data, DataMut, Error, ErrorKind, PartialAttention, PartialStatistics, Tensor,
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
