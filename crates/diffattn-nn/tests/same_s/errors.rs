//! What is refused: configurations, checkpoints, inputs.

use crate::common::{Case, Elements, borrowed, entries, ok, random, refusal, small};
use diffattn::{Data, Tensor};
use diffattn_nn::{
    Family, Model, ModelFiles, SameS, SameSConfig, SameSLoader, SameSOptions, Task, WeightFormats,
};
use serde_json::{Map, Value, json};

fn config(change: Value) -> String {
    let Value::Object(mut config) = ok(serde_json::from_str(&Case::read().config)) else {
        panic!("no object");
    };
    if let Value::Object(change) = change {
        config.extend(change);
    }
    Value::Object(config.into_iter().collect::<Map<_, _>>()).to_string()
}

#[test]
fn configurations() {
    let told = |change: Value| {
        let (code, sentence) = refusal(SameSConfig::from_json(&config(change)));
        assert_eq!(code, "FILE");
        sentence
    };
    for (change, sentence) in [
        (
            json!({"architecture": "same_l"}),
            "config.architecture: expected \"same_s\", got \"same_l\"",
        ),
        (
            json!({"dim": 0}),
            "config.dim: expected a whole number of at least 1, got 0",
        ),
        (
            json!({"depth": "four"}),
            "config.depth: expected a whole number of at least 1, got \"four\"",
        ),
        (
            json!({"dim_heads": 12}),
            "config.dim_heads: expected a number that divides dim 32, got 12",
        ),
        (
            json!({"rope_dims": 18}),
            "config.rope_dims: expected an even number of at most dim_heads 16, got 18",
        ),
        (
            json!({"chunk_size": 10}),
            "config.chunk_size: expected a multiple of stride 4, 1024 at most, got 10",
        ),
        (
            json!({"chunk_size": 4096}),
            "config.chunk_size: expected a multiple of stride 4, 1024 at most, got 4096",
        ),
        (
            json!({"chunk_size": 12}),
            "config.chunk_size: expected one that makes an even number of tokens with its latents, one per 4 patches, got 12",
        ),
        (
            json!({"channels": 21}),
            "config.channels: expected patch_size times audio_channels, 20, got 21",
        ),
    ] {
        assert_eq!(told(change), sentence);
    }
    let sentence = refusal(SameSConfig::from_json("{\"model_type\": \"llama\"}")).1;
    assert!(
        sentence.ends_with("LanguageModel loads it, and the commands generate and maps"),
        "{sentence}"
    );
    // What is left out is the public codec's.
    let public = ok(SameSConfig::from_json("{\"architecture\": \"same_s\"}"));
    assert_eq!(public, SameSConfig::default());
    assert_eq!(
        [
            public.channels(),
            public.latent_samples(),
            public.chunk_latents()
        ],
        [512, 4096, 2]
    );
}

#[test]
fn a_configuration_leads_to_the_codec() {
    let case = Case::read();
    let entries = entries(&case.stored);
    let files = ModelFiles {
        config: &case.config,
        generation_config: None,
        entries: &entries,
        formats: WeightFormats::default(),
    };
    let (family, mut loader) = ok(Family::open(Task::Audio, &files));
    assert_eq!(family.architecture.name(), "same_s");
    let known = loader.config_json();
    assert_eq!(
        [&known["channels"], &known["sample_rate"]],
        [&json!(20), &json!(44_100)]
    );
    assert_eq!(loader.parts().len(), 2 * (1 + 4));
    assert!(loader.notices().is_empty(), "{:?}", loader.notices());
    let weights = borrowed(&case.stored);
    ok(loader.load_all(&mut &weights));
    let Model::Audio(model) = ok(loader.whole()) else {
        panic!("a model of audio")
    };
    let options = SameSOptions::default();
    let by_family = ok(model.decode(case.input("latents"), &options));
    let by_type = ok(case.model.decode(case.input("latents"), &options));
    assert_eq!(by_family, by_type);
    let (code, sentence) = refusal(Family::open(Task::Image, &files));
    assert_eq!(code, "FILE");
    assert!(sentence.contains("config.architecture"), "{sentence}");
}

#[test]
fn checkpoints() {
    let case = Case::read();
    let parsed = ok(SameSConfig::from_json(&case.config));
    let told = |change: &dyn Fn(&mut crate::common::Stored)| {
        let mut stored = case.stored.clone();
        change(&mut stored);
        let (code, sentence) = refusal(SameSLoader::new(&parsed, &entries(&stored)));
        assert_eq!(code, "FILE");
        sentence
    };
    let add = |name: &str| {
        let name = name.to_owned();
        move |stored: &mut crate::common::Stored| {
            stored.insert(name.clone(), (vec![1], Elements::F32(vec![0.0])));
        }
    };
    assert_eq!(
        told(&|stored| drop(stored.remove("decoder.blocks.2.ff_norm.beta"))),
        "weights.decoder.blocks.2.ff_norm.beta: expected a tensor of shape [32], got none"
    );
    assert_eq!(
        told(&|stored| drop(stored.remove("encoder.scaling_factor"))),
        "weights.encoder.scaling_factor: expected a tensor of shape [1, 12, 1], got none"
    );
    assert_eq!(
        told(&add("encoder.running_std.")),
        "weights.encoder.running_std.: expected only weights that the model has, in its modules, got encoder.running_std."
    );
    assert_eq!(
        told(&add("decoder.blocks.0.attn.to_qkv.bias")),
        "weights.decoder.blocks.0.attn.to_qkv.bias: expected only weights that the model has, in its modules, got decoder.blocks.0.attn.to_qkv.bias"
    );
    // The names that PyTorch checkpoints are said to have.
    let torch = told(&|stored| {
        let all = std::mem::take(stored);
        for (name, tensor) in all {
            let name = name.replace("blocks.", "layers.3.transformers.");
            stored.insert(format!("pretransform.model.{name}"), tensor);
        }
    });
    assert_eq!(
        torch,
        "weights: expected names as those of the files same_s_decoder_f32 and same_s_encoder_f32, behind \"decoder.\" and \"encoder.\", got others, such as \"pretransform.model.decoder.layers.3.transformers.0.attn.k_norm.alpha\""
    );
    let wider = told(&|stored| {
        stored.insert(
            "decoder.mapping.weight".to_owned(),
            (vec![20, 32, 5], Elements::F32(vec![0.0; 20 * 32 * 5])),
        );
    });
    assert_eq!(
        wider,
        "weights.decoder.mapping.weight: expected a tensor of shape [20, 32, 3], got [20, 32, 5]"
    );
}

#[test]
fn more_than_the_configuration_counts_is_told() {
    let case = Case::read();
    let parsed = SameSConfig {
        depth: 3,
        ..ok(SameSConfig::from_json(&case.config))
    };
    let mut stored = case.stored.clone();
    stored.insert("note".to_owned(), (vec![1], Elements::F32(vec![0.0])));
    let loader = ok(SameSLoader::new(&parsed, &entries(&stored)));
    let notices = diffattn_nn::ModelLoader::notices(&loader);
    assert_eq!(
        notices[0],
        "config.json says 3 layers, but the tensors have 4"
    );
    assert!(notices[1].contains("decoder.blocks.3."), "{notices:?}");
}

#[test]
fn one_direction_alone() {
    let config = small();
    let options = SameSOptions::default();
    let (pcm, latents) = (vec![0.5; 3 * 56], vec![0.5; 5 * 4]);
    let pcm = || Tensor::f32(&pcm, &[1, 3, 56]);
    let latents = || Tensor::f32(&latents, &[1, 5, 4]);
    let both = ok(SameS::new(&config, &borrowed(&random(&config))));
    let only = |prefix: &str| {
        let mut stored = random(&config);
        stored.retain(|name, _| name.starts_with(prefix));
        ok(SameS::new(&config, &borrowed(&stored)))
    };
    let (decoder, encoder) = (only("decoder."), only("encoder."));
    assert_eq!(
        ok(decoder.decode(latents(), &options)),
        ok(both.decode(latents(), &options))
    );
    assert_eq!(
        ok(encoder.encode(pcm(), &options)),
        ok(both.encode(pcm(), &options))
    );
    assert_eq!(
        refusal(decoder.encode(pcm(), &options)),
        (
            "UNAVAILABLE",
            "model: expected one with an encoder, got one without (encoder.…)".to_owned()
        )
    );
    assert_eq!(
        refusal(encoder.decode(latents(), &options)),
        (
            "UNAVAILABLE",
            "model: expected one with a decoder, got one without (decoder.…)".to_owned()
        )
    );
}

#[test]
fn inputs() {
    let case = Case::read();
    let options = SameSOptions::default();
    let data = vec![0.0; 960];
    let encode = |shape: &[usize]| {
        let (code, sentence) = refusal(case.model.encode(Tensor::f32(&data, shape), &options));
        format!("{code} {sentence}")
    };
    let decode = |shape: &[usize]| {
        let (code, sentence) = refusal(case.model.decode(Tensor::f32(&data, shape), &options));
        format!("{code} {sentence}")
    };
    let pcm = "SHAPE pcm: expected shape [B, 2, samples], got ";
    assert_eq!(encode(&[4, 240]), format!("{pcm}[4, 240]"));
    assert_eq!(encode(&[4, 1, 240]), format!("{pcm}[4, 1, 240]"));
    assert_eq!(
        encode(&[2, 2, 241]),
        "SHAPE pcm: expected 964 elements for shape [2, 2, 241], got 960"
    );
    let latents = "SHAPE latents: expected shape [B, 12, T], T a multiple of 2, got ";
    assert_eq!(decode(&[16, 12, 5]), format!("{latents}[16, 12, 5]"));
    assert_eq!(decode(&[8, 20, 6]), format!("{latents}[8, 20, 6]"));
    let half = Tensor {
        data: Data::F16(&[0; 24]),
        shape: vec![1, 12, 2],
    };
    assert_eq!(
        refusal(case.model.decode(half, &options)),
        ("DTYPE", "latents: expected float32, got float16".to_owned())
    );
    // Of nothing, lengths may be whatever they are; they are counted all the same.
    for shape in [[0, 2, usize::MAX], [0, 2, 1 << 62]] {
        assert_eq!(
            refusal(case.model.encode(Tensor::f32(&[], &shape), &options)).0,
            "SHAPE"
        );
    }
    let shape = [0, 12, usize::MAX - 1];
    assert_eq!(
        refusal(case.model.decode(Tensor::f32(&[], &shape), &options)).0,
        "SHAPE"
    );
}
