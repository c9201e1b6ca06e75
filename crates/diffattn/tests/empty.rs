//! Work and memory in proportion to the elements: an empty tensor may name any other extents, and a
//! call may name many heads.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use diffattn::{
    AttentionOptions, CacheDType, CacheRows, ChannelLayout, Data, DataMut, DiffAttention,
    DiffAttentionMaps, Error, GroupNorm, GroupNormOptions, HeadPlan, KeysOnly, KeysValues, KvCache,
    KvCacheOptions, Lambda, LayerNormOptions, Layout, MapOutputs, Pairing, RmsNorm, RmsNormOptions,
    Rope, RopeFrequencies, RopeOptions, RopeScaling, RopeTable, RopeType, Run, SequenceDifference,
    SequenceDifferenceOptions, Tensor, layer_norm,
};

/// What a call over nothing may take at most; a loop over extents takes seconds, and memory that
/// the machine has not.
const LIMIT: Duration = Duration::from_millis(100);

/// Runs it three times, the fastest of which counts: other programs run beside tests.
fn at_once<R>(name: &str, run: impl FnMut() -> R) -> R {
    within(LIMIT, name, run)
}

fn within<R>(limit: Duration, name: &str, mut run: impl FnMut() -> R) -> R {
    let mut best = Duration::MAX;
    let mut result = None;
    for _ in 0..3 {
        let start = Instant::now();
        result = Some(run());
        best = best.min(start.elapsed());
        if best < limit {
            break;
        }
    }
    assert!(best < limit, "{name}: {best:?}");
    result.unwrap()
}

fn empty(shape: &[usize]) -> Tensor<'static> {
    assert!(shape.contains(&0));
    Tensor::f32(&[], shape)
}

const VAST: [[usize; 4]; 6] = [
    [1, 0, 1, 1 << 40],
    [0, 1, 1, 1 << 40],
    [1, 1, 0, 1 << 40],
    [1 << 40, 1 << 40, 0, 8],
    [1 << 40, 0, 1 << 40, 8],
    [1 << 40, 1 << 40, 1 << 40, 0],
];

#[test]
fn rope_of_nothing_is_nothing() {
    let scaled = |rope_type| RopeScaling {
        rope_type,
        factor: Some(2.0),
        low_freq_factor: Some(1.0),
        high_freq_factor: Some(4.0),
        original_max_position_embeddings: Some(32.0),
        ..RopeScaling::default()
    };
    let types = [
        RopeType::Default,
        RopeType::Linear,
        RopeType::Llama3,
        RopeType::Yarn,
        RopeType::Dynamic,
    ];
    for (shape, rope_type) in VAST.into_iter().flat_map(|s| types.map(|t| (s, t))) {
        for layout in [Layout::Bhsd, Layout::Bshd] {
            let frequencies = RopeFrequencies {
                scaling: Some(scaled(rope_type)),
                max_position_embeddings: Some(1e30),
                ..RopeFrequencies::default()
            };
            let options = RopeOptions {
                layout,
                frequencies,
                ..RopeOptions::default()
            };
            at_once(&format!("{shape:?} {rope_type:?}"), || {
                let call = Rope::new(empty(&shape), &options).unwrap();
                assert_eq!(call.output_shape(), &shape[..]);
                let work = call.into_work(DataMut::F32(&mut [])).unwrap();
                assert_eq!(work.total(), 0);
                work.finish().unwrap();
                let table = RopeTable::new(5..5, 1 << 40, &frequencies, Run::default()).unwrap();
                assert_eq!(table.rotary_dim(), 1 << 40);
            });
        }
    }
    // What is wrong is still said.
    let negative = RopeOptions {
        frequencies: RopeFrequencies {
            theta: Some(-1.0),
            ..RopeFrequencies::default()
        },
        ..RopeOptions::default()
    };
    let refused = Rope::new(empty(&[1, 0, 1, 8]), &negative).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "theta: expected a finite number above 0, got -1"
    );
    let odd = RopeTable::new(0..0, 7, &RopeFrequencies::default(), Run::default()).unwrap_err();
    assert_eq!(
        odd.to_string(),
        "rotary_dim: expected an even number of channels, got 7"
    );
}

#[test]
fn dynamic_ends_with_the_trained_length() {
    let frequencies = RopeFrequencies {
        scaling: Some(RopeScaling {
            rope_type: RopeType::Dynamic,
            factor: Some(2.0),
            ..RopeScaling::default()
        }),
        max_position_embeddings: Some(4.0),
        ..RopeFrequencies::default()
    };
    let plain = RopeFrequencies::default();
    let of = |frequencies| RopeTable::new(1..4, 8, frequencies, Run::default());
    assert_eq!(of(&frequencies).unwrap(), of(&plain).unwrap());
    let sentence = "scaling.rope_type: expected \"yarn\" or \"linear\" for more than 4 positions \
                    (max_position_embeddings), got \"dynamic\" for 5";
    let refused = RopeTable::new(1..5, 8, &frequencies, Run::default()).unwrap_err();
    assert_eq!(
        (refused.code(), refused.to_string()),
        ("OPTION", sentence.to_owned())
    );
    let x = [1.0; 8];
    let turned = |first| {
        let options = RopeOptions {
            frequencies,
            first_position: Some(vec![first]),
            ..RopeOptions::default()
        };
        Rope::new(Tensor::f32(&x, &[1, 1, 1, 8]), &options).map(|_| ())
    };
    assert_eq!(turned(3), Ok(()));
    assert_eq!(
        turned(4).map_err(|error| error.to_string()),
        Err(sentence.to_owned())
    );
    let unknown = RopeFrequencies {
        max_position_embeddings: None,
        ..frequencies
    };
    assert_eq!(
        of(&unknown).unwrap_err().to_string(),
        "scaling.max_position_embeddings: expected a number for rope_type dynamic, got none"
    );
}

#[test]
fn differences_and_norms_of_nothing_are_nothing() {
    for shape in VAST {
        for layout in [Layout::Bhsd, Layout::Bshd] {
            at_once(&format!("difference {shape:?}"), || {
                let options = SequenceDifferenceOptions {
                    order: 64,
                    layout,
                    ..SequenceDifferenceOptions::default()
                };
                let call = SequenceDifference::new(empty(&shape), &options).unwrap();
                assert_eq!(call.output_shape(), &shape[..]);
                let work = call.into_work(DataMut::F32(&mut [])).unwrap();
                assert_eq!(work.total(), 0);
                work.finish().unwrap();
            });
        }
        at_once(&format!("norms {shape:?}"), || {
            let call = RmsNorm::new(empty(&shape), &RmsNormOptions::default()).unwrap();
            assert_eq!(call.output_shape(), &shape[..]);
            let work = call.into_work(DataMut::F32(&mut [])).unwrap();
            assert_eq!(work.total(), 0);
            work.finish().unwrap();
            layer_norm(empty(&shape), &mut [], &LayerNormOptions::default()).unwrap();
            for (layout, channels) in [
                (ChannelLayout::Nchw, shape[1]),
                (ChannelLayout::Nhwc, shape[3]),
            ] {
                for num_groups in [1, channels.max(1)] {
                    let options = GroupNormOptions {
                        num_groups,
                        layout,
                        ..GroupNormOptions::default()
                    };
                    let call = GroupNorm::new(empty(&shape), &options).unwrap();
                    assert_eq!(call.output_shape(), &shape[..]);
                    let work = call.into_work(DataMut::F32(&mut [])).unwrap();
                    assert_eq!(work.total(), 0);
                    work.finish().unwrap();
                }
            }
        });
    }
}

fn differential() -> AttentionOptions<'static> {
    AttentionOptions {
        lambda: Some(Lambda::Value(0.5)),
        ..AttentionOptions::default()
    }
}

fn attention<'a>(
    [q, k, v]: [Tensor<'a>; 3],
    options: &AttentionOptions<'a>,
) -> Result<[usize; 4], Error> {
    let call = DiffAttention::new(q.clone(), KeysValues::Tensors { k: k.clone(), v }, options)?;
    let shape = call.output_shape();
    let mut out = vec![0.0; shape.iter().product()];
    call.into_work(DataMut::F32(&mut out), None)?.finish()?;
    let maps = DiffAttentionMaps::new(q, KeysOnly::Tensor(k), options, None, None)?;
    let len = maps.map_shape().iter().product();
    let (mut one, mut two, mut diff) = (vec![0.0; len], vec![0.0; len], vec![0.0; len]);
    maps.into_work(MapOutputs {
        terms: vec![&mut one, &mut two],
        diff: &mut diff,
    })?
    .finish()?;
    Ok(shape)
}

#[test]
fn attention_over_nothing_is_nothing() {
    let options = differential();
    for ([q, k, v], expected) in [
        // Any number of batch entries without queries, and without keys.
        (
            [[1 << 40, 2, 0, 8], [1 << 40, 2, 0, 8], [1 << 40, 1, 0, 8]],
            [1 << 40, 1, 0, 8],
        ),
        // No batch entry, of any number of queries.
        (
            [
                [0, 2, 1 << 40, 8],
                [0, 2, 1 << 20, 8],
                [0, 1, 1 << 20, 1 << 40],
            ],
            [0, 1, 1 << 40, 1 << 40],
        ),
        // Heads of any width.
        (
            [[1, 2, 0, 1 << 40], [1, 2, 0, 1 << 40], [1, 1, 0, 1 << 40]],
            [1, 1, 0, 1 << 40],
        ),
        // As many heads as there may be.
        (
            [
                [1 << 30, 1 << 16, 0, 1],
                [1 << 30, 1 << 16, 0, 1],
                [1 << 30, 1 << 15, 0, 1],
            ],
            [1 << 30, 1 << 15, 0, 1],
        ),
    ] {
        let name = format!("{q:?}");
        let shape = at_once(&name, || {
            attention([empty(&q), empty(&k), empty(&v)], &options)
        });
        assert_eq!(shape.unwrap(), expected);
    }
    // One length per batch entry is still asked for, and looked at.
    let lengths = [0, 0, 1];
    let shapes = [[3, 2, 0, 8], [3, 2, 0, 8], [3, 1, 0, 8]].map(|shape| empty(&shape));
    let options = AttentionOptions {
        key_lengths: Some(&lengths),
        ..differential()
    };
    assert_eq!(
        attention(shapes, &options).unwrap_err().to_string(),
        "key_lengths: expected lengths from 0 to 0, got 1"
    );
    // A result of zeros has no more channels than something answers for.
    let q = Tensor::f32(&[1.0; 2], &[1, 2, 1, 1]);
    let sources = [q, empty(&[1, 2, 0, 1]), empty(&[1, 1, 0, 1 << 40])];
    assert_eq!(
        attention(sources, &differential()).unwrap_err().to_string(),
        "v: expected at most 65536 channels where there are no keys, got 1099511627776"
    );
}

/// A call of as many heads as there may be is planned in proportion to them.
#[test]
fn many_heads_are_planned_in_proportion() {
    // (A plan that compares all heads with each other takes some twenty.)
    let limit = Duration::from_secs(10);
    let (heads, ones) = (1 << 16, vec![1.0; 1 << 16]);
    let of = |heads: usize| Tensor::f32(&ones[..heads], &[1, heads, 1, 1]);
    let shape = within(limit, "interleaved", || {
        attention([of(heads), of(heads), of(heads / 2)], &differential())
    });
    assert_eq!(shape.unwrap(), [1, heads / 2, 1, 1]);
    // One noise head for all.
    let shape = within(limit, "shared", || {
        let options = AttentionOptions {
            pairing: Pairing::Shared,
            ratio: Some(heads - 1),
            ..differential()
        };
        attention([of(heads), of(1), of(1)], &options)
    });
    assert_eq!(shape.unwrap(), [1, heads - 1, 1, 1]);
    // Each shares a map with its neighbour.
    let chain: Vec<HeadPlan> = (0..heads)
        .map(|head| HeadPlan {
            q: vec![head, (head + 1) % heads],
            k: vec![head, (head + 1) % heads],
            v: vec![0],
            coefficients: None,
        })
        .collect();
    let shape = within(limit, "a chain", || {
        let options = AttentionOptions {
            heads: Some(chain.clone().into()),
            ..AttentionOptions::default()
        };
        attention([of(heads), of(heads), of(1)], &options)
    });
    assert_eq!(shape.unwrap(), [1, heads, 1, 1]);
}

#[test]
fn caches_take_memory_for_tokens() {
    let options = KvCacheOptions {
        batch: 1,
        groups: 1,
        terms: 2,
        head_dim: 4,
        value_dim: 4,
        capacity: 0,
        dtype: CacheDType::F32,
    };
    for vast in [
        KvCacheOptions {
            batch: 1 << 40,
            ..options
        },
        KvCacheOptions {
            groups: 1 << 30,
            ..options
        },
        KvCacheOptions {
            terms: 1 << 62,
            batch: 8,
            ..options
        },
    ] {
        let refused = at_once("a cache", || KvCache::new(vast).unwrap_err().to_string());
        assert!(
            refused.starts_with(
                "groups: expected at most 1048576 heads in all (batch · terms · groups), got "
            ),
            "{refused}"
        );
    }
    // Heads of any width, and any number of them that is allowed, before the first token.
    let mut wide = at_once("a wide cache", || {
        KvCache::new(KvCacheOptions {
            batch: 1 << 18,
            head_dim: 1 << 40,
            value_dim: 1 << 40,
            ..options
        })
        .unwrap()
    });
    assert_eq!((wide.len(), wide.bytes()), (0, 0));
    let shapes = [[1 << 18, 2, 0, 1 << 40], [1 << 18, 1, 0, 1 << 40]];
    at_once("no tokens", || {
        let [k, v] = shapes.map(|shape| empty(&shape));
        wide.append(k, v, Layout::Bhsd).unwrap();
    });
    assert_eq!(wide.len(), 0);
    assert_eq!(
        wide.export().unwrap(),
        (CacheRows::F32(Vec::new()), CacheRows::F32(Vec::new()))
    );
    // A capacity of more than there is is refused before any of it is taken, however many heads
    // share it.
    let vast = KvCacheOptions {
        batch: 1 << 18,
        capacity: 1 << 20,
        ..options
    };
    assert_eq!(
        at_once("a capacity", || KvCache::new(vast).unwrap_err().code()),
        "OUT_OF_MEMORY"
    );
    // Reserved memory is no content.
    let mut cache = KvCache::new(KvCacheOptions {
        capacity: 1000,
        ..options
    })
    .unwrap();
    let bytes = cache.bytes();
    assert!(bytes >= 1000 * 3 * 4 * 4);
    let ones = [1.0; 8];
    cache
        .append(
            Tensor::f32(&ones, &[1, 2, 1, 4]),
            Tensor::f32(&ones[..4], &[1, 1, 1, 4]),
            Layout::Bhsd,
        )
        .unwrap();
    assert_eq!((cache.len(), cache.bytes()), (1, bytes));
    let rows = [&ones[..], &ones[..4]].map(|rows| CacheRows::F32(rows.to_vec()));
    assert_eq!(cache.export().unwrap(), rows.into());
}

#[test]
fn halves_are_no_other() {
    let x = Tensor {
        data: Data::F16(&[]),
        shape: vec![1 << 40, 0, 1 << 40, 1 << 40],
    };
    let call = at_once("halves", || {
        Rope::new(x.clone(), &RopeOptions::default()).unwrap()
    });
    call.into_work(DataMut::F16(&mut []))
        .unwrap()
        .finish()
        .unwrap();
}
