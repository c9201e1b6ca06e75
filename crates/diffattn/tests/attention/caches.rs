//! Caches of every type: what they hold, and that attention sees just that, bit for bit, whatever
//! computes it and however it came there.

use crate::accuracy::random_spec;
use crate::support::{
    DRAWS, How, Values, bits, every_way, maps_of, rotated, run, run_cached, run_maps, to_f32,
};
use diffattn::{
    AttentionOptions, CacheDType, CacheRows, Data, DataMut, DiffAttention, Isa, KeysValues,
    KvCache, KvCacheOptions, Lambda, Layout, Tensor,
};
use diffattn_reference::fixture::{Fixture, folder};
use diffattn_reference::{
    Accuracy, AttentionSpec, Tensor as Reference, attention, quantise_int8_rows,
};
use half::{bf16, f16};

const DTYPES: [CacheDType; 4] = [
    CacheDType::F32,
    CacheDType::F16,
    CacheDType::Bf16,
    CacheDType::Int8,
];

/// What a cache of `dtype` holds of rows of `width` numbers, in float64.
fn held(values: &[f64], width: usize, dtype: CacheDType) -> Vec<f64> {
    let values = to_f32(values);
    let each = |of: fn(f32) -> f64| values.iter().copied().map(of).collect();
    match dtype {
        CacheDType::F32 => each(f64::from),
        CacheDType::F16 => each(|x| f16::from_f32(x).to_f64()),
        CacheDType::Bf16 => each(|x| bf16::from_f32(x).to_f64()),
        CacheDType::Int8 => quantise_int8_rows(&values, width).values(),
    }
}

/// The call whose keys and values are what a cache holds.
fn spec_held(spec: &AttentionSpec, dtype: CacheDType) -> AttentionSpec {
    let of = |tensor: &Reference<f64>| {
        let data = held(&tensor.data, tensor.shape[3], dtype);
        Reference::new(&tensor.shape, data)
    };
    AttentionSpec {
        k: of(&spec.k),
        v: of(&spec.v),
        ..spec.clone()
    }
}

fn options(spec: &AttentionSpec, dtype: CacheDType) -> KvCacheOptions {
    KvCacheOptions {
        batch: spec.k.shape[0],
        groups: spec.v.shape[1],
        terms: spec.k.shape[1] / spec.v.shape[1],
        head_dim: spec.k.shape[3],
        value_dim: spec.v.shape[3],
        capacity: 0,
        dtype,
    }
}

/// Tokens `first..end` of a tensor as float32, with their shape.
fn tokens(tensor: &Reference<f64>, first: usize, end: usize) -> (Vec<f32>, Vec<usize>) {
    let (length, width) = (tensor.shape[2], tensor.shape[3]);
    let heads = tensor.data.chunks((length * width).max(1));
    let rows = heads.flat_map(|head| to_f32(&head[first * width..end * width]));
    let shape = [tensor.shape[0], tensor.shape[1], end - first, width];
    (rows.collect(), shape.to_vec())
}

/// A cache of the keys and values of a call, appended in pieces of `piece` tokens.
fn cache_of(spec: &AttentionSpec, dtype: CacheDType, piece: usize) -> KvCache {
    let mut cache = KvCache::new(options(spec, dtype)).unwrap();
    let length = spec.k.shape[2];
    let mut first = 0;
    while first < length {
        let end = (first + piece).min(length);
        let ((k, k_shape), (v, v_shape)) =
            (tokens(&spec.k, first, end), tokens(&spec.v, first, end));
        let (k, v) = (Tensor::f32(&k, &k_shape), Tensor::f32(&v, &v_shape));
        cache.append(k, v, Layout::Bhsd).unwrap();
        first = end;
    }
    cache
}

/// Random calls whose heads a cache can have.
fn specs(wild: bool) -> Vec<AttentionSpec> {
    let sizes = [
        (1, 300, 64, 128),
        (2, 70, 12, 20),
        (3, 520, 33, 70),
        (4, 257, 128, 64),
        (17, 40, 32, 33),
        (60, 300, 20, 16),
    ];
    let mut specs = Vec::new();
    for (index, &(lq, lk, d, dv)) in sizes.iter().enumerate() {
        for seed in 0..40 {
            let spec = random_spec(7000 * index as u64 + seed, lq, lk, d, dv, wild);
            if spec.k.shape[1].is_multiple_of(spec.v.shape[1]) {
                specs.push(spec);
            }
            if specs.len() > 3 * index + 2 {
                break;
            }
        }
    }
    assert!(specs.len() >= 18);
    specs
}

/// A random call of those sizes whose heads a cache can have.
fn fitting(lq: usize, lk: usize, d: usize, dv: usize) -> AttentionSpec {
    (0..)
        .map(|seed| random_spec(seed, lq, lk, d, dv, false))
        .find(|spec| spec.k.shape[1].is_multiple_of(spec.v.shape[1]))
        .unwrap()
}

/// Few queries and many, masks, windows, norms, lengths: a cache gives the bits of a call over
/// what it holds, on every instruction set, whatever the threads and pieces it was filled in.
#[test]
fn attention_sees_what_a_cache_holds() {
    for spec in specs(false) {
        for dtype in DTYPES {
            let seen = spec_held(&spec, dtype);
            let caches = [1000, 37, 1].map(|piece| cache_of(&spec, dtype, piece));
            for how in every_way() {
                let (out, lse) = run(&seen, &how).unwrap();
                let expected = (bits(&out), bits(&lse));
                let layout = Layout::Bshd;
                let others = [how, How { threads: 3, ..how }, How { layout, ..how }];
                for (cache, how) in caches.iter().zip(others) {
                    let (out, lse) = run_cached(&spec, cache, &how).unwrap();
                    assert_eq!((bits(&out), bits(&lse)), expected, "{dtype:?} {how:?}");
                }
            }
            let how = How::new(Isa::detect());
            let rows = [0, spec.q.shape[2]];
            let maps = maps_of(&spec, Some(&caches[1]), &how, rows).unwrap();
            let expected = run_maps(&seen, &how, rows).unwrap();
            for (map, expected) in maps.iter().zip(&expected) {
                assert_eq!(bits(map), bits(expected), "maps {dtype:?}");
            }
        }
    }
}

/// NaN and infinities are held by floats as they are; of int8 the row is NaN. Rows that see none
/// of them see nothing of them.
#[test]
fn what_is_no_number_is_held_too() {
    for spec in specs(true) {
        for dtype in DTYPES {
            let mut seen = spec.clone();
            for tensor in [&mut seen.k, &mut seen.v] {
                let width = tensor.shape[3];
                for row in tensor.data.chunks_exact_mut(width) {
                    let is_number = row.iter().all(|x| x.is_finite());
                    if is_number || dtype != CacheDType::Int8 {
                        row.copy_from_slice(&held(row, width, dtype));
                    } else {
                        row.fill(f64::NAN);
                    }
                }
            }
            let cache = cache_of(&spec, dtype, 100);
            for how in every_way() {
                let (out, lse) = run(&seen, &how).unwrap();
                let got = run_cached(&spec, &cache, &how).unwrap();
                assert_eq!(bits(&got.0), bits(&out), "{dtype:?} {how:?}");
                assert_eq!(bits(&got.1), bits(&lse), "{dtype:?} {how:?}");
            }
        }
    }
}

/// Token by token as all at once: each row sees what the cache holds, its own token's too.
#[test]
fn decoding_equals_the_prefill() {
    let mut values = Values(5);
    let (batch, length, d, dv) = (2, 290, 20, 36);
    let heads = diffattn_reference::plan(
        diffattn_reference::Pairing::default(),
        [4, 2, 1],
        &[1.0, -1.0],
    );
    let mut spec = AttentionSpec::new(
        values.tensor(&[batch, 4, length, d]),
        values.tensor(&[batch, 2, length, d]),
        values.tensor(&[batch, 1, length, dv]),
        heads,
    );
    spec.lambda = Some(Reference::scalar(0.3));
    spec.causal = true;
    for dtype in DTYPES {
        for how in every_way() {
            let whole = run_cached(&spec, &cache_of(&spec, dtype, length), &how).unwrap();
            let mut cache = KvCache::new(options(&spec, dtype)).unwrap();
            for (first, end) in [(0, 9), (9, 10), (10, 13), (13, 270), (270, 271), (271, 290)] {
                // What is taken back leaves nothing behind.
                for _ in 0..2 {
                    cache.rewind(first).unwrap();
                    let (k, k_shape) = tokens(&spec.k, first, end);
                    let (v, v_shape) = tokens(&spec.v, first, end);
                    let (k, v) = (Tensor::f32(&k, &k_shape), Tensor::f32(&v, &v_shape));
                    cache.append(k, v, Layout::Bhsd).unwrap();
                }
                let (q, shape) = tokens(&spec.q, first, end);
                let q = Reference::new(&shape, q.iter().map(|&x| f64::from(x)).collect());
                let part = AttentionSpec { q, ..spec.clone() };
                let (out, _) = run_cached(&part, &cache, &how).unwrap();
                let rows = |out: &[f32], length: usize, first: usize, end: usize| {
                    let heads = out.chunks_exact(length * dv);
                    let rows = heads.flat_map(|head| bits(&head[first * dv..end * dv]));
                    rows.collect::<Vec<_>>()
                };
                assert_eq!(
                    rows(&out, end - first, 0, end - first),
                    rows(&whole.0, length, first, end),
                    "{dtype:?} tokens {first}..{end} {how:?}"
                );
            }
        }
    }
}

/// The case of the int8 cache: codes, scales and results.
#[test]
fn the_int8_case() {
    let fixture = Fixture::read(&folder().join("cache/cache_int8.safetensors"));
    let (q, k, v) = (fixture.f64("q"), fixture.f64("k"), fixture.f64("v"));
    let counts = [q.shape[1], k.shape[1], v.shape[1]];
    let pairing = diffattn_reference::Pairing::default();
    let heads = diffattn_reference::plan(pairing, counts, &[1.0, -1.0]);
    let mut spec = AttentionSpec::new(q, k, v, heads);
    spec.causal = true;
    spec.lambda = Some(Reference::scalar(0.35));
    let cache = cache_of(&spec, CacheDType::Int8, 7);
    let (k, v) = cache.export().unwrap();
    for (name, rows) in [("k", k), ("v", v)] {
        let CacheRows::Int8 { codes, scales } = rows else {
            panic!("{rows:?}")
        };
        let codes: Vec<i64> = codes.into_iter().map(i64::from).collect();
        assert_eq!(codes, fixture.i64(&format!("{name}_codes")).data);
        assert_eq!(scales, fixture.f32(&format!("{name}_scales")).data);
    }
    let expected = fixture.expected("out").unwrap();
    for how in every_way() {
        let (mut truth, mut plain, mut out) = (expected.data.clone(), Vec::new(), Vec::new());
        for by in 0..DRAWS {
            let draw = rotated(&spec, by);
            let seen = spec_held(&draw, CacheDType::Int8);
            if by > 0 {
                truth.extend(attention::<f64>(&seen).out.data);
            }
            plain.extend(attention::<f32>(&seen).out.data);
            let cache = cache_of(&draw, CacheDType::Int8, 7);
            out.extend(run_cached(&draw, &cache, &how).unwrap().0);
        }
        let judged = Accuracy::new().case("int8", &truth, &plain, &out);
        assert!(judged.is_ok(), "{how:?}: {judged:?}");
    }
}

/// Against float64 over what is held, by the rule of plain float32.
#[test]
fn accuracy_over_what_is_held() {
    for dtype in DTYPES {
        for how in every_way() {
            let mut accuracy = Accuracy::new();
            for seed in 0..24u64 {
                let (lq, lk) = (1 + seed as usize * 5 % 60, 20 + seed as usize * 37 % 500);
                let d = [16, 32, 64, 128][seed as usize % 4];
                let mut values = Values(seed);
                let heads = diffattn_reference::plan(
                    diffattn_reference::Pairing::default(),
                    [4, 2, 1],
                    &[1.0, -0.4],
                );
                let spec = AttentionSpec::new(
                    values.tensor(&[1, 4, lq, d]),
                    values.tensor(&[1, 2, lk, d]),
                    values.tensor(&[1, 1, lk, 64]),
                    heads,
                );
                let seen = spec_held(&spec, dtype);
                let (oracle, plain) = (attention::<f64>(&seen), attention::<f32>(&seen));
                let cache = cache_of(&spec, dtype, lk);
                let (out, _) = run_cached(&spec, &cache, &how).unwrap();
                let _ = accuracy.case("", &oracle.out.data, &plain.out.data, &out);
            }
            let pooled = accuracy.pooled();
            assert!(pooled.is_ok(), "{dtype:?} {how:?}: {pooled:?}");
        }
    }
}

/// What is appended, and q, are of any float type; the result is of q's.
#[test]
fn any_float_type_goes_in() {
    let numbers: Vec<f32> = (0..2 * 5 * 8).map(|i| (i as f32 * 0.37).sin()).collect();
    let rounded: Vec<f32> = numbers.iter().map(|&x| f16::from_f32(x).to_f32()).collect();
    let halves: Vec<u16> = numbers
        .iter()
        .map(|&x| f16::from_f32(x).to_bits())
        .collect();
    for dtype in DTYPES {
        let made = |data: [Data<'_>; 2]| {
            let mut cache = KvCache::new(KvCacheOptions {
                batch: 1,
                groups: 1,
                terms: 2,
                head_dim: 8,
                value_dim: 8,
                capacity: 0,
                dtype,
            })
            .unwrap();
            let [k, v] = data;
            let (k, v) = (
                Tensor {
                    data: k,
                    shape: vec![1, 2, 5, 8],
                },
                Tensor {
                    data: v,
                    shape: vec![1, 1, 5, 8],
                },
            );
            cache.append(k, v, Layout::Bhsd).unwrap();
            cache
        };
        let cache = made([Data::F16(&halves), Data::F32(&rounded[..40])]);
        let same = made([Data::F32(&rounded), Data::F16(&halves[..40])]);
        assert_eq!(cache.export().unwrap(), same.export().unwrap());
        let options = AttentionOptions {
            lambda: Some(Lambda::Value(0.2)),
            ..AttentionOptions::default()
        };
        let shape = [1, 2, 5, 8].to_vec();
        let q = Tensor {
            data: Data::F16(&halves),
            shape: shape.clone(),
        };
        let call = DiffAttention::new(q, KeysValues::Cache(&cache), &options).unwrap();
        let mut out = vec![0u16; 40];
        let work = call.into_work(DataMut::F16(&mut out), None).unwrap();
        work.finish().unwrap();
        let q = Tensor::f32(&rounded, &shape);
        let call = DiffAttention::new(q, KeysValues::Cache(&cache), &options).unwrap();
        let mut wide = vec![0f32; 40];
        let work = call.into_work(DataMut::F32(&mut wide), None).unwrap();
        work.finish().unwrap();
        let narrowed: Vec<u16> = wide.iter().map(|&x| f16::from_f32(x).to_bits()).collect();
        assert_eq!(out, narrowed, "{dtype:?}");
    }
}

/// Copied out and taken back, a cache is the same to the bit; bytes are what the type says.
#[test]
fn copies_and_bytes() {
    let spec = fitting(1, 300, 16, 32);
    let (k_heads, v_heads) = (spec.k.shape[1], spec.v.shape[1]);
    let heads = spec.k.shape[0] * k_heads * 16 + spec.k.shape[0] * v_heads * 32;
    let scales = spec.k.shape[0] * (k_heads + v_heads);
    for dtype in DTYPES {
        let mut cache = cache_of(&spec, dtype, 300);
        let wanted = 512
            * (heads * dtype.bytes()
                + if dtype == CacheDType::Int8 {
                    4 * scales
                } else {
                    0
                });
        assert_eq!(cache.bytes(), wanted, "{dtype:?}");
        let (k, v) = cache.export().unwrap();
        assert_eq!(k.dtype(), dtype);
        let mut copy = KvCache::new(options(&spec, dtype)).unwrap();
        copy.import(&k, &v).unwrap();
        assert_eq!(copy.export().unwrap(), (k.clone(), v.clone()));
        for (rows, tensor) in [(&k, &spec.k), (&v, &spec.v)] {
            let width = tensor.shape[3];
            let expected = to_f32(&held(&tensor.data, width, dtype));
            assert_eq!(
                bits(&rows.to_f32(width).unwrap()),
                bits(&expected),
                "{dtype:?}"
            );
        }
        let mut row = [0.0; 16];
        cache.key(0, k_heads - 1, 299, &mut row).unwrap();
        let last = k.to_f32(16).unwrap();
        assert_eq!(row, last[(k_heads * 300 - 1) * 16..k_heads * 300 * 16]);
        // Of a strip that went, nothing is left; of the others nothing changed.
        assert_eq!(cache.discard_before(299), 256);
        let (rest, _) = cache.export().unwrap();
        let (all, rest) = (last, rest.to_f32(16).unwrap());
        assert_eq!(bits(&rest[..44 * 16]), bits(&all[256 * 16..300 * 16]));
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let spec = fitting(1, 3, 4, 6);
    let mut int8 = cache_of(&spec, CacheDType::Int8, 3);
    let mut wide = cache_of(&spec, CacheDType::F32, 3);
    let (codes, floats) = (int8.export().unwrap(), wide.export().unwrap());
    let refused = |cache: &mut KvCache, (k, v): (&CacheRows, &CacheRows)| {
        let error = cache.import(k, v).unwrap_err();
        assert_eq!(cache.len(), 3);
        (error.code(), error.to_string())
    };
    assert_eq!(
        refused(&mut wide, (&codes.0, &codes.1)),
        ("DTYPE", "k: expected float32 as the cache, got int8".into())
    );
    assert_eq!(
        refused(&mut int8, (&codes.0, &floats.1)),
        ("DTYPE", "v: expected int8 as the cache, got float32".into())
    );
    assert_eq!(refused(&mut int8, (&codes.1, &codes.1)).0, "SHAPE");
    let CacheRows::Int8 { codes: k, scales } = codes.0.clone() else {
        panic!("codes")
    };
    let short = CacheRows::Int8 {
        codes: k,
        scales: scales[1..].to_vec(),
    };
    let (code, sentence) = refused(&mut int8, (&short, &codes.1));
    assert_eq!(code, "SHAPE");
    assert!(sentence.starts_with("k scales: expected "), "{sentence}");
    // Floats are rounded to what a cache holds.
    int8.import(&floats.0, &floats.1).unwrap();
    assert_eq!(int8.len(), 6);
}
