//! Requests of a trainer's state, tensor by tensor, and of the model that it has made.

use std::sync::Arc;

use diffattn::{DType, Error, Work};
use diffattn_nn::Model as Whole;
use diffattn_nn::training::StateTensor;

use super::held::{HeldTrainer, Training, on_trainer};
use crate::encoding::{Object, Tensor, Text, choice, request};
use crate::job::{OutputSpec, Prepared};
use crate::objects::Use;
use crate::operation::{Inputs, Operation};
use crate::requests::model::Model;

choice! { StateTensor { "value" = Value, "firstMoment" = FirstMoment, "secondMoment" = SecondMoment } }

request! {
    /// A tensor of a trainer's state: what moves, or its moments.
    159 trainerTensor TrainerTensorRequest {
        trainer: Object<HeldTrainer>,
        name: Text,
        of: StateTensor,
    }
}

impl Operation for TrainerTensorRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.trainer.to_use(false)]
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let trainer = inputs.objects.look(&self.trainer)?.get()?;
        let name = self.name.text(inputs.operands)?;
        let (parameters, values) = on_trainer!(trainer, trainer => {
            (trainer.model().arena().parameters(), trainer.tensor(name, self.of))
        });
        let shape = parameters.iter().find(|of| of.name == name);
        let (Some(of), Some(values)) = (shape, values) else {
            let given = format_args!("{name:?}");
            return Err(Error::option("name", "a weight that moves", given));
        };
        let spec = OutputSpec::new("out", DType::F32, &of.shape)?;
        Ok(Prepared::new(vec![spec], move |outputs| {
            let out = outputs.f32()?;
            Ok(Work::new(1, move |pace| async move {
                out.copy_from_slice(values);
                pace.worked(1);
                Ok(())
            }))
        }))
    }
}

request! {
    /// Sets a tensor of a trainer's state; `resumeTrainer` ends that.
    160 setTrainerTensor SetTrainerTensorRequest {
        trainer: Object<HeldTrainer>,
        name: Text,
        of: StateTensor,
        values: Tensor,
    }
}

impl Operation for SetTrainerTensorRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.trainer.to_use(true)]
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let held = inputs.objects.take(&self.trainer)?;
        let trainer = held.get_mut()?;
        let name = self.name.text(inputs.operands)?;
        let (of, values) = (self.of, self.values.f32(inputs.operands)?);
        Ok(Prepared::new(Vec::new(), move |_outputs| {
            Ok(Work::new(1, move |pace| async move {
                on_trainer!(trainer, trainer => trainer.set_tensor(name, of, values))?;
                pace.worked(1);
                Ok(())
            }))
        }))
    }
}

request! {
    /// Goes on from a state whose tensors were set; `state`: the text of `training.json`.
    161 resumeTrainer ResumeTrainerRequest {
        trainer: Object<HeldTrainer>,
        state: Text,
    }
}

impl Operation for ResumeTrainerRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.trainer.to_use(true)]
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let held = inputs.objects.take(&self.trainer)?;
        let trainer = held.get_mut()?;
        let state = self.state.text(inputs.operands)?;
        Ok(Prepared::new(Vec::new(), move |_outputs| {
            Ok(Work::new(1, move |pace| async move {
                on_trainer!(trainer, trainer => trainer.resume(state))?;
                pace.worked(1);
                Ok(())
            }))
        }))
    }
}

request! {
    /// Puts a model as the last step left it in the place of the one that was taken.
    162 trainedModel TrainedModelRequest {
        trainer: Object<HeldTrainer>,
        model: Object<Model>,
    }
}

impl Operation for TrainedModelRequest {
    fn uses(&self) -> Vec<Use> {
        vec![self.trainer.to_use(false), self.model.to_use(true)]
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let trainer = inputs.objects.look(&self.trainer)?.get()?;
        let model = inputs.objects.take(&self.model)?;
        Ok(Prepared::new(Vec::new(), move |_outputs| {
            Ok(Work::new(1, move |pace| async move {
                model.set_trained(match trainer {
                    Training::Text(of) => Whole::Text(Arc::new(of.model().model().clone())),
                    Training::Images(of) => Whole::Image(Arc::new(of.model().model().clone())),
                });
                pace.worked(1);
                Ok(())
            }))
        }))
    }
}
