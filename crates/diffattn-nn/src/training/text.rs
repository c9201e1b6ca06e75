//! Language models in training: the loss of a micro-batch of tokens, and its gradients. Runs in
//! slices. Knows no files and no schedule.

use super::arena::Arena;
use super::attention::without_backward;
use super::batch::TrainingBatch;
use super::grads::ModelGrads;
use super::maps;
use super::parameters::{ModelIds, Taking, put_back_ends, put_back_layer};
use super::rows::RmsRows;
use super::scratch::{Scratch, sized};
use super::sums::{LayerSums, join_sums};
use super::tape::{Tape, hidden_states};
use super::trainable::{LossOptions, MeasuredSums, Parts, Trainable, Whole, lent, loss_options};
use crate::layers::attention::{Annealing, Dex, DiffAttnLayer};
use crate::models::diff_llama::{DecoderLayer, DiffLlama};
use diffattn::{
    Distillation, Error, HeadGradients, LinearCrossEntropy, Logits, Loss, Pace, lambda_init,
};
use std::ops::Range;

/// Which parameters a language model is made of, and what its passes keep.
#[derive(Debug)]
pub struct TextPasses {
    ids: ModelIds,
    /// What of each layer's gradients is summed apart, as far as micro-batches have come.
    sums: Vec<LayerSums>,
    /// What embeddings give to a table that is the head, too: added behind what the head gives.
    table_sums: Vec<f32>,
    tape: Tape,
    scratch: Scratch,
}

impl Trainable for DiffLlama {
    type Batch = TrainingBatch;
    type Passes = TextPasses;

    fn take(&mut self, taking: &mut Taking<'_>) -> Result<TextPasses, Error> {
        check(self)?;
        let ids = taking.text(self)?;
        let has_table_sums = self.embedding.is_of_head() && ids.head.weight.is_some();
        let table = self.config.vocab_size * self.config.hidden_size;
        Ok(TextPasses {
            sums: self.layers.iter().map(|_| LayerSums::default()).collect(),
            table_sums: diffattn::try_zeroed(if has_table_sums { table } else { 0 })?,
            ids,
            tape: Tape::default(),
            scratch: Scratch::default(),
        })
    }

    fn buckets(passes: &TextPasses) -> &[Range<usize>] {
        &passes.ids.buckets
    }

    fn check_batch(&self, batch: &TrainingBatch) -> Result<(), Error> {
        let vocabulary = self.config.vocab_size;
        match batch.ids.iter().find(|&&id| id as usize >= vocabulary) {
            None => Ok(()),
            Some(id) => Err(Error::option(
                "ids",
                format_args!("ids below {vocabulary}"),
                id,
            )),
        }
    }

    fn tokens(&self, batch: &TrainingBatch) -> usize {
        batch.tokens()
    }

    fn units(&self, batch: &TrainingBatch) -> usize {
        let rows = batch.tokens();
        let of_layer = |layer: &DecoderLayer| {
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
            maps.map(|map| 3 * maps::units(map, rows))
                .iter()
                .sum::<usize>()
        };
        let layers: usize = self.layers.iter().map(of_layer).sum();
        layers + 3 * maps::units(&self.head, rows) + 1
    }

    fn clear(passes: &mut TextPasses) {
        passes.sums.iter_mut().for_each(LayerSums::clear);
        passes.table_sums.fill(0.0);
    }

    async fn add(
        parts: Parts<'_, Self>,
        pace: &Pace,
        batch: &TrainingBatch,
        options: &LossOptions<'_, Self>,
        mut whole: Option<Whole<'_>>,
    ) -> Result<Loss, Error> {
        let Parts {
            model,
            passes,
            arena,
            recompute,
            run,
        } = parts;
        let TextPasses {
            ids,
            sums,
            tape,
            scratch,
            ..
        } = &mut *passes;
        let teacher_hidden = match options.teacher {
            Some((of, _)) => {
                hidden_states(pace, of, batch, (&mut Tape::default(), scratch), run).await?
            }
            None => Vec::new(),
        };
        tape.forward(pace, model, batch, (scratch, recompute, run))
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
        let loss_options = loss_options(options.count, distillation, run);
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
        let units = 3 * maps::units(&model.head, batch.tokens());
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
            sums,
            whole: lent(&mut whole),
        };
        tape.backward(pace, model, (batch, &mut d), (scratch, recompute, run), to)
            .await?;
        embeddings_backward(model, passes, arena, (batch, &d));
        if let Some(whole) = &mut whole {
            join_table(passes, arena);
            whole(0, arena.all_gradients())?;
        }
        Ok(loss)
    }

    async fn measure(
        parts: Parts<'_, Self>,
        pace: &Pace,
        batch: &TrainingBatch,
    ) -> Result<MeasuredSums, Error> {
        let Parts {
            model, passes, run, ..
        } = parts;
        let memory = (&mut passes.tape, &mut passes.scratch);
        let hidden = hidden_states(pace, model, batch, memory, run).await?;
        let options = loss_options(None, None, run);
        let call = LinearCrossEntropy::new(&model.head, &hidden, &batch.labels, &options);
        let mut loss = Loss::default();
        let mut work = call.into_work(HeadGradients::default(), &mut loss)?;
        let units = maps::units(&model.head, batch.tokens());
        pace.within(&mut work, units).await?;
        drop(work);
        Ok(MeasuredSums {
            loss: loss.loss * loss.counted as f64,
            right: None,
            counted: loss.counted,
        })
    }

    fn join(&self, passes: &mut TextPasses, arena: &mut Arena) {
        for (index, layer) in self.layers.iter().enumerate() {
            let ids = &passes.ids.layers[index].attention;
            join_sums(&layer.attention, ids, &mut passes.sums[index], arena);
        }
        join_table(passes, arena);
    }

    fn projected_lambda(passes: &TextPasses) -> Vec<f64> {
        let means = passes.tape.lambda.iter();
        means.map(|mean| mean.unwrap_or(0.0)).collect()
    }

    fn needs_annealing(&self) -> bool {
        let mut all = self.layers.iter();
        let is_zero = |layer: &DecoderLayer| {
            let dex = layer.attention.dex.as_ref().map(Dex::parts);
            dex.is_some_and(|parts| parts.weight.iter().all(|&value| value == 0.0))
        };
        all.any(is_zero)
    }

    fn anneal(&mut self, alpha: f64) -> Result<bool, Error> {
        let mut is_any = false;
        for (depth, layer) in self.layers.iter_mut().enumerate() {
            if let Some(dex) = &mut layer.attention.dex {
                let init = lambda_init(depth as f64);
                dex.anneal(Annealing { alpha, init })?;
                is_any = true;
            }
        }
        Ok(is_any)
    }

    fn parts(&self) -> usize {
        self.layers.len() + 1
    }

    fn put_back(&mut self, part: usize, passes: &TextPasses, arena: &Arena) -> Result<(), Error> {
        let ids = &passes.ids;
        match (self.layers.get_mut(part), ids.layers.get(part)) {
            (Some(layer), Some(ids)) => put_back_layer(layer, ids, arena),
            _ => put_back_ends(self, ids, arena),
        }
    }

    fn attentions(&self) -> impl Iterator<Item = &DiffAttnLayer> {
        self.layers.iter().map(|layer| &layer.attention)
    }
}

/// The gradients of the rows of embeddings, token after token.
fn embeddings_backward(
    model: &DiffLlama,
    passes: &mut TextPasses,
    arena: &mut Arena,
    (batch, d): (&TrainingBatch, &[f32]),
) {
    let width = model.config.hidden_size;
    let to = match passes.ids.table {
        Some(id) => arena.gradient(id),
        None => passes.table_sums.as_mut_slice(),
    };
    if to.is_empty() {
        return;
    }
    for (&id, d) in batch.ids.iter().zip(d.chunks_exact(width)) {
        let row = &mut to[id as usize * width..][..width];
        row.iter_mut().zip(d).for_each(|(to, d)| *to += d);
    }
}

/// Joins what embeddings give to a table that is the head, too.
fn join_table(passes: &mut TextPasses, arena: &mut Arena) {
    if let Some(id) = passes.ids.head.weight
        && !passes.table_sums.is_empty()
    {
        let to = arena.gradient(id).iter_mut();
        to.zip(&passes.table_sums).for_each(|(to, sum)| *to += sum);
        passes.table_sums.fill(0.0);
    }
}

/// Whether all layers are of the kinds that are trained.
fn check(model: &DiffLlama) -> Result<(), Error> {
    for layer in &model.layers {
        if let Some(other) = without_backward(&layer.attention) {
            return Err(Error::option("model", "layers that are trained", other));
        }
    }
    Ok(())
}
