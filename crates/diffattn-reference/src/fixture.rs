//! Reads a reference case: one `.safetensors` file with named tensors and, in its metadata, the
//! options as JSON. Turns a case into what the oracle takes. A test tool: a malformed file panics,
//! and so does an option or a tensor it does not know, so that none is passed over in silence.

mod training;

pub use training::{AdamWCase, AttentionGradientCase, LambdaInputs};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use crate::{
    AttentionSpec, GroupNorm, Head, LambdaForm, MultiheadDiffAttn, MultiheadDiffAttnV2, Norm,
    Pairing, PolyNorm, Rope, RopeScaling, SequenceFusion, Tensor, plan, positions_from,
};

/// A tensor as it lies in the file.
#[derive(Clone, Debug, PartialEq)]
pub enum Stored {
    /// 32-bit float.
    F32(Tensor<f32>),
    /// 64-bit float.
    F64(Tensor<f64>),
    /// Integers of any width and sign.
    I64(Tensor<i64>),
    /// One byte each.
    Bool(Tensor<bool>),
    /// Bits of IEEE half precision.
    F16(Tensor<u16>),
    /// Bits of bfloat16.
    Bf16(Tensor<u16>),
}

/// One reference case.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// Folder and file name, without the extension.
    pub name: String,
    /// The options.
    pub case: Value,
    /// The tensors by name; the names of results begin with `expected.`.
    pub tensors: BTreeMap<String, Stored>,
}

/// The folder with the project's reference cases.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test/fixtures")
}

/// All cases of a folder below [`folder`], by name.
pub fn read_all(subfolder: &str) -> Vec<Fixture> {
    let path = folder().join(subfolder);
    let entries = std::fs::read_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| {
            entry
                .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
                .path()
        })
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "safetensors")
        })
        .collect();
    paths.sort();
    paths.iter().map(|path| Fixture::read(path)).collect()
}

impl Fixture {
    /// Reads one file.
    pub fn read(path: &Path) -> Self {
        let fail = |e: &dyn std::fmt::Display| -> ! { panic!("{}: {e}", path.display()) };
        let bytes = std::fs::read(path).unwrap_or_else(|e| fail(&e));
        let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| fail(&e));
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap_or_else(|e| fail(&e));
        let Some(case) = header
            .metadata()
            .as_ref()
            .and_then(|metadata| metadata.get("case"))
        else {
            fail(&"no case")
        };
        let case = serde_json::from_str(case).unwrap_or_else(|e| fail(&e));
        let tensors = file
            .iter()
            .map(|(name, view)| {
                let (shape, bytes) = (view.shape(), view.data());
                let integers = |values| Stored::I64(Tensor::new(shape, values));
                let stored = match view.dtype() {
                    Dtype::F32 => {
                        Stored::F32(Tensor::new(shape, values(bytes, f32::from_le_bytes)))
                    }
                    Dtype::F64 => {
                        Stored::F64(Tensor::new(shape, values(bytes, f64::from_le_bytes)))
                    }
                    Dtype::I64 => integers(values(bytes, i64::from_le_bytes)),
                    Dtype::U32 => integers(values(bytes, |x| u32::from_le_bytes(x).into())),
                    Dtype::U16 => integers(values(bytes, |x| u16::from_le_bytes(x).into())),
                    Dtype::U8 => integers(values(bytes, |x| u8::from_le_bytes(x).into())),
                    Dtype::I8 => integers(values(bytes, |x| i8::from_le_bytes(x).into())),
                    Dtype::BOOL => Stored::Bool(Tensor::new(
                        shape,
                        values(bytes, |[byte]: [u8; 1]| byte != 0),
                    )),
                    Dtype::F16 => {
                        Stored::F16(Tensor::new(shape, values(bytes, u16::from_le_bytes)))
                    }
                    Dtype::BF16 => {
                        Stored::Bf16(Tensor::new(shape, values(bytes, u16::from_le_bytes)))
                    }
                    other => fail(&format!("tensor {name} of type {other:?}")),
                };
                (name.to_owned(), stored)
            })
            .collect();
        let part = |part: Option<&std::ffi::OsStr>| {
            part.map_or(String::new(), |part| part.to_string_lossy().into_owned())
        };
        let name = format!(
            "{}/{}",
            part(path.parent().and_then(Path::file_name)),
            part(path.file_stem())
        );
        Self {
            name,
            case,
            tensors,
        }
    }

    fn stored(&self, name: &str) -> &Stored {
        self.tensors
            .get(name)
            .unwrap_or_else(|| panic!("{}: no tensor {name}", self.name))
    }

    /// Whether the file has the tensor.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A float tensor of any width, widened exactly.
    pub fn f64(&self, name: &str) -> Tensor<f64> {
        fn widen<T: Copy>(x: &Tensor<T>, widen: impl Fn(T) -> f64) -> Tensor<f64> {
            Tensor::new(&x.shape, x.data.iter().map(|&x| widen(x)).collect())
        }
        match self.stored(name) {
            Stored::F64(x) => x.clone(),
            Stored::F32(x) => widen(x, f64::from),
            Stored::F16(x) => widen(x, |bits| f16::from_bits(bits).to_f64()),
            Stored::Bf16(x) => widen(x, |bits| bf16::from_bits(bits).to_f64()),
            _ => panic!("{}: {name} is no float tensor", self.name),
        }
    }

    /// A float32 tensor as stored.
    pub fn f32(&self, name: &str) -> Tensor<f32> {
        match self.stored(name) {
            Stored::F32(x) => x.clone(),
            _ => panic!("{}: {name} is not float32", self.name),
        }
    }

    /// An integer tensor.
    pub fn i64(&self, name: &str) -> Tensor<i64> {
        match self.stored(name) {
            Stored::I64(x) => x.clone(),
            _ => panic!("{}: {name} is no integer tensor", self.name),
        }
    }

    /// A boolean tensor.
    pub fn bool(&self, name: &str) -> Tensor<bool> {
        match self.stored(name) {
            Stored::Bool(x) => x.clone(),
            _ => panic!("{}: {name} is no boolean tensor", self.name),
        }
    }

    /// The result `expected.{name}`, where the case has it.
    pub fn expected(&self, name: &str) -> Option<Tensor<f64>> {
        let name = format!("expected.{name}");
        self.has(&name).then(|| self.f64(&name))
    }

    /// A float option; JSON null counts as absent.
    pub fn number(&self, name: &str) -> Option<f64> {
        number(&self.case, name)
    }

    /// An integer option; JSON null counts as absent.
    pub fn count(&self, name: &str) -> Option<usize> {
        self.case[name].as_u64().map(|n| n as usize)
    }

    /// A boolean option, false where absent.
    pub fn flag(&self, name: &str) -> bool {
        self.case[name].as_bool().unwrap_or(false)
    }

    /// A text option; JSON null counts as absent.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.case[name].as_str()
    }

    fn check_known(&self, options: &[&str], tensors: &[&str]) {
        let Some(case) = self.case.as_object() else {
            panic!("{}: the case is no object", self.name)
        };
        for option in case.keys() {
            assert!(
                options.contains(&option.as_str()),
                "{}: unknown option {option}",
                self.name
            );
        }
        for tensor in self
            .tensors
            .keys()
            .filter(|name| !name.starts_with("expected."))
        {
            let known = tensors
                .iter()
                .any(|known| known == tensor || known.ends_with('.') && tensor.starts_with(known));
            assert!(known, "{}: unknown tensor {tensor}", self.name);
        }
    }

    /// The pairing of an attention case or a layer; interleaved where it names none.
    pub fn pairing(&self) -> Pairing {
        let ratio = self.count("ratio").unwrap_or(1);
        match self.text("pairing").unwrap_or("interleaved") {
            "interleaved" => match self.text("kv_repeat").unwrap_or("paired") {
                "paired" => Pairing::Interleaved { flat: false },
                "flat" => Pairing::Interleaved { flat: true },
                other => panic!("{}: kv_repeat {other}", self.name),
            },
            "halves" => Pairing::Halves,
            "grouped" => Pairing::Grouped { ratio },
            "shared" => Pairing::Shared { ratio },
            other => panic!("{}: pairing {other}", self.name),
        }
    }

    fn numbers(&self, value: &Value) -> Option<Vec<f64>> {
        value.as_array().map(|list| {
            let number = |x: &Value| {
                x.as_f64()
                    .unwrap_or_else(|| panic!("{}: {x} is no number", self.name))
            };
            list.iter().map(number).collect()
        })
    }

    /// The explicit plan of the case, or the one that its pairing makes.
    pub fn heads(&self) -> Vec<Head> {
        let Some(heads) = self.case["heads"].as_array() else {
            // (Where they have a gradient, they are a tensor.)
            let given = self.has("coefficients").then(|| self.f64("coefficients"));
            let coefficients = given
                .map(|given| given.data)
                .or_else(|| self.numbers(&self.case["coefficients"]))
                .unwrap_or_else(|| vec![1.0, -1.0]);
            assert_eq!(
                self.count("terms").unwrap_or(2),
                coefficients.len(),
                "{}: terms",
                self.name
            );
            let counts = ["q", "k", "v"].map(|name| self.f64(name).shape[1]);
            return plan(self.pairing(), counts, &coefficients);
        };
        let list = |value: &Value| -> Vec<usize> {
            let numbers = self
                .numbers(value)
                .unwrap_or_else(|| panic!("{}: {value} is no list", self.name));
            numbers.iter().map(|&x| x as usize).collect()
        };
        let coefficients = |head: &Value, terms| match (self.numbers(&head["coefficients"]), terms)
        {
            (Some(coefficients), _) => coefficients,
            (None, 1) => vec![1.0],
            (None, 2) => vec![1.0, -1.0],
            (None, _) => panic!("{}: more than two terms need coefficients", self.name),
        };
        heads
            .iter()
            .map(|head| {
                let (q, k, v) = (list(&head["q"]), list(&head["k"]), list(&head["v"]));
                Head {
                    coefficients: coefficients(head, q.len()),
                    q,
                    k,
                    v,
                }
            })
            .collect()
    }

    /// What the oracle takes for a `diff_attention` case (with its norm) or a
    /// `sequence_diff_attention` one.
    pub fn attention_spec(&self) -> AttentionSpec {
        let options = [
            "op",
            "layout",
            "dtype",
            "pairing",
            "ratio",
            "kv_repeat",
            "terms",
            "coefficients",
            "heads",
            "lambda",
        ];
        let masks = [
            "scale",
            "causal",
            "window",
            "softcap",
            "norm",
            "order",
            "share",
            "fusion",
            "block_size",
        ];
        let tensors = [
            "q",
            "k",
            "v",
            "lambda",
            "mask",
            "bias",
            "block_mask",
            "sinks",
            "key_lengths",
            "query_offset",
            "cu_seqlens_q",
            "cu_seqlens_k",
        ];
        self.check_known(
            &[options.as_slice(), &masks].concat(),
            &[tensors.as_slice(), &["norm_weight", "dy"]].concat(),
        );
        assert_eq!(
            self.text("layout").unwrap_or("bhsd"),
            "bhsd",
            "{}",
            self.name
        );
        let lambda = match &self.case["lambda"] {
            Value::Null => None,
            Value::String(_) => Some(self.f64("lambda")),
            number => Some(Tensor::scalar(
                number
                    .as_f64()
                    .unwrap_or_else(|| panic!("{}: λ {number}", self.name)),
            )),
        };
        self.spec_with(lambda)
    }

    /// All but λ, of a case whose options and tensors are known.
    fn spec_with(&self, lambda: Option<Tensor<f64>>) -> AttentionSpec {
        let window = match self.case["window"].as_array().map(Vec::as_slice) {
            None => [None; 2],
            Some([left, right]) => [left, right].map(|side| side.as_u64().map(|n| n as usize)),
            Some(other) => panic!("{}: window {other:?}", self.name),
        };
        let lengths = |name: &str| -> Vec<usize> {
            self.i64(name).data.iter().map(|&n| n as usize).collect()
        };
        let when = |name: &'static str| self.has(name).then_some(name);
        AttentionSpec {
            lambda,
            scale: self.number("scale"),
            causal: self.flag("causal"),
            window,
            softcap: self.number("softcap"),
            mask: when("mask").map(|name| self.bool(name)),
            bias: when("bias").map(|name| self.f64(name)),
            block_mask: when("block_mask").map(|name| self.bool(name)),
            sinks: when("sinks").map(|name| self.f64(name)),
            key_lengths: when("key_lengths").map(lengths),
            query_offset: when("query_offset").map(|name| self.i64(name).data),
            cu_seqlens: when("cu_seqlens_q").map(|name| [lengths(name), lengths("cu_seqlens_k")]),
            norm: self.case["norm"].is_object().then(|| Norm {
                eps: number(&self.case["norm"], "eps").unwrap_or(1e-5),
                weight: when("norm_weight").map(|name| self.f64(name).data),
                scale: number(&self.case["norm"], "scale").unwrap_or(1.0),
            }),
            ..AttentionSpec::new(self.f64("q"), self.f64("k"), self.f64("v"), self.heads())
        }
    }

    /// How a `sequence_diff_attention` case, or a layer, mixes; none where it has no order.
    pub fn sequence_fusion(&self) -> Option<SequenceFusion> {
        let required = |name| {
            self.number(name)
                .unwrap_or_else(|| panic!("{}: no {name}", self.name))
        };
        self.count("order").map(|order| SequenceFusion {
            order,
            share: required("share"),
            fusion: required("fusion"),
        })
    }

    /// What the oracle takes for a `group_norm` case.
    pub fn group_norm(&self) -> GroupNorm {
        let options = ["op", "num_groups", "eps", "layout", "activation", "affine"];
        self.check_known(&options, &["x", "weight", "bias", "dy"]);
        let affine = |name| self.flag("affine").then(|| self.f64(name).data);
        GroupNorm {
            weight: affine("weight"),
            bias: affine("bias"),
            eps: self.number("eps").unwrap_or(1e-5),
            channels_last: match self.text("layout") {
                Some("nchw") => false,
                Some("nhwc") => true,
                other => panic!("{}: layout {other:?}", self.name),
            },
            silu: match self.text("activation") {
                None => false,
                Some("silu") => true,
                Some(other) => panic!("{}: activation {other}", self.name),
            },
            ..GroupNorm::new(
                self.count("num_groups")
                    .unwrap_or_else(|| panic!("{}: no num_groups", self.name)),
            )
        }
    }

    /// What the oracle takes for an `rms_norm` case.
    pub fn rms_norm(&self) -> Norm {
        self.check_known(&["op", "eps", "affine", "scale"], &["x", "weight", "dy"]);
        let weight = self.flag("affine").then(|| self.f64("weight").data);
        Norm {
            eps: self.number("eps").unwrap_or(1e-5),
            weight,
            scale: self.number("scale").unwrap_or(1.0),
        }
    }

    /// What the oracle takes for a `polynorm` case.
    pub fn poly_norm(&self) -> PolyNorm {
        self.check_known(&["op", "eps", "formula"], &["x", "weight", "bias", "dy"]);
        let [cubes, squares, values] = self.f64("weight").data[..] else {
            panic!("{}: three weights", self.name)
        };
        PolyNorm {
            weight: [cubes, squares, values],
            bias: self.f64("bias").data[0],
            eps: self.number("eps").unwrap_or(1e-6),
        }
    }

    /// What the oracle takes for a `rope` case; positions start at its `first_position`.
    pub fn rope(&self) -> Rope {
        let options = [
            "op",
            "interleaved",
            "theta",
            "first_position",
            "rotary_dim",
            "scaling",
            "max_position_embeddings",
            "layout",
        ];
        self.check_known(&options, &["x", "dy", "positions"]);
        rope(&self.case)
    }

    /// The positions of a `rope` case, for tokens on the third axis of x.
    pub fn positions(&self) -> Tensor<i64> {
        if self.has("positions") {
            return self.i64("positions");
        }
        let first = self.count("first_position").unwrap_or(0) as i64;
        positions_from(first, self.f64("x").shape[2])
    }

    fn weights(&self) -> BTreeMap<String, Tensor<f64>> {
        let names = self
            .tensors
            .keys()
            .filter_map(|name| name.strip_prefix("weights."));
        names
            .map(|name| (name.to_owned(), self.f64(&format!("weights.{name}"))))
            .collect()
    }

    /// What the oracle takes for a `MultiheadDiffAttn` case, or the sample layer.
    pub fn layer_v1(&self) -> MultiheadDiffAttn {
        let options = [
            "op",
            "embed_dim",
            "depth",
            "num_heads",
            "num_kv_heads",
            "rope",
            "pairing",
            "kv_repeat",
            "eps",
        ];
        let notes = [
            "norm_affine",
            "softmax_precision",
            "lambda",
            "text",
            "tokens",
        ];
        self.check_known(
            &[options.as_slice(), &notes].concat(),
            &["x", "weights.", "input_ids"],
        );
        let required = |name| {
            self.count(name)
                .unwrap_or_else(|| panic!("{}: no {name}", self.name))
        };
        let head_dim = required("embed_dim") / required("num_heads") / 2;
        let pairing = self.pairing();
        MultiheadDiffAttn {
            value_dim: if pairing == Pairing::Halves {
                head_dim
            } else {
                2 * head_dim
            },
            rope: self.case["rope"]
                .is_object()
                .then(|| rope(&self.case["rope"])),
            pairing,
            norm_eps: self.number("eps").unwrap_or(1e-5),
            lambda_form: LambdaForm::Vectors,
            ..MultiheadDiffAttn::new(required("depth"), head_dim, self.weights())
        }
    }

    /// What the oracle takes for a `GroupedDiffAttn` case: the first version with `num_noise_heads`
    /// of the flat q heads subtracted, as Motif counts them.
    pub fn layer_grouped(&self) -> MultiheadDiffAttn {
        let options = [
            "op",
            "embed_dim",
            "depth",
            "num_attention_heads",
            "num_key_value_heads",
            "num_noise_heads",
            "head_dim",
            "rope",
            "lambda_init",
            "attn_rms_norm_eps",
        ];
        self.check_known(&options, &["x", "weights."]);
        let required = |name| {
            self.count(name)
                .unwrap_or_else(|| panic!("{}: no {name}", self.name))
        };
        let noise = required("num_noise_heads");
        MultiheadDiffAttn {
            lambda_init: self.number("lambda_init"),
            rope: Some(rope(&self.case["rope"])),
            pairing: Pairing::Grouped {
                ratio: required("num_attention_heads") / noise - 1,
            },
            norm_eps: self.number("attn_rms_norm_eps").unwrap_or(1e-5),
            ..MultiheadDiffAttn::new(required("depth"), required("head_dim"), self.weights())
        }
    }

    /// What the oracle takes for a `MultiheadDiffAttnV2` case.
    pub fn layer_v2(&self) -> MultiheadDiffAttnV2 {
        self.check_known(
            &[
                "op",
                "embed_dim",
                "num_heads",
                "num_kv_heads",
                "head_dim",
                "ratio",
                "rope",
            ],
            &["x", "weights."],
        );
        MultiheadDiffAttnV2 {
            ratio: self.count("ratio").unwrap_or(1),
            rope: self.case["rope"]
                .is_object()
                .then(|| rope(&self.case["rope"])),
            ..MultiheadDiffAttnV2::new(
                self.count("head_dim")
                    .unwrap_or_else(|| panic!("{}: no head_dim", self.name)),
                self.weights(),
            )
        }
    }
}

fn number(object: &Value, name: &str) -> Option<f64> {
    object[name].as_f64()
}

/// `theta`, where given, wins over `scaling.rope_theta`.
fn rope(case: &Value) -> Rope {
    let scaling = &case["scaling"];
    let required = |name| {
        number(scaling, name).unwrap_or_else(|| panic!("rope scaling without {name}: {scaling}"))
    };
    Rope {
        interleaved: case["interleaved"].as_bool().unwrap_or(true),
        theta: number(case, "theta")
            .or_else(|| number(scaling, "rope_theta"))
            .unwrap_or(10000.0),
        rotary_dim: case["rotary_dim"].as_u64().map(|n| n as usize),
        scaling: match scaling["rope_type"].as_str() {
            None | Some("default") => RopeScaling::Default,
            Some("linear") => RopeScaling::Linear {
                factor: required("factor"),
            },
            Some("llama3") => RopeScaling::Llama3 {
                factor: required("factor"),
                low_freq_factor: required("low_freq_factor"),
                high_freq_factor: required("high_freq_factor"),
                original_max_position_embeddings: required("original_max_position_embeddings"),
            },
            Some("yarn") => RopeScaling::Yarn {
                factor: required("factor"),
                original_max_position_embeddings: required("original_max_position_embeddings"),
                attention_factor: number(scaling, "attention_factor"),
                mscale: number(scaling, "mscale"),
                mscale_all_dim: number(scaling, "mscale_all_dim"),
                beta_fast: number(scaling, "beta_fast").unwrap_or(32.0),
                beta_slow: number(scaling, "beta_slow").unwrap_or(1.0),
                truncate: scaling["truncate"].as_bool().unwrap_or(true),
            },
            Some(other) => panic!("rope scaling {other}"),
        },
    }
}

/// Little-endian values of N bytes each.
fn values<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (values, rest) = bytes.as_chunks::<N>();
    assert!(rest.is_empty(), "{} bytes in values of {N}", bytes.len());
    values.iter().map(|&value| read(value)).collect()
}
