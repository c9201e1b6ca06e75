//! Losses and their gradients, of logits and through a head: fixtures, float64, bits however tokens
//! are cut and calls run, special values, and what is refused.

use diffattn::{
    CrossEntropyGradients, CrossEntropyOptions, Distillation, Error, HeadGradients, Linear,
    LinearCrossEntropy, Logits, Loss, Quantisation, Run, Tensor, cross_entropy,
    linear_cross_entropy,
};
use diffattn_reference::fixture::Fixture;
use diffattn_reference::testing::{bits, noise, ok};

use super::support::{assert_close, cases, check_bits, runs};

fn labels_of(case: &Fixture) -> Vec<i32> {
    let labels = case.i64("labels").data;
    labels.iter().map(|&label| label as i32).collect()
}

fn options_of<'a>(case: &Fixture, teacher: Option<&'a [f32]>, run: Run) -> CrossEntropyOptions<'a> {
    CrossEntropyOptions {
        label_smoothing: case.number("label_smoothing").unwrap_or(0.0),
        z_loss: case.number("z_loss").unwrap_or(0.0),
        distillation: teacher.map(|teacher| Distillation {
            teacher: Logits::Rows(teacher),
            alpha: case.number("alpha").unwrap_or(1.0),
        }),
        run,
        ..CrossEntropyOptions::default()
    }
}

/// Compares what a loss came to with what the case expects, to 2e-6 of it or of 1.
fn check_loss(case: &Fixture, got: &Loss, rows: &[f64]) {
    let parts = [
        ("loss", got.loss),
        ("ce", got.cross_entropy),
        ("kl", got.divergence),
    ];
    for (name, got) in parts {
        if let Some(expected) = case.expected(name) {
            let expected = expected.data[0];
            let error = (got - expected).abs();
            assert!(
                error <= 2e-7 * expected.abs().max(1.0),
                "{}, {name}: {error:e}",
                case.name
            );
        }
    }
    if let Some(expected) = case.expected("rows") {
        for (got, expected) in rows.iter().zip(&expected.data) {
            let error = (got - expected).abs();
            assert!(
                error <= 2e-7 * expected.abs().max(1.0),
                "{}: {error:e}",
                case.name
            );
        }
    }
}

#[test]
fn fixtures_of_logits() {
    for case in cases("cross_entropy")
        .into_iter()
        .chain(cases("distillation"))
    {
        if !case.has("logits") {
            continue;
        }
        let (logits, labels) = (case.f32("logits").data, labels_of(&case));
        let teacher = case
            .has("teacher_logits")
            .then(|| case.f32("teacher_logits").data);
        for run in runs() {
            let options = options_of(&case, teacher.as_deref(), run);
            let mut dlogits = vec![f32::NAN; logits.len()];
            let mut rows = vec![f64::NAN; labels.len()];
            let gradients = CrossEntropyGradients {
                dlogits: Some(&mut dlogits),
                rows: Some(&mut rows),
            };
            let loss = ok(cross_entropy(&logits, &labels, gradients, &options));
            check_loss(&case, &loss, &rows);
            if let Some(expected) = case.expected("dlogits") {
                assert_close(&case.name, &expected.data, &dlogits, 2e-6);
            }
            // The loss alone is the same.
            let alone = cross_entropy(&logits, &labels, CrossEntropyGradients::default(), &options);
            assert_eq!(ok(alone), loss);
        }
    }
}

fn map(weight: &[f32], outputs: usize) -> Linear {
    let shape = [outputs, weight.len() / outputs.max(1)];
    ok(Linear::new(&Tensor::f32(weight, &shape), None))
}

/// The loss, dhidden, dweight, dbias and the rows' losses of a call.
struct Made {
    loss: Loss,
    gradients: [Vec<f32>; 3],
    rows: Vec<f64>,
}

impl Made {
    fn new(head: &Linear, rows: usize) -> Self {
        let (inputs, outputs) = (head.inputs(), head.outputs());
        Self {
            loss: Loss::default(),
            gradients: [rows * inputs, inputs * outputs, outputs].map(|len| vec![0.0; len]),
            rows: vec![0.0; rows],
        }
    }

    /// Those of rows from `first` on, so many as `count`.
    fn part(&mut self, inputs: usize, first: usize, count: usize) -> HeadGradients<'_> {
        let [dhidden, dweight, dbias] = &mut self.gradients;
        HeadGradients {
            dhidden: Some(&mut dhidden[first * inputs..(first + count) * inputs]),
            dweight: Some(dweight),
            dbias: Some(dbias),
            rows: Some(&mut self.rows[first..first + count]),
        }
    }

    fn bits(&self) -> Vec<u32> {
        let rows = self.rows.iter().flat_map(|row| {
            let bits = row.to_bits();
            [bits as u32, (bits >> 32) as u32]
        });
        self.gradients
            .iter()
            .flat_map(|values| bits(values))
            .chain(rows)
            .collect()
    }
}

fn through(
    head: &Linear,
    hidden: &[f32],
    labels: &[i32],
    options: &CrossEntropyOptions<'_>,
) -> Made {
    let mut made = Made::new(head, labels.len());
    let gradients = made.part(head.inputs(), 0, labels.len());
    let loss = ok(linear_cross_entropy(
        head, hidden, labels, gradients, options,
    ));
    made.loss = loss;
    made
}

#[test]
fn fixtures_of_heads() {
    for case in cases("linear_cross_entropy")
        .into_iter()
        .chain(cases("distillation"))
    {
        if !case.has("hidden") {
            continue;
        }
        let (hidden, weight) = (case.f32("hidden").data, case.f32("weight"));
        let (head, labels) = (map(&weight.data, weight.shape[0]), labels_of(&case));
        let teacher = case
            .has("teacher_logits")
            .then(|| case.f32("teacher_logits").data);
        for run in runs() {
            let options = options_of(&case, teacher.as_deref(), run);
            let made = through(&head, &hidden, &labels, &options);
            check_loss(&case, &made.loss, &made.rows);
            for (name, got) in ["dhidden", "dweight"].into_iter().zip(&made.gradients) {
                if let Some(expected) = case.expected(name) {
                    assert_close(&format!("{}, {name}", case.name), &expected.data, got, 2e-6);
                }
            }
        }
    }
}

/// A head, hidden states and labels, of which some count, in float64 by plain loops.
struct Case {
    head: Linear,
    weight: Vec<f32>,
    hidden: Vec<f32>,
    labels: Vec<i32>,
}

impl Case {
    fn new([inputs, vocabulary, rows]: [usize; 3], seed: u64) -> Self {
        let weight = noise(inputs * vocabulary, seed);
        let labels = (0..rows).map(|row| match row * 7 % 5 {
            0 => -100,
            _ => (row * 31 % vocabulary) as i32,
        });
        Self {
            head: map(&weight, vocabulary),
            weight,
            hidden: noise(inputs * rows, seed + 1),
            labels: labels.collect(),
        }
    }

    /// The loss, dhidden and dweight.
    fn expected(&self) -> (f64, [Vec<f64>; 2]) {
        let (inputs, vocabulary) = (self.head.inputs(), self.head.outputs());
        let counted = self
            .labels
            .iter()
            .filter(|&&label| label >= 0)
            .count()
            .max(1) as f64;
        let mut loss = 0.0;
        let mut dhidden = vec![0.0; self.hidden.len()];
        let mut dweight = vec![0.0; self.weight.len()];
        for (row, hidden) in self.hidden.chunks(inputs).enumerate() {
            let Ok(label) = usize::try_from(self.labels[row]) else {
                continue;
            };
            let products = |weight: &[f32]| {
                let terms = weight.iter().zip(hidden);
                terms
                    .map(|(&w, &x)| f64::from(w) * f64::from(x))
                    .sum::<f64>()
            };
            let logits: Vec<f64> = self.weight.chunks(inputs).map(products).collect();
            let sum: f64 = logits.iter().map(|x| x.exp()).sum();
            loss += (sum.ln() - logits[label]) / counted;
            for class in 0..vocabulary {
                let hit = if class == label { 1.0 } else { 0.0 };
                let d = (logits[class].exp() / sum - hit) / counted;
                for input in 0..inputs {
                    dhidden[row * inputs + input] +=
                        d * f64::from(self.weight[class * inputs + input]);
                    dweight[class * inputs + input] += d * f64::from(hidden[input]);
                }
            }
        }
        (loss, [dhidden, dweight])
    }
}

/// Inputs, vocabulary, rows: around the edges of strips, lanes, chunks and windows.
const SIZES: [[usize; 3]; 7] = [
    [5, 33, 1],
    [33, 5, 257],
    [100, 100, 129],
    [16, 513, 300],
    [40, 1300, 70],
    [8, 1, 9],
    [24, 64, 700],
];

#[test]
fn odd_sizes_against_float64() {
    for (seed, size) in SIZES.into_iter().enumerate() {
        let case = Case::new(size, seed as u64);
        let (loss, expected) = case.expected();
        for run in runs() {
            let options = CrossEntropyOptions {
                run,
                ..CrossEntropyOptions::default()
            };
            let made = through(&case.head, &case.hidden, &case.labels, &options);
            assert!(
                (made.loss.loss - loss).abs() <= 2e-7 * loss.max(1.0),
                "{size:?}"
            );
            // (Of one class nothing is expected but zeros.)
            for (expected, got) in expected.iter().zip(&made.gradients) {
                assert_close(&format!("{size:?} {run:?}"), expected, got, 2e-6);
            }
        }
    }
}

/// Options with everything on, the teacher's logits out of a head of its own.
fn with_all<'a>(teacher: &'a Case, run: Run, count: usize) -> CrossEntropyOptions<'a> {
    CrossEntropyOptions {
        label_smoothing: 0.1,
        z_loss: 1e-3,
        count: Some(count),
        distillation: Some(Distillation {
            teacher: Logits::Head {
                hidden: &teacher.hidden,
                head: &teacher.head,
            },
            alpha: 0.4,
        }),
        run,
        ..CrossEntropyOptions::default()
    }
}

#[test]
fn bits_do_not_depend_on_threads_or_the_fusing_set() {
    for (seed, size) in SIZES.into_iter().chain([[64, 900, 600]]).enumerate() {
        let case = Case::new(size, seed as u64);
        let teacher = Case::new([17, size[1], size[2]], 50);
        check_bits(|run| {
            let options = with_all(&teacher, run, 100);
            through(&case.head, &case.hidden, &case.labels, &options).bits()
        });
    }
}

#[test]
fn micro_batches_and_slices_give_the_bits_of_one_call() {
    let (inputs, rows) = (24, 700);
    let case = Case::new([inputs, 90, rows], 3);
    let teacher = Case::new([17, 90, rows], 50);
    for run in runs() {
        let options = with_all(&teacher, run, 560);
        let whole = through(&case.head, &case.hidden, &case.labels, &options);
        let mut parts = Made::new(&case.head, rows);
        let mut loss = 0.0;
        for (first, end) in [(0, 256), (256, 512), (512, 700)] {
            let mut options = options;
            options.distillation = options.distillation.map(|distillation| Distillation {
                teacher: Logits::Head {
                    hidden: &teacher.hidden[first * 17..end * 17],
                    head: &teacher.head,
                },
                ..distillation
            });
            let gradients = parts.part(inputs, first, end - first);
            let hidden = &case.hidden[first * inputs..end * inputs];
            let labels = &case.labels[first..end];
            let part = ok(linear_cross_entropy(
                &case.head, hidden, labels, gradients, &options,
            ));
            loss += part.loss;
        }
        assert!(parts.bits() == whole.bits(), "{run:?}");
        assert!((loss - whole.loss.loss).abs() < 1e-12);
        for units in [1, 3, 1000] {
            let mut parts = Made::new(&case.head, rows);
            let mut loss = Loss::default();
            let call = LinearCrossEntropy::new(&case.head, &case.hidden, &case.labels, &options);
            let mut work = ok(call.into_work(parts.part(inputs, 0, rows), &mut loss));
            let (mut done, mut steps) = (0, 0);
            while work.done() < work.total() {
                ok(work.step(units));
                assert!(work.done() >= done);
                done = work.done();
                steps += 1;
                assert!(steps <= 2 * work.total());
            }
            drop(work);
            assert_eq!(loss, whole.loss);
            assert!(parts.bits() == whole.bits(), "{units} {run:?}");
        }
    }
}

#[test]
fn a_head_gives_what_its_logits_give() {
    let case = Case::new([24, 90, 300], 4);
    let bias = noise(90, 5);
    let tensor = Tensor::f32(&case.weight, &[90, 24]);
    let float = ok(Linear::new(&tensor, Some(&Tensor::f32(&bias, &[90]))));
    // (Inputs of a quantised weight are whole blocks.)
    let wide = noise(90 * 32, 6);
    let frozen = ok(Linear::quantise(
        &Tensor::f32(&wide, &[90, 32]),
        None,
        Quantisation::Q8_0,
    ));
    for head in [float, frozen] {
        let hidden = noise(300 * head.inputs(), 7);
        let options = CrossEntropyOptions::default();
        let made = through(&head, &hidden, &case.labels, &options);
        let mut logits = vec![0.0; 300 * 90];
        ok(head.forward_float(&hidden, &mut logits, Run::default()));
        let mut dlogits = vec![0.0; 300 * 90];
        let gradients = CrossEntropyGradients {
            dlogits: Some(&mut dlogits),
            rows: None,
        };
        let loss = ok(cross_entropy(&logits, &case.labels, gradients, &options));
        assert_eq!(loss, made.loss);
        let sum = |class| {
            dlogits[class..]
                .iter()
                .step_by(90)
                .map(|&d| f64::from(d))
                .sum::<f64>()
        };
        let dbias: Vec<f64> = (0..90).map(sum).collect();
        assert_close("dbias", &dbias, &made.gradients[2], 2e-6);
    }
}

#[test]
fn a_teacher_is_the_same_as_rows_or_as_a_head() {
    let case = Case::new([24, 90, 300], 4);
    let teacher = Case::new([17, 90, 300], 50);
    let mut logits = vec![0.0; 300 * 90];
    ok(teacher
        .head
        .forward(&teacher.hidden, &mut logits, Run::default()));
    let options = with_all(&teacher, Run::default(), 240);
    let made = through(&case.head, &case.hidden, &case.labels, &options);
    let mut of_rows = options;
    of_rows.distillation = Some(Distillation {
        teacher: Logits::Rows(&logits),
        alpha: 0.4,
    });
    let other = through(&case.head, &case.hidden, &case.labels, &of_rows);
    assert_eq!(made.bits(), other.bits());
    // A student that is its teacher has nothing to learn.
    let mut dlogits = vec![0.0; logits.len()];
    of_rows.distillation = Some(Distillation {
        teacher: Logits::Rows(&logits),
        alpha: 0.0,
    });
    of_rows.label_smoothing = 0.0;
    of_rows.z_loss = 0.0;
    let gradients = CrossEntropyGradients {
        dlogits: Some(&mut dlogits),
        rows: None,
    };
    let loss = ok(cross_entropy(&logits, &case.labels, gradients, &of_rows));
    assert!(loss.loss.abs() < 1e-12);
    assert!(dlogits.iter().all(|d| d.abs() < 1e-9));
}

#[test]
fn special_values_stay_in_their_rows() {
    let (vocabulary, rows) = (70, 40);
    let clean = noise(vocabulary * rows, 8);
    let labels: Vec<i32> = (0..rows as i32).collect();
    for run in runs() {
        let options = CrossEntropyOptions {
            run,
            ..CrossEntropyOptions::default()
        };
        let made = |logits: &[f32], labels: &[i32]| {
            let (mut dlogits, mut losses) = (vec![0.0; logits.len()], vec![0.0; rows]);
            let gradients = CrossEntropyGradients {
                dlogits: Some(&mut dlogits),
                rows: Some(&mut losses),
            };
            ok(cross_entropy(logits, labels, gradients, &options));
            (dlogits, losses)
        };
        let expected = made(&clean, &labels);
        for special in [f32::NAN, f32::INFINITY] {
            let mut logits = clean.clone();
            logits[7 * vocabulary + 3] = special;
            let (dlogits, losses) = made(&logits, &labels);
            for (row, loss) in losses.iter().enumerate() {
                let of = row * vocabulary..(row + 1) * vocabulary;
                if row == 7 {
                    assert!(loss.is_nan() && dlogits[of].iter().all(|d| d.is_nan()));
                } else {
                    assert_eq!(*loss, expected.1[row]);
                    assert_eq!(bits(&dlogits[of.clone()]), bits(&expected.0[of]));
                }
            }
            // Where the row takes no part, nothing is heard of it.
            let mut ignored = labels.clone();
            ignored[7] = -100;
            let (dlogits, losses) = made(&logits, &ignored);
            assert!(losses.iter().all(|loss| loss.is_finite()));
            assert!(dlogits.iter().all(|d| d.is_finite()));
        }
        // −∞ is a class that cannot be.
        let mut logits = clean.clone();
        logits[7 * vocabulary + 3] = f32::NEG_INFINITY;
        let (dlogits, losses) = made(&logits, &labels);
        assert!(losses[7].is_finite() && dlogits[7 * vocabulary + 3] == 0.0);
    }
}

fn says<T>(result: Result<T, Error>) -> String {
    result
        .err()
        .map_or_else(String::new, |error| error.to_string())
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let options = CrossEntropyOptions::default();
    let logits = [0.0; 12];
    let refused = |labels: &[i32], options: &CrossEntropyOptions<'_>| {
        says(cross_entropy(
            &logits,
            labels,
            CrossEntropyGradients::default(),
            options,
        ))
    };
    assert_eq!(refused(&[0, 2, -100, 1], &options), "");
    assert_eq!(
        refused(&[0, 3, -100, 1], &options),
        "labels: expected -100 or 0 to below 3, got 3"
    );
    assert!(refused(&[0, -1, 0, 1], &options).starts_with("labels: "));
    assert!(refused(&[0; 5], &options).starts_with("logits: "));
    let labels = [0, 2, -100, 1];
    let with = |change: &dyn Fn(&mut CrossEntropyOptions<'_>)| {
        let mut options = options;
        change(&mut options);
        refused(&labels, &options)
    };
    assert!(with(&|options| options.label_smoothing = 1.5).starts_with("label_smoothing: "));
    assert!(with(&|options| options.label_smoothing = f64::NAN).starts_with("label_smoothing: "));
    assert!(with(&|options| options.z_loss = -1.0).starts_with("z_loss: "));
    assert!(with(&|options| options.count = Some(0)).starts_with("count: "));
    let teacher = |teacher, alpha| Some(Distillation { teacher, alpha });
    let rows = Logits::Rows(&[0.0; 12]);
    assert_eq!(
        with(&|options| options.distillation = teacher(rows, 0.5)),
        ""
    );
    assert!(with(&|options| options.distillation = teacher(rows, 2.0)).starts_with("alpha: "));
    let short = Logits::Rows(&[0.0; 9]);
    assert!(with(&|options| options.distillation = teacher(short, 0.5)).starts_with("teacher: "));
    let (mut dlogits, mut rows) = ([0.0; 11], [0.0; 3]);
    let gradients = CrossEntropyGradients {
        dlogits: Some(&mut dlogits),
        rows: None,
    };
    assert!(says(cross_entropy(&logits, &labels, gradients, &options)).starts_with("dlogits: "));
    let gradients = CrossEntropyGradients {
        dlogits: None,
        rows: Some(&mut rows),
    };
    assert!(says(cross_entropy(&logits, &labels, gradients, &options)).starts_with("rows: "));
}

#[test]
fn a_head_refuses_by_name() {
    let head = map(&[0.0; 6], 3);
    let labels = [0, 2, -100, 1];
    let refused = |hidden: usize, lens: [usize; 4], teacher: Option<(&Linear, &[f32])>| {
        let [dhidden, dweight, dbias, rows] = lens;
        let hidden = vec![0.0; hidden];
        let mut of = [dhidden, dweight, dbias].map(|len| vec![0.0; len]);
        let [dhidden, dweight, dbias] = &mut of;
        let mut rows = vec![0.0; rows];
        let gradients = HeadGradients {
            dhidden: Some(dhidden),
            dweight: Some(dweight),
            dbias: Some(dbias),
            rows: Some(&mut rows),
        };
        let distillation = teacher.map(|(head, hidden)| Distillation {
            teacher: Logits::Head { hidden, head },
            alpha: 0.5,
        });
        let options = CrossEntropyOptions {
            distillation,
            ..CrossEntropyOptions::default()
        };
        says(linear_cross_entropy(
            &head, &hidden, &labels, gradients, &options,
        ))
    };
    let right = [8, 6, 3, 4];
    assert_eq!(refused(8, right, None), "");
    assert!(refused(7, right, None).starts_with("hidden: "));
    assert!(refused(8, [7, 6, 3, 4], None).starts_with("dhidden: "));
    assert!(refused(8, [8, 5, 3, 4], None).starts_with("dweight: "));
    assert!(refused(8, [8, 6, 2, 4], None).starts_with("dbias: "));
    assert!(refused(8, [8, 6, 3, 5], None).starts_with("rows: "));
    let other = map(&[0.0; 8], 4);
    assert!(refused(8, right, Some((&other, &[0.0; 8]))).starts_with("teacher.head: "));
    assert!(refused(8, right, Some((&head, &[0.0; 7]))).starts_with("teacher.hidden: "));
}

#[test]
fn nothing_counts() {
    let options = CrossEntropyOptions {
        count: Some(0),
        ..CrossEntropyOptions::default()
    };
    for labels in [&[-100; 3][..], &[]] {
        let head = map(&[1.0; 6], 3);
        let hidden = vec![f32::NAN; 2 * labels.len()];
        let mut made = Made::new(&head, labels.len());
        made.gradients[0].fill(f32::NAN);
        let gradients = made.part(2, 0, labels.len());
        let loss = ok(linear_cross_entropy(
            &head, &hidden, labels, gradients, &options,
        ));
        assert_eq!(loss, Loss::default());
        assert!(made.gradients.iter().flatten().all(|&d| d == 0.0));
        let mut loss = Loss {
            loss: 1.0,
            ..Loss::default()
        };
        let call = LinearCrossEntropy::new(&head, &hidden, labels, &options);
        ok(ok(call.into_work(HeadGradients::default(), &mut loss)).finish());
        assert_eq!(loss, Loss::default());
    }
}
