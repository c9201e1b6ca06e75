//! Attention against the float64 oracle: the fixtures and random cases, on every instruction set.
//! Accuracy by the rule of plain float32; the bits are in `bits.rs`, refusals in `errors.rs`.

use crate::support::{DRAWS, How, Owned, Values, every_way, rotated, run, run_maps};
use diffattn::{Data, DataMut, DiffAttention, KeysValues, Layout, Pairing, Tensor};
use diffattn_reference::fixture::{Fixture, Stored, read_all};
use diffattn_reference::{Accuracy, CaseErrors};
use diffattn_reference::{
    AttentionSpec, Head, Norm, Tensor as Reference, attention, attention_maps,
};
use proptest::prelude::*;

fn without_norm(spec: &AttentionSpec) -> AttentionSpec {
    AttentionSpec {
        norm: None,
        ..spec.clone()
    }
}

/// The rule for one case. The largest error of a few hundred values is luck (plain float32 has none
/// at all in some fixtures), so a case is measured on DRAWS draws of its values: its own and
/// rotations.
fn judge(
    accuracy: &mut Accuracy,
    name: &str,
    spec: &AttentionSpec,
    expected: &[f64],
    how: &How,
) -> Result<(), String> {
    let (mut truth, mut plain, mut out) = (
        expected.to_vec(),
        attention::<f32>(spec).out.data,
        run(spec, how).unwrap().0,
    );
    for by in 1..DRAWS {
        let sibling = rotated(spec, by);
        truth.extend(attention::<f64>(&sibling).out.data);
        plain.extend(attention::<f32>(&sibling).out.data);
        out.extend(run(&sibling, how).unwrap().0);
    }
    accuracy.case(name, &truth, &plain, &out).map(|_| ())
}

/// Every fixture through every instruction set; with and without the norm.
#[test]
fn fixtures() {
    let fixtures = read_all("diff_attention");
    assert!(fixtures.len() >= 47, "only {} fixtures", fixtures.len());
    let halves = |fixture: &&Fixture| !fixture.name.contains("float16");
    for how in every_way() {
        let mut accuracy = Accuracy::new();
        let mut failures = Vec::new();
        for fixture in fixtures.iter().filter(halves) {
            let spec = fixture.attention_spec();
            let mut specs = vec![(without_norm(&spec), "out")];
            if spec.norm.is_some() {
                specs.push((spec, "out_normed"));
            }
            for (spec, name) in specs {
                let expected = fixture.expected(name).expect("expected result");
                failures
                    .extend(judge(&mut accuracy, &fixture.name, &spec, &expected.data, &how).err());
            }
        }
        assert!(failures.is_empty(), "{how:?}: {}", failures.join("\n"));
        let pooled = accuracy.pooled();
        assert!(pooled.is_ok(), "{how:?}: {pooled:?}");
    }
}

/// The pairing rules by their options give the same bits as the oracle's own plan.
#[test]
fn pairings_by_option_equal_the_explicit_plan() {
    let mut seen = 0;
    for fixture in read_all("diff_attention") {
        if fixture.case["heads"].is_array()
            || fixture.name.contains("float16")
            || fixture.case["coefficients"].is_array()
        {
            continue;
        }
        let spec = fixture.attention_spec();
        let how = How::new(diffattn::Isa::detect());
        let owned = Owned::new(&spec, Layout::Bhsd);
        let mut options = owned.options(&spec, &how);
        options.heads = None;
        options.return_lse = false;
        options.pairing = match fixture.text("pairing") {
            Some("halves") => Pairing::Halves,
            Some("grouped") => Pairing::Grouped,
            Some("shared") => Pairing::Shared,
            _ => Pairing::Interleaved,
        };
        options.ratio = fixture.count("ratio");
        options.kv_repeat =
            (fixture.text("kv_repeat") == Some("flat")).then_some(diffattn::KvRepeat::Flat);
        let by_option =
            diffattn::diff_attention(owned.q(), owned.k(), owned.v(), &options).unwrap();
        assert_eq!(
            crate::support::bits(&by_option),
            crate::support::bits(&run(&spec, &how).unwrap().0),
            "{}",
            fixture.name
        );
        seen += 1;
    }
    assert!(seen >= 38, "only {seen} fixtures");
}

#[test]
fn fixture_maps() {
    let mut seen = 0;
    for fixture in read_all("diff_attention") {
        let Some(map1) = fixture.expected("map1") else {
            continue;
        };
        seen += 1;
        let spec = fixture.attention_spec();
        let expected = [
            map1,
            fixture.expected("map2").unwrap(),
            fixture.expected("diff_map").unwrap(),
        ];
        let plain = attention_maps::<f32>(&spec);
        for how in every_way() {
            let maps = run_maps(&spec, &how, [0, spec.q.shape[2]]).unwrap();
            for (index, map) in maps.iter().enumerate() {
                // Maps have no rule of their own: the case bounds, or four roundings of the largest
                // value.
                let plain = plain.maps.get(index).unwrap_or(&plain.diff);
                let allowed = CaseErrors::new(&expected[index].data, &plain.data);
                let errors = CaseErrors::new(&expected[index].data, map);
                let bound = f64::max(1.5 * allowed.max, 4.0 * (-24f64).exp2() * allowed.magnitude);
                assert!(
                    errors.max <= bound,
                    "{} map {index} {how:?}: {errors:?}, plain {allowed:?}",
                    fixture.name
                );
            }
        }
    }
    assert!(seen >= 8, "only {seen} fixtures");
}

/// float16 and bfloat16: the float32 result on the widened inputs, rounded once.
#[test]
fn halves_are_widened_and_rounded_once() {
    for name in ["float16", "bfloat16"] {
        let fixture = read_all("diff_attention")
            .into_iter()
            .find(|f| f.name.ends_with(&format!("/{name}")))
            .unwrap();
        let spec = fixture.attention_spec();
        let stored = ["q", "k", "v"].map(|name| match &fixture.tensors[name] {
            Stored::F16(tensor) | Stored::Bf16(tensor) => tensor.clone(),
            other => panic!("{other:?}"),
        });
        for how in every_way() {
            let tensor = |index: usize| {
                let bits: &Reference<u16> = &stored[index];
                let data = if name == "float16" {
                    Data::F16(&bits.data)
                } else {
                    Data::Bf16(&bits.data)
                };
                Tensor {
                    data,
                    shape: bits.shape.clone(),
                }
            };
            let owned = Owned::new(&spec, Layout::Bhsd);
            let options = diffattn::AttentionOptions {
                return_lse: false,
                ..owned.options(&spec, &how)
            };
            let kv = KeysValues::Tensors {
                k: tensor(1),
                v: tensor(2),
            };
            let mut out = vec![0u16; attention::<f64>(&spec).out.data.len()];
            let call = DiffAttention::new(tensor(0), kv, &options).unwrap();
            let bound = if name == "float16" {
                DataMut::F16(&mut out)
            } else {
                DataMut::Bf16(&mut out)
            };
            call.into_work(bound, None).unwrap().finish().unwrap();
            let single = run(&spec, &how).unwrap().0;
            let rounded: Vec<u16> = single
                .iter()
                .map(|&x| match name {
                    "float16" => half::f16::from_f32(x).to_bits(),
                    _ => half::bf16::from_f32(x).to_bits(),
                })
                .collect();
            assert_eq!(out, rounded, "{name} {how:?}");
            let expected = fixture.expected("out").unwrap();
            let plain = attention::<f32>(&spec).out;
            let (errors, allowed) = (
                CaseErrors::new(&expected.data, &single),
                CaseErrors::new(&expected.data, &plain.data),
            );
            assert!(
                errors.rms <= 1.25 * allowed.rms,
                "{name} {how:?}: {errors:?}, plain {allowed:?}"
            );
        }
    }
}

/// Sizes around every tile edge: panels of 16, strips of 256, blocks of 12 to 48 queries.
fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![
        4 => 0usize..40,
        2 => prop::sample::select(vec![15usize, 16, 17, 23, 24, 25, 47, 48, 49, 63, 64, 65, 95, 96, 97]),
        1 => prop::sample::select(vec![255usize, 256, 257, 271, 272, 273, 300]),
    ]
}

/// A random call: plan, masks, λ, norm. `wild` adds NaN and infinities.
pub(crate) fn random_spec(
    seed: u64,
    lq: usize,
    lk: usize,
    d: usize,
    dv: usize,
    wild: bool,
) -> AttentionSpec {
    let mut values = Values(seed);
    let (b, n_q, n_k, n_v) = (
        1 + values.below(2),
        1 + values.below(5),
        1 + values.below(3),
        1 + values.below(2),
    );
    let (q, k, v) = (
        values.tensor(&[b, n_q, lq, d]),
        values.tensor(&[b, n_k, lk, d]),
        values.tensor(&[b, n_v, lk, dv]),
    );
    let per_head = 1 + values.below(2);
    let h = 1 + values.below(4);
    let heads = (0..h)
        .map(|_| {
            let terms = if values.chance(4) {
                1 + values.below(4)
            } else {
                2
            };
            let mut pick = |end: usize| (0..terms).map(|_| values.below(end)).collect::<Vec<_>>();
            let (q, k) = (pick(n_q), pick(n_k));
            let v = (0..per_head).map(|_| values.below(n_v)).collect();
            let coefficients = (0..terms)
                .map(|t| if t == 0 { 1.0 } else { -0.5 / t as f64 })
                .collect();
            Head {
                q,
                k,
                v,
                coefficients,
            }
        })
        .collect();
    let mut spec = AttentionSpec::new(q, k, v, heads);
    let one_or = |values: &mut Values, full: usize| if values.chance(2) { 1 } else { full };
    if values.chance(2) {
        let shape = [one_or(&mut values, b), one_or(&mut values, lq), h];
        spec.lambda = Some(values.tensor(&shape));
    }
    spec.causal = values.chance(2);
    if values.chance(3) {
        let mut side = || {
            if values.chance(2) {
                None
            } else {
                Some(values.below(lk + 2))
            }
        };
        spec.window = [side(), side()];
    }
    if values.chance(4) {
        spec.softcap = Some(2.0);
    }
    if values.chance(4) {
        let shape = [
            one_or(&mut values, b),
            one_or(&mut values, h),
            one_or(&mut values, lq),
            lk,
        ];
        let len = shape.iter().product();
        spec.mask = Some(Reference::new(
            &shape,
            (0..len).map(|_| !values.chance(3)).collect(),
        ));
    }
    if values.chance(4) {
        let shape = [
            one_or(&mut values, b),
            one_or(&mut values, h),
            one_or(&mut values, lq),
            lk,
        ];
        let mut bias = values.tensor(&shape);
        for value in &mut bias.data {
            if values.chance(5) {
                *value = f64::NEG_INFINITY;
            }
        }
        spec.bias = Some(bias);
    }
    if values.chance(4) {
        spec.key_lengths = Some((0..b).map(|_| values.below(lk + 1)).collect());
    }
    if values.chance(4) {
        spec.query_offset = Some(
            (0..b)
                .map(|_| values.below(2 * lk + 8) as i64 - lk as i64 / 2 - 4)
                .collect(),
        );
    }
    if values.chance(3) {
        let width = dv * per_head;
        let weight = values
            .chance(2)
            .then(|| (0..width).map(|_| 1.0 + 0.1 * values.normal()).collect());
        spec.norm = Some(Norm {
            eps: 1e-5,
            weight: weight.map(|w: Vec<f64>| w.iter().map(|&x| f64::from(x as f32)).collect()),
            scale: 0.5,
        });
    }
    if wild {
        let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
        for tensor in [&mut spec.q, &mut spec.k, &mut spec.v] {
            for _ in 0..values.below(4) {
                if !tensor.data.is_empty() {
                    let at = values.below(tensor.data.len());
                    tensor.data[at] = odd[values.below(3)];
                }
            }
        }
        if let Some(bias) = &mut spec.bias
            && !bias.data.is_empty()
        {
            let at = values.below(bias.data.len());
            bias.data[at] = odd[values.below(2)];
            let at = values.below(bias.data.len());
            bias.data[at] = f64::from(f32::MIN);
        }
        if let Some(lambda) = &mut spec.lambda
            && !lambda.data.is_empty()
            && values.chance(2)
        {
            let at = values.below(lambda.data.len());
            lambda.data[at] = f64::NAN;
        }
    }
    spec
}

/// The float64 truth with the options that the crate holds as float32 rounded as it holds them.
fn as_held(spec: &AttentionSpec) -> AttentionSpec {
    let mut spec = spec.clone();
    if let Some(norm) = &mut spec.norm {
        norm.eps = f64::from(norm.eps as f32);
    }
    spec
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 160, ..ProptestConfig::default() })]

    /// Random calls stay within the per-case bounds, on every instruction set and in both layouts.
    #[test]
    fn random_calls(seed in any::<u64>(), lq in lengths(), lk in lengths(), d in 1usize..=130, dv in 1usize..=130) {
        // A norm blows up the errors of a row that nearly cancels: left to the fixtures, which have
        // draws.
        let spec = without_norm(&as_held(&random_spec(seed, lq, lk, d, dv, false)));
        let oracle = attention::<f64>(&spec);
        let plain = attention::<f32>(&spec);
        for (index, how) in every_way().into_iter().enumerate() {
            let layout = if (index as u64 + seed).is_multiple_of(2) { Layout::Bhsd } else { Layout::Bshd };
            let how = How { layout, threads: 1 + (seed % 3) as usize, ..how };
            let (out, lse) = run(&spec, &how).unwrap();
            let errors = CaseErrors::new(&oracle.out.data, &out);
            let allowed = CaseErrors::new(&oracle.out.data, &plain.out.data);
            // A random case is one draw, in which plain float32 may be lucky (a single query has
            // one set of scores): what these bounds find is judged by the rule itself.
            let floor: f64 = allowed.magnitude * (-23f64).exp2();
            if errors.rms > f64::max(2.5 * allowed.rms, floor) || errors.max > f64::max(5.0 * allowed.max, 4.0 * floor) {
                let verdict = judge(&mut Accuracy::new(), "this case", &spec, &oracle.out.data, &how);
                prop_assert!(verdict.is_ok(), "{how:?}: {errors:?}, plain {allowed:?}: {verdict:?}");
            }
            let lse_errors = CaseErrors::new(&oracle.lse.data, &lse);
            prop_assert!(lse_errors.max <= 2e-6 * lse_errors.magnitude.max(8.0), "{how:?}: lse {lse_errors:?}");
        }
    }

    /// NaN and infinities come out where the oracle says, and nowhere else.
    #[test]
    fn wild_calls(seed in any::<u64>(), lq in lengths(), lk in lengths(), d in 1usize..=20, dv in 1usize..=40) {
        let spec = as_held(&random_spec(seed, lq, lk, d, dv, true));
        let oracle = attention::<f64>(&spec);
        for how in every_way() {
            let (out, lse) = run(&spec, &how).unwrap();
            let errors = CaseErrors::new(&oracle.out.data, &out);
            prop_assert!(errors.max <= 1e-4 * errors.magnitude, "{how:?}: {errors:?} expected {} got {}",
                oracle.out.data[errors.max_index], out[errors.max_index]);
            let errors = CaseErrors::new(&oracle.lse.data, &lse);
            prop_assert!(errors.max <= 1e-5 * errors.magnitude.max(8.0), "{how:?}: lse {errors:?}");
        }
    }

    /// Any stretch of rows of the maps equals the oracle's, with zeros past what is seen.
    #[test]
    fn random_maps(seed in any::<u64>(), lq in 1usize..70, lk in lengths(), d in 1usize..=40) {
        let spec = random_spec(seed, lq, lk, d, 4, seed.is_multiple_of(4));
        let first = (seed % lq as u64) as usize;
        let end = first + (seed / 7 % (lq - first + 1) as u64) as usize;
        let oracle = attention_maps::<f64>(&spec);
        let heads = spec.heads.len() * spec.q.shape[0];
        for how in every_way() {
            let maps = run_maps(&spec, &how, [first, end]).unwrap();
            for (index, map) in maps.iter().enumerate() {
                let whole = oracle.maps.get(index).unwrap_or(&oracle.diff);
                let rows: Vec<f64> = (0..heads)
                    .flat_map(|head| whole.data[(head * lq + first) * lk..(head * lq + end) * lk].to_vec())
                    .collect();
                let errors = CaseErrors::new(&rows, map);
                prop_assert!(errors.max <= 1e-5 * errors.magnitude, "{how:?} map {index}: {errors:?}: expected {} got {}", rows[errors.max_index], map[errors.max_index]);
            }
        }
    }
}

/// Pooled over many random cases of ordinary sizes: never worse than plain float32.
#[test]
fn pooled_accuracy() {
    for how in every_way() {
        let mut accuracy = Accuracy::new();
        for seed in 0..24u64 {
            let (lq, lk) = (1 + seed as usize * 5 % 60, 20 + seed as usize * 37 % 500);
            let spec = as_held(&random_spec(
                seed,
                lq,
                lk,
                [16, 32, 64, 128][seed as usize % 4],
                64,
                false,
            ));
            let (oracle, plain) = (attention::<f64>(&spec), attention::<f32>(&spec));
            let (out, _) = run(&spec, &how).unwrap();
            let _ = accuracy.case("", &oracle.out.data, &plain.out.data, &out);
        }
        let pooled = accuracy.pooled();
        assert!(pooled.is_ok(), "{how:?}: {pooled:?}");
    }
}
