//! Which weights of a vision transformer move, by timm's names, and the way back into the model.
//! Computes nothing.

use crate::layers::attention::{DiffAttnLayer, LambdaWeights};
use crate::models::diff_vit::{Block, DiffViT, Norm};
use crate::models::tables::listed;
use crate::training::arena::{Arena, ParameterId};
use crate::training::ids::AttentionIds;
use crate::training::maps::{MapIds, repack};
use crate::training::parameters::{Taking, buckets, put_attention};
use diffattn::{Error, Linear};
use diffattn_files::vision::{
    self, BlockForm, BlockIds as BlockNames, BlockMaps, BlockSizes, LayerNormIds, TokenSizes,
};
use diffattn_files::{Declare, Id};
use std::ops::Range;

/// Which parameters a vision transformer is made of.
#[derive(Debug, Default)]
pub(super) struct VisionIds {
    pub(super) buckets: Vec<Range<usize>>,
    pub(super) patches: MapIds,
    pub(super) positions: Option<ParameterId>,
    pub(super) registers: Option<ParameterId>,
    pub(super) blocks: Vec<BlockIds>,
    pub(super) norm: NormIds,
    pub(super) head: MapIds,
}

/// Weight and bias of a layer norm.
pub(super) type NormIds = [Option<ParameterId>; 2];

/// Which parameters a block is made of.
#[derive(Debug, Clone, Default)]
pub(super) struct BlockIds {
    pub(super) attention: AttentionIds,
    pub(super) norm: NormIds,
    pub(super) attention_scale: Option<ParameterId>,
    pub(super) mlp_norm: NormIds,
    pub(super) fc1: MapIds,
    pub(super) fc2: MapIds,
    pub(super) mlp_scale: Option<ParameterId>,
}

impl Taking<'_> {
    /// All of a vision transformer of plain blocks with a head.
    pub(super) fn vision(&mut self, model: &mut DiffViT) -> Result<VisionIds, Error> {
        let mut ids = VisionIds::default();
        let mut ends = Vec::new();
        self.before(model, &mut ids)?;
        let sizes = block_sizes(model);
        for (index, block) in model.blocks.iter_mut().enumerate() {
            ends.push(self.arena.parameters().len());
            let has = |name: &str| name.ends_with("lambda_a") && has_scalars(&block.attention);
            let (list, names) = listed(|d| sizes.block(BlockForm::Plain, index, has, d));
            ids.blocks.push(self.block(block, &list, &names)?);
        }
        ends.push(self.arena.parameters().len());
        let classes = model.num_classes();
        let (list, names) = listed(|d| vision::logits(sizes.embed_dim, classes, d));
        ids.norm = self.layer_norm(&list, names.norm, &model.norm)?;
        if let (Some(name), Some(head)) = (names.head, &mut model.head) {
            ids.head = self.map(&list, name, head)?;
        }
        ends.push(self.arena.parameters().len());
        ids.buckets = buckets(&ends);
        Ok(ids)
    }

    /// What makes tokens of pixels.
    fn before(&mut self, model: &mut DiffViT, ids: &mut VisionIds) -> Result<(), Error> {
        let width = model.sizes.embed_dim;
        let sizes = TokenSizes {
            embed_dim: width,
            in_chans: model.in_chans(),
            patch_size: model.patch_size,
            positions: model.positions.len() / width,
            reg_tokens: model.registers(),
        };
        let (list, names) = listed(|d| sizes.declare(d));
        let name = |id: Id| list.get(id).weight();
        let kernel = [width, sizes.in_chans, sizes.patch_size, sizes.patch_size];
        let weight = self.stacked(&name(names.patches), &kernel, &mut [&mut model.patches])?;
        let bias = match model.patches.bias().map(<[f32]>::to_vec) {
            Some(bias) => self.vector(&name(names.patches_bias), &bias)?,
            None => None,
        };
        ids.patches = MapIds {
            weight,
            bias,
            low_rank: None,
        };
        let shape = [1, sizes.positions, width];
        ids.positions = self.tensor(&name(names.positions), &shape, &model.positions)?;
        if let Some(registers) = names.registers {
            let shape = [1, sizes.reg_tokens, width];
            ids.registers = self.tensor(&name(registers), &shape, &model.registers)?;
        }
        Ok(())
    }

    fn block(
        &mut self,
        block: &mut Block,
        list: &Declare,
        names: &BlockNames,
    ) -> Result<BlockIds, Error> {
        let BlockMaps::Plain {
            qkv,
            proj,
            fc1,
            fc2,
        } = names.maps
        else {
            return Err(Error::internal("a plain block's list of another"));
        };
        let attention = &mut block.attention;
        let norm = self.layer_norm(list, names.norm, &block.norm)?;
        let [q, k, v] = self.qkv(list, qkv, attention)?;
        let lambda = self.layer_lambda(list, names.lambda, attention)?;
        let weight = attention.norm.as_ref().and_then(|of| of.weight.as_deref());
        let head_norm = list.get(names.head_norm).weight();
        let attention = AttentionIds {
            q,
            k,
            v,
            out: self.map(list, proj, &mut attention.out)?,
            lambda,
            norm: self.vector(&head_norm, weight.unwrap_or_default())?,
        };
        let attention_scale = self.scale(list, names.scale, block.attention_scale.as_deref())?;
        let (Some(mlp_norm), Some(mlp_scale)) = (names.mlp_norm, names.mlp_scale) else {
            return Err(Error::internal("a plain block's list of another"));
        };
        Ok(BlockIds {
            attention,
            norm,
            attention_scale,
            mlp_norm: match &block.mlp_norm {
                Some(norm) => self.layer_norm(list, mlp_norm, norm)?,
                None => NormIds::default(),
            },
            fc1: self.map(list, fc1, &mut block.fc1)?,
            fc2: self.map(list, fc2, &mut block.fc2)?,
            mlp_scale: self.scale(list, mlp_scale, block.mlp_scale.as_deref())?,
        })
    }

    /// The maps of q, k and v, a third each of the rows of one weight, and of one bias.
    fn qkv(
        &mut self,
        list: &Declare,
        id: Id,
        attention: &mut DiffAttnLayer,
    ) -> Result<[MapIds; 3], Error> {
        let declared = list.get(id);
        let (inputs, outputs) = (attention.q.inputs(), attention.q.outputs());
        let mut biases = Vec::new();
        for linear in [&attention.q, &attention.k, &attention.v] {
            biases.extend(linear.bias().unwrap_or_default());
        }
        let maps = &mut [&mut attention.q, &mut attention.k, &mut attention.v];
        let weight = self.stacked(&declared.weight(), &[3 * outputs, inputs], maps)?;
        let bias = match biases.is_empty() {
            true => None,
            false => self.vector(&declared.bias(), &biases)?,
        };
        Ok([0, 1, 2].map(|third| {
            let part = |id: ParameterId, width: usize| {
                let len = outputs * width;
                id.part(third * len..(third + 1) * len)
            };
            MapIds {
                weight: weight.map(|id| part(id, inputs)),
                bias: bias.map(|id| part(id, 1)),
                low_rank: None,
            }
        }))
    }

    fn layer_norm(
        &mut self,
        list: &Declare,
        names: LayerNormIds,
        norm: &Norm,
    ) -> Result<NormIds, Error> {
        Ok([
            self.vector(&list.get(names.weight).weight(), &norm.weight)?,
            self.vector(&list.get(names.bias).weight(), &norm.bias)?,
        ])
    }

    fn scale(
        &mut self,
        list: &Declare,
        name: Id,
        scale: Option<&[f32]>,
    ) -> Result<Option<ParameterId>, Error> {
        match scale {
            Some(scale) => self.vector(&list.get(name).weight(), scale),
            None => Ok(None),
        }
    }
}

fn block_sizes(model: &DiffViT) -> BlockSizes {
    BlockSizes {
        embed_dim: model.sizes.embed_dim,
        head_width: model.sizes.embed_dim / model.sizes.num_heads,
        hidden: model.sizes.hidden,
    }
}

fn has_scalars(attention: &DiffAttnLayer) -> bool {
    let weights = attention.lambda_parts.as_ref().map(|parts| &parts.weights);
    matches!(weights, Some(LambdaWeights::Scalars(_)))
}

/// Puts what moved of a block back into the model.
pub(super) fn put_back_block(
    block: &mut Block,
    ids: &BlockIds,
    arena: &Arena,
) -> Result<(), Error> {
    put_attention(&mut block.attention, &ids.attention, arena)?;
    repack(&mut block.fc1, ids.fc1, arena)?;
    repack(&mut block.fc2, ids.fc2, arena)?;
    put_norm(&mut block.norm, ids.norm, arena);
    if let Some(norm) = &mut block.mlp_norm {
        put_norm(norm, ids.mlp_norm, arena);
    }
    for (scale, id) in [
        (&mut block.attention_scale, ids.attention_scale),
        (&mut block.mlp_scale, ids.mlp_scale),
    ] {
        if let Some(scale) = scale {
            put_vector(scale, id, arena);
        }
    }
    Ok(())
}

/// Puts what moved of what stands before and behind the blocks back into the model.
pub(super) fn put_back_ends(
    model: &mut DiffViT,
    ids: &VisionIds,
    arena: &Arena,
) -> Result<(), Error> {
    repack(&mut model.patches, ids.patches, arena)?;
    put_vector(&mut model.positions, ids.positions, arena);
    put_vector(&mut model.registers, ids.registers, arena);
    put_norm(&mut model.norm, ids.norm, arena);
    match &mut model.head {
        Some(head) => repack(head, ids.head, arena),
        None => Ok(()),
    }
}

fn put_norm(norm: &mut Norm, [weight, bias]: NormIds, arena: &Arena) {
    put_vector(&mut norm.weight, weight, arena);
    put_vector(&mut norm.bias, bias, arena);
}

fn put_vector(to: &mut [f32], id: Option<ParameterId>, arena: &Arena) {
    if let Some(id) = id {
        to.copy_from_slice(arena.value(id));
    }
}

/// The head, which there is.
pub(super) fn head_of(model: &DiffViT) -> Result<&Linear, Error> {
    let none = || Error::internal("a model without a head in training");
    model.head.as_ref().ok_or_else(none)
}
