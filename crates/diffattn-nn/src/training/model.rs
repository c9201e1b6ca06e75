//! A language model in training: the loss of a micro-batch and its gradients, added to those of the
//! step; then one step of the optimizer. Runs in slices. Knows no files and no schedule.

use super::arena::{Arena, StateTensor};
use super::attention::without_backward;
use super::batch::TrainingBatch;
use super::layer::Recompute;
use super::parameters::{AdapterOptions, ModelIds, Taking};
use super::rows::RmsRows;
use super::rules::ParameterRules;
use super::scratch::{Scratch, sized};
use super::tape::{ModelGrads, Tape, Whole, hidden_states, lent};
use crate::layers::Activation;
use crate::layers::attention::LambdaSource;
use crate::models::diff_llama::DiffLlama;
use std::cell::RefCell;

use diffattn::{
    CrossEntropyOptions, Distillation, Error, HeadGradients, LinearCrossEntropy, Logits, Loss,
    Pace, Run, Work,
};

/// What of a model moves, and what is kept for the backward pass.
#[derive(Clone, Copy, Default)]
pub struct TrainingOptions<'o> {
    /// Whether a weight of that name moves. All by default; none but adapters and projections of λ
    /// where there is an adapter.
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
pub struct TrainingModel {
    pub(super) model: DiffLlama,
    pub(super) arena: Arena,
    pub(super) ids: ModelIds,
    /// The gradient of each layer's λ, as far as micro-batches have come.
    pub(super) lambda_sums: Vec<f64>,
    /// What embeddings give to a table that is the head, too: added behind what the head gives.
    pub(super) table_sums: Vec<f32>,
    tape: Tape,
    scratch: Scratch,
    recompute: Recompute,
    pub(super) run: Run,
}

/// What a micro-batch is measured by.
#[derive(Debug, Clone, Copy, Default)]
pub struct LossOptions<'o> {
    /// The labels that count in the whole step, by which its losses are divided; those of the
    /// micro-batch by default.
    pub count: Option<usize>,
    /// A teacher, whose distribution takes part, and the share of cross entropy.
    pub teacher: Option<(&'o DiffLlama, f64)>,
}

impl TrainingModel {
    /// Takes a model into training: the masters of what moves are float32, and so is then what the
    /// model holds of it; what is frozen stays as it is held, and meets floats.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `freeze` where nothing moves or a
    /// pattern fits nothing, `lrScale` likewise, or `model` for layers that are not trained;
    /// [`Error::out_of_memory`].
    pub fn new(mut model: DiffLlama, options: &TrainingOptions<'_>) -> Result<Self, Error> {
        check(&model)?;
        let all = |name: &str| options.adapter.is_none() || name.contains("lambda_proj");
        let given = options.moves.unwrap_or(&all);
        let seen = RefCell::new(Vec::new());
        let moves = |name: &str| {
            seen.borrow_mut().push(name.to_owned());
            given(name) && options.rules.is_none_or(|rules| !rules.freezes(name))
        };
        let mut arena = Arena::default();
        let ids = Taking {
            arena: &mut arena,
            moves: &moves,
            adapter: options.adapter,
        }
        .model(&mut model)?;
        if let Some(rules) = options.rules {
            rules.check_frozen(&seen.borrow())?;
            rules.apply(arena.parameters_mut())?;
        }
        if arena.is_empty() {
            return Err(Error::option("freeze", "a weight that moves", "none"));
        }
        let has_table_sums = model.embedding.is_of_head() && ids.head.weight.is_some();
        let table = model.config.vocab_size * model.config.hidden_size;
        let table_sums = diffattn::try_zeroed(if has_table_sums { table } else { 0 })?;
        Ok(Self {
            lambda_sums: vec![0.0; model.layers.len()],
            table_sums,
            tape: Tape::default(),
            scratch: Scratch::default(),
            recompute: options.recompute,
            run: options.run,
            model,
            arena,
            ids,
        })
    }

    /// The model as the last step left it.
    #[must_use]
    pub fn model(&self) -> &DiffLlama {
        &self.model
    }

    /// The model, out of training.
    #[must_use]
    pub fn into_model(self) -> DiffLlama {
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
        let of = self
            .model
            .layers
            .iter()
            .map(|layer| &layer.attention.lambda);
        of.map(|lambda| match lambda {
            &LambdaSource::Value(value) => Some(value),
            _ => None,
        })
        .collect()
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
        self.tape.lambda.iter().map(|mean| mean.unwrap_or(0.0))
    }

    /// λ of each layer, projected ones as the means that a step's micro-batches had.
    pub(super) fn lambda_of_step(&self, means: &[f64]) -> Vec<Option<f32>> {
        let layers = self.model.layers.iter().zip(self.lambda()).enumerate();
        layers
            .map(|(index, (layer, own))| match layer.attention.lambda {
                LambdaSource::Projected(_) => means.get(index).map(|&mean| mean as f32),
                _ => own,
            })
            .collect()
    }

    /// Zeros the gradients: what a step begins with.
    pub fn begin(&mut self) {
        self.arena.clear_gradients();
        self.lambda_sums.fill(0.0);
        self.table_sums.fill(0.0);
    }

    /// The loss of a micro-batch; its gradients are added to the step's. Micro-batches of whole
    /// multiples of 256 tokens give the bits of one batch.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `ids` or `labels` for what is
    /// outside of the vocabulary; [`Error::out_of_memory`].
    pub fn add(&mut self, batch: &TrainingBatch, options: &LossOptions<'_>) -> Result<Loss, Error> {
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
        batch: &'w TrainingBatch,
        options: &LossOptions<'w>,
        loss: &'w mut Loss,
    ) -> Result<Work<'w>, Error> {
        self.check_ids(batch)?;
        let total = self.units(batch);
        let options = *options;
        Ok(Work::new(total, |pace| async move {
            *loss = self.add_paced(&pace, batch, &options, None).await?;
            Ok(())
        }))
    }

    /// The loss of a micro-batch, and nothing of its gradients.
    ///
    /// # Errors
    /// As [`TrainingModel::add`].
    pub fn evaluate(&mut self, batch: &TrainingBatch) -> Result<Loss, Error> {
        let mut loss = Loss::default();
        self.evaluate_work(batch, &mut loss)?.finish()?;
        Ok(loss)
    }

    /// [`TrainingModel::evaluate`] in slices; the loss is written last.
    ///
    /// # Errors
    /// As [`TrainingModel::add`].
    pub fn evaluate_work<'w>(
        &'w mut self,
        batch: &'w TrainingBatch,
        loss: &'w mut Loss,
    ) -> Result<Work<'w>, Error> {
        self.check_ids(batch)?;
        let total = self.units(batch);
        Ok(Work::new(total, |pace| async move {
            *loss = self.evaluate_paced(&pace, batch).await?;
            Ok(())
        }))
    }

    pub(crate) async fn evaluate_paced(
        &mut self,
        pace: &Pace,
        batch: &TrainingBatch,
    ) -> Result<Loss, Error> {
        let Self {
            model,
            tape,
            scratch,
            run,
            ..
        } = self;
        let hidden = hidden_states(pace, model, batch, (tape, scratch), *run).await?;
        let options = CrossEntropyOptions {
            run: *run,
            ..CrossEntropyOptions::default()
        };
        let call = LinearCrossEntropy::new(&model.head, &hidden, &batch.labels, &options);
        let mut loss = Loss::default();
        let mut work = call.into_work(HeadGradients::default(), &mut loss)?;
        let units = super::maps::units(&model.head, batch.tokens());
        pace.within(&mut work, units).await?;
        drop(work);
        Ok(loss)
    }

    pub(crate) fn check_ids(&self, batch: &TrainingBatch) -> Result<(), Error> {
        let vocabulary = self.model.config.vocab_size;
        match batch.ids.iter().find(|&&id| id as usize >= vocabulary) {
            None => Ok(()),
            Some(id) => Err(Error::option(
                "ids",
                format_args!("ids below {vocabulary}"),
                id,
            )),
        }
    }

    /// Units of work of a micro-batch, about.
    #[must_use]
    pub fn units(&self, batch: &TrainingBatch) -> usize {
        let rows = batch.tokens();
        let of_layer = |layer: &crate::models::diff_llama::DecoderLayer| {
            let attention = &layer.attention;
            let maps = [
                &attention.q,
                &attention.k,
                &attention.v,
                &attention.out,
                &layer.gate,
                &layer.up,
                &layer.down,
            ];
            maps.map(|map| 3 * super::maps::units(map, rows))
                .iter()
                .sum::<usize>()
        };
        let layers: usize = self.model.layers.iter().map(of_layer).sum();
        layers + 3 * super::maps::units(&self.model.head, rows) + 1
    }

    /// [`TrainingModel::add`]; of a unit of a step (`whole`) what else is summed apart is joined
    /// with its gradients, and each bucket is told of once it is whole.
    pub(super) async fn add_paced(
        &mut self,
        pace: &Pace,
        batch: &TrainingBatch,
        options: &LossOptions<'_>,
        mut whole: Option<Whole<'_>>,
    ) -> Result<Loss, Error> {
        let run = self.run;
        let Self {
            model,
            arena,
            ids,
            lambda_sums,
            tape,
            scratch,
            ..
        } = self;
        let teacher_hidden = match options.teacher {
            Some((of, _)) => {
                hidden_states(pace, of, batch, (&mut Tape::default(), scratch), run).await?
            }
            None => Vec::new(),
        };
        tape.forward(pace, model, batch, (scratch, self.recompute, run))
            .await?;
        let rows = batch.tokens() * model.config.hidden_size;
        let last = model.layers.len();
        let norm = RmsRows::of(&model.norm, model.config.rms_norm_eps as f32, run);
        let normed = sized(&mut scratch.normed, rows)?;
        norm.forward(&tape.inputs[last], normed)?;
        let d_normed = sized(&mut scratch.d_normed, rows)?;
        let distillation = options.teacher.map(|(teacher, alpha)| Distillation {
            teacher: Logits::Head {
                hidden: &teacher_hidden,
                head: &teacher.head,
            },
            alpha,
        });
        let loss_options = CrossEntropyOptions {
            count: options.count,
            distillation,
            run,
            ..CrossEntropyOptions::default()
        };
        let mut loss = Loss::default();
        let call = LinearCrossEntropy::new(&model.head, normed, &batch.labels, &loss_options);
        let mut work = call.into_work(
            HeadGradients {
                dhidden: Some(d_normed),
                dweight: ids.head.weight.map(|id| arena.gradient(id)),
                ..HeadGradients::default()
            },
            &mut loss,
        )?;
        let units = 3 * super::maps::units(&model.head, batch.tokens());
        pace.within(&mut work, units).await?;
        drop(work);
        let mut d = diffattn::try_zeroed(rows)?;
        let to = (&mut *arena, ids.norm);
        norm.backward(&scratch.d_normed, &tape.inputs[last], &mut d, to)?;
        if let Some(whole) = &mut whole {
            whole(last + 1, arena.all_gradients())?;
        }
        let to = ModelGrads {
            ids,
            arena,
            lambda_sums,
            whole: lent(&mut whole),
        };
        let how = (scratch, self.recompute, run);
        tape.backward(pace, model, (batch, &mut d), how, to).await?;
        self.embeddings_backward(batch, &d);
        if let Some(whole) = &mut whole {
            self.join_table();
            whole(0, self.arena.all_gradients())?;
        }
        Ok(loss)
    }

    /// The gradients of the rows of embeddings, token after token.
    fn embeddings_backward(&mut self, batch: &TrainingBatch, d: &[f32]) {
        let width = self.model.config.hidden_size;
        let to = match self.ids.table {
            Some(id) => self.arena.gradient(id),
            None => self.table_sums.as_mut_slice(),
        };
        if to.is_empty() {
            return;
        }
        for (&id, d) in batch.ids.iter().zip(d.chunks_exact(width)) {
            let row = &mut to[id as usize * width..][..width];
            row.iter_mut().zip(d).for_each(|(to, d)| *to += d);
        }
    }
}

/// Whether all layers are of the kinds that are trained.
fn check(model: &DiffLlama) -> Result<(), Error> {
    for layer in &model.layers {
        let is_silu = layer.act == Activation::Silu;
        let other = without_backward(&layer.attention)
            .or((!is_silu).then_some("another activation than SiLU"));
        let Some(other) = other else {
            continue;
        };
        return Err(Error::option("model", "layers that are trained", other));
    }
    Ok(())
}
