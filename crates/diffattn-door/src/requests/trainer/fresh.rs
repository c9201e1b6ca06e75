//! Requests of the weights of a model that knows nothing yet.

use diffattn::{DType, Error, Work};
use diffattn_nn::training::FreshWeights;
use serde_json::json;

use crate::encoding::{Seed, Text, request};
use crate::job::{OutputSpec, Prepared};
use crate::operation::{Inputs, Operation};
use crate::requests::ready::{Made, ready};

request! {
    /// The weights of a model of random numbers, as JSON: names and shapes.
    163 freshTensors FreshTensorsRequest {
        config: Text,
    }
}

impl Operation for FreshTensorsRequest {
    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let fresh = FreshWeights::of_config(self.config.text(inputs.operands)?)?;
        let tensors: Vec<_> = fresh
            .tensors()
            .iter()
            .map(|of| json!({ "name": of.name, "shape": of.shape }))
            .collect();
        ready(vec![("tensors", Made::json(&tensors)?)])
    }
}

request! {
    /// One of them.
    164 freshTensor FreshTensorRequest {
        config: Text,
        seed: Seed,
        name: Text,
    }
}

impl Operation for FreshTensorRequest {
    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let fresh = FreshWeights::of_config(self.config.text(inputs.operands)?)?;
        let name = self.name.text(inputs.operands)?;
        let seed = self.seed;
        let index = fresh.tensors().iter().position(|of| of.name == name);
        let index = index.ok_or_else(|| {
            Error::option("name", "a weight of the model", format_args!("{name:?}"))
        })?;
        let shape = fresh.tensors()[index].shape.clone();
        let spec = OutputSpec::new("out", DType::F32, &shape)?;
        Ok(Prepared::new(vec![spec], move |outputs| {
            let out = outputs.f32()?;
            Ok(Work::new(1, move |pace| async move {
                fresh.fill(index, seed, out);
                pace.worked(1);
                Ok(())
            }))
        }))
    }
}
