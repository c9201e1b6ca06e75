//! What [`super::inspect`] found as JSON, with names as JavaScript has them; layers and how they
//! are to lie also out of JSON, so that whoever asked for an inspection can ask for a conversion.
//! Decides nothing.

use super::convert::{LayerForm, LayerTarget, NormWeight};
use super::inspect::{Architecture, DtypeCount, Inspection, QuantizedCount};
use super::layer::{Layer, LayerVersion, Piece};
use super::layout::HeadLayout;
use super::plain::{ConvertedLayer, HeadChoice, PlainLayer};
use crate::attention::{LambdaForm, RopeConfig};
use crate::decoder::ConversionKind;
use crate::dtype::Dtype;
use diffattn::{Error, KvRepeat, Pairing, RopeFrequencies};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;

/// Every pairing, by its name.
const PAIRINGS: [Pairing; 4] = [
    Pairing::Interleaved,
    Pairing::Halves,
    Pairing::Grouped,
    Pairing::Shared,
];

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Described {
    prefix: String,
    depth: Option<usize>,
    /// 1 or 2.
    version: u8,
    lambda_form: Option<LambdaName>,
    embed_dim: usize,
    pairing: String,
    kv_repeat: Option<RepeatName>,
    ratio: Option<usize>,
    num_heads: usize,
    num_kv_heads: Option<usize>,
    head_dim: usize,
    head_width: usize,
    rope: Option<RopeDescribed>,
    is_causal: bool,
    eps: f32,
    norm_weight: bool,
    weights: BTreeMap<String, PieceDescribed>,
}

#[derive(Serialize, Deserialize)]
struct RopeDescribed {
    interleaved: bool,
    theta: Option<f64>,
}

impl From<RopeConfig> for RopeDescribed {
    fn from(rope: RopeConfig) -> Self {
        Self {
            interleaved: rope.interleaved,
            theta: rope.frequencies.theta,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct PieceDescribed {
    tensor: String,
    rows: Option<[usize; 2]>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LambdaName {
    Vectors,
    Scalars,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RepeatName {
    Paired,
    Flat,
}

impl From<RepeatName> for KvRepeat {
    fn from(name: RepeatName) -> Self {
        match name {
            RepeatName::Paired => Self::Paired,
            RepeatName::Flat => Self::Flat,
        }
    }
}

fn repeat_name(repeat: KvRepeat) -> RepeatName {
    match repeat {
        KvRepeat::Paired => RepeatName::Paired,
        KvRepeat::Flat => RepeatName::Flat,
    }
}

fn pairing(name: &str) -> Result<Pairing, Error> {
    PAIRINGS
        .into_iter()
        .find(|pairing| pairing.name() == name)
        .ok_or_else(|| {
            let names = PAIRINGS.map(Pairing::name).join(", ");
            Error::option(
                "pairing",
                format_args!("one of {names}"),
                format_args!("{name:?}"),
            )
        })
}

impl Serialize for Layer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (version, lambda_form) = match self.version {
            LayerVersion::V1(LambdaForm::Vectors) => (1, Some(LambdaName::Vectors)),
            LayerVersion::V1(LambdaForm::Scalars) => (1, Some(LambdaName::Scalars)),
            LayerVersion::V2 => (2, None),
        };
        let HeadLayout {
            pairing,
            kv_repeat,
            ratio,
            heads,
            groups,
            head_dim,
            head_width,
        } = self.heads;
        Described {
            prefix: self.prefix.clone(),
            depth: self.depth,
            version,
            lambda_form,
            embed_dim: self.embed_dim,
            pairing: pairing.name().to_owned(),
            kv_repeat: kv_repeat.map(repeat_name),
            ratio,
            num_heads: heads,
            num_kv_heads: groups,
            head_dim,
            head_width,
            rope: self.rope.map(RopeDescribed::from),
            is_causal: self.is_causal,
            eps: self.eps,
            norm_weight: self.norm_weight,
            weights: self
                .pieces
                .iter()
                .map(|(name, Piece { tensor, rows })| {
                    let described = PieceDescribed {
                        tensor: tensor.clone(),
                        rows: rows.as_ref().map(|rows| [rows.start, rows.end]),
                    };
                    (name.clone(), described)
                })
                .collect(),
        }
        .serialize(serializer)
    }
}

impl Layer {
    /// A layer as its JSON describes it.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `layer`, or the entry in it.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let described: Described = serde_json::from_str(text)
            .map_err(|why| Error::option("layer", "a layer of an inspection in JSON", why))?;
        let version = match (described.version, described.lambda_form) {
            (1, None | Some(LambdaName::Vectors)) => LayerVersion::V1(LambdaForm::Vectors),
            (1, Some(LambdaName::Scalars)) => LayerVersion::V1(LambdaForm::Scalars),
            (2, _) => LayerVersion::V2,
            (other, _) => return Err(Error::option("layer.version", "1 or 2", other)),
        };
        Ok(Self {
            prefix: described.prefix,
            depth: described.depth,
            version,
            embed_dim: described.embed_dim,
            heads: HeadLayout {
                pairing: pairing(&described.pairing)?,
                kv_repeat: described.kv_repeat.map(KvRepeat::from),
                ratio: described.ratio,
                heads: described.num_heads,
                groups: described.num_kv_heads,
                head_dim: described.head_dim,
                head_width: described.head_width,
            },
            rope: described.rope.map(|rope| RopeConfig {
                interleaved: rope.interleaved,
                frequencies: RopeFrequencies {
                    theta: rope.theta,
                    ..RopeFrequencies::default()
                },
            }),
            is_causal: described.is_causal,
            eps: described.eps,
            norm_weight: described.norm_weight,
            pieces: described
                .weights
                .into_iter()
                .map(|(name, PieceDescribed { tensor, rows })| {
                    let rows = rows.map(|[first, end]| first..end);
                    (name, Piece { tensor, rows })
                })
                .collect(),
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TargetDescribed {
    /// What the rest is taken from: "diffllama", "unilm", or "keep", which is as the layer lies.
    #[serde(default)]
    like: Like,
    pairing: Option<String>,
    kv_repeat: Option<RepeatName>,
    ratio: Option<usize>,
    rope_interleaved: Option<bool>,
    norm_weight: Option<NormName>,
    output: Option<OutputName>,
    dtype: Option<Dtype>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum Like {
    #[default]
    Keep,
    Diffllama,
    Unilm,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum NormName {
    Keep,
    Fold,
    Provide,
}

#[derive(Deserialize)]
enum OutputName {
    #[serde(rename = "out_proj")]
    OutProj,
    #[serde(rename = "o_proj")]
    OProj,
}

impl LayerTarget {
    /// How a layer is to lie, as JSON says it: `like` ("keep", "diffllama" or "unilm"; "keep" by
    /// default) and, each by option, what differs from that: `pairing` (with it `kvRepeat` and
    /// `ratio`), `ropeInterleaved`, `normWeight` ("keep", "fold", "provide"), `output`, `dtype`.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `target`, or the entry in it.
    pub fn from_json(text: &str, from: &HeadLayout) -> Result<Self, Error> {
        let described: TargetDescribed = serde_json::from_str(text)
            .map_err(|why| Error::option("target", "how a layer is to lie, in JSON", why))?;
        let mut target = match described.like {
            Like::Keep => Self::keep(from),
            Like::Diffllama => Self::diffllama(),
            Like::Unilm => Self::unilm(),
        };
        if let Some(name) = described.pairing {
            target.pairing = pairing(&name)?;
            (target.kv_repeat, target.ratio) = (None, None);
        }
        if let Some(repeat) = described.kv_repeat {
            target.kv_repeat = Some(repeat.into());
        }
        target.ratio = described.ratio.or(target.ratio);
        target.rope_interleaved = described.rope_interleaved.or(target.rope_interleaved);
        if let Some(norm) = described.norm_weight {
            target.norm_weight = match norm {
                NormName::Keep => NormWeight::Keep,
                NormName::Fold => NormWeight::Fold,
                NormName::Provide => NormWeight::Provide,
            };
        }
        if let Some(output) = described.output {
            target.output = Some(match output {
                OutputName::OutProj => "out_proj",
                OutputName::OProj => "o_proj",
            });
        }
        target.dtype = described.dtype;
        Ok(target)
    }
}

impl Serialize for LayerForm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut form = serializer.serialize_struct("LayerForm", 5)?;
        form.serialize_field("pairing", self.heads.pairing.name())?;
        form.serialize_field("kvRepeat", &self.heads.kv_repeat.map(repeat_name))?;
        form.serialize_field("ratio", &self.heads.ratio)?;
        form.serialize_field("numKvHeads", &self.heads.groups)?;
        form.serialize_field("ropeInterleaved", &self.rope_interleaved)?;
        form.end()
    }
}

impl Serialize for Architecture {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Serialize for DtypeCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut count = serializer.serialize_struct("DtypeCount", 4)?;
        count.serialize_field("dtype", &self.dtype)?;
        count.serialize_field("tensors", &self.tensors)?;
        count.serialize_field("parameters", &self.elements)?;
        // (Elements narrower than a byte fill whole bytes.)
        let bits = self.dtype.bits(self.elements).unwrap_or(u64::MAX);
        let bytes = bits.div_ceil(8);
        count.serialize_field("bytes", &bytes)?;
        count.end()
    }
}

impl PlainLayer {
    /// How many entries [`PlainLayer::describe`] adds.
    const ENTRIES: usize = 8;

    /// Adds its entries to those of a layer.
    fn describe<S: SerializeStruct>(&self, layer: &mut S) -> Result<(), S::Error> {
        layer.serialize_field("prefix", &self.prefix)?;
        layer.serialize_field("depth", &self.depth)?;
        layer.serialize_field("embedDim", &self.embed_dim)?;
        layer.serialize_field("numHeads", &self.heads.map(|heads| heads.heads))?;
        layer.serialize_field("numKvHeads", &self.heads.map(|heads| heads.groups))?;
        layer.serialize_field("headDim", &self.heads.map(|heads| heads.head_dim))?;
        layer.serialize_field("rope", &RopeDescribed::from(self.rope))?;
        layer.serialize_field("isCausal", &self.is_causal)
    }
}

impl Serialize for QuantizedCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut count = serializer.serialize_struct("QuantizedCount", 5)?;
        count.serialize_field("bits", &self.packing.bits)?;
        count.serialize_field("groupSize", &self.packing.group_size)?;
        count.serialize_field("weights", &self.weights)?;
        count.serialize_field("parameters", &self.elements)?;
        count.serialize_field("bytes", &self.bytes)?;
        count.end()
    }
}

impl Serialize for PlainLayer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut layer = serializer.serialize_struct("PlainLayer", Self::ENTRIES)?;
        self.describe(&mut layer)?;
        layer.end()
    }
}

impl Serialize for HeadChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::Listed(heads) => heads.serialize(serializer),
        }
    }
}

impl Serialize for ConvertedLayer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (kind, lambda) = match self.kind {
            ConversionKind::V2 => ("v2", Some("sigmoid")),
            ConversionKind::V1(LambdaForm::Vectors) => ("v1", Some("vectors")),
            ConversionKind::V1(LambdaForm::Scalars) => ("v1", Some("scalars")),
            ConversionKind::Dex => ("dex", None),
        };
        let entries = PlainLayer::ENTRIES + 3;
        let mut layer = serializer.serialize_struct("ConvertedLayer", entries)?;
        self.plain.describe(&mut layer)?;
        layer.serialize_field("kind", kind)?;
        layer.serialize_field("lambda", &lambda)?;
        layer.serialize_field("differentialHeads", &self.differential)?;
        layer.end()
    }
}

impl Serialize for Inspection {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut inspection = serializer.serialize_struct("Inspection", 10)?;
        inspection.serialize_field("architecture", &self.architecture)?;
        inspection.serialize_field("parameters", &self.parameters)?;
        inspection.serialize_field("dtypes", &self.dtypes)?;
        inspection.serialize_field("quantized", &self.quantized)?;
        inspection.serialize_field("layers", &self.layers)?;
        inspection.serialize_field("plainLayers", &self.plain_layers)?;
        inspection.serialize_field("convertedLayers", &self.converted_layers)?;
        inspection.serialize_field("missing", &self.missing)?;
        inspection.serialize_field("unexpected", &self.unexpected)?;
        inspection.serialize_field("warnings", &self.warnings)?;
        inspection.end()
    }
}
