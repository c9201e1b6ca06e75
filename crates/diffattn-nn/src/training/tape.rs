//! What a forward pass through the layers of a model keeps for the backward pass, and that pass.
//! Runs in slices. Knows no loss.

use super::attention::Tokens;
use super::batch::TrainingBatch;
use super::grads::ModelGrads;
use super::layer::{KeptLayer, LayerPass, Recompute};
use super::parameters::ModelIds;
use super::rows::RmsRows;
use super::scratch::{Scratch, sized};
use crate::layers::attention::Turn;
use crate::models::diff_llama::DiffLlama;
use diffattn::{Error, Pace, RopeTable, Run};

/// What the backward pass needs of the forward pass.
#[derive(Debug, Default)]
pub(super) struct Tape {
    /// The input of each layer, and of the last norm.
    pub(super) inputs: Vec<Vec<f32>>,
    /// Of each layer, or of one after the other where layers are recomputed.
    kept: Vec<KeptLayer>,
    /// The mean of each layer's projected λ over the tokens of the last pass.
    pub(super) lambda: Vec<Option<f64>>,
}

impl Tape {
    /// All layers over a micro-batch, keeping what `recompute` does not compute anew.
    pub(super) async fn forward(
        &mut self,
        pace: &Pace,
        model: &DiffLlama,
        batch: &TrainingBatch,
        (scratch, recompute, run): (&mut Scratch, Recompute, Run),
    ) -> Result<(), Error> {
        let layers = model.layers.len();
        self.begin(model, batch)?;
        let kept = if recompute == Recompute::Layers {
            1
        } else {
            layers
        };
        self.kept.resize_with(kept, KeptLayer::default);
        self.inputs.resize_with(layers + 1, Vec::new);
        self.lambda.resize(layers, None);
        let (cu_seqlens, table) = (batch.cu_seqlens()?, rotary_table(model, batch, run)?);
        let turns = turns(batch, table.as_ref());
        for (index, layer) in model.layers.iter().enumerate() {
            let pass = LayerPass {
                layer,
                tokens: tokens(batch, (&cu_seqlens, &turns), run),
                eps: model.config.rms_norm_eps as f32,
                keeps_gates: recompute == Recompute::Nothing,
            };
            let (before, after) = self.inputs.split_at_mut(index + 1);
            let x = sized(&mut after[0], before[index].len())?;
            x.copy_from_slice(&before[index]);
            let at = if recompute == Recompute::Layers {
                0
            } else {
                index
            };
            let kept = &mut self.kept[at];
            pass.forward(pace, x, kept, scratch).await?;
            self.lambda[index] = kept.lambda_mean(layer);
        }
        Ok(())
    }

    /// Backward through all layers, over the gradient of the last one's result.
    pub(super) async fn backward(
        &mut self,
        pace: &Pace,
        model: &DiffLlama,
        (batch, d): (&TrainingBatch, &mut [f32]),
        (scratch, recompute, run): (&mut Scratch, Recompute, Run),
        mut to: ModelGrads<'_, ModelIds>,
    ) -> Result<(), Error> {
        let (cu_seqlens, table) = (batch.cu_seqlens()?, rotary_table(model, batch, run)?);
        let turns = turns(batch, table.as_ref());
        let Self { inputs, kept, .. } = self;
        let tokens = tokens(batch, (&cu_seqlens, &turns), run);
        for (index, layer) in model.layers.iter().enumerate().rev() {
            let pass = LayerPass {
                layer,
                tokens,
                eps: model.config.rms_norm_eps as f32,
                keeps_gates: recompute == Recompute::Nothing,
            };
            let one = recompute == Recompute::Layers;
            let kept = &mut kept[if one { 0 } else { index }];
            if one {
                // (What stood behind the layer is not read again.)
                let (before, behind) = inputs.split_at_mut(index + 1);
                behind[0].copy_from_slice(&before[index]);
                pass.attend(pace, &mut behind[0], kept, scratch).await?;
            }
            let ids = &to.ids.layers[index];
            let grads = to.layer(index, ids);
            pass.backward(pace, (&inputs[index], d), kept, scratch, grads)
                .await?;
            to.end_layer(index, &layer.attention, &ids.attention)?;
        }
        Ok(())
    }

    /// Embeddings.
    fn begin(&mut self, model: &DiffLlama, batch: &TrainingBatch) -> Result<(), Error> {
        let width = model.config.hidden_size;
        self.inputs.resize_with(self.inputs.len().max(1), Vec::new);
        let x = sized(&mut self.inputs[0], batch.tokens() * width)?;
        for (&id, to) in batch.ids.iter().zip(x.chunks_exact_mut(width)) {
            model.embed(id, to)?;
        }
        Ok(())
    }
}

/// The hidden states before the head, of a model that is not trained: nothing is kept.
pub(super) async fn hidden_states(
    pace: &Pace,
    model: &DiffLlama,
    batch: &TrainingBatch,
    (tape, scratch): (&mut Tape, &mut Scratch),
    run: Run,
) -> Result<Vec<f32>, Error> {
    tape.forward(pace, model, batch, (scratch, Recompute::Layers, run))
        .await?;
    let last = &tape.inputs[model.layers.len()];
    let mut hidden = diffattn::try_zeroed(last.len())?;
    let eps = model.config.rms_norm_eps as f32;
    RmsRows::of(&model.norm, eps, run).forward(last, &mut hidden)?;
    Ok(hidden)
}

/// The rotary table of a micro-batch; none where heads do not turn.
fn rotary_table(
    model: &DiffLlama,
    batch: &TrainingBatch,
    run: Run,
) -> Result<Option<RopeTable>, Error> {
    let attention = model.layers.first().map(|layer| &layer.attention);
    let Some((attention, rope)) = attention.and_then(|one| Some((one, one.rope.as_ref()?))) else {
        return Ok(None);
    };
    let positions = 0..batch.longest() as i64;
    RopeTable::new(positions, attention.rotary_dim, &rope.frequencies, run).map(Some)
}

/// The documents of a micro-batch, each from position 0.
fn turns<'t>(batch: &TrainingBatch, table: Option<&'t RopeTable>) -> Vec<Turn<'t>> {
    let Some(table) = table else {
        return Vec::new();
    };
    let documents = batch.starts.windows(2);
    documents
        .map(|ends| Turn {
            rows: ends[0]..ends[1],
            position: 0,
            table,
        })
        .collect()
}

/// The tokens of a micro-batch, as layers take them.
fn tokens<'t>(
    batch: &TrainingBatch,
    (cu_seqlens, turns): (&'t [i32], &'t [Turn<'t>]),
    run: Run,
) -> Tokens<'t> {
    Tokens {
        shape: [1, batch.tokens()],
        cu_seqlens: Some(cu_seqlens),
        turns,
        mask: None,
        run,
    }
}
