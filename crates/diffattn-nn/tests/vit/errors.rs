//! Refusals: configs, weights and calls that do not fit, with their sentences.

use crate::common::{Case, Sizes, Stored, borrowed, case_config, ok, refusal};
use diffattn::{Data, Tensor};
use diffattn_nn::{
    DiffViT, DiffViTArchitecture, DiffViTConfig, DiffViTLoader, DiffViTOptions, Interpolation,
    ModelLoader, Preprocessing, WeightInfo,
};

/// A config as timm writes it to the Hub.
const HUB: &str = r#"{
  "architecture": "vit_dpwee_patch16_reg1_gap_256",
  "num_classes": 1000,
  "num_features": 256,
  "global_pool": "avg",
  "model_args": { "img_size": 384, "drop_path_rate": 0.1, "class_token": false },
  "pretrained_cfg": {
    "tag": "sbb_in1k", "custom_load": false, "input_size": [3, 256, 256], "fixed_input_size": true,
    "interpolation": "bilinear", "crop_pct": 0.9, "crop_mode": "center", "mean": [0.5, 0.25, 0.125],
    "std": [0.1, 0.2, 0.3], "num_classes": 1000, "pool_size": null, "first_conv": "patch_embed.proj",
    "classifier": "head"
  }
}"#;

#[test]
fn configs_are_read() {
    let config = ok(DiffViTConfig::from_json(HUB));
    let expected = DiffViTConfig {
        img_size: Some(384),
        num_classes: Some(1000),
        preprocessing: Preprocessing {
            crop_pct: 0.9,
            interpolation: Interpolation::Bilinear,
            mean: [0.5, 0.25, 0.125],
            std: [0.1, 0.2, 0.3],
        },
        ..DiffViTConfig::new(DiffViTArchitecture::ParallelWee)
    };
    assert_eq!(config, expected);
    let flat = ok(DiffViTConfig::from_json(&case_config()));
    let expected = DiffViTConfig {
        img_size: Some(64),
        patch_size: Some(16),
        num_classes: Some(10),
        embed_dim: Some(64),
        depth: Some(3),
        num_heads: Some(2),
        reg_tokens: Some(1),
        ..DiffViTConfig::new(DiffViTArchitecture::Wee)
    };
    assert_eq!(flat, expected);
    // Old files have it all beside each other.
    let old = r#"{"architecture": "vit_dlittle_patch16_reg1_gap_256", "num_classes": 5,
        "input_size": [3, 256, 256], "mean": [0, 0, 0], "mlp_ratio": 5.6, "patch_size": [16, 16]}"#;
    let expected = DiffViTConfig {
        img_size: Some(256),
        patch_size: Some(16),
        num_classes: Some(5),
        mlp_ratio: Some(5.6),
        preprocessing: Preprocessing {
            mean: [0.0; 3],
            ..Preprocessing::default()
        },
        ..DiffViTConfig::new(DiffViTArchitecture::Little)
    };
    assert_eq!(ok(DiffViTConfig::from_json(old)), expected);
}

#[test]
fn wrong_configs_are_refused_by_key() {
    let refused = |change: &str, to: &str| {
        assert!(HUB.contains(change), "{change}");
        let (code, sentence) = refusal(DiffViTConfig::from_json(&HUB.replacen(change, to, 1)));
        assert_eq!(code, "FILE");
        sentence
    };
    let cases = [
        (
            r#""vit_dpwee_patch16_reg1_gap_256""#,
            r#""vit_base_patch16_224""#,
            "config.architecture: expected one of vit_dwee_patch16_reg1_gap_256, \
             vit_dlittle_patch16_reg1_gap_256, vit_dpwee_patch16_reg1_gap_256, got \"vit_base_patch16_224\"",
        ),
        (
            r#""num_classes": 1000"#,
            r#""num_classes": -1"#,
            "config.num_classes: expected a whole number of at least 0, got -1",
        ),
        (
            r#""img_size": 384"#,
            r#""img_size": [384, 256]"#,
            "config.model_args.img_size: expected one size, or the same one twice, got [384,256]",
        ),
        (
            r#""img_size": 384"#,
            r#""depth": 1.5"#,
            "config.model_args.depth: expected a whole number of at least 1, got 1.5",
        ),
        (
            r#""img_size": 384"#,
            r#""mlp_ratio": -1"#,
            "config.model_args.mlp_ratio: expected a positive number, got -1",
        ),
        (
            r#""img_size": 384"#,
            r#""qk_norm": true"#,
            "config.model_args.qk_norm: expected false, as these architectures have it, got true",
        ),
        (
            r#""img_size": 384"#,
            r#""global_pool": "token""#,
            "config.model_args.global_pool: expected \"avg\", the only pooling here, got \"token\"",
        ),
        (
            r#""img_size": 384"#,
            r#""in_chans": 0"#,
            "config.model_args.in_chans: expected a whole number of at least 1, got 0",
        ),
        (
            r#""img_size": 384"#,
            r#""dynamic_img_size": 1"#,
            "config.model_args.dynamic_img_size: expected true or false, got 1",
        ),
        (
            r#""img_size": 384"#,
            r#""dynamic_img_pad": true"#,
            "config.model_args.dynamic_img_pad: expected false: pixels are whole patches, which who gives them may pad, got true",
        ),
        (
            r#""img_size": 384"#,
            r#""rope": 1"#,
            "config.model_args.rope: expected no such key: it may change the numbers, got 1",
        ),
        (
            r#"{ "img_size": 384, "drop_path_rate": 0.1, "class_token": false }"#,
            "[]",
            "config.model_args: expected an object, got []",
        ),
        (
            r#""img_size": 384, "drop_path_rate": 0.1, "class_token": false },
  "pretrained_cfg": {
    "tag": "sbb_in1k", "custom_load": false, "input_size": [3, 256, 256]"#,
            r#""class_token": false }, "pretrained_cfg": { "input_size": [3, 256, 224]"#,
            "config.pretrained_cfg.input_size: expected [C, S, S]: the channels of a square image, got [3,256,224]",
        ),
        (
            r#""bilinear""#,
            r#""lanczos""#,
            "config.pretrained_cfg.interpolation: expected \"bicubic\" or \"bilinear\", got \"lanczos\"",
        ),
        (
            r#""crop_pct": 0.9"#,
            r#""crop_pct": 1.5"#,
            "config.pretrained_cfg.crop_pct: expected a number above 0, 1 at most, got 1.5",
        ),
        (
            r#""center""#,
            r#""squash""#,
            "config.pretrained_cfg.crop_mode: expected \"center\", the only one here, got \"squash\"",
        ),
        (
            "[0.5, 0.25, 0.125]",
            "[0.5, 0.25]",
            "config.pretrained_cfg.mean: expected three numbers, got [0.5,0.25]",
        ),
        (
            "[0.1, 0.2, 0.3]",
            "[0.1, 0, 0.3]",
            "config.pretrained_cfg.std: expected three positive numbers, got [0.1,0,0.3]",
        ),
    ];
    for (change, to, sentence) in cases {
        assert_eq!(refused(change, to), sentence);
    }
    let (code, sentence) = refusal(DiffViTConfig::from_json("{"));
    assert_eq!(code, "FILE");
    assert!(
        sentence.starts_with("config: expected a JSON object, got EOF"),
        "{sentence}"
    );
    assert_eq!(
        refusal(DiffViTConfig::from_json("[1]")).1,
        "config: expected a JSON object, got [1]"
    );
    let llama = "\u{feff}{\"model_type\": \"diffllama\"}";
    let sentence = refusal(DiffViTConfig::from_json(llama)).1;
    assert!(
        sentence.ends_with(
            "got the configuration of a DIFF Llama, a language model: DiffLlama loads it, and the commands generate and maps"
        ),
        "{sentence}"
    );
    let marked = format!("\u{feff}{HUB}");
    assert_eq!(
        ok(DiffViTConfig::from_json(&marked)),
        ok(DiffViTConfig::from_json(HUB))
    );
}

/// What a model says to changed weights.
fn refused(config: &DiffViTConfig, stored: &Stored, change: impl FnOnce(&mut Stored)) -> String {
    let mut stored = stored.clone();
    change(&mut stored);
    let (code, sentence) = refusal(DiffViT::new(config, &borrowed(&stored)));
    assert_eq!(code, "FILE", "{sentence}");
    sentence
}

fn put(name: &str, shape: &[usize]) -> impl FnOnce(&mut Stored) {
    let (name, shape) = (name.to_owned(), shape.to_vec());
    move |stored| {
        let data = vec![0.0; shape.iter().product()];
        stored.insert(name, (shape, data));
    }
}

#[test]
fn wrong_weights_are_refused_by_name() {
    let case = Case::read();
    let config = ok(DiffViTConfig::from_json(&case_config()));
    // Each one missing.
    for (name, (shape, _)) in &case.stored {
        if name.ends_with("proj.bias")
            || name.ends_with("qkv.bias")
            || name.contains("mlp.fc") && name.ends_with("bias")
            || name == "head.bias"
            || name.contains(".ls")
        {
            // (Models without them are models.)
            continue;
        }
        let sentence = refused(&config, &case.stored, |stored| {
            stored.remove(name);
        });
        let expected = if name == "reg_token" {
            "config.reg_tokens: expected 0, as weights.reg_token has it, got 1".to_owned()
        } else {
            format!("weights.{name}: expected a tensor of shape ")
        };
        assert!(
            sentence.starts_with(&expected),
            "{name} {shape:?}: {sentence}"
        );
    }
    // Each one with a channel more.
    for (name, (shape, _)) in &case.stored {
        let mut wrong = shape.clone();
        if let Some(last) = wrong.last_mut() {
            *last += 1;
        }
        let sentence = refused(&config, &case.stored, put(name, &wrong));
        assert!(
            sentence.contains(name.as_str()) || name == "head.weight",
            "{name} {shape:?}: {sentence}"
        );
    }
    let sentences = [
        (
            refused(&config, &case.stored, put("cls_token", &[1, 1, 64])),
            "weights.cls_token: expected only weights that the model has, in its modules, got cls_token",
        ),
        (
            refused(
                &config,
                &case.stored,
                put("blocks.2.attn.q_norm.weight", &[16]),
            ),
            "weights.blocks.2.attn.q_norm.weight: expected only weights that the model has, in its modules, got blocks.2.attn.q_norm.weight",
        ),
        (
            refused(&config, &case.stored, |stored| {
                stored.retain(|name, _| !name.starts_with("blocks.2."));
            }),
            "config.depth: expected 2, as weights.blocks has it, got 3",
        ),
        (
            refused(&config, &case.stored, put("pos_embed", &[1, 15, 64])),
            "weights.pos_embed: expected embeddings of a square grid of patches, got [1, 15, 64]",
        ),
        (
            refused(
                &config,
                &case.stored,
                put("patch_embed.proj.weight", &[64, 3, 16, 8]),
            ),
            "weights.patch_embed.proj.weight: expected a tensor of shape [embed_dim, in_chans, patch_size, patch_size], got [64, 3, 16, 8]",
        ),
        (
            refused(
                &config,
                &case.stored,
                put("blocks.0.attn.sub_norm.weight", &[24]),
            ),
            "weights.blocks.0.attn.sub_norm.weight: expected an even length that divides embed_dim 64, got 24",
        ),
        (
            refused(
                &config,
                &case.stored,
                put("blocks.0.attn.sub_norm.weight", &[16]),
            ),
            "config.num_heads: expected 4, as weights.blocks.0.attn.sub_norm.weight has it, got 2",
        ),
        (
            refused(&config, &case.stored, put("head.weight", &[11, 64])),
            "config.num_classes: expected 11, as weights.head.weight has it, got 10",
        ),
    ];
    for (sentence, expected) in sentences {
        assert_eq!(sentence, expected);
    }
    // Fewer elements than the shape says.
    let mut weights = borrowed(&case.stored);
    if let Some(weight) = weights.get_mut("fc_norm.weight") {
        weight.data = Data::F32(&[1.0, 2.0]);
    }
    assert_eq!(
        refusal(DiffViT::new(&config, &weights)),
        (
            "SHAPE",
            "weights.fc_norm.weight: expected 64 elements for shape [64], got 2".to_owned()
        )
    );
}

/// What a checkpoint has besides what the model needs stays unread and is told; what wraps a model
/// goes from its names.
#[test]
fn odd_weights_are_loaded_and_told() {
    let case = Case::read();
    let config = ok(DiffViTConfig::from_json(&case_config()));
    let pixels = vec![0.25; 3 * 64 * 64];
    let logits = |config: &DiffViTConfig, stored: &Stored| {
        let model = ok(DiffViT::new(config, &borrowed(stored)));
        let pixels = Tensor::f32(&pixels, &[1, 3, 64, 64]);
        ok(model.forward(pixels, &DiffViTOptions::default()))
    };
    let notices = |config: &DiffViTConfig, stored: &Stored| {
        let weights = borrowed(stored);
        let infos: Vec<WeightInfo> = weights
            .iter()
            .map(|(name, tensor)| WeightInfo::of(name, tensor))
            .collect();
        ok(DiffViTLoader::new(config, &infos)).notices().to_vec()
    };
    let expected = logits(&config, &case.stored);
    assert_eq!(notices(&config, &case.stored), [""; 0]);
    let mut stored = case.stored.clone();
    put("head_dist.weight", &[10, 64])(&mut stored);
    put("blocks.3.norm1.weight", &[64])(&mut stored);
    assert_eq!(logits(&config, &stored), expected);
    assert_eq!(
        notices(&config, &stored),
        [
            "config.json says 3 layers, but the tensors have 4",
            "tensors that the model has no use for stay unread: blocks.3.norm1.weight, head_dist.weight",
        ]
    );
    let wrapped: Stored = case
        .stored
        .iter()
        .map(|(name, tensor)| (format!("module._orig_mod.{name}"), tensor.clone()))
        .collect();
    assert_eq!(logits(&config, &wrapped), expected);
    let [notice] = notices(&config, &wrapped)
        .try_into()
        .unwrap_or_else(|all| panic!("{all:?}"));
    assert!(notice.contains("prefix"), "{notice}");
}

#[test]
fn wrong_weights_of_the_parallel_form_are_refused_by_name() {
    let sizes = Sizes::small(DiffViTArchitecture::ParallelWee);
    let config = DiffViTConfig::new(sizes.architecture);
    let stored = sizes.weights();
    let sentences = [
        (
            refused(&config, &stored, put("blocks.1.mlp_bias", &[240])),
            "weights.blocks.1.mlp_bias: expected none beside in_proj.bias, got one",
        ),
        (
            refused(&config, &stored, put("blocks.0.in_proj.weight", &[144, 48])),
            "weights.blocks.0.in_proj.weight: expected more than 3 · 48 rows, got 144",
        ),
        (
            refused(&config, &stored, |stored| {
                stored.remove("blocks.2.out_proj.weight");
            }),
            "weights.blocks.2.out_proj.weight: expected a tensor of shape [48, 288], got none",
        ),
        (
            refused(&config, &stored, |stored| {
                stored.retain(|name, _| !name.starts_with("blocks."));
            }),
            "weights.blocks.0.sub_norm.weight: expected a tensor of shape [2 · head_dim], got none",
        ),
        (
            refused(
                &DiffViTConfig::new(DiffViTArchitecture::Wee),
                &stored,
                |_| (),
            ),
            "weights.blocks.0.attn.sub_norm.weight: expected a tensor of shape [2 · head_dim], got none",
        ),
        (
            refused(
                &DiffViTConfig {
                    mlp_ratio: Some(4.0),
                    ..config.clone()
                },
                &stored,
                |_| (),
            ),
            "config.mlp_ratio: expected 240 / 48, as weights.blocks.0.in_proj.weight has it, got 4",
        ),
        (
            refused(
                &DiffViTConfig {
                    img_size: Some(22),
                    ..config.clone()
                },
                &stored,
                |_| (),
            ),
            "config.img_size: expected a multiple of the patch size 4, 16 times that of the weights (20) at most, got 22",
        ),
        (
            refused(
                &DiffViTConfig {
                    img_size: Some(4_000_000),
                    ..config.clone()
                },
                &stored,
                |_| (),
            ),
            "config.img_size: expected a multiple of the patch size 4, 16 times that of the weights (20) at most, got 4000000",
        ),
    ];
    for (sentence, expected) in sentences {
        assert_eq!(sentence, expected);
    }
    let strange = DiffViTConfig {
        preprocessing: Preprocessing {
            std: [1.0, 0.0, 1.0],
            ..Preprocessing::default()
        },
        ..config
    };
    assert_eq!(
        refusal(DiffViT::new(&strange, &borrowed(&stored))),
        (
            "OPTION",
            "config.preprocessing.std: expected three positive numbers, got [1.0, 0.0, 1.0]"
                .to_owned()
        )
    );
}

#[test]
fn wrong_calls_are_refused() {
    let case = Case::read();
    let (model, options) = (&case.model, DiffViTOptions::default());
    let zeros = vec![0.0; 3 * 64 * 65];
    let sentences = [
        (
            refusal(model.forward(Tensor::f32(&zeros, &[1, 3, 64, 65]), &options)),
            (
                "SHAPE",
                "pixels: expected shape [B, 3, 64, 64], got [1, 3, 64, 65]",
            ),
        ),
        (
            refusal(model.forward(Tensor::f32(&zeros, &[3, 64, 65]), &options)),
            (
                "SHAPE",
                "pixels: expected shape [B, 3, 64, 64], got [3, 64, 65]",
            ),
        ),
        (
            refusal(model.forward(Tensor::f32(&zeros, &[1, 3, 64, 64]), &options)),
            (
                "SHAPE",
                "pixels: expected 12288 elements for shape [1, 3, 64, 64], got 12480",
            ),
        ),
        (
            refusal(model.forward(
                Tensor {
                    data: Data::F16(&[0; 3 * 64 * 64]),
                    shape: vec![1, 3, 64, 64],
                },
                &options,
            )),
            ("DTYPE", "pixels: expected float32, got float16"),
        ),
        (
            refusal(model.maps(case.pixels(), 3, &options)),
            ("OPTION", "layer: expected 0 to 2, got 3"),
        ),
        (
            refusal(model.classify(case.pixels(), 0, &options)),
            ("OPTION", "top: expected 1 to 10, got 0"),
        ),
        (
            refusal(model.classify(case.pixels(), 11, &options)),
            ("OPTION", "top: expected 1 to 10, got 11"),
        ),
    ];
    for ((code, sentence), expected) in sentences {
        assert_eq!((code, sentence.as_str()), expected);
    }
}
