//! A plain Llama whose heads are made differential, so that it computes at first what it computed
//! before: which tensors there are then, and what each is made of.

use super::heads::{TargetHeads, chosen};
use super::model::ModelConversion;
use super::step::{Make, Step};
use crate::attention::{K, LAMBDA, O, Q, SCALARS};
use crate::decoder::DEX;
use crate::dtype::Dtype;
use crate::entry::Entry;
use crate::inspect::{Architecture, inspect};
use crate::json::json_object;
use crate::plain::{PlainHeads, PlainLayer};
use diffattn::Error;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What the differential heads of a converted Llama are, and what they begin with. Each start
/// computes what the Llama computed: exactly where 1 − λ is a power of two, else but for one
/// rounding of each weight of the output projection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ConversionStart {
    /// The second version: second q heads are copies of the first, and λ = σ(`lambda_proj` x) has
    /// no weights yet, so it is `lambda` everywhere; the columns of the output projection are
    /// divided by 1 − λ.
    V2 {
        /// Above 0 and below 1. (σ of the bias that comes nearest to it.)
        lambda: f64,
    },
    /// The first version without a norm, of all heads: second q and k heads are copies, and λ of
    /// two numbers is λ_init.
    V1 {
        /// λ_init, at least 0 and below 1.
        lambda: f64,
    },
    /// DEX, whose matrices are zeros.
    Dex,
}

/// How a Llama is to be converted.
#[derive(Debug, Clone, PartialEq)]
pub struct ConversionTarget {
    /// What the differential heads are.
    pub start: ConversionStart,
    /// Which heads are differential.
    pub heads: TargetHeads,
}

impl ModelConversion {
    /// Plans the conversion of a plain Llama of these tensors. `config` is the text of its
    /// `config.json`.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming `source` when it is no plain Llama or
    /// not all of one; [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming the part of the
    /// target that does not fit it.
    pub fn to_differential<'e>(
        entries: impl IntoIterator<Item = &'e Entry>,
        config: &str,
        target: &ConversionTarget,
    ) -> Result<Self, Error> {
        let entries: BTreeMap<&str, &Entry> = entries
            .into_iter()
            .map(|entry| (entry.name.as_str(), entry))
            .collect();
        let layers = layers(&entries, config)?;
        let config = json_object("config.json", config)?;
        if let Some(said) = config.get("num_hidden_layers")
            && said.as_u64() != Some(layers.len() as u64)
        {
            let expected = format_args!("{} layers, as the tensors have", layers.len());
            return Err(Error::file("config.num_hidden_layers", expected, said));
        }
        let heads: Vec<PlainHeads> = layers.iter().map(|(_, heads)| *heads).collect();
        let heads = chosen(&target.heads, &heads)?;
        let start = Start::new(target.start, &heads, &layers)?;
        let mut steps: BTreeMap<String, Step> = entries
            .values()
            .map(|entry| (entry.name.clone(), Step::copy(entry)))
            .collect();
        for ((layer, of), differential) in layers.iter().zip(&heads) {
            if !differential.is_empty() {
                start.layer((layer, of), differential, &mut steps)?;
            }
        }
        Ok(Self {
            steps: steps.into_values().collect(),
            config: start.config(config, &heads),
            heads,
        })
    }
}

/// The layers of a plain Llama, all of which there is.
fn layers(
    entries: &BTreeMap<&str, &Entry>,
    config: &str,
) -> Result<Vec<(PlainLayer, PlainHeads)>, Error> {
    let found = inspect(entries.values().copied(), Some(config))?;
    let expected = "a plain Llama (model_type \"llama\")";
    let wrong = |got: String| Error::file("source", expected, got);
    match found.architecture {
        Some(Architecture::Llama) => {}
        Some(other) => return Err(wrong(format!("{other}"))),
        None => return Err(wrong("a model that is not known".to_owned())),
    }
    if let Some(missing) = found.missing.first() {
        return Err(wrong(format!("one without {missing}")));
    }
    let layers = found.plain_layers.into_iter();
    let layers = layers.map(|layer| match layer.heads {
        // (Rows of nothing could be any number.)
        Some(heads) if layer.embed_dim > 0 => Ok((layer, heads)),
        _ => {
            let got = format!(
                "one of which config.json does not say the heads of {}",
                layer.prefix
            );
            Err(wrong(got))
        }
    });
    layers.collect()
}

/// A start, with the numbers that it is made of.
#[derive(Debug, Clone, Copy)]
struct Start {
    kind: ConversionStart,
    /// The bias of λ's projection, of the second version; 0 is none.
    bias: f32,
    /// What is left of attention: 1 − λ.
    rest: f64,
    /// Whether second q heads lie behind their first ones, as all heads are differential.
    is_paired: bool,
}

impl Start {
    fn new(
        kind: ConversionStart,
        heads: &[Vec<usize>],
        layers: &[(PlainLayer, PlainHeads)],
    ) -> Result<Self, Error> {
        let mut counts = heads.iter().zip(layers);
        let is_paired = counts.all(|(heads, (_, of))| heads.len() == of.heads);
        let (mut bias, mut rest) = (0.0, 1.0);
        match kind {
            ConversionStart::V2 { lambda } => {
                if !(lambda > 0.0 && lambda < 1.0) {
                    return Err(Error::option("lambda", "a number between 0 and 1", lambda));
                }
                bias = libm::log(lambda / (1.0 - lambda)) as f32;
                rest = 1.0 - 1.0 / (1.0 + libm::exp(-f64::from(bias)));
            }
            ConversionStart::V1 { lambda } => {
                if !(lambda >= 0.0 && lambda < 1.0) {
                    let expected = "a number of at least 0 and below 1";
                    return Err(Error::option("lambda", expected, lambda));
                }
                rest = 1.0 - lambda;
            }
            ConversionStart::Dex => {}
        }
        if !is_paired && matches!(kind, ConversionStart::V1 { .. }) {
            let expected = "all heads of every layer, with the first version";
            return Err(Error::option("heads", expected, "some"));
        }
        Ok(Self {
            kind,
            bias,
            rest,
            is_paired,
        })
    }

    /// The configuration of a Llama of which these heads were made differential.
    fn config(&self, mut config: Map<String, Value>, heads: &[Vec<usize>]) -> Map<String, Value> {
        let order = if self.is_paired { "pairs" } else { "appended" };
        let conversion = match self.kind {
            ConversionStart::V2 { .. } => json!({
                "version": 1, "kind": "v2", "heads": heads, "order": order, "lambda": "sigmoid",
            }),
            ConversionStart::V1 { lambda } => json!({
                "version": 1, "kind": "v1", "pairing": "interleaved", "lambda": "scalars",
                "lambda_init": vec![lambda; heads.len()], "norm": null,
            }),
            ConversionStart::Dex => json!({ "version": 1, "kind": "dex", "heads": heads }),
        };
        config.insert(
            "model_type".to_owned(),
            json!(Architecture::DiffAttnLlama.name()),
        );
        let classes = json!(["DiffAttnLlamaForCausalLM"]);
        config.insert("architectures".to_owned(), classes);
        config.insert("diff_attention".to_owned(), conversion);
        config
    }

    /// Changes what is made of a layer's tensors, and adds those that are new.
    fn layer(
        &self,
        (layer, of): (&PlainLayer, &PlainHeads),
        differential: &[usize],
        steps: &mut BTreeMap<String, Step>,
    ) -> Result<(), Error> {
        let width = of.head_dim;
        let name = |map: &str, part: &str| format!("{}{map}.{part}", layer.prefix);
        let longer = |map: &str, heads: Vec<usize>, steps: &mut BTreeMap<String, Step>| {
            for part in ["weight", "bias"] {
                if let Some(step) = steps.get_mut(&name(map, part)) {
                    step.take_heads(heads.clone(), width)?;
                }
            }
            Ok::<(), Error>(())
        };
        if self.kind != ConversionStart::Dex {
            longer(Q, self.queries(of.heads, differential), steps)?;
        }
        if matches!(self.kind, ConversionStart::V1 { .. }) {
            let pairs = (0..of.groups).flat_map(|head| [head, head]);
            longer(K, pairs.collect(), steps)?;
        }
        if self.rest != 1.0
            && let Some(step) = steps.get_mut(&name(O, "weight"))
        {
            step.check_shape([layer.embed_dim, of.heads.saturating_mul(width)])?;
            step.make = Make::Divide {
                heads: differential.to_vec(),
                width,
                by: self.rest,
            };
        }
        let q = steps.get(&name(Q, "weight"));
        let dtype = q.map_or(Dtype::F32, |step| step.dtype);
        let new = self.new_tensors(differential.len(), layer.embed_dim, width);
        for (name, shape, value) in new {
            let name = format!("{}{name}", layer.prefix);
            let step = Step {
                name: name.clone(),
                dtype,
                shape,
                from: Vec::new(),
                make: Make::Fill(value),
            };
            steps.insert(name, step);
        }
        Ok(())
    }

    /// Heads of q, second ones where they belong.
    fn queries(&self, count: usize, differential: &[usize]) -> Vec<usize> {
        match self.is_paired {
            true => (0..count).flat_map(|head| [head, head]).collect(),
            false => (0..count).chain(differential.iter().copied()).collect(),
        }
    }

    /// What is new in a layer, with the value of all its elements.
    fn new_tensors(
        &self,
        count: usize,
        embed_dim: usize,
        width: usize,
    ) -> Vec<(String, Vec<usize>, f64)> {
        match self.kind {
            ConversionStart::V2 { .. } => {
                let mut new = vec![(format!("{LAMBDA}.weight"), vec![count, embed_dim], 0.0)];
                if self.bias != 0.0 {
                    let bias = f64::from(self.bias);
                    new.push((format!("{LAMBDA}.bias"), vec![count], bias));
                }
                new
            }
            ConversionStart::V1 { .. } => {
                let scalars = SCALARS.map(|name| (name.to_owned(), Vec::new(), 0.0));
                scalars.to_vec()
            }
            ConversionStart::Dex => vec![
                (format!("{DEX}weight"), vec![width, width], 0.0),
                (format!("{DEX}lambda_learn"), Vec::new(), 0.0),
            ],
        }
    }
}
