//! Refusals of attention: the code and the whole sentence, and that the next call works.

use diffattn::{
    AttentionOptions, BlockMask, CacheDType, Data, DataMut, DiffAttention, Error, Isa, KeysValues,
    KvCache, KvCacheOptions, Lambda, Layout, Mask, NormOptions, Pairing, Tensor, diff_attention,
};

const ONES: [f32; 512] = [1.0; 512];

/// Ones of a shape.
fn ones(shape: &[usize]) -> Tensor<'static> {
    Tensor::f32(&ONES[..shape.iter().product()], shape)
}

fn differential() -> AttentionOptions<'static> {
    AttentionOptions {
        lambda: Some(Lambda::Value(0.5)),
        ..AttentionOptions::default()
    }
}

/// The sentence of a call on q `[1, 2, 3, 4]`, k `[1, 2, 5, 4]`, v `[1, 1, 5, 6]`.
fn refusal(options: &AttentionOptions<'_>) -> (String, String) {
    let shapes = [[1, 2, 3, 4], [1, 2, 5, 4], [1, 1, 5, 6]];
    shapes_refusal(shapes.map(|shape| ones(&shape)), options)
}

fn shapes_refusal<'a>(
    [q, k, v]: [Tensor<'a>; 3],
    options: &AttentionOptions<'a>,
) -> (String, String) {
    let error = diff_attention(q, k, v, options).unwrap_err();
    // The next call works.
    diff_attention(
        ones(&[1, 2, 3, 4]),
        ones(&[1, 2, 5, 4]),
        ones(&[1, 1, 5, 6]),
        &differential(),
    )
    .unwrap();
    (error.code().to_owned(), error.to_string())
}

#[test]
fn options_name_themselves() {
    let mask = [1u8; 15];
    let half = [0u16; 15];
    let with = |change: fn(&mut AttentionOptions<'static>)| {
        let mut options = differential();
        change(&mut options);
        refusal(&options)
    };
    let cases: Vec<((String, String), &str, &str)> = vec![
        (
            refusal(&AttentionOptions::default()),
            "OPTION",
            "lambda: expected one of lambda and coefficients, got neither",
        ),
        (
            with(|o| o.coefficients = Some(&[1.0, -1.0])),
            "OPTION",
            "lambda: expected one of lambda and coefficients, got both",
        ),
        (
            with(|o| (o.lambda, o.coefficients) = (None, Some(&[][..]))),
            "OPTION",
            "coefficients: expected 1 to 8 terms, got 0",
        ),
        (
            with(|o| o.ratio = Some(2)),
            "OPTION",
            "ratio: expected none unless the pairing is grouped or shared, got one",
        ),
        (
            with(|o| (o.pairing, o.kv_repeat) = (Pairing::Halves, Some(diffattn::KvRepeat::Flat))),
            "OPTION",
            "kv_repeat: expected none unless the pairing is interleaved, got one",
        ),
        (
            with(|o| o.softcap = Some(0.0)),
            "OPTION",
            "softcap: expected a positive number, got 0",
        ),
        (
            with(|o| o.softcap = Some(f32::NAN)),
            "OPTION",
            "softcap: expected a positive number, got NaN",
        ),
        (
            with(|o| o.scale = Some(f32::INFINITY)),
            "OPTION",
            "scale: expected a finite number, got inf",
        ),
        (
            with(|o| o.key_lengths = Some(&[6])),
            "SHAPE",
            "key_lengths: expected lengths from 0 to 5, got 6",
        ),
        (
            with(|o| o.key_lengths = Some(&[-1])),
            "SHAPE",
            "key_lengths: expected lengths from 0 to 5, got -1",
        ),
        (
            with(|o| o.key_lengths = Some(&[1, 1])),
            "SHAPE",
            "key_lengths: expected length 1, one per batch entry, got 2",
        ),
        (
            with(|o| o.query_offset = Some(vec![0, 1])),
            "SHAPE",
            "query_offset: expected 1 or 1 values, one per batch entry, got 2",
        ),
        (
            with(|o| o.lambda = Some(Lambda::PerHead(&[0.1, 0.2]))),
            "SHAPE",
            "lambda: expected length 1, one per output head, got 2",
        ),
        (
            with(|o| {
                o.lambda = Some(Lambda::PerToken {
                    data: &[0.1, 0.2],
                    shape: vec![1, 2, 1],
                })
            }),
            "SHAPE",
            "lambda: expected shape [1|1, 3|1, 1], got [1, 2, 1]",
        ),
        (
            with(|o| o.cu_seqlens_q = Some(&[0, 3])),
            "OPTION",
            "cu_seqlens_k: expected cu_seqlens_q and cu_seqlens_k together, got only cu_seqlens_q",
        ),
        (
            with(|o| (o.cu_seqlens_q, o.cu_seqlens_k) = (Some(&[0, 2][..]), Some(&[0, 5][..]))),
            "SHAPE",
            "cu_seqlens_q: expected a last entry of 3, the tokens given, got 2",
        ),
        (
            with(|o| {
                (o.cu_seqlens_q, o.cu_seqlens_k) = (Some(&[0, 4, 3][..]), Some(&[0, 1, 5][..]))
            }),
            "SHAPE",
            "cu_seqlens_q: expected entries that never fall, got 3 after 4",
        ),
        (
            with(|o| {
                o.norm = Some(NormOptions {
                    weight: Some(&[1.0]),
                    ..NormOptions::default()
                })
            }),
            "SHAPE",
            "norm.weight: expected length 6, the result's channels, got 1",
        ),
        (
            with(|o| {
                o.norm = Some(NormOptions {
                    eps: -1.0,
                    ..NormOptions::default()
                })
            }),
            "OPTION",
            "norm.eps: expected 0 or a positive number, got -1",
        ),
        (
            refusal(&AttentionOptions {
                attn_mask: Some(Mask {
                    data: &mask,
                    shape: vec![1, 1, 5, 3],
                }),
                ..differential()
            }),
            "SHAPE",
            "attn_mask: expected shape [1|1, 1|1, 3|1, 5], got [1, 1, 5, 3]",
        ),
        (
            refusal(&AttentionOptions {
                attn_bias: Some(Tensor {
                    data: Data::F16(&half),
                    shape: vec![1, 1, 3, 5],
                }),
                ..differential()
            }),
            "DTYPE",
            "attn_bias: expected float32, got float16",
        ),
    ];
    for ((code, sentence), expected_code, expected) in cases {
        assert_eq!(
            (code.as_str(), sentence.as_str()),
            (expected_code, expected)
        );
    }
}

#[test]
fn block_masks_and_sinks_name_themselves() {
    let half = [0u16; 2];
    let blocks = |data: &'static [u8], shape: &[usize]| AttentionOptions {
        block_mask: Some(BlockMask {
            data,
            shape: shape.to_vec(),
        }),
        ..differential()
    };
    let sinks = |data: Data<'static>, shape: &[usize]| AttentionOptions {
        sinks: Some(Tensor {
            data,
            shape: shape.to_vec(),
        }),
        ..differential()
    };
    let cases = [
        (
            refusal(&blocks(&[1; 4], &[1, 1, 2, 2])),
            "SHAPE",
            "block_mask: expected shape [1|1, 1|1, 1, 1], got [1, 1, 2, 2]",
        ),
        (
            refusal(&blocks(&[1], &[1, 1, 1])),
            "SHAPE",
            "block_mask: expected shape [1|1, 1|1, 1, 1], got [1, 1, 1]",
        ),
        (
            refusal(&blocks(&[1; 2], &[1, 1, 1, 1])),
            "SHAPE",
            "block_mask: expected 1 elements for shape [1, 1, 1, 1], got 2",
        ),
        (
            refusal(&AttentionOptions {
                cu_seqlens_q: Some(&[0, 3]),
                cu_seqlens_k: Some(&[0, 5]),
                ..blocks(&[1], &[1, 1, 1, 1])
            }),
            "OPTION",
            "block_mask: expected none with packed sequences, got one",
        ),
        (
            refusal(&sinks(Data::F32(&ONES[..2]), &[2])),
            "SHAPE",
            "sinks: expected shape [1] or [1, 2], got [2]",
        ),
        (
            refusal(&sinks(Data::F32(&ONES[..1]), &[1, 2])),
            "SHAPE",
            "sinks: expected 2 elements for shape [1, 2], got 1",
        ),
        (
            refusal(&AttentionOptions {
                sinks: Some(Tensor {
                    data: Data::F16(&half),
                    shape: vec![1, 2],
                }),
                ..differential()
            }),
            "DTYPE",
            "sinks: expected float32, got float16",
        ),
        (
            refusal(&sinks(Data::F32(&[0.5, f32::NAN]), &[1, 2])),
            "OPTION",
            "sinks: expected numbers or -Infinity, got NaN",
        ),
        (
            refusal(&sinks(Data::F32(&[f32::INFINITY]), &[1])),
            "OPTION",
            "sinks: expected numbers or -Infinity, got inf",
        ),
    ];
    for ((code, sentence), expected_code, expected) in cases {
        assert_eq!(
            (code.as_str(), sentence.as_str()),
            (expected_code, expected)
        );
    }
}

#[test]
fn shapes_and_dtypes_name_themselves() {
    let half = [0u16; 24];
    let short = Tensor::f32(&ONES[..23], &[1, 2, 3, 4]);
    let halves = Tensor {
        data: Data::Bf16(&half),
        shape: vec![1, 2, 3, 4],
    };
    let [q, k, v] = [[1, 2, 3, 4], [1, 2, 5, 4], [1, 1, 5, 6]].map(|shape| ones(&shape));
    for (tensors, expected) in [
        (
            [short, k.clone(), v.clone()],
            "q: expected 24 elements for shape [1, 2, 3, 4], got 23",
        ),
        (
            [ones(&[2, 3, 4]), k.clone(), v.clone()],
            "q: expected 4 axes, got [2, 3, 4]",
        ),
        (
            [q.clone(), ones(&[1, 2, 5, 3]), v.clone()],
            "k: expected head width 4 as q, got 3",
        ),
        (
            [q.clone(), ones(&[2, 2, 5, 4]), v.clone()],
            "k: expected batch 1 as q, got 2",
        ),
        (
            [q.clone(), k.clone(), ones(&[1, 1, 4, 6])],
            "v: expected 5 keys as k, got 4",
        ),
        (
            [q.clone(), k.clone(), ones(&[1, 2, 5, 6])],
            "v: expected 1 v heads (k heads / terms), got 2 v heads",
        ),
        (
            [ones(&[1, 3, 3, 4]), k.clone(), v.clone()],
            "q: expected a number of q heads that 2 terms divide, got 3 q heads",
        ),
        (
            [ones(&[1, 2, 3, 0]), k.clone(), v.clone()],
            "q: expected a last axis of 1 or more, got [1, 2, 3, 0]",
        ),
        (
            [halves, k.clone(), v.clone()],
            "k: expected bfloat16 as q, got float32",
        ),
    ] {
        assert_eq!(shapes_refusal(tensors, &differential()).1, expected);
    }
    let huge = Tensor::f32(&ONES[..1], &[usize::MAX, 2, 3, 4]);
    let (code, sentence) = shapes_refusal([huge, k, v], &differential());
    assert_eq!(code, "SHAPE");
    assert!(
        sentence.starts_with("q: expected a shape whose element count fits this machine"),
        "{sentence}"
    );
}

#[test]
fn empty_calls_are_no_errors() {
    let empty = |shape: &[usize]| Tensor::f32(&[], shape);
    let options = AttentionOptions {
        is_causal: true,
        ..differential()
    };
    let none = diff_attention(
        ones(&[1, 2, 3, 4]),
        empty(&[1, 2, 0, 4]),
        empty(&[1, 1, 0, 6]),
        &options,
    )
    .unwrap();
    assert_eq!(none, [0.0; 18]);
    assert!(
        diff_attention(
            empty(&[1, 2, 0, 4]),
            ones(&[1, 2, 5, 4]),
            ones(&[1, 1, 5, 6]),
            &options
        )
        .unwrap()
        .is_empty()
    );
    assert!(
        diff_attention(
            empty(&[0, 2, 3, 4]),
            empty(&[0, 2, 5, 4]),
            empty(&[0, 1, 5, 6]),
            &options
        )
        .unwrap()
        .is_empty()
    );
}

#[test]
fn caches_and_outputs_are_checked() {
    let options = KvCacheOptions {
        batch: 1,
        groups: 1,
        terms: 2,
        head_dim: 4,
        value_dim: 6,
        capacity: 8,
        dtype: CacheDType::F32,
    };
    let mut cache = KvCache::new(options).unwrap();
    let sentence = |error: Error| error.to_string();
    assert_eq!(
        sentence(
            cache
                .append(ones(&[1, 1, 3, 4]), ones(&[1, 1, 3, 6]), Layout::Bhsd)
                .unwrap_err()
        ),
        "k: expected [B, heads, L, width] with batch 1, 2 heads and width 4, as the cache, got [1, 1, 3, 4]"
    );
    assert_eq!(
        sentence(
            cache
                .append(ones(&[1, 2, 3, 4]), ones(&[1, 1, 2, 6]), Layout::Bhsd)
                .unwrap_err()
        ),
        "v: expected 3 tokens as k, got 2"
    );
    assert!(cache.is_empty());
    cache
        .append(ones(&[1, 2, 3, 4]), ones(&[1, 1, 3, 6]), Layout::Bhsd)
        .unwrap();
    assert_eq!(
        sentence(cache.rewind(4).unwrap_err()),
        "length: expected at most 3, the tokens held, got 4"
    );
    assert_eq!(cache.len(), 3);
    let half = [0u16; 8];
    let q = Tensor {
        data: Data::F16(&half),
        shape: vec![1, 2, 1, 4],
    };
    // (With a cache q may be of any float type.)
    assert!(DiffAttention::new(q, KeysValues::Cache(&cache), &differential()).is_ok());
    assert_eq!(
        sentence(
            KvCache::new(KvCacheOptions {
                groups: 0,
                ..options
            })
            .unwrap_err()
        ),
        "groups: expected 1 or more, got 0"
    );
    // Far more memory than there is: refused, not aborted.
    let vast = KvCache::new(KvCacheOptions {
        capacity: 1 << 40,
        ..options
    })
    .unwrap_err();
    assert_eq!(vast.code(), "OUT_OF_MEMORY");
    let mut short = [0.0; 5];
    let call = DiffAttention::new(
        ones(&[1, 2, 1, 4]),
        KeysValues::Cache(&cache),
        &differential(),
    )
    .unwrap();
    assert_eq!(
        sentence(call.into_work(DataMut::F32(&mut short), None).unwrap_err()),
        "out: expected 6 elements for shape [1, 1, 1, 6], got 5"
    );
}

#[test]
fn unknown_instruction_sets_are_unavailable() {
    let error = Isa::named("sse9").unwrap_err();
    assert_eq!(error.code(), "UNAVAILABLE");
    assert!(
        error.to_string().starts_with("isa: expected one of scalar"),
        "{error}"
    );
}
