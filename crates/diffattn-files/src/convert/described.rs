//! How a Llama is to be converted, out of JSON, and the conversion in JSON, with names as
//! JavaScript has them. Decides nothing but what is meant where nothing is said.

use super::heads::TargetHeads;
use super::model::ModelConversion;
use super::start::{ConversionForm, ConversionStart, ConversionTarget};
use crate::attention::LambdaForm;
use crate::dtype::Dtype;
use diffattn::Error;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

/// The share of heads, where nothing is said.
const SHARE: f64 = 0.5;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Described {
    to: Option<String>,
    start: Option<String>,
    lambda: Option<f64>,
    heads: Option<HeadsDescribed>,
    share: Option<f64>,
    /// A number for each head of each layer.
    entropy: Option<Vec<Vec<f64>>>,
    layers: Option<Vec<usize>>,
    seed: Option<u64>,
    dtype: Option<Dtype>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum HeadsDescribed {
    Named(String),
    Listed(Vec<Vec<usize>>),
}

/// What a name stands for.
fn named<T: Copy>(argument: &str, name: &str, names: &[(&str, T)]) -> Result<T, Error> {
    let found = names.iter().find(|(known, _)| *known == name);
    found.map(|&(_, value)| value).ok_or_else(|| {
        let names: Vec<String> = names.iter().map(|(name, _)| format!("{name:?}")).collect();
        Error::option(argument, names.join(" or "), format_args!("{name:?}"))
    })
}

impl ConversionTarget {
    /// Reads `{ to, start, lambda, heads, share, entropy, layers, seed, dtype }`, all of which may
    /// be left out. `to` is "v2", "v1", "dex" or "diffllama"; `heads` "all", "last", "first",
    /// "entropy" or lists of numbers. Without `heads` they are the last, half of them by default,
    /// or all where the form knows no others.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming the entry.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let described: Described = serde_json::from_str(text)
            .map_err(|why| Error::option("options", "how a Llama is to be converted", why))?;
        let forms = [
            ("v2", ConversionForm::V2),
            ("v1", ConversionForm::V1(LambdaForm::Vectors)),
            ("dex", ConversionForm::Dex),
            ("diffllama", ConversionForm::DiffLlama),
        ];
        let form = match &described.to {
            Some(name) => named("to", name, &forms)?,
            None => ConversionForm::V2,
        };
        let starts = [
            ("mirror", ConversionStart::Mirror),
            ("zero", ConversionStart::Zero),
            ("mix", ConversionStart::Mix),
        ];
        let start = described.start.as_deref();
        Ok(Self {
            form,
            start: start
                .map(|name| named("start", name, &starts))
                .transpose()?,
            lambda: described.lambda,
            heads: heads(form, described.heads, described.share, described.entropy)?,
            layers: described.layers,
            seed: described.seed.unwrap_or(0),
            dtype: described.dtype,
        })
    }
}

/// Which heads are meant.
fn heads(
    form: ConversionForm,
    heads: Option<HeadsDescribed>,
    share: Option<f64>,
    entropy: Option<Vec<Vec<f64>>>,
) -> Result<TargetHeads, Error> {
    #[derive(Clone, Copy)]
    enum Which {
        All,
        First,
        Last,
        Entropy,
    }
    let names = [
        ("all", Which::All),
        ("last", Which::Last),
        ("first", Which::First),
        ("entropy", Which::Entropy),
    ];
    let of_all = matches!(form, ConversionForm::V1(_) | ConversionForm::DiffLlama);
    let which = match heads {
        Some(HeadsDescribed::Listed(lists)) => {
            return match share {
                None => Ok(TargetHeads::Listed(lists)),
                Some(share) => Err(Error::option("share", "none beside lists of heads", share)),
            };
        }
        Some(HeadsDescribed::Named(name)) => named("heads", &name, &names)?,
        None if of_all && share.is_none() => Which::All,
        None => Which::Last,
    };
    let part = share.unwrap_or(SHARE);
    match (which, share, entropy) {
        (Which::All, Some(share), _) if share != 1.0 => {
            Err(Error::option("share", "1 with all heads", share))
        }
        (Which::All, ..) => Ok(TargetHeads::All),
        (Which::First, ..) => Ok(TargetHeads::First(part)),
        (Which::Last, ..) => Ok(TargetHeads::Last(part)),
        (Which::Entropy, _, Some(numbers)) => Ok(TargetHeads::Highest {
            share: part,
            numbers,
        }),
        (Which::Entropy, _, None) => {
            let expected = "a text with heads \"entropy\", over which it is measured";
            Err(Error::option("text", expected, "none"))
        }
    }
}

/// A tensor that is written.
#[derive(Serialize)]
struct TensorDescribed<'a> {
    name: &'a str,
    dtype: Dtype,
    shape: &'a [usize],
    /// What it is made of.
    from: &'a [String],
    /// Whether it is that, byte for byte.
    copied: bool,
}

impl Serialize for ModelConversion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let specs = self.tensors().into_iter().enumerate();
        let tensors = specs.map(|(index, spec)| TensorDescribed {
            name: spec.name,
            dtype: spec.dtype,
            shape: spec.shape,
            from: self.sources(index),
            copied: self.is_copied(index),
        });
        let tensors: Vec<TensorDescribed<'_>> = tensors.collect();
        let mut conversion = serializer.serialize_struct("ModelConversion", 7)?;
        conversion.serialize_field("config", &self.config())?;
        conversion.serialize_field("heads", self.heads())?;
        conversion.serialize_field("exact", &self.is_exact())?;
        conversion.serialize_field("parameters", &self.parameters())?;
        conversion.serialize_field("added", &self.added())?;
        conversion.serialize_field("notes", self.notes())?;
        conversion.serialize_field("tensors", &tensors)?;
        conversion.end()
    }
}
