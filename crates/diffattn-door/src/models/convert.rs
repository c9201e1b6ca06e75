//! The request that converts a layer of a checkpoint. Knows no layouts; diffattn-nn does.

use std::collections::BTreeMap;

use diffattn::Error;
use diffattn_nn::checkpoint::{Converted, Layer, LayerTarget, RawTensor, convert_layer};
use serde_json::json;

use super::checkpoint::TensorJson;
use super::model::StoredTensorAt;
use super::{Made, Operation, ready, text};
use crate::attention::Prepared;
use crate::objects::Lender;
use crate::reader::{Reader, TensorAt};

/// A request of `convertLayer`.
#[derive(Debug)]
pub(super) struct ConvertRequest {
    layer: TensorAt,
    target: TensorAt,
    tensors: Vec<StoredTensorAt>,
}

impl ConvertRequest {
    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self {
            layer: text(r, "layer")?,
            target: text(r, "target")?,
            tensors: r.list("tensors", StoredTensorAt::read)?,
        })
    }
}

impl Operation for ConvertRequest {
    fn prepares_at_length(&self) -> bool {
        true
    }

    /// The sizes of the outputs are those of the converted layer, so it is converted here.
    fn prepare<'m>(
        &'m self,
        operands: &[&'m [u8]],
        _lender: &mut Lender<'m>,
    ) -> Result<Prepared<'m>, Error> {
        let layer = Layer::from_json(self.layer.text(operands)?)?;
        let form = layer.form();
        let target = LayerTarget::from_json(self.target.text(operands)?, &form.heads)?;
        let tensors = self.tensors.iter().map(|at| at.tensor(operands));
        let tensors = tensors.collect::<Result<BTreeMap<&str, RawTensor<'_>>, Error>>()?;
        let weights = layer.weights(|name| {
            let tensor = tensors.get(name).cloned();
            tensor.ok_or_else(|| {
                Error::option(
                    "tensors",
                    "every tensor of the layer",
                    format_args!("none of the name {name:?}"),
                )
            })
        })?;
        let Converted {
            weights,
            form,
            notes,
        } = convert_layer(&weights, &form, &target)?;
        let told: Vec<TensorJson> = weights
            .iter()
            .map(|(name, tensor)| TensorJson {
                name: name.clone(),
                dtype: tensor.dtype(),
                shape: tensor.shape().to_vec(),
            })
            .collect();
        let json = json!({ "tensors": told, "form": form, "notes": notes });
        let mut made = vec![("layer", Made::json(&json)?)];
        made.extend(
            weights
                .into_values()
                .map(|tensor| ("tensor", Made::Bytes(tensor.into_bytes()))),
        );
        ready(made)
    }
}
