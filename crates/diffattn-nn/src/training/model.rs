//! A model in training: the loss of a micro-batch and its gradients, added to those of the step.
//! Runs in slices. Knows no family of models, no files and no schedule.

use super::arena::{Arena, StateTensor};
use super::layer::Recompute;
use super::parameters::{AdapterOptions, Taking};
use super::rules::ParameterRules;
use super::trainable::{LossOptions, Measured, MeasuredSums, Parts, Trainable, Whole, lambda_of};
use crate::layers::attention::LambdaSource;
use crate::models::diff_llama::DiffLlama;
use diffattn::{Error, Loss, Pace, Run, Work};
use std::cell::RefCell;

/// What of a model moves, and what is kept for the backward pass.
#[derive(Clone, Copy, Default)]
pub struct TrainingOptions<'o> {
    /// Whether a weight of that name moves. All by default; none but adapters, projections of λ and
    /// what DEX adds where there is an adapter.
    pub moves: Option<&'o dyn Fn(&str) -> bool>,
    /// What of that stays all the same, and what moves more slowly; nothing by default.
    pub rules: Option<&'o ParameterRules>,
    /// Adapters of the maps of layers; none by default.
    pub adapter: Option<&'o AdapterOptions>,
    /// What is computed anew instead of being kept.
    pub recompute: Recompute,
    /// How steps run.
    pub run: Run,
}

impl std::fmt::Debug for TrainingOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrainingOptions")
            .field("rules", &self.rules)
            .field("adapter", &self.adapter)
            .field("recompute", &self.recompute)
            .finish_non_exhaustive()
    }
}

/// A model in training.
#[derive(Debug)]
pub struct TrainingModel<M: Trainable = DiffLlama> {
    pub(super) model: M,
    pub(super) arena: Arena,
    pub(super) passes: M::Passes,
    recompute: Recompute,
    pub(super) run: Run,
}

impl<M: Trainable> TrainingModel<M> {
    /// Takes a model into training: the masters of what moves are float32, and so is then what the
    /// model holds of it; what is frozen stays as it is held, and meets floats.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `freeze` where nothing moves or a
    /// pattern fits nothing, `lrScale` likewise, or `model` for layers that are not trained;
    /// [`Error::out_of_memory`].
    pub fn new(mut model: M, options: &TrainingOptions<'_>) -> Result<Self, Error> {
        let all = |name: &str| {
            let is_new = ["lambda_proj", ".dex."]
                .iter()
                .any(|new| name.contains(new));
            options.adapter.is_none() || is_new
        };
        let given = options.moves.unwrap_or(&all);
        let seen = RefCell::new(Vec::new());
        let moves = |name: &str| {
            seen.borrow_mut().push(name.to_owned());
            given(name) && options.rules.is_none_or(|rules| !rules.freezes(name))
        };
        let mut arena = Arena::default();
        let passes = model.take(&mut Taking {
            arena: &mut arena,
            moves: &moves,
            adapter: options.adapter,
        })?;
        arena.allocate()?;
        if let Some(rules) = options.rules {
            rules.check_frozen(&seen.borrow())?;
            rules.apply(arena.parameters_mut())?;
        }
        if arena.is_empty() {
            return Err(Error::option("freeze", "a weight that moves", "none"));
        }
        Ok(Self {
            recompute: options.recompute,
            run: options.run,
            model,
            arena,
            passes,
        })
    }

    /// The model as the last step left it.
    #[must_use]
    pub fn model(&self) -> &M {
        &self.model
    }

    /// The model, out of training.
    #[must_use]
    pub fn into_model(self) -> M {
        self.model
    }

    /// What moves: values, gradients, moments.
    #[must_use]
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Makes `values` those of a parameter, in the model too: of an adapter, or a checkpoint to go
    /// on from.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `name` where no such parameter
    /// moves, [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) for another length.
    pub fn set<'v>(
        &mut self,
        values: impl IntoIterator<Item = (&'v str, &'v [f32])>,
    ) -> Result<(), Error> {
        for (name, values) in values {
            self.arena.set(name, values)?;
        }
        self.put_back()
    }

    /// Makes `values` those of a tensor of a state; the model has them after
    /// [`TrainingModel::put_back`].
    pub(crate) fn set_tensor(
        &mut self,
        name: &str,
        of: StateTensor,
        values: &[f32],
    ) -> Result<(), Error> {
        self.arena.set_tensor(name, of, values)
    }

    /// λ of each layer; `None` where it is projected or there is none.
    #[must_use]
    pub fn lambda(&self) -> Vec<Option<f32>> {
        lambda_of(&self.model)
    }

    /// Whether nothing would move a λ that begins at zero, unless it is annealed: that of DEX,
    /// whose matrix is zeros at first, too.
    #[must_use]
    pub fn needs_annealing(&self) -> bool {
        self.model.needs_annealing()
    }

    /// Anneals the λ of DEX: heads meet `(1 − α) α λ_init + α λ`, λ_init = 0.8 − 0.6 e^(−0.3 ·
    /// layer) (arXiv 2505.16333), α from 0 to 1, at which they meet λ, as they do in a model that
    /// is not annealed. Gives whether there is such a λ.
    ///
    /// # Errors
    /// [`Error::out_of_memory`].
    pub fn anneal(&mut self, alpha: f64) -> Result<bool, Error> {
        self.model.anneal(alpha)
    }

    /// Makes room for the sums of a step's units, where it is made of such, and zeros them.
    pub(super) fn begin_step(&mut self, has_units: bool) -> Result<(), Error> {
        if has_units {
            self.arena.allocate_sums()?;
            self.arena.clear_sums();
        }
        Ok(())
    }

    /// The mean of each layer's projected λ over the tokens of the last micro-batch; 0 of a layer
    /// that has none.
    pub(super) fn lambda_means(&self) -> impl Iterator<Item = f64> {
        M::projected_lambda(&self.passes).into_iter()
    }

    /// λ of each layer, projected ones as the means that a step's micro-batches had.
    pub(super) fn lambda_of_step(&self, means: &[f64]) -> Vec<Option<f32>> {
        let layers = self.model.attentions().zip(self.lambda()).enumerate();
        layers
            .map(|(index, (attention, own))| match attention.lambda {
                LambdaSource::Projected(_) => means.get(index).map(|&mean| mean as f32),
                _ => own,
            })
            .collect()
    }

    /// Zeros the gradients: what a step begins with.
    pub fn begin(&mut self) {
        self.arena.clear_gradients();
        M::clear(&mut self.passes);
    }

    /// The loss of a micro-batch; its gradients are added to the step's. Micro-batches of whole
    /// multiples of 256 tokens, or of 256 images, give the bits of one batch.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `ids` or `labels` for what is
    /// outside of the vocabulary or the classes; [`ErrorKind::Shape`](diffattn::ErrorKind::Shape)
    /// naming `images` for such of another size; [`Error::out_of_memory`].
    pub fn add(&mut self, batch: &M::Batch, options: &LossOptions<'_, M>) -> Result<Loss, Error> {
        let mut loss = Loss::default();
        self.add_work(batch, options, &mut loss)?.finish()?;
        Ok(loss)
    }

    /// [`TrainingModel::add`] in slices; the loss is written last.
    ///
    /// # Errors
    /// As [`TrainingModel::add`].
    pub fn add_work<'w>(
        &'w mut self,
        batch: &'w M::Batch,
        options: &LossOptions<'w, M>,
        loss: &'w mut Loss,
    ) -> Result<Work<'w>, Error> {
        self.model.check_batch(batch)?;
        let total = self.units(batch);
        let options = *options;
        Ok(Work::new(total, |pace| async move {
            *loss = self.add_paced(&pace, batch, &options, None).await?;
            Ok(())
        }))
    }

    /// The loss of a micro-batch, and of images the accuracy; nothing of its gradients.
    ///
    /// # Errors
    /// As [`TrainingModel::add`].
    pub fn evaluate(&mut self, batch: &M::Batch) -> Result<Measured, Error> {
        let mut sums = MeasuredSums::default();
        self.evaluate_work(batch, &mut sums)?.finish()?;
        Ok(sums.means().unwrap_or_default())
    }

    /// What [`TrainingModel::evaluate`] is the means of, in slices; the sums are written last.
    ///
    /// # Errors
    /// As [`TrainingModel::add`].
    pub fn evaluate_work<'w>(
        &'w mut self,
        batch: &'w M::Batch,
        sums: &'w mut MeasuredSums,
    ) -> Result<Work<'w>, Error> {
        self.model.check_batch(batch)?;
        let total = self.units(batch);
        Ok(Work::new(total, |pace| async move {
            *sums = self.evaluate_paced(&pace, batch).await?;
            Ok(())
        }))
    }

    pub(crate) async fn evaluate_paced(
        &mut self,
        pace: &Pace,
        batch: &M::Batch,
    ) -> Result<MeasuredSums, Error> {
        M::measure(self.parts(), pace, batch).await
    }

    pub(crate) fn check_batch(&self, batch: &M::Batch) -> Result<(), Error> {
        self.model.check_batch(batch)
    }

    /// Units of work of a micro-batch, about.
    #[must_use]
    pub fn units(&self, batch: &M::Batch) -> usize {
        self.model.units(batch)
    }

    fn parts(&mut self) -> Parts<'_, M> {
        Parts {
            model: &self.model,
            passes: &mut self.passes,
            arena: &mut self.arena,
            recompute: self.recompute,
            run: self.run,
        }
    }

    /// [`TrainingModel::add`] of a checked batch, as [`Trainable::add`].
    pub(super) async fn add_paced(
        &mut self,
        pace: &Pace,
        batch: &M::Batch,
        options: &LossOptions<'_, M>,
        whole: Option<Whole<'_>>,
    ) -> Result<Loss, Error> {
        M::add(self.parts(), pace, batch, options, whole).await
    }
}
