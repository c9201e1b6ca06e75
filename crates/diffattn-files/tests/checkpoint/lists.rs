//! Lists of weights against the checkpoints of their sources: every tensor has its place.

use crate::common::{models, ok, refusal};
use diffattn_files::decoder::{DecoderAttention, DecoderSizes, Head};
use diffattn_files::vision::{self, BlockForm, BlockSizes, TokenSizes};
use diffattn_files::{
    AttentionSizes, CheckedParts, Declare, Entries, LambdaForm, Need, Shards, WeightInfo,
};

fn stored(name: &str) -> Vec<WeightInfo> {
    let shards = ok(Shards::open(models().join(name)));
    let info = shards.entries().map(|entry| WeightInfo {
        name: entry.name.clone(),
        dtype: entry.dtype,
        shape: entry.shape.clone(),
    });
    info.collect()
}

/// Tensors of those names, empty but for their shapes.
fn named(shapes: &[(&str, &[usize])]) -> Vec<WeightInfo> {
    let info = shapes.iter().map(|(name, shape)| WeightInfo {
        name: (*name).to_owned(),
        dtype: diffattn::DType::F32.into(),
        shape: shape.to_vec(),
    });
    info.collect()
}

fn list<T>(declare: impl FnOnce(&mut Declare) -> T) -> Declare {
    let mut list = Declare::new();
    declare(&mut list);
    list
}

/// Every part of a decoder of that many layers.
fn decoder(
    sizes: DecoderSizes,
    layers: usize,
    stored: &[WeightInfo],
) -> Result<CheckedParts, diffattn::Error> {
    let mut entries = Entries::new(stored, true)?;
    entries.part(&list(|d| sizes.embeddings(d)))?;
    if sizes.head == Head::Stored {
        entries.part(&list(|d| sizes.head(d)))?;
    }
    for index in 0..layers {
        entries.part(&list(|d| sizes.layer(index, d)))?;
    }
    entries.part(&list(|d| sizes.norm(d)))?;
    let names = sizes.kind.names();
    entries.finish(
        |name| names.is_buffer(name),
        |name| names.is_within(name, layers),
    )
}

fn plain() -> DecoderSizes {
    DecoderSizes {
        vocab_size: 59,
        hidden_size: 48,
        intermediate_size: 64,
        kind: DecoderAttention::Plain,
        attention: AttentionSizes {
            embed_dim: 48,
            q: 48,
            k: 16,
            v: 16,
            out: 48,
            head_dim: 8,
            ..AttentionSizes::default()
        },
        ..DecoderSizes::default()
    }
}

/// A plain Llama of one layer, as `transformers` names its weights.
fn llama() -> Vec<WeightInfo> {
    named(&[
        ("lm_head.weight", &[59, 48]),
        ("model.embed_tokens.weight", &[59, 48]),
        ("model.layers.0.input_layernorm.weight", &[48]),
        ("model.layers.0.mlp.down_proj.weight", &[48, 64]),
        ("model.layers.0.mlp.gate_proj.weight", &[64, 48]),
        ("model.layers.0.mlp.up_proj.weight", &[64, 48]),
        ("model.layers.0.post_attention_layernorm.weight", &[48]),
        ("model.layers.0.self_attn.k_proj.weight", &[16, 48]),
        ("model.layers.0.self_attn.o_proj.weight", &[48, 48]),
        ("model.layers.0.self_attn.q_proj.weight", &[48, 48]),
        ("model.layers.0.self_attn.v_proj.weight", &[16, 48]),
        ("model.norm.weight", &[48]),
    ])
}

#[test]
fn a_plain_llama_is_the_same_list_without_lambda() {
    let parts = ok(decoder(plain(), 1, &llama()));
    let counts: Vec<usize> = parts.list().iter().map(Vec::len).collect();
    assert_eq!(counts, [1, 1, 9, 1]);
    assert_eq!(parts.notices(), [""; 0]);
    let differential = DecoderSizes {
        kind: DecoderAttention::Differential,
        ..plain()
    };
    let (code, sentence) = refusal(decoder(differential, 1, &llama()));
    assert_eq!(code, "FILE");
    assert_eq!(
        sentence,
        "weights.model.layers.0.self_attn.lambda_q1: expected a tensor of shape [8], got none"
    );
    let biased = DecoderSizes {
        mlp_bias: true,
        ..plain()
    };
    let (_, sentence) = refusal(decoder(biased, 1, &llama()));
    assert_eq!(
        sentence,
        "weights.model.layers.0.mlp.gate_proj.bias: expected a tensor of shape [64], got none"
    );
}

/// No weight of the project's own models is without a place, and none is in two.
#[test]
fn models_of_their_sources() {
    let stored_vit = stored("diff_vit");
    let mut entries = ok(Entries::new(&stored_vit, false));
    let [embed_dim, in_chans, patch_size, _] = ok(entries.shape(vision::PATCHES, "[E, C, P, P]"));
    let [_, positions, _] = ok(entries.shape(vision::POSITIONS, "[1, N, E]"));
    let reg_tokens = match entries.has(vision::REGISTERS) {
        true => ok(entries.shape::<3>(vision::REGISTERS, "[1, R, E]"))[1],
        false => 0,
    };
    let [head_width] = ok(entries.shape(&BlockForm::Plain.first_head_norm(), "[2d]"));
    let [hidden, _] = ok(entries.shape(&BlockForm::Plain.first_map(), "[hidden, E]"));
    let tokens = TokenSizes {
        embed_dim,
        in_chans,
        patch_size,
        positions,
        reg_tokens,
    };
    ok(entries.part(&list(|d| tokens.declare(d))));
    let blocks = BlockSizes {
        embed_dim,
        head_width,
        hidden,
    };
    let depth = 1 + entries
        .names()
        .filter_map(vision::block_of)
        .max()
        .unwrap_or(0);
    for index in 0..depth {
        let list = list(|d| blocks.block(BlockForm::Plain, index, |name| entries.has(name), d));
        ok(entries.part(&list));
    }
    let [classes, _] = ok(entries.shape(vision::HEAD_WEIGHT, "[classes, E]"));
    ok(entries.part(&list(|d| vision::logits(embed_dim, classes, d))));
    let is_within = |name: &str| vision::is_within(name, depth, true);
    let parts = ok(entries.finish(|_| false, is_within));
    let taken: usize = parts.list().iter().map(Vec::len).sum();
    assert_eq!(taken, stored_vit.len());
}

#[test]
fn lists_say_what_they_have() {
    let mut list = Declare::new();
    let sizes = AttentionSizes {
        embed_dim: 4,
        q: 8,
        head_dim: 2,
        ..AttentionSizes::default()
    };
    let ids = list.within("layer.", |d| {
        sizes.v1(d, LambdaForm::Scalars, Need::Optional)
    });
    let q = list.get(ids.projections.q);
    assert_eq!(
        (q.name.as_str(), q.weight()),
        ("layer.q_proj", "layer.q_proj.weight".into())
    );
    let names: Vec<String> = list.tensors().map(|tensor| tensor.name).collect();
    assert_eq!(names.len(), 15);
    assert_eq!(names[0], "layer.q_proj.weight");
    assert_eq!(names[1], "layer.q_proj.bias");
    assert_eq!(list.linears().count(), 4);
    let lambda = list
        .tensors()
        .find(|tensor| tensor.name == "layer.lambda_q1");
    assert!(matches!(
        lambda.map(|tensor| tensor.need),
        Some(Need::Refused(_))
    ));
    assert!(q.is_named("layer.q_proj.bias") && !q.is_named("layer.q_proj.x"));
}
