//! The gradients of linear maps: fixtures, float64, bits however rows are cut and run, weights of
//! every format, and what is refused.

use diffattn::{
    Data, Error, Linear, LinearBackward, LinearGradients, Quantisation, Run, Tensor,
    linear_backward,
};
use diffattn_reference::testing::{bits, noise, ok};

use super::support::{assert_close, cases, check_bits, runs};

/// dx, dW and db.
#[derive(Debug, Clone, PartialEq)]
struct Gradients([Vec<f32>; 3]);

impl Gradients {
    fn zeros(linear: &Linear, rows: usize) -> Self {
        let (inputs, outputs) = (linear.inputs(), linear.outputs());
        Self([rows * inputs, inputs * outputs, outputs].map(|len| vec![0.0; len]))
    }

    fn all(&mut self) -> LinearGradients<'_> {
        let [dx, dweight, dbias] = &mut self.0;
        LinearGradients {
            dx: Some(dx),
            adds_dx: false,
            dweight: Some(dweight),
            dbias: Some(dbias),
        }
    }

    fn bits(&self) -> Vec<u32> {
        self.0.iter().flat_map(|values| bits(values)).collect()
    }
}

fn backward(linear: &Linear, dy: &[f32], x: &[f32], run: Run) -> Gradients {
    let mut gradients = Gradients::zeros(linear, dy.len() / linear.outputs());
    ok(linear_backward(linear, dy, x, gradients.all(), run));
    gradients
}

fn map(weight: &[f32], outputs: usize) -> Linear {
    let shape = [outputs, weight.len() / outputs];
    ok(Linear::new(&Tensor::f32(weight, &shape), None))
}

#[test]
fn fixtures() {
    for case in cases("linear") {
        let [weight, dy, x] = ["weight", "dy", "x"].map(|name| case.f32(name));
        let linear = map(&weight.data, weight.shape[0]);
        for run in runs() {
            let got = backward(&linear, &dy.data, &x.data, run);
            for (name, got) in ["dx", "dweight", "dbias"].into_iter().zip(&got.0) {
                if let Some(expected) = case.expected(name) {
                    let name = format!("{}, {name}, {run:?}", case.name);
                    assert_close(&name, &expected.data, got, 2e-6);
                }
            }
            let turned = ok(Linear::pack_transposed(&Tensor::f32(
                &weight.data,
                &weight.shape,
            )));
            let mut dx = vec![f32::NAN; x.data.len()];
            ok(turned.forward(&dy.data, &mut dx, run));
            assert_eq!(bits(&dx), bits(&got.0[0]), "{}, {run:?}", case.name);
        }
    }
}

/// Inputs, outputs, rows: around the edges of strips, panels, tiles and blocks.
const SIZES: [[usize; 3]; 11] = [
    [1, 1, 1],
    [5, 33, 1],
    [33, 5, 257],
    [100, 100, 17],
    [48, 128, 256],
    [49, 129, 255],
    [130, 47, 9],
    [300, 17, 513],
    [16, 400, 40],
    [97, 150, 300],
    [520, 66, 65],
];

struct Case {
    linear: Linear,
    weight: Vec<f32>,
    dy: Vec<f32>,
    x: Vec<f32>,
}

impl Case {
    fn new([inputs, outputs, rows]: [usize; 3], seed: u64) -> Self {
        let weight = noise(inputs * outputs, seed);
        Self {
            linear: map(&weight, outputs),
            weight,
            dy: noise(outputs * rows, seed + 1),
            x: noise(inputs * rows, seed + 2),
        }
    }

    /// Gradients in float64, and for each the sum of its terms' magnitudes.
    fn expected(&self) -> [Vec<[f64; 2]>; 3] {
        let (inputs, outputs) = (self.linear.inputs(), self.linear.outputs());
        let mut sums = Gradients::zeros(&self.linear, self.dy.len() / outputs)
            .0
            .map(|values| vec![[0.0; 2]; values.len()]);
        let add = |sum: &mut [f64; 2], term: f64| {
            sum[0] += term;
            sum[1] += term.abs();
        };
        let rows = self.dy.chunks(outputs).zip(self.x.chunks(inputs));
        for (row, (dy, x)) in rows.enumerate() {
            for (o, &dy) in dy.iter().enumerate() {
                add(&mut sums[2][o], f64::from(dy));
                for i in 0..inputs {
                    let weight = f64::from(self.weight[o * inputs + i]);
                    add(&mut sums[0][row * inputs + i], f64::from(dy) * weight);
                    add(
                        &mut sums[1][o * inputs + i],
                        f64::from(dy) * f64::from(x[i]),
                    );
                }
            }
        }
        sums
    }
}

#[test]
fn odd_sizes_against_float64() {
    for (seed, size) in SIZES.into_iter().enumerate() {
        let case = Case::new(size, seed as u64);
        let expected = case.expected();
        for run in runs() {
            let got = backward(&case.linear, &case.dy, &case.x, run);
            for (got, expected) in got.0.iter().zip(&expected) {
                for (&got, [sum, scale]) in got.iter().zip(expected) {
                    let error = (f64::from(got) - sum).abs();
                    assert!(
                        error <= 8.0 * scale * f64::from(f32::EPSILON),
                        "{size:?} {run:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_threads_or_the_fusing_set() {
    for (seed, size) in SIZES.into_iter().enumerate() {
        let case = Case::new(size, seed as u64);
        check_bits(|run| backward(&case.linear, &case.dy, &case.x, run).bits());
    }
    // Enough work for threads in every direction.
    for size in [[200, 700, 600], [700, 20, 1100], [1030, 300, 70]] {
        let case = Case::new(size, 3);
        check_bits(|run| backward(&case.linear, &case.dy, &case.x, run).bits());
    }
}

#[test]
fn micro_batches_give_the_bits_of_one() {
    for [inputs, outputs] in [[33, 100], [256, 64], [2100, 18]] {
        let case = Case::new([inputs, outputs, 1025], 5);
        for run in runs() {
            let whole = backward(&case.linear, &case.dy, &case.x, run);
            for cuts in [vec![256, 1025], vec![512, 768, 1025], vec![1024, 1025]] {
                let mut parts = Gradients::zeros(&case.linear, 1025);
                let mut first = 0;
                for end in cuts {
                    let mut gradients = parts.all();
                    let dx = gradients
                        .dx
                        .take()
                        .map(|dx| &mut dx[first * inputs..end * inputs]);
                    gradients.dx = dx;
                    let dy = &case.dy[first * outputs..end * outputs];
                    let x = &case.x[first * inputs..end * inputs];
                    ok(linear_backward(&case.linear, dy, x, gradients, run));
                    first = end;
                }
                assert!(parts.bits() == whole.bits(), "{inputs} {run:?}");
            }
        }
    }
}

#[test]
fn slices_give_the_bits_of_one_step() {
    for size in [[100, 300, 700], [2100, 90, 600], [33, 5, 257]] {
        let case = Case::new(size, 6);
        for run in runs() {
            let whole = backward(&case.linear, &case.dy, &case.x, run);
            for units in [1, 3, 1000] {
                let mut parts = Gradients::zeros(&case.linear, size[2]);
                let call = LinearBackward::new(&case.linear, &case.dy, &case.x, run);
                let mut work = ok(call.into_work(parts.all()));
                let (mut done, mut steps) = (0, 0);
                while work.done() < work.total() {
                    ok(work.step(units));
                    assert!(work.done() >= done);
                    done = work.done();
                    steps += 1;
                    assert!(steps <= work.total());
                }
                drop(work);
                assert!(parts.bits() == whole.bits(), "{size:?} {run:?}");
            }
        }
    }
}

#[test]
fn gradients_are_added_to_what_is_there() {
    let case = Case::new([70, 90, 300], 7);
    let run = Run::default();
    let mut twice = backward(&case.linear, &case.dy, &case.x, run);
    let once = twice.clone();
    let mut gradients = twice.all();
    gradients.adds_dx = true;
    ok(linear_backward(
        &case.linear,
        &case.dy,
        &case.x,
        gradients,
        run,
    ));
    for (once, twice) in once.0.iter().zip(&twice.0) {
        let expected: Vec<f64> = once.iter().map(|&x| 2.0 * f64::from(x)).collect();
        assert_close("twice", &expected, twice, 1e-6);
    }
}

#[test]
fn rows_of_dx_are_their_own() {
    let [inputs, outputs, rows] = [50, 70, 40];
    let mut case = Case::new([inputs, outputs, rows], 8);
    for run in runs() {
        let clean = backward(&case.linear, &case.dy, &case.x, run);
        for special in [f32::NAN, f32::INFINITY] {
            case.dy[7 * outputs + 3] = special;
            case.x[9 * inputs + 2] = special;
            let got = backward(&case.linear, &case.dy, &case.x, run);
            let rows = got.0[0].chunks(inputs).zip(clean.0[0].chunks(inputs));
            for (row, (got, clean)) in rows.enumerate() {
                if row == 7 {
                    assert!(got.iter().all(|x| !x.is_finite()));
                } else {
                    assert_eq!(bits(got), bits(clean), "row {row}, {run:?}");
                }
            }
            for (at, (got, clean)) in got.0[1].iter().zip(&clean.0[1]).enumerate() {
                let is_met = at / inputs == 3 || at % inputs == 2;
                assert_eq!(got.to_bits() == clean.to_bits(), !is_met, "{at}");
            }
        }
        case = Case::new([inputs, outputs, rows], 8);
    }
}

/// A weight in every format, and the float32 numbers that it stands for.
fn formats(weight: &[f32], [outputs, inputs]: [usize; 2]) -> Vec<(&'static str, Linear, Linear)> {
    let shape = vec![outputs, inputs];
    let [f16, bf16]: [Vec<u16>; 2] = [
        weight
            .iter()
            .map(|&x| half::f16::from_f32(x).to_bits())
            .collect(),
        weight
            .iter()
            .map(|&x| half::bf16::from_f32(x).to_bits())
            .collect(),
    ];
    let made = |data| {
        ok(Linear::new(
            &Tensor {
                data,
                shape: shape.clone(),
            },
            None,
        ))
    };
    let mut all = vec![
        ("f16", made(Data::F16(&f16))),
        ("bf16", made(Data::Bf16(&bf16))),
    ];
    if inputs.is_multiple_of(32) {
        for (name, to) in [
            ("q8_0", Quantisation::Q8_0),
            ("q4_0", Quantisation::Q4_0),
            ("q4_1", Quantisation::Q4_1),
        ] {
            all.push((
                name,
                ok(Linear::quantise(&Tensor::f32(weight, &shape), None, to)),
            ));
        }
    }
    let with_values = |(name, linear): (_, Linear)| {
        let mut values = vec![0.0; weight.len()];
        for (index, row) in values.chunks_mut(inputs).enumerate() {
            ok(linear.weight_row(index, row));
        }
        (name, linear, map(&values, outputs))
    };
    all.into_iter().map(with_values).collect()
}

#[test]
fn frozen_weights_have_the_bits_of_their_float32_values() {
    for [inputs, outputs] in [[32, 5], [96, 130], [160, 49], [416, 257], [33, 100]] {
        let weight = noise(inputs * outputs, 9);
        for (name, frozen, wide) in formats(&weight, [outputs, inputs]) {
            for rows in [1, 2, 7, 40, 300] {
                let (dy, x) = (noise(rows * outputs, 10), noise(rows * inputs, 11));
                for run in runs() {
                    let dx = |linear: &Linear| {
                        let mut dx = vec![f32::NAN; rows * inputs];
                        let gradients = LinearGradients {
                            dx: Some(&mut dx),
                            ..LinearGradients::default()
                        };
                        ok(linear_backward(linear, &dy, &[], gradients, run));
                        bits(&dx)
                    };
                    assert_eq!(dx(&frozen), dx(&wide), "{name}, {rows} rows, {run:?}");
                    let y = |linear: &Linear| {
                        let mut y = vec![f32::NAN; rows * outputs];
                        ok(linear.forward_float(&x, &mut y, run));
                        bits(&y)
                    };
                    assert_eq!(y(&frozen), y(&wide), "{name}, {rows} rows, {run:?}");
                }
            }
        }
    }
}

#[test]
fn a_low_rank_difference_takes_part_in_dx() {
    let [inputs, outputs, rank, rows] = [64, 50, 3, 20];
    let case = Case::new([inputs, outputs, rows], 12);
    let (a, b) = (noise(rank * inputs, 13), noise(outputs * rank, 14));
    let mut merged = case.weight.clone();
    for (at, w) in merged.iter_mut().enumerate() {
        for r in 0..rank {
            *w += b[at / inputs * rank + r] * a[r * inputs + at % inputs];
        }
    }
    let both = ok(case
        .linear
        .clone()
        .with_low_rank(map(&a, rank), map(&b, outputs)));
    for run in runs() {
        let got = backward(&both, &case.dy, &case.x, run);
        let expected = backward(&map(&merged, outputs), &case.dy, &case.x, run);
        let expected: Vec<f64> = expected.0[0].iter().map(|&x| f64::from(x)).collect();
        assert_close("dx", &expected, &got.0[0], 2e-6);
    }
}

#[test]
fn a_weight_is_repacked_in_place() {
    for [inputs, outputs] in [[33, 100], [300, 17]] {
        let (old, new) = (noise(inputs * outputs, 15), noise(inputs * outputs, 16));
        let (old_bias, new_bias) = (noise(outputs, 17), noise(outputs, 18));
        let shape = [outputs, inputs];
        let made = |weight, bias| {
            let bias = Tensor::f32(bias, &shape[..1]);
            ok(Linear::new(&Tensor::f32(weight, &shape), Some(&bias)))
        };
        let mut linear = made(&old, &old_bias);
        let new_tensor = Tensor::f32(&new, &shape);
        ok(linear.repack(&new_tensor, Some(&Tensor::f32(&new_bias, &shape[..1]))));
        let mut turned = ok(Linear::pack_transposed(&Tensor::f32(&old, &shape)));
        ok(turned.repack_transposed(&new_tensor));
        let (x, dy) = (noise(20 * inputs, 19), noise(20 * outputs, 20));
        let forward = |linear: &Linear, x: &[f32]| {
            let mut y = vec![0.0; 20 * linear.outputs()];
            ok(linear.forward(x, &mut y, Run::default()));
            bits(&y)
        };
        assert_eq!(forward(&linear, &x), forward(&made(&new, &new_bias), &x));
        let fresh = ok(Linear::pack_transposed(&new_tensor));
        assert_eq!(forward(&turned, &dy), forward(&fresh, &dy));
    }
}

fn says<T>(result: Result<T, Error>) -> String {
    result
        .err()
        .map_or_else(String::new, |error| error.to_string())
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let linear = map(&[0.0; 6], 2);
    let refused = |dy: usize, x: usize, [dx, dweight, dbias]: [usize; 3]| {
        let mut gradients = [vec![0.0; dx], vec![0.0; dweight], vec![0.0; dbias]];
        let [dx, dweight, dbias] = &mut gradients;
        let gradients = LinearGradients {
            dx: Some(dx),
            adds_dx: false,
            dweight: Some(dweight),
            dbias: Some(dbias),
        };
        let (dy, x) = (vec![0.0; dy], vec![0.0; x]);
        says(linear_backward(&linear, &dy, &x, gradients, Run::default()))
    };
    assert_eq!(refused(8, 12, [12, 6, 2]), "");
    assert!(refused(7, 12, [12, 6, 2]).starts_with("dy: "));
    assert!(refused(8, 11, [12, 6, 2]).starts_with("x: "));
    assert!(refused(8, 12, [9, 6, 2]).starts_with("dx: "));
    assert!(refused(8, 12, [12, 5, 2]).starts_with("dweight: "));
    assert!(refused(8, 12, [12, 6, 3]).starts_with("dbias: "));

    let mut linear = linear;
    let (w, b, halves) = ([0.0; 6], [0.0; 2], [0; 6]);
    let (weight, bias) = (Tensor::f32(&w, &[2, 3]), Tensor::f32(&b, &[2]));
    assert_eq!(says(linear.repack(&weight, None)), "");
    assert!(says(linear.repack(&weight, Some(&bias))).starts_with("bias: "));
    assert!(says(linear.repack(&Tensor::f32(&w, &[3, 2]), None)).starts_with("weight: "));
    let halves = Tensor {
        data: Data::Bf16(&halves),
        shape: vec![2, 3],
    };
    assert_eq!(
        says(linear.repack(&halves, None)),
        "weight: expected float32, as before, got bfloat16"
    );
    assert!(says(linear.repack_transposed(&weight)).starts_with("weight: "));
}

#[test]
fn empty_extents() {
    for [inputs, outputs, rows] in [[0, 3, 2], [3, 0, 2], [3, 2, 0], [0, 0, 0]] {
        let weight = vec![1.0; inputs * outputs];
        let linear = ok(Linear::new(&Tensor::f32(&weight, &[outputs, inputs]), None));
        let (dy, x) = (vec![1.0; rows * outputs], vec![1.0; rows * inputs]);
        let mut gradients = Gradients::zeros(&linear, rows);
        gradients.0[0].fill(f32::NAN);
        ok(linear_backward(
            &linear,
            &dy,
            &x,
            gradients.all(),
            Run::default(),
        ));
        assert!(gradients.0[0].iter().all(|&dx| dx == 0.0));
        assert!(gradients.0[2].iter().all(|&db| db == rows as f32));
    }
}
