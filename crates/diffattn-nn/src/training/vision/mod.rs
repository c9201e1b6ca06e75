//! Vision transformers in training: the cross entropy of a micro-batch of images, and its
//! gradients. Runs in slices. Knows no files and no schedule.

mod block;
mod fresh;
mod parameters;
mod tape;

pub use fresh::DiffViTStart;
pub(super) use fresh::vision_weights;

use super::arena::Arena;
use super::attention::without_backward;
use super::grads::ModelGrads;
use super::images::ImageBatch;
use super::layer::Recompute;
use super::maps;
use super::parameters::Taking;
use super::scratch::{Scratch, sized};
use super::sums::{LayerSums, join_sums};
use super::trainable::{LossOptions, MeasuredSums, Parts, Trainable, Whole, lent, loss_options};
use crate::layers::attention::DiffAttnLayer;
use crate::models::diff_vit::{Block, DiffViT};
use diffattn::{
    CrossEntropyGradients, Distillation, Error, HeadGradients, LinearCrossEntropy, Logits, Loss,
    Pace, cross_entropy, try_zeroed,
};
use parameters::{VisionIds, head_of, put_back_block, put_back_ends};
use std::ops::Range;
use tape::{How, VisionTape};

/// Which parameters a vision transformer is made of, and what its passes keep.
#[derive(Debug)]
pub struct VisionPasses {
    ids: VisionIds,
    /// What of each block's gradients is summed apart, as far as micro-batches have come.
    sums: Vec<LayerSums>,
    tape: VisionTape,
    scratch: Scratch,
    /// What the head reads.
    features: Vec<f32>,
    d_features: Vec<f32>,
}

impl Trainable for DiffViT {
    type Batch = ImageBatch;
    type Passes = VisionPasses;

    fn take(&mut self, taking: &mut Taking<'_>) -> Result<VisionPasses, Error> {
        check(self)?;
        if taking.adapter.is_some() {
            let expected = "none for a model of images";
            return Err(Error::option("adapter", expected, "one"));
        }
        Ok(VisionPasses {
            ids: taking.vision(self)?,
            sums: self.blocks.iter().map(|_| LayerSums::default()).collect(),
            tape: VisionTape::default(),
            scratch: Scratch::default(),
            features: Vec::new(),
            d_features: Vec::new(),
        })
    }

    fn buckets(passes: &VisionPasses) -> &[Range<usize>] {
        &passes.ids.buckets
    }

    fn check_batch(&self, batch: &ImageBatch) -> Result<(), Error> {
        batch.check(self)
    }

    fn tokens(&self, batch: &ImageBatch) -> usize {
        batch.images() * DiffViT::tokens(self)
    }

    fn units(&self, batch: &ImageBatch) -> usize {
        let rows = Trainable::tokens(self, batch);
        let of_block = |block: &Block| {
            let attention = &block.attention;
            let maps = [
                &attention.q,
                &attention.k,
                &attention.v,
                &attention.out,
                &block.fc1,
                &block.fc2,
            ];
            let units = maps.iter().map(|map| 3 * maps::units(map, rows));
            units.sum::<usize>()
        };
        let blocks: usize = self.blocks.iter().map(of_block).sum();
        let head = self.head.as_ref();
        let head = head.map_or(0, |head| 3 * maps::units(head, batch.images()));
        blocks + 2 * maps::units(&self.patches, rows) + head + 1
    }

    fn clear(passes: &mut VisionPasses) {
        passes.sums.iter_mut().for_each(LayerSums::clear);
    }

    async fn add(
        parts: Parts<'_, Self>,
        pace: &Pace,
        batch: &ImageBatch,
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
        let VisionPasses {
            ids,
            sums,
            tape,
            scratch,
            features,
            d_features,
        } = passes;
        let how = How { recompute, run };
        let mut teacher_features = Vec::new();
        if let Some((teacher, _)) = options.teacher {
            batch.check(teacher)?;
            let (tape, features) = (&mut VisionTape::default(), &mut teacher_features);
            tape.forward(pace, (teacher, batch), features, scratch, how)
                .await?;
        }
        tape.forward(pace, (model, batch), features, scratch, how)
            .await?;
        let distillation = match options.teacher {
            Some((teacher, alpha)) => Some(Distillation {
                teacher: Logits::Head {
                    hidden: &teacher_features,
                    head: head_of(teacher)?,
                },
                alpha,
            }),
            None => None,
        };
        let loss_options = loss_options(options.count, distillation, run);
        let head = head_of(model)?;
        let dhidden = sized(d_features, features.len())?;
        let [dweight, dbias] = arena.gradient_pair([ids.head.weight, ids.head.bias])?;
        let gradients = HeadGradients {
            dhidden: Some(dhidden),
            dweight,
            dbias,
            rows: None,
        };
        let mut loss = Loss::default();
        let call = LinearCrossEntropy::new(head, features, &batch.labels, &loss_options);
        let mut work = call.into_work(gradients, &mut loss)?;
        let units = 3 * maps::units(head, batch.images());
        pace.within(&mut work, units).await?;
        drop(work);
        let to = ModelGrads {
            ids,
            arena,
            sums,
            whole: lent(&mut whole),
        };
        tape.backward(pace, (model, batch, d_features), scratch, how, to)
            .await?;
        Ok(loss)
    }

    async fn measure(
        parts: Parts<'_, Self>,
        pace: &Pace,
        batch: &ImageBatch,
    ) -> Result<MeasuredSums, Error> {
        let Parts {
            model, passes, run, ..
        } = parts;
        let VisionPasses {
            tape,
            scratch,
            features,
            ..
        } = passes;
        let how = How {
            recompute: Recompute::Layers,
            run,
        };
        tape.forward(pace, (model, batch), features, scratch, how)
            .await?;
        let head = head_of(model)?;
        let mut logits = try_zeroed(batch.images() * head.outputs())?;
        maps::forward(pace, head, features, &mut logits, run).await?;
        let options = loss_options(None, None, run);
        let gradients = CrossEntropyGradients::default();
        let loss = cross_entropy(&logits, &batch.labels, gradients, &options)?;
        let rows = logits.chunks_exact(head.outputs()).zip(&batch.labels);
        let right = rows.filter(|(logits, label)| largest(logits) == usize::try_from(**label).ok());
        Ok(MeasuredSums {
            loss: loss.loss * loss.counted as f64,
            right: Some(right.count()),
            counted: loss.counted,
        })
    }

    fn join(&self, passes: &mut VisionPasses, arena: &mut Arena) {
        for (index, block) in self.blocks.iter().enumerate() {
            let ids = &passes.ids.blocks[index].attention;
            join_sums(&block.attention, ids, &mut passes.sums[index], arena);
        }
    }

    fn projected_lambda(passes: &VisionPasses) -> Vec<f64> {
        // (All of them are numbers of their layers.)
        vec![0.0; passes.sums.len()]
    }

    fn parts(&self) -> usize {
        self.blocks.len() + 1
    }

    fn put_back(&mut self, part: usize, passes: &VisionPasses, arena: &Arena) -> Result<(), Error> {
        let ids = &passes.ids;
        match (self.blocks.get_mut(part), ids.blocks.get(part)) {
            (Some(block), Some(ids)) => put_back_block(block, ids, arena),
            _ => put_back_ends(self, ids, arena),
        }
    }

    fn attentions(&self) -> impl Iterator<Item = &DiffAttnLayer> {
        self.blocks.iter().map(|block| &block.attention)
    }
}

/// The place of the largest logit, the first of several; `None` where one is no number.
fn largest(logits: &[f32]) -> Option<usize> {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate() {
        if logit.is_nan() {
            return None;
        }
        if *logit > logits[best] {
            best = index;
        }
    }
    Some(best)
}

/// Whether all blocks are of the kind that is trained, and there are classes.
fn check(model: &DiffViT) -> Result<(), Error> {
    let is_parallel = |block: &Block| block.mlp_norm.is_none();
    let mut blocks = model.blocks.iter();
    let other = blocks.find_map(|block| {
        without_backward(&block.attention)
            .or(is_parallel(block).then_some("attention and MLP beside each other"))
    });
    if let Some(other) = other {
        return Err(Error::option("model", "blocks that are trained", other));
    }
    match model.head {
        Some(_) => Ok(()),
        None => Err(Error::option("model", "one that tells classes", "no head")),
    }
}
