//! Conversions of whole models as objects: planned of a checkpoint's entries, then made tensor by
//! tensor. Knows no form of them; diffattn-files does.

use diffattn::Error;
use diffattn_nn::checkpoint::{Adapter, ConversionTarget, Entry, ModelConversion, json_text};

use super::files;
use super::ready::{Made, ready};
use super::stored::StoredTensorAt;
use crate::encoding::{Count, List, Object, Text, record, request};
use crate::job::Prepared;
use crate::objects::{Held, Use};
use crate::operation::{Asked, Inputs, Operation, Query};

/// A conversion, planned.
#[derive(Debug)]
pub(crate) struct Conversion(ModelConversion);

impl Held for Conversion {
    const NAME: &'static str = "a conversion";
    const ARGUMENT: &'static str = "conversion";
}

request! {
    /// Plans the conversion of a model: of a Llama to differential attention, as `target` says; with
    /// an adapter, made in the element type `dtype`; or without either of DEX into a Llama; its id.
    105 createConversion CreateConversionRequest {
        config: Text,
        entries("tensors"): Text,
        target: Option<Text>,
        adapter: Option<AdapterFiles>,
    }
}

record! {
    /// An adapter: its configuration, the entries of its tensors, and the element type that all of
    /// the model is made in.
    fields AdapterFiles {
        config("adapter_config.json"): Text,
        entries("tensors"): Text,
        dtype: Option<Text>,
    }
}

impl AdapterFiles {
    fn adapter(&self, operands: &[&[u8]]) -> Result<Adapter, Error> {
        let config = json_text("adapter_config.json", self.config.u8(operands)?)?;
        let entries: Vec<Entry> = files::whole_entries(self.entries.text(operands)?)?;
        Adapter::new(config, &entries)
    }
}

impl Query for CreateConversionRequest {
    fn answer(self, asked: Asked<'_>) -> Result<f64, Error> {
        let operands = asked.operands;
        let config = json_text("config.json", self.config.u8(operands)?)?;
        let entries: Vec<Entry> = files::whole_entries(self.entries.text(operands)?)?;
        let conversion = match (&self.adapter, &self.target) {
            (Some(files), _) => {
                let adapter = files.adapter(operands)?;
                let dtype = match &files.dtype {
                    None => None,
                    Some(name) => Some(files::dtype("dtype", name.text(operands)?)?),
                };
                ModelConversion::with_adapter(&entries, config, &adapter, dtype)?
            }
            (None, Some(target)) => {
                let target = ConversionTarget::from_json(target.text(operands)?)?;
                ModelConversion::to_differential(&entries, config, &target)?
            }
            (None, None) => ModelConversion::fold_dex(&entries, config)?,
        };
        asked.door.insert(Conversion(conversion)).map(f64::from)
    }
}

request! {
    /// A request of `conversionInfo`.
    76 conversionInfo ConversionInfoRequest {
        conversion: Object<Conversion>,
    }
}

impl Operation for ConversionInfoRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.conversion.to_use(false)]
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let Conversion(conversion) = inputs.objects.look(&self.conversion)?;
        ready(vec![("conversion", Made::json(conversion)?)])
    }
}

request! {
    /// A request of `convertTensor`.
    77 convertTensor ConvertTensorRequest {
        conversion: Object<Conversion>,
        index: Count,
        tensors: List<StoredTensorAt>,
    }
}

impl Operation for ConvertTensorRequest {
    fn prepares_at_length(&self) -> bool {
        true
    }

    fn uses(&self) -> Vec<Use> {
        vec![self.conversion.to_use(false)]
    }

    /// Made here: its memory is handed on, not copied.
    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let Conversion(conversion) = inputs.objects.look(&self.conversion)?;
        let sources = self.tensors.iter().map(|at| {
            let (_, tensor) = at.tensor(inputs.operands)?;
            Ok(tensor)
        });
        let sources = sources.collect::<Result<Vec<_>, Error>>()?;
        let made = conversion.make(self.index, sources)?;
        ready(vec![("tensor", Made::Bytes(made.into_bytes()))])
    }
}
