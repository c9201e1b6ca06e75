//! Says what a checkpoint is: by the names and shapes of its tensors, and by its configuration where there is one. Reads
//! no tensor and believes no configuration: where the two disagree, tensors win and a sentence says so.

use super::header::Entry;
use super::layer::{Entries, Found, Layer, LayerVersion, MARKS, depth_of};
use super::names::Names;
use super::{json, notices};
use crate::attention::{LambdaForm, RopeConfig};
use crate::dtype::Dtype;
use diffattn::{Error, Pairing, RopeFrequencies};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What a checkpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Hugging Face's `DiffLlamaForCausalLM`.
    DiffLlama,
    /// unilm's first version, naive or flash: names and shapes are the same.
    UnilmV1,
    /// unilm's second version.
    UnilmV2,
    /// timm's vision transformer with differential attention.
    TimmDiffVit,
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DiffLlama => "Hugging Face diffllama",
            Self::UnilmV1 => "unilm multihead_diffattn (V1)",
            Self::UnilmV2 => "unilm multihead_diffattn (V2)",
            Self::TimmDiffVit => "timm vision transformer with differential attention",
        })
    }
}

/// The modules that timm's DIFF vision transformers have besides their blocks.
pub const VIT_MODULES: [&str; 5] = [
    "patch_embed.",
    "pos_embed",
    "reg_token",
    "fc_norm.",
    "head.",
];

impl Architecture {
    /// What a configuration says that it is of.
    pub fn of_config(config: &Map<String, Value>) -> Option<Self> {
        let text = |key: &str| config.get(key).and_then(Value::as_str);
        let is_vit = |name: &str| {
            ["_dwee_", "_dlittle_", "_dpwee_"]
                .iter()
                .any(|kind| name.contains(kind))
        };
        if text("model_type") == Some("diffllama") {
            Some(Self::DiffLlama)
        } else if text("architecture").is_some_and(is_vit) {
            Some(Self::TimmDiffVit)
        } else {
            None
        }
    }
}

/// How much of a checkpoint is of one element type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DtypeCount {
    /// The type.
    pub dtype: Dtype,
    /// How many tensors.
    pub tensors: usize,
    /// How many elements.
    pub elements: u64,
}

/// What a checkpoint is.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// `None` when it has no differential attention that is known.
    pub architecture: Option<Architecture>,
    /// The differential attention layers, in order.
    pub layers: Vec<Layer>,
    /// The element types, those with the most elements first.
    pub dtypes: Vec<DtypeCount>,
    /// Elements of all tensors.
    pub parameters: u64,
    /// Tensors that the architecture wants and that are not there, by the names that it has for them.
    pub missing: Vec<String>,
    /// Tensors that the architecture has no place for, by the names that the file has for them.
    pub unexpected: Vec<String>,
    /// Sentences on what is odd.
    pub warnings: Vec<String>,
}

/// Says what a checkpoint of these tensors is. `config` is the text of its `config.json`.
///
/// # Errors
/// [`ErrorKind::File`](diffattn::ErrorKind::File) when `config` is no JSON object.
pub fn inspect<'e>(
    entries: impl IntoIterator<Item = &'e Entry>,
    config: Option<&str>,
) -> Result<Inspection, Error> {
    let entries: Entries<'e> = entries
        .into_iter()
        .map(|entry| (entry.name.as_str(), entry))
        .collect();
    let names = Names::read(entries.keys().copied());
    let config = Config::parse(config)?;
    let mut inspection = Inspection {
        architecture: None,
        layers: Vec::new(),
        dtypes: dtypes(&entries),
        parameters: entries
            .values()
            .fold(0u64, |sum, entry| sum.saturating_add(entry.elements())),
        missing: Vec::new(),
        unexpected: Vec::new(),
        warnings: Vec::new(),
    };
    let mut prefixes = BTreeSet::new();
    for name in entries.keys() {
        for mark in MARKS {
            if let Some(prefix) = name.strip_suffix(mark)
                && (prefix.is_empty() || prefix.ends_with('.'))
            {
                prefixes.insert(prefix);
            }
        }
    }
    let mut found: Vec<Found<'_>> = prefixes
        .into_iter()
        .map(|prefix| Found::new(&entries, prefix))
        .collect();
    found.sort_by_key(|found| (depth_of(found.prefix), found.prefix));
    inspection.architecture = found
        .first()
        .and_then(|first| architecture(first, &entries))
        .or_else(|| config.architecture());
    match (inspection.architecture, config.architecture()) {
        (None, _) => inspection
            .warnings
            .push("there is no differential attention that is known in it".to_owned()),
        (Some(found), Some(said)) if found != said => inspection.warnings.push(format!(
            "config.json says {said}, but the tensors are those of {found}"
        )),
        _ => {}
    }
    let has_base = inspection.architecture == Some(Architecture::DiffLlama);
    inspection.warnings.extend(names.notices(has_base));
    if let Some(architecture) = inspection.architecture {
        for found in found {
            layer(architecture, found, &entries, &config, &mut inspection);
        }
        if let Architecture::DiffLlama | Architecture::TimmDiffVit = architecture {
            let wide = entries
                .values()
                .map(|entry| (entry.name.as_str(), entry.dtype));
            inspection.warnings.extend(notices::wide(wide));
            let named = named(names, &entries, &mut inspection);
            match architecture {
                Architecture::DiffLlama => diffllama(&named, &config, &mut inspection),
                _ => timm(&named, &config, &mut inspection),
            }
        }
    }
    Ok(inspection)
}

/// The tensors by the names that models have for them.
type Named<'e> = BTreeMap<Cow<'e, str>, &'e Entry>;

fn named<'e>(names: Names<'e>, entries: &Entries<'e>, inspection: &mut Inspection) -> Named<'e> {
    let mut named = Named::new();
    for (name, entry) in names.read.into_iter().zip(entries.values()) {
        if let Some(other) = named.insert(name, entry) {
            inspection.warnings.push(format!(
                "{} and {} are one weight by their names without prefixes: no model takes both",
                other.name, entry.name
            ));
        }
    }
    named
}

fn dtypes(entries: &Entries<'_>) -> Vec<DtypeCount> {
    let mut counts: BTreeMap<Dtype, DtypeCount> = BTreeMap::new();
    for entry in entries.values() {
        let count = counts.entry(entry.dtype).or_insert(DtypeCount {
            dtype: entry.dtype,
            tensors: 0,
            elements: 0,
        });
        count.tensors += 1;
        count.elements = count.elements.saturating_add(entry.elements());
    }
    let mut counts: Vec<DtypeCount> = counts.into_values().collect();
    counts.sort_by_key(|count| std::cmp::Reverse(count.elements));
    counts
}

fn architecture(layer: &Found<'_>, entries: &Entries<'_>) -> Option<Architecture> {
    let fused = entries.contains_key(format!("{}qkv.weight", layer.prefix).as_str());
    if layer.has("lambda_proj.weight") {
        Some(Architecture::UnilmV2)
    } else if fused || layer.output == Some("proj") {
        Some(Architecture::TimmDiffVit)
    } else if layer.has("subln.weight") {
        Some(Architecture::UnilmV1)
    } else {
        match layer.output {
            Some("o_proj") => Some(Architecture::DiffLlama),
            Some(_) => Some(Architecture::UnilmV1),
            None => None,
        }
    }
}

/// Adds a layer, or says why it is none.
fn layer(
    architecture: Architecture,
    found: Found<'_>,
    entries: &Entries<'_>,
    config: &Config,
    inspection: &mut Inspection,
) {
    let prefix = found.prefix;
    let version = match architecture {
        Architecture::UnilmV2 => LayerVersion::V2,
        _ if found.has("lambda_a") => LayerVersion::V1(LambdaForm::Scalars),
        _ => LayerVersion::V1(LambdaForm::Vectors),
    };
    let lambdas: &[&str] = match version {
        LayerVersion::V2 => &[],
        LayerVersion::V1(LambdaForm::Scalars) => &["lambda_a", "lambda_b"],
        LayerVersion::V1(LambdaForm::Vectors) => {
            &["lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"]
        }
    };
    let absent = lambdas.iter().filter(|name| !found.has(name));
    let absent: Vec<String> = match architecture {
        // By the names that the model has for them, as all that is missing.
        Architecture::DiffLlama | Architecture::TimmDiffVit => {
            let names: Vec<String> = absent.map(|name| format!("{prefix}{name}")).collect();
            let names = Names::read(names.iter().map(String::as_str)).read;
            names.into_iter().map(Cow::into_owned).collect()
        }
        _ => absent.map(|name| format!("{prefix}{name}")).collect(),
    };
    inspection.missing.extend(absent);
    let halves = architecture == Architecture::DiffLlama;
    let (heads, embed_dim) = match found.heads(version, halves, config.timm_head_dim()) {
        Ok(heads) => heads,
        Err(reason) => {
            inspection
                .warnings
                .push(format!("{} is no layer: {reason}", shown(prefix)));
            return;
        }
    };
    let depth = depth_of(prefix);
    let is_first = inspection.layers.is_empty();
    if is_first && depth.is_none() && version != LayerVersion::V2 {
        inspection.warnings.push(format!(
            "{} has no number in its name: λ_init depends on the layer's index, 0 is assumed",
            shown(prefix)
        ));
    }
    if is_first && architecture == Architecture::UnilmV1 && heads.pairing == Pairing::Interleaved {
        let groups = heads.groups.unwrap_or(heads.heads);
        if groups < heads.heads {
            inspection.warnings.push(format!(
                "{} output heads share {groups} key/value groups: names and shapes do not say whether k heads are repeated in pairs (multihead_flashdiff_2.py) or one by one (multihead_diffattn.py, kv_repeat flat); pairs are assumed",
                heads.heads
            ));
        }
    }
    for name in ["q_norm.weight", "k_norm.weight", "norm.weight"] {
        if entries.contains_key(format!("{prefix}{name}").as_str()) {
            inspection.warnings.push(format!(
                "{prefix}{name}: the layers of this library have no such norm"
            ));
        }
    }
    let rope = match architecture {
        Architecture::TimmDiffVit => None,
        _ => Some(RopeConfig {
            interleaved: !halves,
            frequencies: RopeFrequencies {
                theta: config.theta(),
                ..RopeFrequencies::default()
            },
        }),
    };
    let eps = match architecture {
        Architecture::DiffLlama => config.number("rms_norm_eps").unwrap_or(1e-5),
        _ => 1e-5,
    };
    inspection.layers.push(Layer {
        prefix: prefix.to_owned(),
        depth,
        version,
        embed_dim,
        heads,
        rope,
        is_causal: architecture != Architecture::TimmDiffVit,
        eps: eps as f32,
        norm_weight: found.has("subln.weight"),
        pieces: found.pieces,
    });
}

/// A prefix in a sentence.
fn shown(prefix: &str) -> String {
    match prefix.strip_suffix('.') {
        Some(prefix) => prefix.to_owned(),
        None => "the layer".to_owned(),
    }
}

/// Compares the configuration and the names of a diffllama with its tensors.
fn diffllama(entries: &Named<'_>, config: &Config, inspection: &mut Inspection) {
    let Some(first) = inspection.layers.first().cloned() else {
        return;
    };
    let heads = first.heads;
    let mut warn = |sentence: String| inspection.warnings.push(sentence);
    let (flat, hidden) = (
        config.count("num_attention_heads"),
        config.count("hidden_size"),
    );
    if let Some(flat) = flat {
        let head_dim = config
            .count("head_dim")
            .or_else(|| hidden.and_then(|hidden| hidden.checked_div(flat)));
        if let Some(head_dim) = head_dim.filter(|&head_dim| head_dim != heads.head_dim) {
            let q = 2 * heads.heads;
            let how = if config.count("head_dim").is_some() {
                format!("head_dim {head_dim}")
            } else {
                format!("num_attention_heads {flat}, which makes head_dim {head_dim}")
            };
            let cause = if head_dim == 2 * heads.head_dim {
                format!(
                    "it seems to count output heads; diffllama counts flat heads, of which q_proj has {q}"
                )
            } else {
                format!("q_proj has {q} flat heads")
            };
            warn(format!(
                "config.json says {how}, but {}lambda_q1 has {} values: {cause}",
                first.prefix, heads.head_dim
            ));
        } else if flat != 2 * heads.heads {
            warn(format!(
                "config.json says num_attention_heads {flat}, but q_proj has {} flat heads",
                2 * heads.heads
            ));
        }
    }
    let groups = heads.groups.unwrap_or(2 * heads.heads);
    let rows = |name: &str| {
        entries
            .get(name)
            .and_then(|entry| entry.shape.first().copied())
    };
    let index = first.depth.unwrap_or(0);
    let up = format!("model.layers.{index}.mlp.up_proj.weight");
    let table = "model.embed_tokens.weight";
    for (key, has) in [
        ("num_key_value_heads", Some(groups)),
        ("hidden_size", Some(first.embed_dim)),
        ("intermediate_size", rows(&up)),
        ("vocab_size", rows(table).or_else(|| rows("lm_head.weight"))),
    ] {
        if let (Some(said), Some(has)) = (config.count(key), has)
            && said != has
        {
            warn(format!(
                "config.json says {key} {said}, but the tensors have {has}"
            ));
        }
    }
    if groups % 2 == 1 && groups > 1 {
        warn(format!(
            "{groups} flat key/value heads are an odd number: output heads share k and v across the two halves"
        ));
    }
    if let Some(kind) = config.rope_type().filter(|kind| kind != "default") {
        warn(format!(
            "config.json scales the rotary embedding ({kind}): the layers given here have the unscaled one"
        ));
    }
    let differing: Vec<&Layer> = inspection
        .layers
        .iter()
        .filter(|layer| layer.heads != heads || layer.embed_dim != first.embed_dim)
        .collect();
    if let Some(layer) = differing.first() {
        let sentence = format!(
            "{} has other heads than {}",
            shown(&layer.prefix),
            shown(&first.prefix)
        );
        inspection.warnings.push(sentence);
    }
    let numbered = inspection
        .layers
        .iter()
        .filter_map(|layer| layer.depth)
        .max();
    let module = format!("layers.{index}.self_attn.");
    let Some(last) = numbered.filter(|_| first.prefix.ends_with(&module)) else {
        // A single module, not a model.
        return;
    };
    let count = layer_count(config.count("num_hidden_layers"), last, inspection);
    let bias = config.flag("attention_bias");
    let mut has_biases = false;
    let mut wanted = BTreeSet::from(["model.norm.weight".to_owned()]);
    let tied = config.flag("tie_word_embeddings");
    let head = "lm_head.weight";
    let has_table = entries.contains_key(table);
    match (tied, entries.contains_key(head)) {
        (Some(true), false) => {}
        (Some(true), true) => {
            wanted.insert(head.to_owned());
            inspection.warnings.push(match has_table {
                true => notices::own_head(head),
                false => notices::head_is_table(head),
            });
        }
        (None, false) => inspection.warnings.push(format!(
            "there is no {head}, and no config.json says that the embeddings are tied"
        )),
        _ => {
            wanted.insert(head.to_owned());
        }
    }
    if has_table || tied != Some(true) || !entries.contains_key(head) {
        wanted.insert(table.to_owned());
    }
    for layer in 0..count {
        let mut want = |name: String| wanted.insert(format!("model.layers.{layer}.{name}"));
        for name in [
            "input_layernorm",
            "post_attention_layernorm",
            "mlp.gate_proj",
            "mlp.up_proj",
            "mlp.down_proj",
        ] {
            want(format!("{name}.weight"));
        }
        for name in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            want(format!("self_attn.{name}.weight"));
            let stored = format!("model.layers.{layer}.self_attn.{name}.bias");
            let has_bias = entries.contains_key(stored.as_str());
            has_biases |= has_bias;
            if has_bias || bias == Some(true) {
                want(format!("self_attn.{name}.bias"));
            }
        }
        for name in ["lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"] {
            want(format!("self_attn.{name}"));
        }
    }
    if has_biases && bias == Some(false) {
        inspection.warnings.push(notices::biases());
    }
    compare(entries, &wanted, inspection);
}

/// Compares the configuration and the names of a DIFF vision transformer with its tensors.
fn timm(entries: &Named<'_>, config: &Config, inspection: &mut Inspection) {
    let Some(first) = inspection.layers.first().cloned() else {
        return;
    };
    for (key, has) in [
        ("num_heads", first.heads.heads),
        ("embed_dim", first.embed_dim),
    ] {
        if let Some(said) = config.timm_count(key)
            && said != has
        {
            inspection.warnings.push(format!(
                "config.json says {key} {said}, but the tensors have {has}"
            ));
        }
    }
    let Some(last) = inspection
        .layers
        .iter()
        .filter_map(|layer| layer.depth)
        .max()
    else {
        return;
    };
    let count = layer_count(config.timm_count("depth"), last, inspection);
    // What a vision transformer has around its blocks differs from one to the next, so only blocks have a list.
    let mut wanted = BTreeSet::new();
    for block in 0..count {
        let mut want = |name: &str| wanted.insert(format!("blocks.{block}.{name}"));
        if entries.contains_key(format!("blocks.{block}.attn.q_proj.weight").as_str()) {
            for name in [
                "attn.q_proj.weight",
                "attn.k_proj.weight",
                "attn.v_proj.weight",
            ] {
                want(name);
            }
        } else {
            want("attn.qkv.weight");
        }
        for name in [
            "attn.proj.weight",
            "attn.sub_norm.weight",
            "norm1.weight",
            "norm2.weight",
            "mlp.fc1.weight",
            "mlp.fc2.weight",
        ] {
            want(name);
        }
    }
    wanted.insert("patch_embed.proj.weight".to_owned());
    let missing = wanted
        .iter()
        .filter(|name| !entries.contains_key(name.as_str()));
    add_missing(missing, &mut inspection.missing);
    let has_place = |name: &str| {
        let block = name
            .strip_prefix("blocks.")
            .and_then(|name| name.split_once('.'));
        let block = block.and_then(|(number, _)| number.parse::<usize>().ok());
        block.is_some_and(|block| block < count)
            || VIT_MODULES.iter().any(|module| name.starts_with(module))
    };
    let unexpected = entries.iter().filter(|(name, _)| !has_place(name));
    inspection
        .unexpected
        .extend(unexpected.map(|(_, entry)| entry.name.clone()));
}

/// How many layers there should be.
fn layer_count(said: Option<usize>, last: usize, inspection: &mut Inspection) -> usize {
    let has = inspection.layers.len();
    match said {
        Some(said) if said != has => {
            inspection.warnings.push(notices::layers(said, has));
        }
        None if last >= has => {
            inspection.warnings.push(format!(
                "layers are numbered up to {last}, but there are {has}"
            ));
        }
        _ => {}
    }
    // A number in a file makes no list longer than what the file has.
    said.unwrap_or(last.saturating_add(1))
        .min(has.saturating_mul(2).saturating_add(16))
}

fn compare(entries: &Named<'_>, wanted: &BTreeSet<String>, inspection: &mut Inspection) {
    let missing = wanted
        .iter()
        .filter(|name| !entries.contains_key(name.as_str()));
    add_missing(missing, &mut inspection.missing);
    let unexpected = entries.iter().filter(|(name, _)| {
        !wanted.contains(name.as_ref()) && !name.ends_with("rotary_emb.inv_freq")
    });
    inspection
        .unexpected
        .extend(unexpected.map(|(_, entry)| entry.name.clone()));
}

/// Each once.
fn add_missing<'n>(names: impl Iterator<Item = &'n String>, missing: &mut Vec<String>) {
    missing.extend(names.cloned());
    missing.sort_unstable();
    missing.dedup();
}

/// A configuration, or none.
struct Config(Option<Map<String, Value>>);

impl Config {
    fn parse(text: Option<&str>) -> Result<Self, Error> {
        text.map(|text| json::object("config.json", text))
            .transpose()
            .map(Self)
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.0.as_ref()?.get(key)
    }

    fn count(&self, key: &str) -> Option<usize> {
        usize::try_from(self.value(key)?.as_u64()?).ok()
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.value(key)?.as_f64()
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.value(key)?.as_bool()
    }

    /// timm's own arguments stand apart where a hub wrote the file.
    fn timm_count(&self, key: &str) -> Option<usize> {
        let nested = || usize::try_from(self.value("model_args")?.get(key)?.as_u64()?).ok();
        self.count(key).or_else(nested)
    }

    /// Where no tensor tells: with timm's λ of two numbers and no norm weight.
    fn timm_head_dim(&self) -> Option<usize> {
        let heads = self.timm_count("num_heads")?.checked_mul(2)?;
        self.timm_count("embed_dim")?.checked_div(heads)
    }

    fn rope(&self, key: &str) -> Option<&Value> {
        let nested = |object: &str| self.value(object)?.get(key);
        nested("rope_parameters").or_else(|| nested("rope_scaling"))
    }

    fn theta(&self) -> Option<f64> {
        let nested = || self.rope("rope_theta")?.as_f64();
        self.number("rope_theta").or_else(nested)
    }

    fn rope_type(&self) -> Option<String> {
        let kind = self.rope("rope_type").or_else(|| self.rope("type"))?;
        kind.as_str().map(str::to_owned)
    }

    fn architecture(&self) -> Option<Architecture> {
        Architecture::of_config(self.0.as_ref()?)
    }
}
