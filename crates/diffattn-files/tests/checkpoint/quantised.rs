//! Quantised weights as files hold them: the blocks of GGUF and MLX's tensors, as rows and as what
//! they stand for, and packed as MLX has them.

use crate::common::ok;
use diffattn::{Data, Tensor};
use diffattn_files::{
    AffineRows, Checkpoint, CodedTensor, Dtype, FloatTensor, MlxPacking, MlxQuantization,
    MlxWeight, RawTensor,
};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// Output rows and input channels of every case.
const SHAPE: [usize; 2] = [12, 256];

fn bytes(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../test/fixtures/quant");
    let file = std::fs::read(folder.join(format!("{name}.safetensors")));
    file.unwrap_or_else(|why| panic!("{name}: {why}"))
}

fn raw(case: &[u8], name: &str) -> RawTensor<'static> {
    let checkpoint = ok(Checkpoint::open("case", case));
    ok(ok(checkpoint.raw(name)).into_owned())
}

/// The same bytes as another type.
fn of(dtype: Dtype, shape: &[usize], tensor: &RawTensor<'static>) -> RawTensor<'static> {
    ok(RawTensor::new("x", dtype, shape, tensor.bytes().to_vec()))
}

fn blocks(case: &[u8], dtype: Dtype) -> CodedTensor<'static> {
    let tensor = of(dtype, &SHAPE, &raw(case, "gguf"));
    ok(CodedTensor::blocks("w", tensor))
}

fn floats(tensor: RawTensor<'static>) -> FloatTensor<'static> {
    ok(tensor.into_floats("x"))
}

fn mlx(case: &[u8]) -> CodedTensor<'static> {
    let numbers = |name: &str| {
        let bits = raw(case, name);
        floats(of(Dtype::BF16, bits.shape(), &bits))
    };
    let tensors = (raw(case, "weight"), numbers("scales"), numbers("biases"));
    ok(CodedTensor::mlx("w", tensors, SHAPE))
}

/// What the codes stand for, in float64.
fn expected(case: &[u8]) -> Vec<f64> {
    let bytes = raw(case, "expected.w").into_bytes();
    let (values, rest) = bytes.as_chunks::<8>();
    assert!(rest.is_empty());
    values
        .iter()
        .map(|&value| f64::from_le_bytes(value))
        .collect()
}

fn is_near(got: &[f32], expected: &[f64], name: &str) {
    assert_eq!(got.len(), expected.len());
    for (&got, expected) in got.iter().zip(expected) {
        let error = (f64::from(got) - expected).abs();
        assert!(
            error <= 1e-7 * expected.abs().max(0.1),
            "{name}: {got}, not {expected}"
        );
    }
}

#[test]
fn blocks_of_gguf_and_the_same_as_mlx_has_them() {
    for (name, dtype) in [
        ("q8_0", Dtype::Q8_0),
        ("q4_0", Dtype::Q4_0),
        ("q4_1", Dtype::Q4_1),
    ] {
        let case = bytes(name);
        let codes = blocks(&case, dtype);
        let values = ok(codes.values());
        is_near(&values, &expected(&case), name);
        let bits = codes.bits();
        assert_eq!(bits, if name == "q8_0" { 8 } else { 4 });
        // Packed in two pieces, and read back: exactly the same values.
        let packing = MlxPacking {
            bits,
            group_size: 32,
        };
        let mut whole = [Vec::new(), Vec::new(), Vec::new()];
        for rows in [0..5, 5..12] {
            let packed = ok(MlxWeight::pack(&mut &codes, SHAPE[1], rows, packing));
            let pieces = [packed.codes, packed.scales, packed.biases];
            for (whole, piece) in whole.iter_mut().zip(pieces) {
                whole.extend(piece);
            }
        }
        let [codes, scales, biases] = whole;
        let tensor = |dtype: Dtype, width: usize, bytes: Vec<u8>| {
            ok(RawTensor::new("x", dtype, &[SHAPE[0], width], bytes))
        };
        let back = ok(CodedTensor::mlx(
            "w",
            (
                tensor(Dtype::U32, 8 * bits, codes),
                floats(tensor(Dtype::F16, 8, scales)),
                floats(tensor(Dtype::F16, 8, biases)),
            ),
            SHAPE,
        ));
        assert_eq!(ok(back.values()), values, "{name}");
    }
}

#[test]
fn tensors_of_mlx_stay_the_same_bytes() {
    for (name, bits, group_size) in [
        ("mlx_affine_4bit_g32", 4, 32),
        ("mlx_affine_4bit_g64", 4, 64),
        ("mlx_affine_8bit_g64", 8, 64),
    ] {
        let case = bytes(name);
        let codes = mlx(&case);
        assert_eq!(codes.bits(), bits);
        is_near(&ok(codes.values()), &expected(&case), name);
        let packing = MlxPacking { bits, group_size };
        let packed = ok(MlxWeight::pack(&mut &codes, SHAPE[1], 0..SHAPE[0], packing));
        assert_eq!(packed.codes, raw(&case, "weight").into_bytes(), "{name}");
        assert_eq!(packed.scales, raw(&case, "scales").into_bytes(), "{name}");
        assert_eq!(packed.biases, raw(&case, "biases").into_bytes(), "{name}");
    }
}

/// MLX's rule makes the codes, scales and biases that MLX makes: of blocks of zeros, an outlier,
/// equal values, equal magnitudes of both signs; of bfloat16 as of float32.
#[test]
fn floats_become_the_codes_that_mlx_makes() {
    for (name, bits, group_size) in [
        ("mlx_affine_4bit_g32", 4, 32),
        ("mlx_affine_4bit_g64", 4, 64),
        ("mlx_affine_8bit_g64", 8, 64),
    ] {
        let case = bytes(name);
        let wide = floats(raw(&case, "w"));
        let whole = raw(&case, "w");
        let narrow = ok(whole.cast("w", Dtype::BF16));
        let narrow = floats(ok(narrow.tensor.into_owned()));
        for weight in [wide, narrow] {
            let mut rows = ok(AffineRows::new(&weight.tensor(), bits, group_size));
            let packing = MlxPacking { bits, group_size };
            // (Rows in any order, and again.)
            for range in [5..SHAPE[0], 0..SHAPE[0]] {
                let first = range.start;
                let packed = ok(MlxWeight::pack(&mut rows, SHAPE[1], range, packing));
                for (made, of) in [
                    (packed.codes, "weight"),
                    (packed.scales, "scales"),
                    (packed.biases, "biases"),
                ] {
                    let all = raw(&case, of).into_bytes();
                    let from = first * all.len() / SHAPE[0];
                    assert_eq!(made, all[from..], "{name}: {of}");
                }
            }
        }
    }
}

#[test]
fn what_mlx_has_no_codes_for() {
    let refused = |shape: &[usize], value: f32, group_size: usize| {
        let mut values = vec![0.25f32; shape.iter().product()];
        if let Some(last) = values.last_mut() {
            *last = value;
        }
        let tensor = Tensor {
            data: Data::F32(&values),
            shape: shape.to_vec(),
        };
        let packing = MlxPacking {
            bits: 4,
            group_size,
        };
        let made = AffineRows::new(&tensor, 4, group_size);
        let packed = made.and_then(|mut rows| {
            MlxWeight::pack(&mut rows, shape[shape.len() - 1], 0..shape[0], packing)
        });
        match packed {
            Err(error) => format!("{}: {error}", error.code()),
            Ok(packed) => panic!("{packed:?}"),
        }
    };
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
        assert_eq!(
            refused(&[2, 64], value, 64),
            "OPTION: weight: expected finite numbers whose scales bfloat16 holds, to be \
             quantised, got others in row 1"
        );
    }
    for (shape, group) in [(&[2, 96], 64), (&[2, 64], 48), (&[2, 64], 0)] {
        let expected = format!("SHAPE: weight: expected whole groups of {group} input channels, ");
        assert!(refused(shape, 0.0, group).starts_with(&expected));
    }
    assert!(refused(&[64], 0.0, 64).starts_with("SHAPE: weight: expected 2 axes"));
}

/// Scales whose 128-fold float16 does not hold.
#[test]
fn biases_that_float16_does_not_hold() {
    let mut block = vec![0u8; 34];
    block[..2].copy_from_slice(&0x6400u16.to_le_bytes());
    let tensor = ok(RawTensor::new("x", Dtype::Q8_0, &[1, 32], block));
    let codes = ok(CodedTensor::blocks("w", tensor));
    let packing = MlxPacking {
        bits: 8,
        group_size: 32,
    };
    match MlxWeight::pack(&mut &codes, 32, 0..1, packing) {
        Err(error) => assert_eq!(
            format!("{}: {error}", error.code()),
            "OPTION: weight: expected scales and biases that float16 holds, got -131072 in row 0"
        ),
        Ok(packed) => panic!("{packed:?}"),
    }
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

#[test]
fn what_a_configuration_says_is_what_is_written() {
    let all = MlxPacking {
        bits: 4,
        group_size: 64,
    };
    let other = MlxPacking {
        bits: 8,
        group_size: 32,
    };
    let mut quantization = MlxQuantization::of(all);
    quantization.insert("model.embed_tokens.weight", other);
    quantization.insert("model.layers.0.mlp.up_proj.weight", all);
    let said = quantization.to_json();
    assert_eq!(
        said,
        json!({
            "group_size": 64, "bits": 4, "mode": "affine",
            "model.embed_tokens": { "group_size": 32, "bits": 8 },
        })
    );
    let config = object(&json!({ "quantization": said }));
    let read = ok(MlxQuantization::of_config(&config));
    let Some(read) = read else {
        panic!("nothing is read")
    };
    assert_eq!(read.packing("model.embed_tokens.weight"), Some(other));
    // A base model's names lack the prefix.
    assert_eq!(read.packing("embed_tokens.weight"), Some(other));
    assert_eq!(read.packing("lm_head.weight"), Some(all));
    assert_eq!(ok(MlxQuantization::of_config(&Map::new())), None);
    let null = object(&json!({ "quantization": null, "hidden_size": 4 }));
    assert_eq!(ok(MlxQuantization::of_config(&null)), None);
}
