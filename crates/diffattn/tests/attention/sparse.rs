//! Block masks and sinks: against the oracle, and the bits that they must not change.

use crate::accuracy::random_spec;
use crate::support::{How, Values, bits, every_way, run, run_maps};
use diffattn_reference::{AttentionSpec, CaseErrors, Tensor as Reference, attention};

/// Queries and keys of a block.
const BLOCK: usize = 64;

/// Random calls of sizes around blocks, strips and row blocks; `n` 3 of each four has NaN and
/// infinities.
fn specs() -> Vec<AttentionSpec> {
    let sizes = [
        (1, 300, 64, 128),
        (4, 513, 16, 20),
        (64, 64, 32, 33),
        (70, 140, 8, 16),
        (130, 700, 16, 24),
        (200, 257, 20, 16),
    ];
    let mut specs = Vec::new();
    for (index, (lq, lk, d, dv)) in sizes.into_iter().enumerate() {
        for n in 0..4 {
            specs.push(random_spec(77 * index as u64 + n, lq, lk, d, dv, n == 3));
        }
    }
    specs
}

/// The spec with a random block mask, of which about one block in `live` lives.
fn with_blocks(spec: &AttentionSpec, seed: u64, live: usize) -> AttentionSpec {
    let mut values = Values(seed);
    let mut one_or = |full: usize| if values.chance(2) { 1 } else { full };
    let shape = [
        one_or(spec.q.shape[0]),
        one_or(spec.heads.len()),
        spec.q.shape[2].div_ceil(BLOCK),
        spec.k.shape[2].div_ceil(BLOCK),
    ];
    let len = shape.iter().product();
    let data = (0..len).map(|_| values.chance(live)).collect();
    AttentionSpec {
        block_mask: Some(Reference::new(&shape, data)),
        ..spec.clone()
    }
}

/// The spec with random sinks: one per head, or one per head and term.
fn with_sinks(spec: &AttentionSpec, seed: u64) -> AttentionSpec {
    let mut values = Values(seed);
    let shape = [spec.heads.len(), spec.terms()];
    let shape = &shape[..1 + values.below(2)];
    let mut sinks = values.tensor(shape);
    for sink in &mut sinks.data {
        match values.below(8) {
            0 => *sink = f64::NEG_INFINITY,
            1 => *sink *= 40.0,
            _ => {}
        }
        *sink = f64::from(*sink as f32);
    }
    AttentionSpec {
        sinks: Some(sinks),
        ..spec.clone()
    }
}

/// The spec with its block mask spread out into its boolean mask.
fn spread(spec: &AttentionSpec) -> AttentionSpec {
    let [batch, heads, lq, lk] = [
        spec.q.shape[0],
        spec.heads.len(),
        spec.q.shape[2],
        spec.k.shape[2],
    ];
    let mut data = Vec::new();
    for b in 0..batch {
        for h in 0..heads {
            for i in 0..lq {
                for j in 0..lk {
                    let (mask, blocks) = (spec.mask.as_ref(), spec.block_mask.as_ref());
                    let block = [b, h, i / BLOCK, j / BLOCK];
                    data.push(
                        mask.is_none_or(|mask| mask.broadcast(&[b, h, i, j]))
                            && blocks.is_none_or(|blocks| blocks.broadcast(&block)),
                    );
                }
            }
        }
    }
    AttentionSpec {
        mask: Some(Reference::new(&[batch, heads, lq, lk], data)),
        block_mask: None,
        ..spec.clone()
    }
}

/// The bits of the result, of the log-sum-exps and of the maps.
fn all_bits(spec: &AttentionSpec, how: &How) -> Vec<Vec<u32>> {
    let (out, lse) = run(spec, how).unwrap();
    let maps = run_maps(spec, how, [0, spec.q.shape[2]]).unwrap();
    let all = [&out, &lse].into_iter().chain(&maps);
    all.map(|values| bits(values)).collect()
}

#[test]
fn a_dead_block_is_masked_as_by_a_boolean_mask() {
    for (index, spec) in specs().iter().enumerate() {
        let mut spec = with_blocks(spec, index as u64, 2 + index % 3);
        // (A boolean mask on both sides: with one, scores are scaled before they are stored.)
        let everything = || Reference::full(&[1, 1, 1, spec.k.shape[2]], true);
        spec.mask = Some(spec.mask.clone().unwrap_or_else(everything));
        let spread = spread(&spec);
        for how in every_way() {
            assert_eq!(
                all_bits(&spec, &how),
                all_bits(&spread, &how),
                "case {index} {how:?}"
            );
            let how = How {
                threads: 3,
                slice: 1,
                ..how
            };
            assert_eq!(
                all_bits(&spec, &how),
                all_bits(&spread, &how),
                "case {index} {how:?}"
            );
        }
    }
}

#[test]
fn a_mask_of_live_blocks_and_sinks_of_nothing_change_no_bit() {
    for (index, spec) in specs().iter().enumerate() {
        let mut all = with_blocks(spec, index as u64, 1);
        all.sinks = Some(Reference::full(&[spec.heads.len()], f64::NEG_INFINITY));
        for how in every_way() {
            assert_eq!(
                all_bits(&all, &how),
                all_bits(spec, &how),
                "case {index} {how:?}"
            );
        }
    }
}

/// Both options against the oracle: values where it has values, NaN and infinities where it has
/// them.
#[test]
fn both_follow_the_oracle() {
    for (index, spec) in specs().iter().enumerate() {
        let seed = 900 + index as u64;
        let mut spec = with_sinks(&with_blocks(spec, seed, 2), seed);
        if let Some(norm) = &mut spec.norm {
            norm.eps = f64::from(norm.eps as f32);
        }
        let oracle = attention::<f64>(&spec);
        for how in every_way() {
            let (out, lse) = run(&spec, &how).unwrap();
            let errors = CaseErrors::new(&oracle.out.data, &out);
            assert!(
                errors.max <= 1e-4 * errors.magnitude,
                "case {index} {how:?}: {errors:?}"
            );
            let errors = CaseErrors::new(&oracle.lse.data, &lse);
            assert!(
                errors.max <= 1e-5 * errors.magnitude.max(8.0),
                "case {index} {how:?}: lse {errors:?}"
            );
        }
    }
}

/// Query `i` alone, with its own row of the block mask.
fn one_query(spec: &AttentionSpec, i: usize) -> AttentionSpec {
    let rows = |tensor: &Reference<f64>, axis: usize, at: usize| {
        let (rows, inner) = (
            tensor.shape[axis],
            tensor.shape[axis + 1..].iter().product::<usize>(),
        );
        let mut shape = tensor.shape.clone();
        shape[axis] = 1;
        let at = at.min(rows - 1) * inner;
        let blocks = tensor.data.chunks_exact(rows * inner);
        Reference::new(
            &shape,
            blocks
                .flat_map(|block| block[at..at + inner].to_vec())
                .collect(),
        )
    };
    let bools = |tensor: &Reference<bool>, at: usize| {
        let numbers = tensor.data.iter().map(|&x| f64::from(u8::from(x)));
        let row = rows(&Reference::new(&tensor.shape, numbers.collect()), 2, at);
        Reference::new(&row.shape, row.data.iter().map(|&x| x != 0.0).collect())
    };
    let (lq, lk) = (spec.q.shape[2] as i64, spec.k.shape[2] as i64);
    let offsets = spec.query_offset.clone();
    let offsets = offsets.unwrap_or_else(|| vec![lk - lq; spec.q.shape[0]]);
    AttentionSpec {
        q: rows(&spec.q, 2, i),
        lambda: spec.lambda.as_ref().map(|lambda| rows(lambda, 1, i)),
        bias: spec.bias.as_ref().map(|bias| rows(bias, 2, i)),
        mask: spec.mask.as_ref().map(|mask| bools(mask, i)),
        block_mask: spec.block_mask.as_ref().map(|mask| bools(mask, i / BLOCK)),
        query_offset: Some(offsets.iter().map(|offset| offset + i as i64).collect()),
        ..spec.clone()
    }
}

#[test]
fn a_query_alone_has_the_bits_of_the_prefill() {
    for (index, spec) in specs().iter().enumerate() {
        let seed = 300 + index as u64;
        let spec = with_sinks(&with_blocks(spec, seed, 2), seed);
        let (lq, width) = (spec.q.shape[2], spec.output_width());
        for how in every_way() {
            let (whole, lse) = run(&spec, &how).unwrap();
            for i in [0, lq / 2, lq - 1] {
                let (out, one_lse) = run(&one_query(&spec, i), &how).unwrap();
                let rows = whole.chunks_exact(lq * width);
                let expected: Vec<f32> = rows
                    .flat_map(|head| head[i * width..][..width].to_vec())
                    .collect();
                assert_eq!(
                    bits(&out),
                    bits(&expected),
                    "case {index} query {i} {how:?}"
                );
                let expected: Vec<f32> = lse.chunks_exact(lq).map(|row| row[i]).collect();
                assert_eq!(
                    bits(&one_lse),
                    bits(&expected),
                    "case {index} query {i} {how:?}"
                );
            }
        }
    }
}
