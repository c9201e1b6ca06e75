//! What must not change a bit of a row: threads, slices, batch, how many queries run at once,
//! layout, packing, a cache, the lane count; and what must not matter at all: masked values.

use crate::accuracy::random_spec;
use crate::support::{How, Owned, Values, bits, every_way, run, run_cached, run_maps};
use diffattn::{
    AttentionOptions, CacheDType, Data, DataMut, DiffAttention, Isa, KeysValues, KvCache,
    KvCacheOptions, Lambda, Layout, Tensor,
};
use diffattn_reference::{AttentionSpec, Head, Tensor as Reference};

/// Random calls of sizes around the tile edges.
fn specs() -> Vec<AttentionSpec> {
    let sizes = [
        (1, 300, 64, 128),
        (16, 40, 32, 33),
        (17, 17, 3, 5),
        (49, 520, 16, 24),
        (100, 100, 20, 16),
        (97, 273, 33, 64),
    ];
    let each = |(index, &(lq, lk, d, dv)): (usize, &(usize, usize, usize, usize))| {
        (0..4)
            .map(move |n| random_spec(1000 * index as u64 + n, lq, lk, d, dv, n == 3))
            .collect::<Vec<_>>()
    };
    sizes.iter().enumerate().flat_map(each).collect()
}

fn both(spec: &AttentionSpec, how: &How) -> (Vec<u32>, Vec<u32>) {
    let (out, lse) = run(spec, how).unwrap();
    (bits(&out), bits(&lse))
}

#[test]
fn threads_slices_and_layout_change_nothing() {
    for spec in specs() {
        for how in every_way() {
            let expected = both(&spec, &how);
            for threads in [2, 3, 7, 16] {
                assert_eq!(
                    both(&spec, &How { threads, ..how }),
                    expected,
                    "{threads} threads {how:?}"
                );
            }
            assert_eq!(
                both(&spec, &How { slice: 1, ..how }),
                expected,
                "one unit at a time {how:?}"
            );
            assert_eq!(
                both(
                    &spec,
                    &How {
                        layout: Layout::Bshd,
                        ..how
                    }
                ),
                expected,
                "bshd {how:?}"
            );
        }
    }
}

#[test]
fn instruction_sets_fall_into_two_classes() {
    for spec in specs() {
        let (mut fused, mut unfused) = (Vec::new(), Vec::new());
        for how in every_way() {
            let result = (how, both(&spec, &how));
            if how.deterministic || how.isa.name() == "scalar" {
                unfused.push(result)
            } else {
                fused.push(result)
            }
        }
        for class in [fused, unfused] {
            for (how, result) in &class {
                assert_eq!(*result, class[0].1, "{how:?} against {:?}", class[0].0);
            }
        }
    }
}

/// Rows `rows` of the queries alone.
fn stretch(spec: &AttentionSpec, first: usize, end: usize) -> AttentionSpec {
    let take = |tensor: &Reference<f64>, axis: usize| {
        if tensor.shape[axis] == 1 && spec.q.shape[2] != 1 {
            return tensor.clone();
        }
        let inner: usize = tensor.shape[axis + 1..].iter().product();
        let rows = tensor.shape[axis];
        let data = tensor
            .data
            .chunks((rows * inner).max(1))
            .flat_map(|block| block[first * inner..end * inner].to_vec())
            .collect();
        let mut shape = tensor.shape.clone();
        shape[axis] = end - first;
        Reference::new(&shape, data)
    };
    let (lq, lk) = (spec.q.shape[2] as i64, spec.k.shape[2] as i64);
    let offsets = spec
        .query_offset
        .clone()
        .unwrap_or_else(|| vec![lk - lq; spec.q.shape[0]]);
    AttentionSpec {
        q: take(&spec.q, 2),
        lambda: spec.lambda.as_ref().map(|lambda| take(lambda, 1)),
        bias: spec.bias.as_ref().map(|bias| take(bias, 2)),
        mask: spec.mask.as_ref().map(|mask| {
            let wide = Reference::new(
                &mask.shape,
                mask.data
                    .iter()
                    .map(|&seen| f64::from(u8::from(seen)))
                    .collect(),
            );
            let taken = take(&wide, 2);
            Reference::new(
                &taken.shape,
                taken.data.iter().map(|&seen| seen != 0.0).collect(),
            )
        }),
        query_offset: Some(offsets.iter().map(|offset| offset + first as i64).collect()),
        ..spec.clone()
    }
}

/// One query alone (the decode path), a few, and all (the row blocks): the same rows.
#[test]
fn how_many_queries_run_at_once_changes_nothing() {
    for spec in specs() {
        let lq = spec.q.shape[2];
        let heads = spec.q.shape[0] * spec.heads.len();
        let width = spec.output_width();
        for how in every_way() {
            let (whole, _) = run(&spec, &how).unwrap();
            let whole = bits(&whole);
            for (first, end) in [
                (0, 1),
                (lq / 2, lq / 2 + 1),
                (lq - 1, lq),
                (lq / 3, (lq / 3 + 16).min(lq)),
                (lq / 4, (lq / 4 + 19).min(lq)),
            ] {
                let (part, _) = run(&stretch(&spec, first, end), &how).unwrap();
                let rows: Vec<u32> = (0..heads)
                    .flat_map(|head| {
                        whole[(head * lq + first) * width..(head * lq + end) * width].to_vec()
                    })
                    .collect();
                assert_eq!(bits(&part), rows, "queries {first}..{end} of {lq} {how:?}");
            }
        }
    }
}

#[test]
fn batch_entries_do_not_meet() {
    for spec in specs().into_iter().filter(|spec| spec.q.shape[0] == 2) {
        let half = |tensor: &Reference<f64>, entry: usize| {
            if tensor.shape[0] == 1 {
                return tensor.clone();
            }
            let len = tensor.data.len() / 2;
            let mut shape = tensor.shape.clone();
            shape[0] = 1;
            Reference::new(&shape, tensor.data[entry * len..(entry + 1) * len].to_vec())
        };
        let how = How::new(Isa::detect());
        let whole = bits(&run(&spec, &how).unwrap().0);
        for entry in 0..2 {
            let alone = AttentionSpec {
                q: half(&spec.q, entry),
                k: half(&spec.k, entry),
                v: half(&spec.v, entry),
                lambda: spec.lambda.as_ref().map(|lambda| half(lambda, entry)),
                bias: spec.bias.as_ref().map(|bias| half(bias, entry)),
                mask: spec.mask.as_ref().map(|mask| {
                    let wide = Reference::new(
                        &mask.shape,
                        mask.data
                            .iter()
                            .map(|&seen| f64::from(u8::from(seen)))
                            .collect(),
                    );
                    let half = half(&wide, entry);
                    Reference::new(
                        &half.shape,
                        half.data.iter().map(|&seen| seen != 0.0).collect(),
                    )
                }),
                key_lengths: spec
                    .key_lengths
                    .as_ref()
                    .map(|lengths| vec![lengths[entry]]),
                query_offset: spec
                    .query_offset
                    .as_ref()
                    .map(|offsets| vec![offsets[entry]]),
                ..spec.clone()
            };
            let len = whole.len() / 2;
            assert_eq!(
                bits(&run(&alone, &how).unwrap().0),
                whole[entry * len..(entry + 1) * len].to_vec()
            );
        }
    }
}

/// NaN and infinities where no row sees them: as zeros.
#[test]
fn masked_values_do_not_matter() {
    let mut values = Values(5);
    let head = Head {
        q: vec![0, 1],
        k: vec![0, 1],
        v: vec![0],
        coefficients: vec![1.0, -0.4],
    };
    let [q, k, v] =
        [[1, 2, 60, 16], [1, 2, 300, 16], [1, 1, 300, 24]].map(|shape| values.tensor(&shape));
    let mut spec = AttentionSpec::new(q, k, v, vec![head]);
    spec.window = [Some(30), Some(2)];
    spec.key_lengths = Some(vec![290]);
    let mask: Vec<bool> = (0..60 * 300).map(|_| !values.chance(5)).collect();
    spec.mask = Some(Reference::new(&[1, 1, 60, 300], mask));
    // Keys that the window, the length or the mask hides from everyone, beside keys that rows see.
    for key in 0..300usize {
        if key.is_multiple_of(7) {
            let mask = spec.mask.as_mut().unwrap();
            (0..60).for_each(|row| mask.data[row * 300 + key] = false);
        }
    }
    let hidden = |key: usize| key.is_multiple_of(7) || !(300 - 60 - 30..290).contains(&key);
    let with = |poison: f64| {
        let mut spec = spec.clone();
        for key in (0..300).filter(|&key| hidden(key)) {
            for head in 0..2 {
                spec.k.data[(head * 300 + key) * 16 + key % 16] = poison;
            }
            spec.v.data[key * 24 + key % 24] = poison;
        }
        spec
    };
    for how in every_way() {
        let zeros = both(&with(0.0), &how);
        assert!(zeros.0.iter().all(|&value| !f32::from_bits(value).is_nan()));
        for poison in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(both(&with(poison), &how), zeros, "{poison} {how:?}");
        }
        // The decode path, too.
        let row = stretch(&with(f64::NAN), 40, 41);
        assert_eq!(
            both(&row, &how),
            both(&stretch(&with(0.0), 40, 41), &how),
            "decode {how:?}"
        );
    }
}

#[test]
fn packed_sequences_equal_each_alone() {
    let mut values = Values(9);
    let (lq, lk) = ([5, 1, 17, 0, 60], [5, 300, 17, 3, 70]);
    let head = |h: usize| Head {
        q: vec![2 * h, 2 * h + 1],
        k: vec![0, 1],
        v: vec![0],
        coefficients: vec![1.0, -0.4],
    };
    let sums = |lengths: &[usize]| {
        lengths
            .iter()
            .fold(vec![0], |mut sums: Vec<usize>, length| {
                sums.push(sums.last().unwrap() + length);
                sums
            })
    };
    let (cu_q, cu_k) = (sums(&lq), sums(&lk));
    let [q, k, v] = [
        [1, 4, cu_q[5], 16],
        [1, 2, cu_k[5], 16],
        [1, 1, cu_k[5], 24],
    ]
    .map(|shape| values.tensor(&shape));
    let mut packed = AttentionSpec::new(q, k, v, vec![head(0), head(1)]);
    packed.causal = true;
    packed.cu_seqlens = Some([cu_q.clone(), cu_k.clone()]);
    let slice = |tensor: &Reference<f64>, cu: &[usize], n: usize| {
        let (rows, width) = (tensor.shape[2], tensor.shape[3]);
        let heads = tensor.data.chunks(rows * width);
        let data = heads
            .flat_map(|head| head[cu[n] * width..cu[n + 1] * width].to_vec())
            .collect();
        Reference::new(&[1, tensor.shape[1], cu[n + 1] - cu[n], width], data)
    };
    for how in every_way() {
        let whole = bits(&run(&packed, &how).unwrap().0);
        for n in 0..5 {
            let alone = AttentionSpec {
                q: slice(&packed.q, &cu_q, n),
                k: slice(&packed.k, &cu_k, n),
                v: slice(&packed.v, &cu_k, n),
                cu_seqlens: None,
                ..packed.clone()
            };
            let rows: Vec<u32> = (0..2)
                .flat_map(|h| {
                    whole[(h * cu_q[5] + cu_q[n]) * 24..(h * cu_q[5] + cu_q[n + 1]) * 24].to_vec()
                })
                .collect();
            assert_eq!(
                bits(&run(&alone, &how).unwrap().0),
                rows,
                "sequence {n} {how:?}"
            );
        }
    }
}

/// A cache filled in uneven steps, rewound and filled again, decodes with the bits of the prefill.
#[test]
fn a_cache_equals_the_tensors() {
    let mut values = Values(11);
    let (batch, lk, d, dv) = (2, 300, 24, 40);
    let head = |h: usize| Head {
        q: vec![2 * h, 2 * h + 1],
        k: vec![2 * (h / 2), 2 * (h / 2) + 1],
        v: vec![h / 2],
        coefficients: vec![1.0, -0.4],
    };
    let [q, k, v] = [[batch, 8, lk, d], [batch, 4, lk, d], [batch, 2, lk, dv]]
        .map(|shape| values.tensor(&shape));
    let mut spec = AttentionSpec::new(q, k, v, (0..4).map(head).collect());
    spec.causal = true;
    spec.v.data[5 * dv] = f64::INFINITY;
    let rows = |tensor: &Reference<f64>, first: usize, end: usize| {
        let width = tensor.shape[3];
        let data: Vec<f32> = tensor
            .data
            .chunks(tensor.shape[2] * width)
            .flat_map(|head| {
                head[first * width..end * width]
                    .iter()
                    .map(|&x| x as f32)
                    .collect::<Vec<_>>()
            })
            .collect();
        (
            data,
            vec![tensor.shape[0], tensor.shape[1], end - first, width],
        )
    };
    let options = KvCacheOptions {
        batch,
        groups: 2,
        terms: 2,
        head_dim: d,
        value_dim: dv,
        capacity: 0,
        dtype: CacheDType::F32,
    };
    let mut cache = KvCache::new(options).unwrap();
    let append = |cache: &mut KvCache, first: usize, end: usize| {
        let ((k, k_shape), (v, v_shape)) = (rows(&spec.k, first, end), rows(&spec.v, first, end));
        cache
            .append(
                Tensor {
                    data: Data::F32(&k),
                    shape: k_shape,
                },
                Tensor {
                    data: Data::F32(&v),
                    shape: v_shape,
                },
                Layout::Bhsd,
            )
            .unwrap();
    };
    append(&mut cache, 100, 290);
    cache.rewind(0).unwrap();
    assert!(cache.rewind(1).is_err());
    let mut held = 0;
    for step in [1, 15, 240, 1, 30, 13] {
        append(&mut cache, held, held + step);
        held += step;
        assert_eq!(cache.len(), held);
        for how in every_way()
            .into_iter()
            .flat_map(|how| [how, How { threads: 3, ..how }])
        {
            for queries in [1, 3, 20.min(held)] {
                // The prefill of the tokens held, and its last rows alone on the cache.
                let prefill = AttentionSpec {
                    k: Reference::new(
                        &[batch, 4, held, d],
                        rows(&spec.k, 0, held)
                            .0
                            .iter()
                            .map(|&x| f64::from(x))
                            .collect(),
                    ),
                    v: Reference::new(
                        &[batch, 2, held, dv],
                        rows(&spec.v, 0, held)
                            .0
                            .iter()
                            .map(|&x| f64::from(x))
                            .collect(),
                    ),
                    q: Reference::new(
                        &[batch, 8, held, d],
                        rows(&spec.q, 0, held)
                            .0
                            .iter()
                            .map(|&x| f64::from(x))
                            .collect(),
                    ),
                    ..spec.clone()
                };
                let last = AttentionSpec {
                    query_offset: None,
                    ..stretch(&prefill, held.saturating_sub(queries), held)
                };
                let whole = bits(&run(&prefill, &how).unwrap().0);
                let queries = queries.min(held);
                let expected: Vec<u32> = (0..batch * 4)
                    .flat_map(|head| {
                        whole[(head * held + held - queries) * dv..(head + 1) * held * dv].to_vec()
                    })
                    .collect();
                assert_eq!(
                    bits(&run_cached(&last, &cache, &how).unwrap().0),
                    expected,
                    "{held} held, {queries} queries {how:?}"
                );
            }
        }
    }
    let (k, v) = cache.export().unwrap();
    let [k, v] = [k.to_f32(d).unwrap(), v.to_f32(dv).unwrap()];
    assert_eq!(bits(&k), bits(&rows(&spec.k, 0, held).0));
    assert_eq!(bits(&v), bits(&rows(&spec.v, 0, held).0));
}

#[test]
fn a_stretch_of_map_rows_equals_the_whole() {
    for spec in specs() {
        let (lq, lk) = (spec.q.shape[2], spec.k.shape[2]);
        let how = How::new(Isa::detect());
        let whole = run_maps(&spec, &how, [0, lq]).unwrap();
        let (first, end) = (lq / 3, lq / 3 + lq.div_ceil(2));
        for (map, part) in whole.iter().zip(
            run_maps(
                &spec,
                &How {
                    threads: 2,
                    slice: 1,
                    ..how
                },
                [first, end],
            )
            .unwrap(),
        ) {
            let rows: Vec<f32> = map
                .chunks(lq * lk)
                .flat_map(|head| head[first * lk..end * lk].to_vec())
                .collect();
            assert_eq!(bits(&rows), bits(&part));
        }
    }
}

/// Inputs are read only through their own lengths: both layouts of one tensor agree (a stride error
/// would not).
#[test]
fn owned_shapes_follow_the_layout() {
    let spec = specs().remove(0);
    let owned = Owned::new(&spec, Layout::Bshd);
    assert_eq!(owned.q().shape[1], spec.q.shape[2]);
}

/// A cache that lets go of tokens that no window reaches gives the bits of one that does not: at
/// its end, and when it grows again over what lay there, NaN and infinities among it.
#[test]
fn discarded_tokens() {
    let (d, dv) = (12, 20);
    let options = KvCacheOptions {
        batch: 2,
        groups: 1,
        terms: 2,
        head_dim: d,
        value_dim: dv,
        capacity: 0,
        dtype: CacheDType::F32,
    };
    let value = |at: usize| ((at as f32 * 0.618_034).fract() - 0.5) * 2.0;
    // The same of every token in both caches: values by position, some special.
    let rows = |first: usize, end: usize, heads: usize, width: usize| -> Vec<f32> {
        let mut rows = Vec::new();
        for batch in 0..2 {
            for token in first..end {
                for at in 0..heads * width {
                    let special = heads == 1 && at == batch && token % 211 == 50;
                    let value = value((batch * 4096 + token) * 64 + at * 7);
                    rows.push(if special { f32::NAN } else { value });
                }
            }
        }
        rows
    };
    let append = |cache: &mut KvCache, first: usize, end: usize| {
        let (k, v) = (rows(first, end, 2, d), rows(first, end, 1, dv));
        let k = Tensor::f32(&k, &[2, end - first, 2, d]);
        let v = Tensor::f32(&v, &[2, end - first, 1, dv]);
        cache.append(k, v, Layout::Bshd).unwrap();
    };
    let (mut whole, mut short) = (
        KvCache::new(options).unwrap(),
        KvCache::new(options).unwrap(),
    );
    assert_eq!(short.discard_before(1000), 0, "it holds none");
    let (window, mut held, mut gone) = (90, 0, 0);
    for step in [200, 56, 100, 300, 1, 400, 3, 511] {
        append(&mut whole, held, held + step);
        append(&mut short, held, held + step);
        held += step;
        for queries in [1, 4, step.min(40)] {
            let q = rows(held - queries, held, 2, d);
            let attend = |cache: &KvCache| {
                let options = AttentionOptions {
                    lambda: Some(Lambda::Value(0.4)),
                    layout: Layout::Bshd,
                    is_causal: true,
                    window: Some([Some(window - 1), None]),
                    ..AttentionOptions::default()
                };
                let q = Tensor::f32(&q, &[2, queries, 2, d]);
                let mut out = vec![0.0f32; 2 * queries * dv];
                let call = DiffAttention::new(q, KeysValues::Cache(cache), &options).unwrap();
                let work = call.into_work(DataMut::F32(&mut out), None).unwrap();
                work.finish().unwrap();
                out.iter()
                    .map(|x| if x.is_nan() { f32::NAN } else { *x }.to_bits())
                    .collect::<Vec<_>>()
            };
            assert_eq!(
                attend(&whole),
                attend(&short),
                "{held} tokens, {queries} queries"
            );
        }
        // The next query sees window − 1 of those held; 39 more were seen by the others above.
        let first = (held + 1).saturating_sub(window + 40);
        gone += short.discard_before(first.saturating_sub(gone));
        assert_eq!(gone, first / 256 * 256);
        assert_eq!(short.len(), held - gone);
    }
}
