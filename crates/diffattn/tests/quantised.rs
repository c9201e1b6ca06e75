//! Quantised weights: codes by the rules of GGUF, products against float64 of the same int8, and
//! their bits, which are one set for every instruction set, thread count and number of rows.

use diffattn::{Codes, DType, Data, Error, Isa, Linear, Quantisation, Quantised, Run, Tensor};
use diffattn_reference::fixture::{Fixture, read_all};
use diffattn_reference::testing::{bits, bits_with_one_nan, noise, ok};
use diffattn_reference::{
    QuantisedWeight, linear_int8, quantise_int8, quantise_q4_0, quantise_q4_1, quantise_q8_0,
};
use half::{bf16, f16};
use proptest::prelude::*;

fn on(isa: Isa, threads: usize, deterministic: bool) -> Run {
    ok(Run::new(Some(isa), Some(threads), deterministic))
}

fn forward(linear: &Linear, x: &[f32], run: Run) -> Vec<f32> {
    let mut y = vec![f32::NAN; x.len() / linear.inputs() * linear.outputs()];
    ok(linear.forward(x, &mut y, run));
    y
}

/// A weight's values, and what products are made of.
struct Case {
    linear: Linear,
    /// `[outputs, inputs]`.
    values: Vec<f64>,
    /// Of each weight, the magnitudes that its product is the sum of.
    magnitudes: Vec<f64>,
    bias: Vec<f32>,
    x: Vec<f32>,
}

impl Case {
    fn new(linear: Linear, of: &QuantisedWeight, bias: Vec<f32>, x: Vec<f32>) -> Self {
        let magnitude = |(at, &code): (usize, &u8)| {
            f64::from(code) * of.scales[at / 32].abs() + of.biases[at / 32].abs()
        };
        Self {
            linear,
            values: of.values(),
            magnitudes: of.codes.iter().enumerate().map(magnitude).collect(),
            bias,
            x,
        }
    }

    /// The product is as near float64 as a float32 sum of as many blocks is, and has one set of
    /// bits.
    fn check(&self, name: &str) {
        let (inputs, outputs) = (self.linear.inputs(), self.linear.outputs());
        let rows = self.x.len() / inputs;
        let x = reference(&[rows, inputs], self.x.clone());
        let bias: Vec<f64> = self.bias.iter().map(|&bias| bias.into()).collect();
        let bias = reference(&[outputs], bias);
        let shape = [outputs, inputs];
        let expected = linear_int8(&x, &reference(&shape, self.values.clone()), Some(&bias));
        let of_x = quantise_int8(&self.x).values();
        let first = forward(&self.linear, &self.x, on(Isa::available()[0], 1, false));
        for (at, (&y, &expected)) in first.iter().zip(&expected.data).enumerate() {
            let x = &of_x[at / outputs * inputs..][..inputs];
            let w = &self.magnitudes[at % outputs * inputs..][..inputs];
            let scale: f64 = x.iter().zip(w).map(|(x, w)| (x * w).abs()).sum();
            let scale = scale + f64::from(self.bias[at % outputs]).abs();
            let error = (f64::from(y) - expected).abs();
            // Four roundings a block, of which most are far smaller than the whole.
            let bound = 16.0 * scale * f64::from(f32::EPSILON) / 2.0;
            assert!(error <= bound, "{name}: {y}, not {expected}, at {at}");
        }
        self.check_bits(name, &first);
    }

    fn check_bits(&self, name: &str, first: &[f32]) {
        let (inputs, outputs) = (self.linear.inputs(), self.linear.outputs());
        let first = bits_with_one_nan(first);
        for isa in Isa::available() {
            for (threads, deterministic) in [(1, false), (1, true), (2, false), (5, true)] {
                let y = forward(&self.linear, &self.x, on(isa, threads, deterministic));
                let what = format!("{name}: {}, {threads} threads", isa.name());
                assert_eq!(bits_with_one_nan(&y), first, "{what}");
            }
            for rows in [1, 2, 3, 5] {
                let rest = self
                    .x
                    .chunks(rows * inputs)
                    .zip(first.chunks(rows * outputs));
                for (x, first) in rest {
                    let y = forward(&self.linear, x, on(isa, 1, false));
                    let what = format!("{name}: {}, {rows} rows at a time", isa.name());
                    assert_eq!(bits_with_one_nan(&y), first, "{what}");
                }
            }
        }
    }
}

fn reference<T: Copy>(shape: &[usize], data: Vec<T>) -> diffattn_reference::Tensor<T> {
    diffattn_reference::Tensor::new(shape, data)
}

/// The rows of the weight, one after the other.
fn rows_of(linear: &Linear) -> Vec<f32> {
    let mut rows = vec![0.0; linear.outputs() * linear.inputs()];
    for (index, row) in rows.chunks_mut(linear.inputs()).enumerate() {
        ok(linear.weight_row(index, row));
    }
    rows
}

/// A rule, and the same in plain loops.
type Rule = (Quantisation, fn(&[f32]) -> QuantisedWeight);

const RULES: [Rule; 3] = [
    (Quantisation::Q8_0, quantise_q8_0),
    (Quantisation::Q4_0, quantise_q4_0),
    (Quantisation::Q4_1, quantise_q4_1),
];

/// The codes of a case as a file would have them.
struct Stored {
    shape: [usize; 2],
    i8: Option<Vec<i8>>,
    bytes: Vec<u8>,
    four: bool,
    scales: Vec<u16>,
    biases: Option<Vec<u16>>,
    dtype: DType,
}

impl Stored {
    fn of(fixture: &Fixture) -> Self {
        let codes = fixture.i64("codes");
        let four = fixture.name.contains("4bit") || fixture.name.contains("q4");
        let is_mlx = fixture.text("format") == Some("mlx");
        let signed = fixture.text("format") == Some("q8_0");
        let half = |name: &str| -> Vec<u16> {
            if is_mlx {
                fixture
                    .i64(name)
                    .data
                    .iter()
                    .map(|&bits| bits as u16)
                    .collect()
            } else {
                let numbers = fixture.f64(name).data;
                numbers
                    .iter()
                    .map(|&x| f16::from_f64(x).to_bits())
                    .collect()
            }
        };
        let bytes: Vec<u8> = codes.data.iter().map(|&code| code as u8).collect();
        Self {
            shape: [codes.shape[0], codes.shape[1]],
            i8: signed.then(|| codes.data.iter().map(|&code| code as i8).collect()),
            bytes: if four {
                bytes.chunks(2).map(|pair| pair[0] | pair[1] << 4).collect()
            } else {
                bytes
            },
            four,
            scales: half("scales"),
            biases: fixture.has("biases").then(|| half("biases")),
            dtype: if is_mlx { DType::Bf16 } else { DType::F16 },
        }
    }

    fn data<'a>(&self, bits: &'a [u16]) -> Data<'a> {
        match self.dtype {
            DType::Bf16 => Data::Bf16(bits),
            _ => Data::F16(bits),
        }
    }

    fn quantised(&self) -> Quantised<'_> {
        Quantised {
            shape: self.shape,
            codes: match &self.i8 {
                Some(codes) => Codes::I8(codes),
                None if self.four => Codes::U4(&self.bytes),
                None => Codes::U8(&self.bytes),
            },
            scales: self.data(&self.scales),
            biases: self.biases.as_ref().map(|biases| self.data(biases)),
        }
    }

    /// The same in float64.
    fn weight(&self) -> QuantisedWeight {
        let codes: Vec<u8> = match &self.i8 {
            Some(codes) => codes
                .iter()
                .map(|&code| (i16::from(code) + 128) as u8)
                .collect(),
            None if self.four => self
                .bytes
                .iter()
                .flat_map(|byte| [byte & 15, byte >> 4])
                .collect(),
            None => self.bytes.clone(),
        };
        let spread = codes.len() / self.scales.len() / 32;
        let wide = |bits: &[u16]| -> Vec<f64> {
            let of = |&bits: &u16| match self.dtype {
                DType::Bf16 => bf16::from_bits(bits).to_f64(),
                _ => f16::from_bits(bits).to_f64(),
            };
            bits.iter()
                .flat_map(|bits| vec![of(bits); spread])
                .collect()
        };
        let scales = wide(&self.scales);
        let zero = if self.four { -8.0 } else { -128.0 };
        let biases = match &self.biases {
            Some(biases) => wide(biases),
            None => scales.iter().map(|scale| zero * scale).collect(),
        };
        QuantisedWeight {
            codes,
            scales,
            biases,
        }
    }
}

#[test]
fn cases() {
    let fixtures = read_all("quant");
    assert_eq!(fixtures.len(), 6);
    for fixture in fixtures {
        let stored = Stored::of(&fixture);
        let linear = ok(Linear::quantised(&stored.quantised(), None));
        let expected = fixture.f64("expected.w").data;
        let rows = rows_of(&linear);
        for (got, expected) in rows.iter().zip(&expected) {
            let error = (f64::from(*got) - expected).abs();
            assert!(
                error <= 1e-7 * expected.abs().max(0.1),
                "{}: {got}, {expected}",
                fixture.name
            );
        }
        let weight = stored.weight();
        assert_eq!(weight.values(), expected, "{}", fixture.name);
        let bias = vec![0.0; stored.shape[0]];
        Case::new(linear, &weight, bias, fixture.f32("x").data).check(&fixture.name);
    }
}

#[test]
fn floats_become_the_codes_of_the_cases() {
    for fixture in read_all("quant") {
        let to = match fixture.text("format") {
            Some("q8_0") => Quantisation::Q8_0,
            Some("q4_0") => Quantisation::Q4_0,
            Some("q4_1") => Quantisation::Q4_1,
            _ => continue,
        };
        let w = fixture.f32("w");
        let made = ok(Linear::quantise(&Tensor::f32(&w.data, &w.shape), None, to));
        let read = ok(Linear::quantised(&Stored::of(&fixture).quantised(), None));
        assert_eq!(
            bits(&rows_of(&made)),
            bits(&rows_of(&read)),
            "{}",
            fixture.name
        );
    }
}

/// A scale and a bias that say no more than a zero in the middle are the same weight.
#[test]
fn biases_that_say_nothing_change_no_bit() {
    let stored = Stored::of(&Fixture::read(
        &diffattn_reference::fixture::folder().join("quant/q4_0.safetensors"),
    ));
    let biases: Vec<u16> = stored
        .scales
        .iter()
        .map(|&bits| f16::from_f32(-8.0 * f16::from_bits(bits).to_f32()).to_bits())
        .collect();
    let with = Quantised {
        biases: Some(Data::F16(&biases)),
        ..stored.quantised()
    };
    let x = noise(3 * stored.shape[1], 4);
    let y = [&with, &stored.quantised()].map(|weight| {
        bits(&forward(
            &ok(Linear::quantised(weight, None)),
            &x,
            Run::default(),
        ))
    });
    assert_eq!(y[0], y[1]);
}

fn check_rule(rule: usize, seed: u64, [inputs, outputs, rows]: [usize; 3], dtype: DType) {
    let (to, reference) = RULES[rule];
    let w = noise(inputs * outputs, seed);
    let halves: Vec<u16> = w
        .iter()
        .map(|&w| match dtype {
            DType::F16 => f16::from_f32(w).to_bits(),
            _ => bf16::from_f32(w).to_bits(),
        })
        .collect();
    let data = match dtype {
        DType::F32 => Data::F32(&w),
        DType::F16 => Data::F16(&halves),
        DType::Bf16 => Data::Bf16(&halves),
    };
    let bias = noise(outputs, seed + 1);
    let weight = Tensor {
        data,
        shape: vec![outputs, inputs],
    };
    let linear = ok(Linear::quantise(
        &weight,
        Some(&Tensor::f32(&bias, &[outputs])),
        to,
    ));
    let made = reference(&ok(data.to_f32()));
    let values: Vec<f32> = made.values().iter().map(|&value| value as f32).collect();
    for (got, expected) in rows_of(&linear).iter().zip(&values) {
        assert!(
            (got - expected).abs() <= 1e-7,
            "{to:?}: {got}, not {expected}"
        );
    }
    let mut x = noise(inputs * rows, seed + 2);
    // A block of zeros, an outlier, and one that has no reciprocal.
    x[..32].fill(0.0);
    x[inputs * rows - 1] = 1e6;
    x[inputs * (rows / 2)..][..32].fill(1e-40);
    Case::new(linear, &made, bias, x).check(&format!("{to:?} {inputs}·{outputs}, {rows} rows"));
}

/// Around every edge of blocks, strips, panels, tiles and rows.
#[test]
fn edges() {
    for rule in 0..3 {
        for inputs in [32, 96, 128, 160, 576] {
            for outputs in [1, 16, 47, 48, 49, 97] {
                check_rule(rule, 7, [inputs, outputs, 5], DType::F32);
            }
        }
        for rows in (1..=18).chain([127, 129, 257]) {
            check_rule(rule, 8, [160, 50, rows], DType::Bf16);
        }
        check_rule(rule, 9, [512, 700, 3], DType::F16);
        check_rule(rule, 10, [1024, 2000, 1], DType::F32);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_size(
        rule in 0usize..3, seed in 0u64..1 << 32, blocks in 1usize..12, outputs in 1usize..200,
        rows in 1usize..40,
    ) {
        check_rule(rule, seed, [32 * blocks, outputs, rows], DType::F32);
    }
}

/// The largest codes of both sides: no sum on the way may saturate.
#[test]
fn extremes() {
    for (four, code) in [(true, 0xffu8), (true, 0), (false, 0xff), (false, 0)] {
        for sign in [1.0, -1.0] {
            let shape = [70, 128];
            let codes = vec![code; if four { 70 * 64 } else { 70 * 128 }];
            let scales = vec![f16::from_f32(0.5).to_bits(); 70 * 4];
            let biases = vec![f16::from_f32(0.25).to_bits(); 70 * 4];
            let stored = Stored {
                shape,
                i8: None,
                bytes: codes,
                four,
                scales,
                biases: Some(biases),
                dtype: DType::F16,
            };
            let linear = ok(Linear::quantised(&stored.quantised(), None));
            let x = vec![sign; 9 * 128];
            Case::new(linear, &stored.weight(), vec![0.0; 70], x).check("extremes");
        }
    }
}

/// What is not finite reaches every output of its row, and no other row.
#[test]
fn what_is_not_finite_stays_in_its_row() {
    for (to, _) in RULES {
        let w = noise(50 * 160, 3);
        let linear = ok(Linear::quantise(&Tensor::f32(&w, &[50, 160]), None, to));
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = noise(9 * 160, 4);
            x[4 * 160 + 70] = value;
            for isa in Isa::available() {
                let y = forward(&linear, &x, on(isa, 1, false));
                for (row, y) in y.chunks(50).enumerate() {
                    assert!(
                        y.iter().all(|y| y.is_nan() == (row == 4)),
                        "{to:?}, {value}, {row}"
                    );
                }
            }
        }
    }
}

#[test]
fn refusals() {
    let says = |result: Result<Linear, Error>| match result {
        Ok(_) => panic!("expected an error"),
        Err(error) => format!("{}: {error}", error.code()),
    };
    let floats = |w: &[f32], shape: &[usize]| {
        says(Linear::quantise(
            &Tensor::f32(w, shape),
            None,
            Quantisation::Q4_1,
        ))
    };
    assert_eq!(
        floats(&[0.0; 33], &[1, 33]),
        "SHAPE: weight: expected a multiple of 32 input channels, to be quantised, got 33"
    );
    for bad in [f32::NAN, f32::INFINITY, 3e38] {
        let mut w = [0.0; 64];
        w[40] = bad;
        assert_eq!(
            floats(&w, &[2, 32]),
            "OPTION: weight: expected finite numbers whose scales float16 holds, to be quantised, \
             got others in row 1"
        );
    }
    let (codes, scales) = ([0u8; 64], [0u16; 4]);
    let weight = Quantised {
        shape: [2, 32],
        codes: Codes::U8(&codes),
        scales: Data::F16(&scales[..2]),
        biases: None,
    };
    for (weight, expected) in [
        (
            Quantised {
                codes: Codes::U4(&codes[..31]),
                ..weight.clone()
            },
            "SHAPE: codes: expected 64 elements for shape [2, 32], got 62",
        ),
        (
            Quantised {
                scales: Data::F16(&scales),
                ..weight.clone()
            },
            "SHAPE: scales: expected one for each group of a multiple of 32 of the 2 · 32 weights, \
             got 4",
        ),
        (
            Quantised {
                scales: Data::F32(&[0.0; 2]),
                ..weight.clone()
            },
            "DTYPE: scales: expected float16 or bfloat16, got float32",
        ),
        (
            Quantised {
                biases: Some(Data::Bf16(&scales[..2])),
                ..weight.clone()
            },
            "DTYPE: biases: expected float16, as the scales are, got bfloat16",
        ),
        (
            Quantised {
                biases: Some(Data::F16(&scales)),
                ..weight.clone()
            },
            "SHAPE: biases: expected 2 elements for shape [2, 1], got 4",
        ),
        (
            Quantised {
                codes: Codes::I8(&[0; 64]),
                biases: Some(Data::F16(&scales[..2])),
                ..weight.clone()
            },
            "OPTION: biases: expected none with signed codes, got some",
        ),
    ] {
        assert_eq!(says(Linear::quantised(&weight, None)), expected);
    }
}

#[test]
fn empty_extents() {
    let none = ok(Linear::quantise(
        &Tensor::f32(&[], &[0, 64]),
        None,
        Quantisation::Q8_0,
    ));
    assert_eq!(none.forward(&[1.0; 128], &mut [], Run::default()), Ok(()));
    let bias = [1.0, 2.0];
    let constant = ok(Linear::quantise(
        &Tensor::f32(&[], &[2, 0]),
        Some(&Tensor::f32(&bias, &[2])),
        Quantisation::Q4_0,
    ));
    let mut y = [0.0; 4];
    assert_eq!(constant.forward(&[], &mut y, Run::default()), Ok(()));
    assert_eq!(y, [1.0, 2.0, 1.0, 2.0]);
}
