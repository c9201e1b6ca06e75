//! The request that converts a layer of a checkpoint. Knows no layouts; diffattn-nn does.

use std::collections::BTreeMap;

use diffattn::Error;
use diffattn_nn::checkpoint::{Converted, Layer, LayerTarget, RawTensor, convert_layer};
use serde_json::json;

use super::files::TensorJson;
use super::ready::{Made, ready};
use super::stored::StoredTensorAt;
use crate::encoding::{List, Text, request};
use crate::job::Prepared;
use crate::operation::{Inputs, Operation};

request! {
    /// A request of `convertLayer`.
    69 convertLayer ConvertRequest {
        layer: Text,
        target: Text,
        tensors: List<StoredTensorAt>,
    }
}

impl Operation for ConvertRequest {
    fn prepares_at_length(&self) -> bool {
        true
    }

    /// The sizes of the outputs are those of the converted layer, so it is converted here.
    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let operands = inputs.operands;
        let layer = Layer::from_json(self.layer.text(operands)?)?;
        let form = layer.form();
        let target = LayerTarget::from_json(self.target.text(operands)?, &form.heads)?;
        layer.check_target(&target)?;
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
        let listed: Vec<TensorJson> = weights
            .iter()
            .map(|(name, tensor)| TensorJson {
                name: name.clone(),
                dtype: tensor.dtype(),
                shape: tensor.shape().to_vec(),
            })
            .collect();
        let json = json!({ "tensors": listed, "form": form, "notes": notes });
        let mut made = vec![("layer", Made::json(&json)?)];
        made.extend(
            weights
                .into_values()
                .map(|tensor| ("tensor", Made::Bytes(tensor.into_bytes()))),
        );
        ready(made)
    }
}
