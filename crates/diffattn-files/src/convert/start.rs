//! What a Llama whose heads are made differential begins with: the numbers, checked against each
//! other, and what its configuration says. Knows no tensor.

use super::heads::TargetHeads;
use crate::attention::LambdaForm;
use crate::dtype::Dtype;
use crate::inspect::Architecture;
use crate::plain::PlainHeads;
use diffattn::Error;
use half::{bf16, f16};
use serde_json::{Map, Value, json};

/// The standard deviation of λ's vectors.
pub(super) const VECTORS_DEVIATION: f64 = 0.1;

/// What the differential heads of a converted Llama are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConversionForm {
    /// The second version: two q heads over one k head, λ = σ(`lambda_proj` x) per token and head.
    V2,
    /// The first version without a norm: two q heads over two k heads, one λ per layer. All heads
    /// of a layer, or none.
    V1(LambdaForm),
    /// DEX (arXiv 2505.16333): from what a head makes, that times one matrix of the layer and λ is
    /// subtracted.
    Dex,
    /// Hugging Face's `diffllama`, of all heads. Its norm gives what every head makes the same
    /// length, so it computes something else than the Llama.
    DiffLlama,
}

/// What the differential heads begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConversionStart {
    /// Second q heads (and k heads) are copies of the first; of what both maps make alike, 1 − λ is
    /// left, by which the columns of the output projection are divided.
    Mirror,
    /// λ is 0, or the matrix of DEX is. Second heads are copies.
    Zero,
    /// Second heads are noise, and λ is multiplied with `mix`, which is 0.
    Mix,
}

/// How a Llama is to be converted.
#[derive(Debug, Clone, PartialEq)]
pub struct ConversionTarget {
    /// What the differential heads are.
    pub form: ConversionForm,
    /// What they begin with; by default [`ConversionStart::Mirror`], with DEX
    /// [`ConversionStart::Zero`].
    pub start: Option<ConversionStart>,
    /// λ at the beginning, before `mix`: ½ by default; 0 with [`ConversionStart::Zero`]. Of the
    /// second version above 0 and below 1 (σ of the bias that comes nearest to it), of the first at
    /// least 0 and below 1.
    pub lambda: Option<f64>,
    /// Which heads are differential.
    pub heads: TargetHeads,
    /// The layers that have such heads; all by default.
    pub layers: Option<Vec<usize>>,
    /// Where the random numbers begin. The same seed gives the same weights on every machine.
    pub seed: u64,
    /// The element type of all that is F32, F16 or BF16 now: one of these. By default each
    /// tensor's own, and of new ones that of the q projection beside them.
    pub dtype: Option<Dtype>,
}

impl ConversionTarget {
    /// What `form` has by default, of these heads.
    #[must_use]
    pub fn new(form: ConversionForm, heads: TargetHeads) -> Self {
        Self {
            form,
            start: None,
            lambda: None,
            heads,
            layers: None,
            seed: 0,
            dtype: None,
        }
    }
}

/// What a conversion begins with, every default in its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub(super) form: ConversionForm,
    pub(super) start: ConversionStart,
    lambda: f64,
    pub(super) seed: u64,
    /// Whether second q heads lie behind their first ones: every layer has all heads or none.
    pub(super) is_paired: bool,
}

impl Start {
    /// Checks what was asked for, with these heads chosen.
    pub(super) fn new(
        target: &ConversionTarget,
        chosen: &[Vec<usize>],
        of: &[PlainHeads],
    ) -> Result<Self, Error> {
        use ConversionForm::{Dex, DiffLlama, V1, V2};
        use ConversionStart::{Mirror, Mix, Zero};
        let form = target.form;
        let start = target.start.unwrap_or(match form {
            Dex => Zero,
            V2 | V1(_) | DiffLlama => Mirror,
        });
        let starts = match form {
            V2 => "\"mirror\" or \"mix\", with \"v2\" (its λ is σ of something and never 0)",
            V1(_) => "\"mirror\", \"zero\" or \"mix\"",
            Dex => "\"zero\", with \"dex\"",
            DiffLlama => "\"mirror\", with \"diffllama\"",
        };
        match (form, start) {
            (V2, Zero) | (Dex, Mirror | Mix) | (DiffLlama, Zero | Mix) => {
                let got = format_args!("{:?}", start.name());
                return Err(Error::option("start", starts, got));
            }
            _ => {}
        }
        let lambda = lambda(form, start, target.lambda)?;
        let is_whole = |(chosen, of): (&Vec<usize>, &PlainHeads)| {
            chosen.is_empty() || chosen.len() == of.heads
        };
        let is_paired = chosen.iter().zip(of).all(is_whole);
        if matches!(form, V1(_)) && !is_paired {
            let expected = "all heads of a layer or none, with \"v1\"";
            return Err(Error::option("heads", expected, "some"));
        }
        let is_all = is_paired && !chosen.iter().any(Vec::is_empty);
        if form == DiffLlama && !is_all {
            let expected = "all heads of every layer, with \"diffllama\"";
            return Err(Error::option("heads", expected, "some"));
        }
        Ok(Self {
            form,
            start,
            lambda,
            seed: target.seed,
            is_paired,
        })
    }

    /// The bias of λ's projection, of the second version, in elements of that type; 0 is none.
    pub(super) fn bias(&self, dtype: Dtype) -> f32 {
        if self.form != ConversionForm::V2 {
            return 0.0;
        }
        let bias = libm::log(self.lambda / (1.0 - self.lambda)) as f32;
        match dtype {
            Dtype::F16 => f16::from_f32(bias).to_f32(),
            Dtype::BF16 => bf16::from_f32(bias).to_f32(),
            _ => bias,
        }
    }

    /// What is left of attention, by which the output projection is divided; `dtype` as in
    /// [`Start::bias`].
    pub(super) fn rest(&self, dtype: Dtype) -> f64 {
        match (self.start, self.form) {
            (ConversionStart::Zero | ConversionStart::Mix, _) => 1.0,
            (_, ConversionForm::Dex | ConversionForm::DiffLlama) => 1.0,
            (_, ConversionForm::V1(_)) => 1.0 - self.lambda,
            (_, ConversionForm::V2) => 1.0 - 1.0 / (1.0 + libm::exp(-f64::from(self.bias(dtype)))),
        }
    }

    /// The configuration of a Llama of which these heads were made differential.
    pub(super) fn config(
        &self,
        mut config: Map<String, Value>,
        heads: &[Vec<usize>],
        of: &PlainHeads,
    ) -> Map<String, Value> {
        let order = if self.is_paired { "pairs" } else { "appended" };
        let mut conversion = match self.form {
            ConversionForm::V2 => json!({
                "version": 1, "kind": "v2", "heads": heads, "order": order, "lambda": "sigmoid",
            }),
            ConversionForm::V1(form) => json!({
                "version": 1, "kind": "v1", "pairing": "interleaved",
                "lambda": match form {
                    LambdaForm::Vectors => "vectors",
                    LambdaForm::Scalars => "scalars",
                },
                "lambda_init": vec![self.lambda; heads.len()], "norm": null,
            }),
            ConversionForm::Dex => json!({ "version": 1, "kind": "dex", "heads": heads }),
            ConversionForm::DiffLlama => return diffllama(config, of),
        };
        if matches!(self.form, ConversionForm::V1(_)) && heads.iter().any(Vec::is_empty) {
            conversion["heads"] = json!(heads);
        }
        if self.start == ConversionStart::Mix {
            conversion["mix"] = json!(0.0);
        }
        let name = Architecture::DiffAttnLlama.name();
        config.insert("model_type".to_owned(), json!(name));
        let classes = json!(["DiffAttnLlamaForCausalLM"]);
        config.insert("architectures".to_owned(), classes);
        config.insert("diff_attention".to_owned(), conversion);
        config
    }
}

impl ConversionStart {
    /// Its name as an option.
    fn name(self) -> &'static str {
        match self {
            Self::Mirror => "mirror",
            Self::Zero => "zero",
            Self::Mix => "mix",
        }
    }
}

/// λ at the beginning.
fn lambda(form: ConversionForm, start: ConversionStart, given: Option<f64>) -> Result<f64, Error> {
    let has_lambda = start != ConversionStart::Zero && form != ConversionForm::DiffLlama;
    if !has_lambda {
        return match given {
            None | Some(0.0) => Ok(0.0),
            Some(other) => Err(Error::option("lambda", "none, with this start", other)),
        };
    }
    let lambda = given.unwrap_or(0.5);
    let is_v2 = form == ConversionForm::V2;
    let is_within = (lambda > 0.0 || (lambda == 0.0 && !is_v2)) && lambda < 1.0;
    if !is_within {
        let expected = match is_v2 {
            true => "a number between 0 and 1",
            false => "a number of at least 0 and below 1",
        };
        return Err(Error::option("lambda", expected, lambda));
    }
    Ok(lambda)
}

/// The configuration of a DIFF Llama with twice the heads.
fn diffllama(mut config: Map<String, Value>, of: &PlainHeads) -> Map<String, Value> {
    for (key, value) in [
        ("model_type", json!(Architecture::DiffLlama.name())),
        ("architectures", json!(["DiffLlamaForCausalLM"])),
        ("num_attention_heads", json!(of.heads.saturating_mul(2))),
        ("num_key_value_heads", json!(of.groups.saturating_mul(2))),
        ("head_dim", json!(of.head_dim)),
        ("lambda_std_dev", json!(VECTORS_DEVIATION)),
    ] {
        config.insert(key.to_owned(), value);
    }
    config.remove("mlp_bias");
    config
}
