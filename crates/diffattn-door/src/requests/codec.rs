//! Requests of an audio codec: audio to latents, and back.

use diffattn::{DType, DataMut, Error};
use diffattn_nn::SameSOptions;

use super::model::Model;
use crate::encoding::{Flag, Object, Tensor as TensorOf, request};
use crate::job::{OutputSpec, Prepared};
use crate::objects::Use;
use crate::operation::{Inputs, Operation};

fn options(inputs: &Inputs<'_, '_>, deterministic: bool) -> SameSOptions {
    SameSOptions {
        run: inputs.run.with_deterministic(deterministic),
    }
}

request! {
    /// Latents of audio.
    91 audioEncode AudioEncodeRequest {
        model: Object<Model>,
        pcm: TensorOf,
        deterministic: Flag,
    }
}

impl Operation for AudioEncodeRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.model.to_use(false)]
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let options = options(&inputs, self.deterministic);
        let model = inputs.objects.look(&self.model)?.audio()?;
        let model = inputs.objects.keep(model);
        let job = model.encode_job(self.pcm.tensor(inputs.operands)?, &options)?;
        let spec = OutputSpec::new("latents", DType::F32, &job.output_shape())?;
        Ok(Prepared::new(vec![spec], move |outputs| {
            job.into_work(DataMut::F32(outputs.f32()?))
        }))
    }
}

request! {
    /// Audio of latents.
    92 audioDecode AudioDecodeRequest {
        model: Object<Model>,
        latents: TensorOf,
        deterministic: Flag,
    }
}

impl Operation for AudioDecodeRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.model.to_use(false)]
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let options = options(&inputs, self.deterministic);
        let model = inputs.objects.look(&self.model)?.audio()?;
        let model = inputs.objects.keep(model);
        let job = model.decode_job(self.latents.tensor(inputs.operands)?, &options)?;
        let spec = OutputSpec::new("pcm", DType::F32, &job.output_shape())?;
        Ok(Prepared::new(vec![spec], move |outputs| {
            job.into_work(DataMut::F32(outputs.f32()?))
        }))
    }
}
