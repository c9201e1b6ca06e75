//! Gradients of attention against the float64 oracle: the reference cases and random ones, on every
//! instruction set. Accuracy by the rule of plain float32 backward.

use crate::support::{How, Owned, Values, bits, drive, every_way, rotated, to_f32};
use diffattn::{
    AttentionNeeds, AttentionOptions, DiffAttentionBackward, Error, GradientOptions, Isa, Layout,
    Tensor,
};
use diffattn_reference::fixture::{Fixture, read_all};
use diffattn_reference::gradients::attention_backward;
use diffattn_reference::{
    Accuracy, AttentionSpec, CaseErrors, Pairing, Real, Tensor as Reference, plan,
};

/// Draws of a case's values by whose median it is judged: the errors of gradients are those of the
/// one row where most cancels, which in a single draw is luck for either side.
const DRAWS: usize = 25;

/// Every gradient that a case has, by name.
pub(crate) type Named = Vec<(&'static str, Vec<f32>)>;

/// The gradients of a specification, [B, heads, L, width] whatever the layout.
pub(crate) fn run_backward(
    spec: &AttentionSpec,
    dy: &Reference<f64>,
    how: &How,
) -> Result<Named, Error> {
    let owned = Owned::new(spec, how.layout);
    let mut options = owned.options(spec, how);
    options.return_lse = false;
    let needs = AttentionNeeds {
        attn_bias: options.attn_bias.is_some(),
        ..AttentionNeeds::given(&options)
    };
    let gradients = GradientOptions {
        needs: Some(needs),
        pre_norm: None,
        ..GradientOptions::default()
    };
    run_with(&owned, dy, (&options, &gradients), how)
}

fn placed(tensor: &Reference<f64>, layout: Layout) -> Reference<f64> {
    match layout {
        Layout::Bhsd => tensor.clone(),
        Layout::Bshd => tensor.swap_middle_axes(),
    }
}

fn run_with(
    owned: &Owned,
    dy: &Reference<f64>,
    (options, gradients): (&AttentionOptions<'_>, &GradientOptions<'_>),
    how: &How,
) -> Result<Named, Error> {
    let dy = placed(dy, how.layout);
    let data = to_f32(&dy.data);
    let dy = Tensor::f32(&data, &dy.shape);
    let qkv = [owned.q(), owned.k(), owned.v()];
    let call = DiffAttentionBackward::new(dy, qkv, options, gradients)?;
    let shapes = call.shapes().clone();
    let mut out = shapes.zeros()?;
    for values in out
        .as_outputs()
        .named()
        .into_iter()
        .filter_map(|(_, values)| values)
    {
        values.fill(f32::NAN);
    }
    let mut work = call.into_work(out.as_outputs())?;
    drive(&mut work, how)?;
    drop(work);
    let heads = |values: Option<Vec<f32>>, shape: Option<Vec<usize>>| {
        let (values, shape) = (values?, shape?);
        if how.layout == Layout::Bhsd {
            return Some(values);
        }
        let wide = Reference::new(&shape, values.iter().map(|&x| f64::from(x)).collect());
        Some(to_f32(&wide.swap_middle_axes().data))
    };
    let all = [
        ("dq", heads(out.dq, shapes.dq)),
        ("dk", heads(out.dk, shapes.dk)),
        ("dv", heads(out.dv, shapes.dv)),
        ("dlambda", out.dlambda),
        ("dcoefficients", out.dcoefficients),
        ("dnorm_weight", out.dnorm_weight),
        ("dbias", out.dattn_bias),
        ("dsinks", out.dsinks),
    ];
    let named = all.into_iter();
    Ok(named
        .filter_map(|(name, values)| values.map(|values| (name, values)))
        .collect())
}

/// The oracle's, by the same names; coefficients only where there is no λ.
pub(crate) fn expected<R: Real>(
    spec: &AttentionSpec,
    dy: &Reference<f64>,
) -> Vec<(&'static str, Vec<R>)> {
    let of = attention_backward::<R>(spec, dy);
    let all = [
        ("dq", Some(of.dq)),
        ("dk", Some(of.dk)),
        ("dv", Some(of.dv)),
        ("dlambda", of.dlambda),
        ("dcoefficients", of.dcoefficients),
        ("dnorm_weight", of.dnorm_weight),
        ("dbias", of.dbias),
        ("dsinks", of.dsinks),
    ];
    let named = all.into_iter();
    named
        .filter_map(|(name, tensor)| tensor.map(|tensor| (name, tensor.data)))
        .collect()
}

fn of<'n, T>(named: &'n [(&str, Vec<T>)], name: &str) -> &'n [T] {
    let found = named.iter().find(|(other, _)| *other == name);
    &found.unwrap_or_else(|| panic!("no {name}")).1
}

/// A gradient whose few values are sums over all rows, in which most cancels: the largest error of a
/// case is luck for either side. Judged by the pool and the backstop.
fn is_sum(name: &str, values: usize) -> bool {
    ["dcoefficients", "dnorm_weight", "dsinks"].contains(&name) || name == "dlambda" && values < 16
}

/// Other values of the same kind: q, k, v and dy rotated along their tokens.
fn draw(spec: &AttentionSpec, dy: &Reference<f64>, by: usize) -> (AttentionSpec, Reference<f64>) {
    let mut dy = dy.clone();
    let row = dy.shape[3];
    let turn = by * 7 * row % dy.data.len().max(1);
    dy.data.rotate_left(turn);
    (rotated(spec, by), dy)
}

/// The rule for one case: the medians, over [`DRAWS`] draws of its values, of the rms and of the
/// largest error of all gradients of rows together, each scaled by a power of two that brings its
/// largest value near 1.
fn judge(
    [rows, sums]: [&mut Accuracy; 2],
    name: &str,
    (spec, dy): (&AttentionSpec, &Reference<f64>),
    how: &How,
) -> Result<(), String> {
    // [rms, largest] of plain float32 and of the candidate.
    let mut errors = [[Vec::new(), Vec::new()], [Vec::new(), Vec::new()]];
    for by in 0..DRAWS {
        let (spec, dy) = draw(spec, dy, by);
        let got = run_backward(&spec, &dy, how).unwrap();
        let (exact, single) = (expected::<f64>(&spec, &dy), expected::<f32>(&spec, &dy));
        let (mut truth_of_rows, mut of_rows) = (Vec::new(), [Vec::new(), Vec::new()]);
        for (gradient, values) in &got {
            let exact = of(&exact, gradient);
            let largest = exact.iter().fold(0.0, |max: f64, x| max.max(x.abs()));
            let unit = if largest > 0.0 {
                (-largest.log2().floor()).exp2()
            } else {
                1.0
            };
            let truth: Vec<_> = exact.iter().map(|x| x * unit).collect();
            let both = [of(&single, gradient), values];
            let both = both.map(|x| x.iter().map(|x| x * unit as f32).collect::<Vec<_>>());
            let pool = if is_sum(gradient, values.len()) {
                &mut *sums
            } else {
                truth_of_rows.extend_from_slice(&truth);
                for (all, values) in of_rows.iter_mut().zip(&both) {
                    all.extend_from_slice(values);
                }
                &mut *rows
            };
            // (Only the pool counts.)
            let _ = pool.case(name, &truth, &both[0], &both[1]);
        }
        for (errors, values) in errors.iter_mut().zip(&of_rows) {
            let of_draw = CaseErrors::new(&truth_of_rows, values);
            errors[0].push(of_draw.rms);
            errors[1].push(of_draw.max);
        }
    }
    let [plain, got] = errors.map(|errors| errors.map(median));
    if got[0] <= 1.25 * plain[0] && got[1] <= 1.5 * plain[1] {
        return Ok(());
    }
    Err(format!(
        "{name}: rms and largest error {got:?}, plain float32 {plain:?}, at most 1.25 and 1.5 times that"
    ))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Every reference case by the rule and by the backstop, on the slowest instruction set, which never
/// fuses, and on the fastest.
#[test]
fn reference_cases() {
    let mut fixtures = read_all("training/operators/attention");
    fixtures.extend(read_all("gradients"));
    assert_eq!(fixtures.len(), 58);
    let mut failures = Vec::new();
    let ways = every_way();
    for how in [&ways[0], &ways[ways.len() - 2]] {
        let (mut rows, mut sums) = (Accuracy::new(), Accuracy::new());
        for fixture in &fixtures {
            let case = fixture.attention_gradient();
            let spec = (&case.spec, &case.dy);
            failures.extend(judge([&mut rows, &mut sums], &fixture.name, spec, how).err());
            failures.extend(backstop(fixture, &case.spec, &case.dy, how));
        }
        failures.extend(rows.pooled().err());
        failures.extend(sums.pooled().err());
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// All instruction sets that fuse have the same bits, and so have all others and `deterministic`.
#[test]
fn instruction_sets_agree() {
    let mut fixtures = read_all("training/operators/attention");
    fixtures.extend(read_all("gradients"));
    for fixture in &fixtures {
        let case = fixture.attention_gradient();
        let mut seen: [Option<Named>; 2] = [None, None];
        for how in every_way() {
            let fuses = !how.deterministic && how.isa.name() != "scalar";
            let got = run_backward(&case.spec, &case.dy, &how).unwrap();
            let first = seen[usize::from(fuses)].get_or_insert_with(|| got.clone());
            assert_same(first, &got, &format!("{} {how:?}", fixture.name));
        }
    }
}

/// Threads, slices and layouts change no bit; nor does what else a batch holds.
#[test]
fn threads_slices_and_layouts_change_no_bit() {
    for fixture in read_all("training/operators/attention") {
        let case = fixture.attention_gradient();
        let of = |how: &How| run_backward(&case.spec, &case.dy, how).unwrap();
        let plain = How::new(Isa::detect());
        let expected = of(&plain);
        for (threads, slice, layout) in [
            (2, usize::MAX, Layout::Bhsd),
            (4, 3, Layout::Bhsd),
            (1, 1, Layout::Bshd),
            (3, 5, Layout::Bshd),
        ] {
            let how = How {
                threads,
                slice,
                layout,
                ..plain
            };
            assert_same(&expected, &of(&how), &format!("{} {how:?}", fixture.name));
        }
    }
}

/// Long sequences on several threads, where blocks wait for their turn.
#[test]
fn blocks_take_their_turns() {
    let mut values = Values(7);
    for (heads, groups, causal, window) in [
        (4, 1, true, [None, None]),
        (4, 2, false, [None, None]),
        (2, 1, true, [Some(100), None]),
    ] {
        let length = 700;
        let [q, k, v] = [
            values.tensor(&[1, 2 * heads, length, 16]),
            values.tensor(&[1, 2 * groups, length, 16]),
            values.tensor(&[1, groups, length, 24]),
        ];
        let plan = plan(
            Pairing::default(),
            [2 * heads, 2 * groups, groups],
            &[1.0, -1.0],
        );
        let spec = AttentionSpec {
            lambda: Some(Reference::scalar(0.4)),
            causal,
            window,
            ..AttentionSpec::new(q, k, v, plan)
        };
        let dy = values.tensor(&[1, heads, length, 24]);
        let one = How::new(Isa::detect());
        let expected_bits = run_backward(&spec, &dy, &one).unwrap();
        for threads in [2, 4, 8] {
            for _ in 0..3 {
                let how = How { threads, ..one };
                let got = run_backward(&spec, &dy, &how).unwrap();
                assert_same(&expected_bits, &got, &format!("{heads} {groups} {threads}"));
            }
        }
        let exact = expected::<f64>(&spec, &dy);
        for (name, values) in &expected_bits {
            let errors = CaseErrors::new(of(&exact, name), values);
            assert!(errors.max <= 2e-6 * errors.magnitude, "{name}: {errors:?}");
        }
    }
}

/// Wide heads over few keys, whatever is done to their scores.
#[test]
fn wide_heads_over_few_keys() {
    let mut values = Values(8);
    for (keys, width, value_width) in [(1, 520, 3), (3, 300, 260), (17, 33, 1)] {
        let [q, k, v] = [
            values.tensor(&[1, 2, 5, width]),
            values.tensor(&[1, 2, keys, width]),
            values.tensor(&[1, 1, keys, value_width]),
        ];
        let heads = plan(Pairing::default(), [2, 2, 1], &[1.0, -1.0]);
        let spec = AttentionSpec {
            lambda: Some(Reference::scalar(0.4)),
            softcap: Some(5.0),
            bias: Some(values.tensor(&[1, 1, 5, keys])),
            norm: Some(diffattn_reference::Norm::default()),
            ..AttentionSpec::new(q, k, v, heads)
        };
        let dy = values.tensor(&[1, 1, 5, value_width]);
        let exact = expected::<f64>(&spec, &dy);
        for how in every_way() {
            for (name, values) in &run_backward(&spec, &dy, &how).unwrap() {
                let errors = CaseErrors::new(of(&exact, name), values);
                let bound = 2e-5 * errors.magnitude.max(0.1);
                assert!(errors.max <= bound, "{keys} {name} {how:?}: {errors:?}");
            }
        }
    }
}

fn assert_same(one: &Named, other: &Named, what: &str) {
    assert_eq!(one.len(), other.len(), "{what}");
    for ((name, one), (_, other)) in one.iter().zip(other) {
        assert_eq!(bits(one), bits(other), "{what} {name}");
    }
}

/// No gradient is further off than a fixed share of its largest value.
fn backstop(
    fixture: &Fixture,
    spec: &AttentionSpec,
    dy: &Reference<f64>,
    how: &How,
) -> Vec<String> {
    let got = run_backward(spec, dy, how).unwrap();
    let exact = expected::<f64>(spec, dy);
    let mut failures = Vec::new();
    for (name, values) in &got {
        let stored = fixture.expected(name).map(|tensor| tensor.data);
        let truth = stored.unwrap_or_else(|| of(&exact, name).to_vec());
        let by_case = ["large_scores", "sinks_gqa"].iter();
        let mut share = 2e-6_f64;
        if by_case.clone().any(|case| fixture.name.ends_with(case)) {
            share = share.max(6e-6);
        }
        if fixture.name.ends_with("near_cancelling") {
            share = share.max(4e-5);
        }
        if ["dlambda", "dsinks"].contains(name) {
            share = share.max(2e-5);
        }
        let errors = CaseErrors::new(&truth, values);
        if errors.max > share * errors.magnitude {
            failures.push(format!(
                "{} {name}: {errors:?}, at most {share}",
                fixture.name
            ));
        }
    }
    failures
}
