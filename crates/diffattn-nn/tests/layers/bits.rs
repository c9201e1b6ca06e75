//! The rules of bits: what may not change a row, and what a job and its cache promise.

use crate::common::{Case, Oracle, Projections, Random, bits, ok, on, rope, step_through, zoo};
use diffattn::{
    CacheDType, DataMut, Isa, KvCache, KvCacheOptions, Layout, MapOutputs, Mask, Tensor,
};
use diffattn_nn::ForwardOptions;
use diffattn_reference as reference;

/// Layers whose rows see no later token: only these can be decoded.
fn causal(case: &Case) -> bool {
    match &case.oracle {
        Oracle::V1(oracle) => oracle.causal,
        Oracle::V2(oracle) => oracle.causal,
    }
}

/// Layers of the size that threads are woken for, one of each version and one with differences.
fn large() -> Vec<Case> {
    let (embed_dim, head_dim, heads) = (192, 24, 4);
    let shape = Projections {
        embed_dim,
        head_dim,
        counts: [8, 4, 2],
        value_dim: 48,
        out_width: 192,
        bias: true,
        out: "out_proj",
    };
    let v1 = |sequence| {
        let weights = Random::new(7)
            .projections(&shape)
            .lambda_vectors(head_dim)
            .tensor("subln.weight", &[48], 1.0)
            .weights;
        let oracle = reference::MultiheadDiffAttn {
            rope: rope(true),
            sequence,
            ..reference::MultiheadDiffAttn::new(4, head_dim, weights)
        };
        Case::v1("large", heads, Some(2), oracle)
    };
    let differences = reference::SequenceFusion {
        order: 2,
        share: 0.5,
        fusion: 0.5,
    };
    let shape = Projections {
        counts: [8, 2, 2],
        value_dim: 24,
        out_width: 96,
        ..shape
    };
    let weights = Random::new(9)
        .projections(&shape)
        .linear("lambda_proj", heads, embed_dim, false)
        .weights;
    let oracle = reference::MultiheadDiffAttnV2 {
        rope: rope(true),
        ..reference::MultiheadDiffAttnV2::new(head_dim, weights)
    };
    vec![
        v1(None),
        v1(Some(differences)),
        Case::v2("large V2", heads, Some(2), oracle),
    ]
}

#[test]
fn batch_entries_do_not_see_each_other() {
    for (seed, case) in zoo().into_iter().chain(large()).enumerate() {
        let x = case.input(seed as u64, 3, 29);
        for isa in Isa::available() {
            let y = case.run(&x, &on(isa, 2, false));
            let row = 29 * case.embed_dim;
            for b in 0..3 {
                let alone = reference::Tensor::new(
                    &[1, 29, case.embed_dim],
                    x.data[b * row..(b + 1) * row].to_vec(),
                );
                let alone = case.run(&alone, &on(isa, 1, false));
                assert_eq!(
                    bits(&alone),
                    bits(&y[b * row..(b + 1) * row]),
                    "{} on {}: entry {b}",
                    case.name,
                    isa.name()
                );
            }
        }
    }
}

#[test]
fn decoding_equals_the_prefill() {
    for (seed, case) in zoo().iter().enumerate().filter(|(_, case)| causal(case)) {
        let x = case.input(seed as u64 + 50, 2, 41);
        for isa in Isa::available() {
            for deterministic in [false, true] {
                let options = on(isa, 2, deterministic);
                let y = bits(&case.run(&x, &options));
                for stretches in [&[1; 41][..], &[20, 21], &[1, 17, 3, 16, 4], &[41]] {
                    let cached = case.run_cached(&x, stretches, &options);
                    assert_eq!(
                        bits(&cached),
                        y,
                        "{} on {}: {stretches:?}",
                        case.name,
                        isa.name()
                    );
                }
            }
        }
    }
}

/// Past several strips of keys, tables and chunks of rows.
#[test]
fn long_sequences_decode_to_the_same_bits() {
    for (seed, case) in large().iter().enumerate() {
        let x = case.input(seed as u64 + 70, 1, 1200);
        let options = on(Isa::detect(), 2, false);
        let y = bits(&case.run(&x, &options));
        for stretches in [
            &[600, 600][..],
            &[1, 255, 1, 256, 500, 16, 171],
            &[1030, 90, 17, 16, 15, 1, 1, 1, 29],
        ] {
            assert_eq!(
                bits(&case.run_cached(&x, stretches, &options)),
                y,
                "{}: {stretches:?}",
                case.name
            );
        }
        // Earlier rows do not know what comes later.
        let short = reference::Tensor::new(
            &[1, 700, case.embed_dim],
            x.data[..700 * case.embed_dim].to_vec(),
        );
        assert_eq!(
            bits(&case.run(&short, &options)),
            y[..700 * case.embed_dim],
            "{}: the first tokens",
            case.name
        );
    }
}

#[test]
fn threads_do_not_matter() {
    for (seed, case) in large().iter().enumerate() {
        let x = case.input(seed as u64 + 90, 2, 300);
        for isa in Isa::available() {
            let y = bits(&case.run(&x, &on(isa, 1, false)));
            for threads in [2, 3, 7] {
                assert_eq!(
                    bits(&case.run(&x, &on(isa, threads, false))),
                    y,
                    "{} on {}: {threads} threads",
                    case.name,
                    isa.name()
                );
            }
        }
    }
}

#[test]
fn instruction_sets_agree() {
    let scalar = ok(Isa::named("scalar"));
    for (seed, case) in zoo().into_iter().chain(large()).enumerate() {
        let x = case.input(seed as u64 + 110, 2, 60);
        let unfused = bits(&case.run(&x, &on(scalar, 2, false)));
        let mut fused: Option<Vec<u32>> = None;
        for isa in Isa::available() {
            assert_eq!(
                bits(&case.run(&x, &on(isa, 2, true))),
                unfused,
                "{} deterministic on {}",
                case.name,
                isa.name()
            );
            if ["avx2", "avx512", "neon"].contains(&isa.name()) {
                let y = bits(&case.run(&x, &on(isa, 2, false)));
                assert_eq!(
                    fused.get_or_insert_with(|| y.clone()),
                    &y,
                    "{} on {}",
                    case.name,
                    isa.name()
                );
            }
        }
    }
}

#[test]
fn slices_add_up() {
    for (seed, case) in zoo().into_iter().chain(large()).enumerate() {
        let x = case.input(seed as u64 + 130, 2, 70);
        let data: Vec<f32> = x.data.iter().map(|&x| x as f32).collect();
        let options = on(Isa::detect(), 2, false);
        let y = bits(&case.run(&x, &options));
        let maps = ok(case.layer.maps(Tensor::f32(&data, &x.shape), &options));
        for count in [1, 3, 1000] {
            let mut sliced = vec![f32::NAN; data.len()];
            let job = ok(case
                .layer
                .forward_job(Tensor::f32(&data, &x.shape), None, &options));
            assert_eq!(job.output_shape()[..], x.shape);
            let mut job = ok(job.into_work(DataMut::F32(&mut sliced)));
            step_through(&mut job, count);
            drop(job);
            assert_eq!(bits(&sliced), y, "{} in slices of {count}", case.name);

            let len = maps.diff.len();
            let (mut first, mut second, mut diff) = (
                vec![f32::NAN; len],
                vec![f32::NAN; len],
                vec![f32::NAN; len],
            );
            let job = ok(case.layer.maps_job(Tensor::f32(&data, &x.shape), &options));
            assert_eq!((job.terms(), job.map_shape()), (2, maps.shape));
            let mut job = ok(job.into_work(MapOutputs {
                terms: vec![&mut first, &mut second],
                diff: &mut diff,
            }));
            step_through(&mut job, count);
            drop(job);
            assert_eq!(bits(&first), bits(&maps.terms[0]), "{}", case.name);
            assert_eq!(bits(&second), bits(&maps.terms[1]), "{}", case.name);
            assert_eq!(bits(&diff), bits(&maps.diff), "{}", case.name);
        }
    }
}

#[test]
fn a_cache_is_changed_by_a_finished_job_only() {
    for (seed, case) in zoo()
        .into_iter()
        .chain(large())
        .enumerate()
        .filter(|(_, case)| causal(case))
    {
        let x = case.input(seed as u64 + 150, 1, 40);
        let data: Vec<f32> = x.data.iter().map(|&x| x as f32).collect();
        let part = |tokens: std::ops::Range<usize>| {
            Tensor::f32(
                &data[tokens.start * case.embed_dim..tokens.end * case.embed_dim],
                &[1, tokens.len(), case.embed_dim],
            )
        };
        let options = on(Isa::detect(), 1, false);
        let y = bits(&case.run(&x, &options));
        let mut cache = ok(KvCache::new(case.layer.cache_options(1, 100)));
        ok(case.layer.forward(part(0..10), Some(&mut cache), &options));
        // Dropped before its end, at every point.
        let mut steps = 0;
        loop {
            let mut out = vec![0.0; 20 * case.embed_dim];
            let job = ok(case
                .layer
                .forward_job(part(10..30), Some(&mut cache), &options));
            let mut job = ok(job.into_work(DataMut::F32(&mut out)));
            for _ in 0..steps {
                ok(job.step(1));
            }
            let is_done = job.done() == job.total();
            drop(job);
            if is_done {
                assert_eq!(cache.len(), 30, "{}", case.name);
                break;
            }
            assert_eq!(cache.len(), 10, "{} dropped after {steps} steps", case.name);
            steps += 1;
        }
        assert!(steps >= 3, "{} has three stages", case.name);
        // Never worked off: nothing happens to it.
        drop(ok(case.layer.forward_job(
            part(30..40),
            Some(&mut cache),
            &options,
        )));
        assert_eq!(cache.len(), 30);
        // Rewound, and the same again; then a copy of the cache goes on as the cache does.
        ok(cache.rewind(17));
        let again = ok(case.layer.forward(part(17..33), Some(&mut cache), &options));
        assert_eq!(
            bits(&again),
            y[17 * case.embed_dim..33 * case.embed_dim],
            "{} after rewind",
            case.name
        );
        let mut copy = ok(KvCache::new(case.layer.cache_options(1, 0)));
        let kept = *cache.options();
        let (k, v) = ok(cache.export());
        let k = ok(k.to_f32(kept.head_dim));
        let v = ok(v.to_f32(kept.value_dim));
        ok(copy.append(
            Tensor::f32(&k, &[1, kept.terms * kept.groups, 33, kept.head_dim]),
            Tensor::f32(&v, &[1, kept.groups, 33, kept.value_dim]),
            Layout::Bhsd,
        ));
        let rest = ok(case.layer.forward(part(33..40), Some(&mut copy), &options));
        assert_eq!(
            bits(&rest),
            y[33 * case.embed_dim..],
            "{} with a copy of the cache",
            case.name
        );
    }
}

/// A layer takes a cache of any type, and its rows see what that holds, in the call that appends
/// too. One with differences keeps its inputs there, and takes only float32.
#[test]
fn caches_of_every_type() {
    let dtypes = [CacheDType::F16, CacheDType::Bf16, CacheDType::Int8];
    let mut refused = 0;
    for (seed, case) in zoo()
        .into_iter()
        .enumerate()
        .filter(|(_, case)| causal(case))
    {
        let x = case.input(seed as u64 + 950, 2, 30);
        let data: Vec<f32> = x.data.iter().map(|&x| x as f32).collect();
        let part = |tokens: std::ops::Range<usize>| -> Vec<f32> {
            let texts = data.chunks_exact(30 * case.embed_dim);
            let rows = tokens.start * case.embed_dim..tokens.end * case.embed_dim;
            texts.flat_map(|text| text[rows.clone()].to_vec()).collect()
        };
        let options = on(Isa::detect(), 1, false);
        let has_differences = match &case.oracle {
            Oracle::V1(oracle) => oracle.sequence.is_some(),
            Oracle::V2(_) => false,
        };
        for dtype in dtypes {
            let made = || {
                ok(KvCache::new(KvCacheOptions {
                    dtype,
                    ..case.layer.cache_options(2, 0)
                }))
            };
            let forward = |tokens: std::ops::Range<usize>, cache: &mut KvCache| {
                let rows = part(tokens.clone());
                let x = Tensor::f32(&rows, &[2, tokens.len(), case.embed_dim]);
                case.layer.forward(x, Some(cache), &options)
            };
            let mut cache = made();
            if has_differences {
                let error = forward(0..30, &mut cache).err().map(|error| error.code());
                assert_eq!(error, Some("DTYPE"), "{}", case.name);
                refused += 1;
                continue;
            }
            let y = bits(&ok(forward(0..30, &mut cache)));
            let mut cache = made();
            for tokens in [0..1, 1..2, 2..20, 20..21, 21..30] {
                let got = bits(&ok(forward(tokens.clone(), &mut cache)));
                let texts = y.chunks_exact(30 * case.embed_dim);
                let rows = tokens.start * case.embed_dim..tokens.end * case.embed_dim;
                let expected: Vec<u32> = texts.flat_map(|y| y[rows.clone()].to_vec()).collect();
                assert_eq!(got, expected, "{} {dtype:?} {tokens:?}", case.name);
            }
        }
    }
    assert!(refused >= 3);
}

/// Long enough that filling the cache takes several units.
#[test]
fn a_long_cached_call_in_slices() {
    for (seed, case) in large().iter().enumerate() {
        let x = case.input(seed as u64 + 160, 2, 900);
        let data: Vec<f32> = x.data.iter().map(|&x| x as f32).collect();
        let options = on(Isa::detect(), 2, false);
        let y = bits(&case.run(&x, &options));
        let mut cache = ok(KvCache::new(case.layer.cache_options(2, 0)));
        for stop in (0..).step_by(5) {
            let mut out = vec![f32::NAN; data.len()];
            let job = ok(case.layer.forward_job(
                Tensor::f32(&data, &x.shape),
                Some(&mut cache),
                &options,
            ));
            let mut job = ok(job.into_work(DataMut::F32(&mut out)));
            for _ in 0..stop {
                ok(job.step(1));
            }
            if job.done() == job.total() {
                drop(job);
                assert_eq!((cache.len(), bits(&out)), (900, y), "{}", case.name);
                break;
            }
            drop(job);
            assert_eq!(cache.len(), 0, "{} dropped after {stop} steps", case.name);
        }
    }
}

#[test]
fn masks_of_a_cached_call_speak_of_all_keys() {
    for (seed, case) in zoo().iter().enumerate().filter(|(_, case)| causal(case)) {
        let (length, heads) = (30, case.layer.num_heads());
        let x = case.input(seed as u64 + 170, 1, length);
        let data: Vec<f32> = x.data.iter().map(|&x| x as f32).collect();
        let row = case.embed_dim;
        let options = on(Isa::detect(), 2, false);
        let visible: Vec<u8> = (0..heads * length * length)
            .map(|i| u8::from(i * 7919 % 5 != 0))
            .collect();
        let mask = Mask {
            data: &visible,
            shape: vec![1, heads, length, length],
        };
        let y = bits(&case.run(
            &x,
            &ForwardOptions {
                attn_mask: Some(mask),
                ..options.clone()
            },
        ));
        let mut cache = ok(KvCache::new(case.layer.cache_options(1, 0)));
        let mut first = 0;
        for tokens in [12, 1, 17] {
            let keys = first + tokens;
            let rows =
                |head: usize| (first..keys).map(move |query| (head * length + query) * length);
            let part: Vec<u8> = (0..heads)
                .flat_map(|head| rows(head).flat_map(|at| &visible[at..at + keys]))
                .copied()
                .collect();
            let mask = Mask {
                data: &part,
                shape: vec![1, heads, tokens, keys],
            };
            let options = ForwardOptions {
                attn_mask: Some(mask),
                ..options.clone()
            };
            let got = ok(case.layer.forward(
                Tensor::f32(&data[first * row..keys * row], &[1, tokens, row]),
                Some(&mut cache),
                &options,
            ));
            assert_eq!(
                bits(&got),
                y[first * row..keys * row],
                "{} at {first}",
                case.name
            );
            first = keys;
        }
    }
}

#[test]
fn nothing_in_gives_nothing_out() {
    for case in zoo() {
        for shape in [[0, 5, case.embed_dim], [3, 0, case.embed_dim]] {
            let mut cache = ok(KvCache::new(case.layer.cache_options(shape[0].max(1), 0)));
            let x = Tensor::f32(&[], &shape);
            let cache = (shape[0] > 0).then_some(&mut cache);
            assert_eq!(
                ok(case
                    .layer
                    .forward(x.clone(), cache, &ForwardOptions::default())),
                Vec::<f32>::new()
            );
            let maps = ok(case.layer.maps(x, &ForwardOptions::default()));
            assert_eq!(
                (maps.shape, maps.diff),
                (
                    [shape[0], case.layer.num_heads(), shape[1], shape[1]],
                    vec![]
                )
            );
        }
    }
}

/// A token that is not finite reaches the rows that see it, and no other.
#[test]
fn nan_stays_where_it_is_seen() {
    for (seed, case) in zoo().iter().enumerate().filter(|(_, case)| causal(case)) {
        let x = case.input(seed as u64 + 190, 2, 20);
        let y = bits(&case.run(&x, &on(Isa::detect(), 1, false)));
        let mut spoiled = x.clone();
        spoiled.data[(20 + 7) * case.embed_dim] = f64::NAN; // entry 1, token 7
        let z = case.run(&spoiled, &on(Isa::detect(), 1, false));
        let clean = (20 + 7) * case.embed_dim;
        assert_eq!(bits(&z[..clean]), y[..clean], "{}", case.name);
        assert!(z[clean..].iter().all(|z| z.is_nan()), "{}", case.name);
    }
}
