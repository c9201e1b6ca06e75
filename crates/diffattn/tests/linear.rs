//! The product of `Linear` against float64, its bits on every instruction set and thread count, and
//! weights of halves against the same weights in float32.

use diffattn::{DType, Data, Error, Isa, Linear, Quantisation, Run, Tensor};
use diffattn_reference::testing::{bits, noise};
use half::{bf16, f16};
use proptest::prelude::*;

struct Case {
    linear: Linear,
    x: Vec<f32>,
    rows: usize,
    /// float64.
    expected: Vec<f64>,
    /// Σ |x w| + |b| of each.
    scale: Vec<f64>,
}

fn on(isa: Isa, threads: usize, deterministic: bool) -> Run {
    Run::new(Some(isa), Some(threads), deterministic).unwrap_or_else(|error| panic!("{error}"))
}

impl Case {
    fn new(seed: u64, [inputs, outputs, rows]: [usize; 3], with_bias: bool) -> Self {
        let (w, x, b) = (
            noise(inputs * outputs, seed),
            noise(inputs * rows, seed + 1),
            noise(outputs, seed + 2),
        );
        let bias = Tensor::f32(&b, &[outputs]);
        let linear = Linear::new(
            &Tensor::f32(&w, &[outputs, inputs]),
            with_bias.then_some(&bias),
        );
        let (mut expected, mut scale) = (Vec::new(), Vec::new());
        for x in x.chunks(inputs) {
            for (w, &b) in w.chunks(inputs).zip(&b) {
                let b = if with_bias { f64::from(b) } else { 0.0 };
                let products = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w));
                expected.push(products.clone().sum::<f64>() + b);
                scale.push(products.map(f64::abs).sum::<f64>() + b.abs());
            }
        }
        Self {
            linear: linear.unwrap_or_else(|error| panic!("{error}")),
            x,
            rows,
            expected,
            scale,
        }
    }

    fn run(&self, x: &[f32], isa: Isa, threads: usize, deterministic: bool) -> Vec<f32> {
        let rows = x.len() / self.linear.inputs();
        let mut y = vec![f32::NAN; rows * self.linear.outputs()];
        self.linear
            .forward(x, &mut y, on(isa, threads, deterministic))
            .unwrap_or_else(|error| panic!("{error}"));
        y
    }

    fn check(&self) {
        let all: Vec<_> = Isa::available()
            .into_iter()
            .map(|isa| (isa, self.run(&self.x, isa, 1, false)))
            .collect();
        let scalar = bits(&all[0].1);
        for (isa, y) in &all {
            for (index, (&y, (&expected, &scale))) in y
                .iter()
                .zip(self.expected.iter().zip(&self.scale))
                .enumerate()
            {
                // A chain of 128, then a few strips: far under 16 roundings of the whole in
                // practice.
                let error = (f64::from(y) - expected).abs();
                assert!(
                    error <= 16.0 * scale * f64::from(f32::EPSILON) / 2.0,
                    "{}: {error:e} at {index}",
                    isa.name()
                );
            }
            // Unfused everywhere: the bits of scalar.
            assert_eq!(
                bits(&self.run(&self.x, *isa, 1, true)),
                scalar,
                "{} deterministic",
                isa.name()
            );
            for threads in [2, 3, 7] {
                assert_eq!(
                    bits(&self.run(&self.x, *isa, threads, false)),
                    bits(y),
                    "{threads} threads"
                );
            }
            // Every row alone, and all but the first.
            let alone: Vec<f32> = self
                .x
                .chunks(self.linear.inputs())
                .flat_map(|x| self.run(x, *isa, 1, false))
                .collect();
            assert_eq!(bits(&alone), bits(y), "{}: rows one by one", isa.name());
            let rest = self.run(&self.x[self.linear.inputs()..], *isa, 2, false);
            assert_eq!(
                bits(&rest),
                bits(&y[self.linear.outputs()..]),
                "{}: without the first row",
                isa.name()
            );
        }
        // Whatever fuses agrees.
        for pair in all[1..].windows(2) {
            assert_eq!(
                bits(&pair[0].1),
                bits(&pair[1].1),
                "{} against {}",
                pair[0].0.name(),
                pair[1].0.name()
            );
        }
        assert_eq!(self.expected.len(), self.rows * self.linear.outputs());
    }
}

/// Around every edge of strips, panels, tiles, vectors and blocks.
#[test]
fn edges() {
    for inputs in [1, 127, 128, 129, 300, 1100] {
        for outputs in [1, 15, 16, 17, 47, 48, 49, 95, 96, 97, 150] {
            Case::new(7, [inputs, outputs, 7], true).check();
        }
    }
    for rows in (1..=17).chain([127, 128, 129, 257]) {
        Case::new(8, [130, 50, rows], rows % 2 == 0).check();
    }
    // Enough work for threads in every direction.
    Case::new(9, [512, 700, 40], true).check();
    Case::new(10, [64, 40, 700], false).check();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_size(seed in 0u64..1 << 32, inputs in 1usize..400, outputs in 1usize..200, rows in 1usize..40, bias: bool) {
        Case::new(seed, [inputs, outputs, rows], bias).check();
    }
}

#[test]
fn halves_are_widened() {
    let (w, x) = ([0x3c00u16, 0xc000, 0x3555, 0x0001], [1.0f32, 3.0]);
    for (data, expected) in [
        (
            Data::F16(&w),
            [1.0 - 6.0, 0.333_251_95 + 3.0 * 5.960_464_5e-8],
        ),
        // The same bits as bfloat16.
        (
            Data::Bf16(&w),
            [0.007_812_5 - 6.0, f32::from_bits(0x3555_0000)],
        ),
    ] {
        let linear = Linear::new(
            &Tensor {
                data,
                shape: vec![2, 2],
            },
            None,
        )
        .unwrap_or_else(|error| panic!("{error}"));
        let mut y = [0.0; 2];
        linear
            .forward(&x, &mut y, Run::default())
            .unwrap_or_else(|error| panic!("{error}"));
        for (y, expected) in y.iter().zip(expected) {
            assert!(
                (y - expected).abs() <= 1e-6 * expected.abs(),
                "{y} against {expected}"
            );
        }
    }
}

/// Bits, of which all NaN are one.
fn bits_of(y: &[f32]) -> Vec<u32> {
    let one = |y: &f32| if y.is_nan() { f32::NAN } else { *y };
    y.iter().map(|y| one(y).to_bits()).collect()
}

/// A weight of halves, and the same numbers as float32.
struct Halves {
    linear: Linear,
    widened: Linear,
    /// `[outputs, inputs]` as float32.
    values: Vec<f32>,
}

impl Halves {
    /// Any finite numbers, zeros and subnormals of both signs among them; in every seventh output
    /// also what is not finite.
    fn new(dtype: DType, seed: u64, outputs: usize, inputs: usize) -> Self {
        let special: &[u16] = match dtype {
            // ±0, the smallest and the largest subnormal, the smallest and the largest number;
            // infinities and NaN.
            DType::F16 => &[
                0, 0x8000, 1, 0x8001, 0x3ff, 0x83ff, 0x400, 0x7bff, 0x7c00, 0xfc00, 0x7e00, 0xfd01,
            ],
            _ => &[
                0, 0x8000, 1, 0x8001, 0x7f, 0x807f, 0x80, 0x7f7f, 0x7f80, 0xff80, 0x7fc0, 0xff81,
            ],
        };
        let stored: Vec<u16> = noise(outputs * inputs, seed)
            .into_iter()
            .enumerate()
            .map(|(at, value)| match (at % 11, at / inputs % 7) {
                (0, 3) => special[at / 11 % special.len()],
                // Finite, and not so large that sums overflow.
                (0, _) => special[at / 11 % 7],
                _ if dtype == DType::F16 => f16::from_f32(value).to_bits(),
                _ => bf16::from_f32(value).to_bits(),
            })
            .collect();
        let data = match dtype {
            DType::F16 => Data::F16(&stored),
            _ => Data::Bf16(&stored),
        };
        let shape = [outputs, inputs];
        let values = data.to_f32().unwrap_or_else(|error| panic!("{error}"));
        let bias = noise(outputs, outputs as u64 + 5);
        let bias = Tensor::f32(&bias, &shape[..1]);
        let made = |weight: Tensor<'_>| {
            Linear::new(&weight, Some(&bias)).unwrap_or_else(|error| panic!("{error}"))
        };
        Self {
            linear: made(Tensor {
                data,
                shape: shape.to_vec(),
            }),
            widened: made(Tensor::f32(&values, &shape)),
            values,
        }
    }

    /// Both give the same bits, on every instruction set, fused or not, and with threads.
    fn check(&self, rows: usize) {
        let x = noise(rows * self.linear.inputs(), rows as u64);
        for isa in Isa::available() {
            for (deterministic, threads) in [(false, 1), (true, 1), (false, 3)] {
                let of = |linear: &Linear| {
                    let mut y = vec![0.0; rows * linear.outputs()];
                    linear
                        .forward(&x, &mut y, on(isa, threads, deterministic))
                        .unwrap_or_else(|error| panic!("{error}"));
                    bits_of(&y)
                };
                assert_eq!(
                    of(&self.linear),
                    of(&self.widened),
                    "{}, {rows} rows, {deterministic}, {threads} threads",
                    isa.name()
                );
            }
        }
    }
}

/// The bits of float32 for every number of rows, around every edge of panels and strips.
#[test]
fn halves_give_the_bits_of_float32() {
    for dtype in [DType::F16, DType::Bf16] {
        for (outputs, inputs) in [(1, 1), (47, 127), (50, 300), (97, 128), (150, 129)] {
            let halves = Halves::new(dtype, 3, outputs, inputs);
            for rows in (1..=20).chain([127, 128, 129, 257]) {
                halves.check(rows);
            }
        }
        // Enough work for threads, of one row and of many.
        for rows in [1, 2, 9] {
            Halves::new(dtype, 4, 1000, 1100).check(rows);
        }
    }
}

#[test]
fn rows_of_the_weight_are_read_back() {
    for (outputs, inputs) in [(1, 1), (48, 128), (50, 300), (97, 1025), (9, 2100)] {
        for dtype in [DType::F32, DType::F16, DType::Bf16] {
            let halves = Halves::new(dtype, 5, outputs, inputs);
            let linear = match dtype {
                DType::F32 => &halves.widened,
                DType::F16 | DType::Bf16 => &halves.linear,
            };
            for (index, expected) in halves.values.chunks(inputs).enumerate() {
                let mut row = vec![1.0; inputs];
                assert_eq!(linear.weight_row(index, &mut row), Ok(()));
                assert_eq!(bits_of(&row), bits_of(expected), "{dtype:?}, row {index}");
            }
        }
    }
}

#[test]
fn a_row_that_is_not_there_is_an_error() {
    let w = [0.0; 6];
    let linear =
        Linear::new(&Tensor::f32(&w, &[2, 3]), None).unwrap_or_else(|error| panic!("{error}"));
    let says = |index, len| {
        linear
            .weight_row(index, &mut vec![0.0; len])
            .map_err(|error| error.to_string())
    };
    assert_eq!(says(1, 3), Ok(()));
    assert_eq!(
        says(2, 3),
        Err("index: expected an output channel below 2, got 2".to_owned())
    );
    assert_eq!(
        says(0, 2),
        Err("row: expected 3 elements for shape [3], got 2".to_owned())
    );
    let none =
        Linear::new(&Tensor::f32(&[], &[2, 0]), None).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(none.weight_row(1, &mut []), Ok(()));
}

#[test]
fn empty_extents() {
    let none =
        Linear::new(&Tensor::f32(&[], &[0, 3]), None).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(none.forward(&[1.0; 6], &mut [], Run::default()), Ok(()));
    let bias = [1.0, 2.0];
    let constant = Linear::new(&Tensor::f32(&[], &[2, 0]), Some(&Tensor::f32(&bias, &[2])));
    let mut y = [0.0; 4];
    let done = constant.and_then(|linear| linear.forward(&[], &mut y, Run::default()));
    assert_eq!((done, y), (Ok(()), [1.0, 2.0, 1.0, 2.0]));
}

#[test]
fn errors_name_the_argument() {
    let (w, b) = ([0.0; 6], [0.0; 3]);
    let says =
        |result: Result<Linear, Error>| result.map(|_| ()).map_err(|error| error.to_string());
    for (shape, expected) in [
        (
            vec![6],
            "weight: expected 2 axes, [outputs, inputs], got [6]",
        ),
        (
            vec![2, 2],
            "weight: expected 4 elements for shape [2, 2], got 6",
        ),
    ] {
        let weight = Tensor {
            data: Data::F32(&w),
            shape,
        };
        assert_eq!(says(Linear::new(&weight, None)), Err(expected.to_owned()));
    }
    let weight = Tensor::f32(&w, &[2, 3]);
    assert_eq!(
        says(Linear::new(&weight, Some(&Tensor::f32(&b, &[3])))),
        Err("bias: expected shape [2], got [3]".to_owned())
    );
    let linear = Linear::new(&weight, None).unwrap_or_else(|error| panic!("{error}"));
    for (x, y, expected) in [
        (
            &[0.0; 4][..],
            &mut [0.0; 2][..],
            "x: expected 3 elements for shape [1, 3], got 4",
        ),
        (
            &[0.0; 3],
            &mut [0.0; 4],
            "y: expected 2 elements for shape [1, 2], got 4",
        ),
    ] {
        let result = linear
            .forward(x, y, Run::default())
            .map_err(|error| error.to_string());
        assert_eq!(result, Err(expected.to_owned()));
    }
}

/// `y` of [`Linear::with_low_rank`] is the map's own y and then `B (A x)`, over every format of the
/// map, and close to the product of `W + B A` in float64.
#[test]
fn a_low_rank_difference_is_added() {
    let [inputs, outputs, rank, rows] = [64, 50, 3, 9];
    let (w, a, b) = (
        noise(outputs * inputs, 1),
        noise(rank * inputs, 2),
        noise(outputs * rank, 3),
    );
    let (w, a, b) = (
        Tensor::f32(&w, &[outputs, inputs]),
        Tensor::f32(&a, &[rank, inputs]),
        Tensor::f32(&b, &[outputs, rank]),
    );
    let x = noise(rows * inputs, 4);
    let made = |linear: Result<Linear, Error>| linear.unwrap_or_else(|error| panic!("{error}"));
    let (lora_a, lora_b) = (made(Linear::new(&a, None)), made(Linear::new(&b, None)));
    let maps = [
        made(Linear::new(&w, None)),
        made(Linear::quantise(&w, None, Quantisation::Q4_0)),
        made(Linear::quantise(&w, None, Quantisation::Q8_0)),
    ];
    for map in maps {
        let mut weight = vec![0.0; inputs];
        let mut values = Vec::new();
        for row in 0..outputs {
            map.weight_row(row, &mut weight)
                .unwrap_or_else(|error| panic!("{error}"));
            values.extend_from_slice(&weight);
        }
        let both = made(map.clone().with_low_rank(lora_a.clone(), lora_b.clone()));
        for isa in Isa::available() {
            for threads in [1, 2] {
                let run = on(isa, threads, false);
                let forward = |linear: &Linear, x: &[f32]| {
                    let mut y = vec![f32::NAN; rows * linear.outputs()];
                    linear
                        .forward(x, &mut y, run)
                        .unwrap_or_else(|error| panic!("{error}"));
                    y
                };
                let mut expected = forward(&map, &x);
                let added = forward(&lora_b, &forward(&lora_a, &x));
                for (y, added) in expected.iter_mut().zip(&added) {
                    *y += added;
                }
                assert_eq!(bits(&forward(&both, &x)), bits(&expected), "{}", isa.name());
                let (Data::F32(a), Data::F32(b)) = (&a.data, &b.data) else {
                    panic!("float32")
                };
                for (at, &y) in expected.iter().enumerate() {
                    let (row, output) = (at / outputs, at % outputs);
                    let merged: f64 = (0..inputs)
                        .map(|input| {
                            let product = |r: usize| {
                                f64::from(b[output * rank + r]) * f64::from(a[r * inputs + input])
                            };
                            let w = f64::from(values[output * inputs + input])
                                + (0..rank).map(product).sum::<f64>();
                            w * f64::from(x[row * inputs + input])
                        })
                        .sum();
                    // (x in int8, where the map has codes.)
                    assert!((f64::from(y) - merged).abs() < 0.1, "{y} {merged}");
                }
            }
        }
        let refused = |a: &Linear, b: &Linear| {
            let error = map.clone().with_low_rank(a.clone(), b.clone()).err();
            error.map_or_else(String::new, |error| error.to_string())
        };
        assert!(refused(&lora_b, &lora_b).contains("lora_a"));
        assert!(refused(&lora_a, &lora_a).contains("lora_b"));
    }
}
