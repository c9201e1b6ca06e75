//! Requests of a layer's backward pass: from the stream to diffattn-nn. Checks no shapes.

use std::sync::Arc;

use diffattn::{DType, Error};
use diffattn_nn::training::{KeptForward, LayerBackward, LayerTape};
use diffattn_nn::{DiffAttnLayer, ForwardOptions};

use super::attention::mask_or_none;
use super::layer::weight_names;
use crate::encoding::{Mask, Now, Object, Tensor, request};
use crate::job::{OutputSpec, Prepared};
use crate::objects::{Held, Use};
use crate::operation::{Asked, Inputs, Operation, Query};

/// A pass that is kept for its backward pass, with the layer as it was then.
#[derive(Debug, Default)]
pub(crate) struct KeptPass {
    layer: Option<Arc<DiffAttnLayer>>,
    tape: LayerTape,
}

impl Held for KeptPass {
    const NAME: &'static str = "a layer's kept pass";
    const ARGUMENT: &'static str = "vjp";
}

request! {
    /// Makes a place for a pass that is kept; its id.
    134 createLayerVjp CreateLayerVjpRequest {}
}

impl Query for CreateLayerVjpRequest {
    fn answer(self, asked: Asked<'_>) -> Result<f64, Error> {
        asked.door.insert(KeptPass::default()).map(f64::from)
    }
}

request! {
    /// Runs a layer and keeps what its backward pass needs.
    135 layerVjp LayerVjpRequest {
        vjp: Object<KeptPass>,
        layer: Now<DiffAttnLayer>,
        x: Tensor,
    } options {
        attn_mask: Option<Mask>,
    }
}

impl Operation for LayerVjpRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.vjp.to_use(true)]
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let layer = inputs.objects.look(&self.layer)?;
        let KeptPass { layer: held, tape } = inputs.objects.take(&self.vjp)?;
        let x = self.x.tensor(inputs.operands)?;
        let options = ForwardOptions {
            attn_mask: mask_or_none(&self.attn_mask, inputs.operands)?,
            run: inputs.run,
        };
        let shape = x.shape.clone();
        let call = KeptForward::new(layer, x, &options)?;
        let spec = OutputSpec::new("out", DType::F32, &shape)?;
        Ok(Prepared::new(vec![spec], move |outputs| {
            *held = Some(self.layer.now()?);
            Ok(call.into_work(outputs.f32()?, tape))
        }))
    }
}

request! {
    /// The gradients of a pass that was kept.
    136 layerBackward LayerBackwardRequest {
        vjp: Object<KeptPass>,
        dy: Tensor,
    } options {}
}

impl Operation for LayerBackwardRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.vjp.to_use(false)]
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let KeptPass { layer, tape } = inputs.objects.look(&self.vjp)?;
        let dy = self.dy.tensor(inputs.operands)?;
        let dx = OutputSpec::new("dx", DType::F32, &dy.shape)?;
        let layer = layer.as_deref();
        let layer = layer.ok_or_else(|| Error::internal("a backward pass of no pass"))?;
        let call = LayerBackward::new(layer, tape, dy)?;
        let weights = call.weights();
        let names = weight_names();
        let mut specs = vec![dx];
        // (In the order of the names, whatever the layer's own is.)
        let mut order = Vec::with_capacity(names.len());
        for name in names {
            let found = weights.iter().position(|(of, _)| *of == name);
            let shape = found.map(|place| weights[place].1.as_slice());
            specs.push(OutputSpec::optional(name, shape)?);
            order.push(found);
        }
        Ok(Prepared::new(specs, move |outputs| {
            let dx = outputs.f32()?;
            let mut to = Vec::with_capacity(order.len());
            for place in order {
                to.extend(place.zip(outputs.optional()?));
            }
            to.sort_unstable_by_key(|(place, _)| *place);
            Ok(call.into_work(dx, to.into_iter().map(|(_, to)| to).collect()))
        }))
    }
}
