//! What real checkpoints are found to be, and what is said of odd ones.

use crate::common::{fixtures, models, ok, refusal};
use diffattn::{DType, Pairing};
use diffattn_files::decoder::ConversionKind;
use diffattn_files::{
    Architecture, Dtype, Entry, HeadChoice, HeadLayout, Inspection, LambdaForm, Layer, LayerTarget,
    LayerVersion, PlainHeads, Shards, inspect,
};

/// A model's folder, and its configuration after `change`.
fn model(name: &str, change: impl Fn(String) -> String) -> Inspection {
    let folder = models().join(name);
    let config = std::fs::read_to_string(folder.join("config.json"));
    let config = change(config.unwrap_or_else(|e| panic!("{name}: {e}")));
    ok(inspect(ok(Shards::open(&folder)).entries(), Some(&config)))
}

fn entries(list: &[(&str, &[usize])]) -> Vec<Entry> {
    list.iter()
        .map(|&(name, shape)| Entry {
            name: name.to_owned(),
            dtype: Dtype::F32,
            shape: shape.to_vec(),
            range: 0..shape
                .iter()
                .fold(4, |bytes: u64, &extent| bytes.saturating_mul(extent as u64)),
        })
        .collect()
}

#[test]
fn diffllama() {
    for (name, groups, parameters, eps) in [
        ("diffllama_gqa", 4, None, 1e-5),
        ("diffllama_mha", 8, None, 1e-5),
        ("diffllama_bias", 4, None, 1e-6),
        ("diffllama_llama3_rope", 4, None::<u64>, 1e-5),
    ] {
        let found = model(name, |config| config);
        assert_eq!(found.architecture, Some(Architecture::DiffLlama), "{name}");
        assert_eq!(
            (&found.missing, &found.unexpected),
            (&vec![], &vec![]),
            "{name}"
        );
        assert_eq!(found.layers.len(), 3);
        for (depth, layer) in found.layers.iter().enumerate() {
            assert_eq!(layer.depth, Some(depth));
            assert_eq!(layer.prefix, format!("model.layers.{depth}.self_attn."));
            let heads = HeadLayout {
                pairing: Pairing::Halves,
                kv_repeat: None,
                ratio: None,
                heads: 4,
                groups: Some(groups),
                head_dim: 8,
                head_width: 16,
            };
            assert_eq!(
                (layer.heads, layer.embed_dim, layer.norm_weight),
                (heads, 64, false)
            );
            assert_eq!(layer.version, LayerVersion::V1(LambdaForm::Vectors));
            assert_eq!(layer.eps, eps);
            assert!(layer.is_causal && layer.rope.is_some_and(|rope| !rope.interleaved));
        }
        let warnings: &[&str] = match name {
            "diffllama_llama3_rope" => &[
                "config.json scales the rotary embedding (llama3): the layers given here have the unscaled one",
            ],
            _ => &[],
        };
        assert_eq!(found.warnings, warnings, "{name}");
        assert_eq!(found.dtypes.len(), 1);
        assert_eq!(found.dtypes[0].elements, found.parameters);
        assert!(parameters.is_none_or(|parameters| parameters == found.parameters));
    }
}

#[test]
fn motif() {
    for (name, heads, groups, head_dim, ratio, layers) in [
        ("motif_v1", 4, 4, 8, None, 2),
        ("motif_v1_bf16", 4, 4, 8, None, 3),
        ("motif_v1_gqa", 4, 2, 8, None, 2),
        ("motif_gda", 8, 2, 12, Some(4), 2),
        ("motif_gda_shared_kv", 8, 2, 8, Some(2), 2),
    ] {
        let upper = |config: String| config.replace("\"motif\"", "\"Motif\"");
        assert_eq!(model(name, upper), model(name, |config| config));
        let found = model(name, |config| config);
        assert_eq!(found.architecture, Some(Architecture::Motif), "{name}");
        let none = vec![""; 0];
        assert_eq!(found.missing, none, "{name}");
        assert_eq!(found.unexpected, none, "{name}");
        assert_eq!(found.warnings, none, "{name}");
        assert_eq!(found.layers.len(), layers);
        for (depth, layer) in found.layers.iter().enumerate() {
            let pairing = match ratio {
                None => Pairing::Interleaved,
                Some(_) => Pairing::Grouped,
            };
            let layout = HeadLayout {
                pairing,
                kv_repeat: None,
                ratio,
                heads,
                groups: Some(groups),
                head_dim,
                head_width: 2 * head_dim,
            };
            assert_eq!((layer.heads, layer.depth), (layout, Some(depth)), "{name}");
            assert_eq!((layer.eps, layer.norm_weight), (1e-5, true));
            assert_eq!(
                layer.lambda_init,
                Some(diffattn::lambda_init(depth as f64 - 1.0))
            );
            assert!(layer.is_causal && layer.rope.is_some_and(|rope| !rope.interleaved));
            let json = ok(serde_json::to_string(layer));
            assert_eq!(&ok(Layer::from_json(&json)), layer);
            // Its λ_init is not what other layouts say of the same depth.
            ok(layer.check_target(&LayerTarget::keep(&layer.heads)));
            let (code, sentence) = refusal(layer.check_target(&LayerTarget::unilm()));
            assert_eq!(code, "OPTION");
            assert!(
                sentence.starts_with("layout: expected the layout that the layer has"),
                "{sentence}"
            );
        }
    }
    // Without a configuration its tensors tell.
    let shards = ok(Shards::open(models().join("motif_gda")));
    let found = ok(inspect(shards.entries(), None));
    assert_eq!(found.architecture, Some(Architecture::Motif));
}

#[test]
fn odd_motifs() {
    for (from, to, warnings) in [
        (
            "\"num_noise_heads\": 2",
            "\"num_noise_heads\": 5",
            &["config.json says num_noise_heads 5, but the tensors have 2"][..],
        ),
        (
            "\"num_key_value_heads\": 4",
            "\"num_key_value_heads\": 2",
            &["config.json says num_key_value_heads 2, but the tensors have 4"],
        ),
        (
            "\"num_attention_heads\": 10",
            "\"num_attention_heads\": 12",
            &["config.json says num_attention_heads 12, but q_proj has 10 flat heads"],
        ),
        (
            "\"model_type\": \"motif\"",
            "\"model_type\": \"llama\"",
            &["config.json says Hugging Face llama, but the tensors are those of Motif"],
        ),
    ] {
        let found = model("motif_gda", |config| {
            assert!(config.contains(from), "{config}");
            config.replace(from, to)
        });
        assert_eq!(found.architecture, Some(Architecture::Motif));
        assert_eq!(found.warnings, warnings);
    }
    let found = model("motif_gda", |config| {
        config.replace("\"use_bias\": false", "\"use_bias\": true")
    });
    assert_eq!(found.missing.len(), 14);
    let found = model("motif_v1_gqa", |config| {
        config.replace("\"use_bias\": true", "\"use_bias\": false")
    });
    assert_eq!(
        found.warnings,
        ["config.json says use_bias false, yet there are biases: they are used"]
    );
    assert_eq!(found.unexpected.len(), 6);
}

/// By hand: 97 · 64 · 2 embeddings, 3 layers of 3 · 112 · 64 + 2 · 64² + 2 · 32 · 64 + 2 · 64 + 4 ·
/// 8, and a norm of 64.
#[test]
fn parameters() {
    let layer = 3 * 112 * 64 + 2 * 64 * 64 + 2 * 32 * 64 + 2 * 64 + 4 * 8;
    assert_eq!(
        model("diffllama_gqa", |config| config).parameters,
        97 * 64 * 2 + 3 * layer + 64
    );
}

#[test]
fn diff_vit() {
    let found = model("diff_vit", |config| config);
    assert_eq!(found.architecture, Some(Architecture::TimmDiffVit));
    assert_eq!((&found.missing, &found.warnings), (&vec![], &vec![]));
    assert_eq!(found.layers.len(), 3);
    for layer in &found.layers {
        let HeadLayout {
            pairing,
            heads,
            groups,
            head_dim,
            head_width,
            ..
        } = layer.heads;
        assert_eq!(
            (pairing, heads, groups, head_dim, head_width),
            (Pairing::Interleaved, 2, Some(2), 16, 32)
        );
        assert!(layer.norm_weight && !layer.is_causal && layer.rope.is_none());
        let rows = |name: &str| layer.pieces[name].rows.clone();
        assert_eq!(
            [
                rows("q_proj.weight"),
                rows("k_proj.bias"),
                rows("v_proj.weight")
            ],
            [Some(0..64), Some(64..128), Some(128..192)]
        );
        assert_eq!(
            layer.pieces["out_proj.bias"].tensor,
            format!("{}proj.bias", layer.prefix)
        );
    }
}

#[test]
fn modules() {
    for (name, architecture, heads, groups, head_dim, warnings) in [
        ("v1_flash_gqa", Architecture::UnilmV1, 4, 2, 16, 2),
        ("v1_flash_mha", Architecture::UnilmV1, 2, 2, 16, 1),
        ("v1_naive_gqa", Architecture::UnilmV1, 4, 2, 16, 2),
        ("v2_gqa", Architecture::UnilmV2, 4, 2, 16, 0),
        ("v2_mha", Architecture::UnilmV2, 2, 2, 32, 0),
    ] {
        let shards = ok(Shards::open(
            fixtures().join(format!("modules/{name}.safetensors")),
        ));
        let found = ok(inspect(shards.entries(), None));
        assert_eq!(found.architecture, Some(architecture), "{name}");
        let [layer] = found.layers.as_slice() else {
            panic!("{name}: {found:?}");
        };
        assert_eq!(layer.prefix, "weights.");
        assert_eq!(
            (layer.heads.heads, layer.heads.groups, layer.heads.head_dim),
            (heads, Some(groups), head_dim),
            "{name}"
        );
        assert_eq!(layer.heads.ratio, None);
        assert_eq!(
            found.warnings.len(),
            warnings,
            "{name}: {:?}",
            found.warnings
        );
        // Float32 and the float64 results.
        assert_eq!(found.dtypes.len(), 2);
    }
}

/// The sentences on what is odd.
#[test]
fn odd() {
    let replaced = |from: &'static str, to: &'static str| {
        move |config: String| {
            assert!(config.contains(from), "{config}");
            config.replace(from, to)
        }
    };
    let name = "diffllama_gqa";
    for (from, to, sentence) in [
        (
            "\"head_dim\": 8,\n  \"hidden_act\": \"silu\",\n  \"hidden_size\": 64,\n  \"initializer_range\": 0.02,\n  \"intermediate_size\": 112,\n  \"lambda_std_dev\": 0.1,\n  \"max_position_embeddings\": 128,\n  \"model_type\": \"diffllama\",\n  \"num_attention_heads\": 8",
            "\"hidden_size\": 64, \"model_type\": \"diffllama\", \"num_attention_heads\": 4",
            "config.json says num_attention_heads 4, which makes head_dim 16, but model.layers.0.self_attn.lambda_q1 has 8 values: it seems to count output heads; diffllama counts flat heads, of which q_proj has 8",
        ),
        (
            "\"head_dim\": 8",
            "\"head_dim\": 16",
            "config.json says head_dim 16, but model.layers.0.self_attn.lambda_q1 has 8 values: it seems to count output heads; diffllama counts flat heads, of which q_proj has 8",
        ),
        (
            "\"head_dim\": 8",
            "\"head_dim\": 4",
            "config.json says head_dim 4, but model.layers.0.self_attn.lambda_q1 has 8 values: q_proj has 8 flat heads",
        ),
        (
            "\"num_attention_heads\": 8",
            "\"num_attention_heads\": 4",
            "config.json says num_attention_heads 4, but q_proj has 8 flat heads",
        ),
        (
            "\"num_key_value_heads\": 4",
            "\"num_key_value_heads\": 2",
            "config.json says num_key_value_heads 2, but the tensors have 4",
        ),
        (
            "\"vocab_size\": 97",
            "\"vocab_size\": 96",
            "config.json says vocab_size 96, but the tensors have 97",
        ),
        (
            "\"intermediate_size\": 112",
            "\"intermediate_size\": 110",
            "config.json says intermediate_size 110, but the tensors have 112",
        ),
        (
            "\"hidden_size\": 64",
            "\"hidden_size\": 32",
            "config.json says hidden_size 32, but the tensors have 64",
        ),
        (
            "\"tie_word_embeddings\": false",
            "\"tie_word_embeddings\": true",
            "config.json ties the embeddings, yet there is lm_head.weight: the file's own head is used",
        ),
        (
            "\"num_hidden_layers\": 3",
            "\"num_hidden_layers\": 4",
            "config.json says 4 layers, but the tensors have 3",
        ),
    ] {
        let found = model(name, replaced(from, to));
        assert_eq!(found.warnings, [sentence]);
        assert_eq!(
            found.missing.len(),
            if sentence.contains("4 layers") { 13 } else { 0 },
            "{:?}",
            found.missing
        );
    }
    // A number in a configuration makes no endless list.
    let found = model(
        name,
        replaced(
            "\"num_hidden_layers\": 3",
            "\"num_hidden_layers\": 18446744073709551615",
        ),
    );
    assert!(found.missing.len() < 1000, "{}", found.missing.len());
    let found = model("diff_vit", replaced("\"num_heads\": 2", "\"num_heads\": 4"));
    assert_eq!(
        found.warnings,
        ["config.json says num_heads 4, but the tensors have 2"]
    );
    assert_eq!(
        refusal(inspect([], Some("[]"))),
        (
            "FILE",
            "config.json: expected a JSON object, got []".to_owned()
        )
    );
}

/// Tensors that are gone, too many, or of other shapes.
#[test]
fn incomplete() {
    let folder = models().join("diffllama_gqa");
    let shards = ok(Shards::open(&folder));
    let config = std::fs::read_to_string(folder.join("config.json")).unwrap_or_default();
    let gone = [
        "model.layers.1.self_attn.lambda_k2",
        "model.norm.weight",
        "model.layers.2.mlp.up_proj.weight",
    ];
    let mut list: Vec<Entry> = shards
        .entries()
        .filter(|entry| !gone.contains(&entry.name.as_str()))
        .cloned()
        .collect();
    list.extend(entries(&[("model.layers.0.extra", &[1])]));
    let found = ok(inspect(&list, Some(&config)));
    assert_eq!(found.missing, {
        let mut gone = gone;
        gone.sort_unstable();
        gone
    });
    assert_eq!(found.unexpected, ["model.layers.0.extra"]);

    let found = ok(inspect(&entries(&[("x", &[2])]), None));
    assert_eq!((found.architecture, found.parameters), (None, 2));
    assert_eq!(
        found.warnings,
        ["there is no differential attention that is known in it"]
    );

    let module = |q: &'static [usize], lambda: &'static [usize]| {
        entries(&[
            ("attn.q_proj.weight", q),
            ("attn.k_proj.weight", &[16, 16]),
            ("attn.v_proj.weight", &[16, 16]),
            ("attn.out_proj.weight", &[16, 16]),
            ("attn.lambda_q1", lambda),
            ("attn.subln.weight", &[8]),
        ])
    };
    for (q, lambda, sentence) in [
        (
            &[16, 16][..],
            &[5][..],
            "attn is no layer: out_proj.weight's second axis 16 is no multiple of 10",
        ),
        (
            &[18, 16],
            &[4],
            "attn is no layer: q_proj.weight's first axis 18 is no multiple of 4",
        ),
        (
            &[8, 16],
            &[4],
            "attn is no layer: 2 q heads of 4 are too few for 2 output heads",
        ),
        (
            &[16],
            &[4],
            "attn is no layer: q_proj.weight has shape [16], not two axes",
        ),
        (
            &[16, 16],
            &[0],
            "attn is no layer: out_proj.weight's second axis 16 is no multiple of 0",
        ),
        (
            &[16, 16],
            &[usize::MAX],
            "attn is no layer: out_proj.weight's second axis 16 is no multiple of 18446744073709551615",
        ),
    ] {
        let found = ok(inspect(&module(q, lambda), None));
        assert_eq!(found.warnings, [sentence]);
        assert!(found.layers.is_empty());
        assert_eq!(found.missing.len(), 3, "the other λ vectors");
    }
}

/// A fixture's tensors, renamed.
fn renamed(name: &str, rename: impl Fn(&str) -> String) -> Vec<Entry> {
    let shards = ok(Shards::open(models().join(name)));
    let renamed = |entry: &Entry| Entry {
        name: rename(&entry.name),
        ..entry.clone()
    };
    shards.entries().map(renamed).collect()
}

fn config(name: &str) -> String {
    let path = models().join(name).join("config.json");
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What wraps a model, and what a model without its head lacks: known as what it is, and told.
#[test]
fn names_with_prefixes() {
    for (name, prefix) in [
        ("diffllama_gqa", "_orig_mod."),
        ("diffllama_gqa", "module._orig_mod."),
        ("diffllama_bias", "base_model.model."),
        ("diff_vit", "_orig_mod.module."),
    ] {
        let plain = ok(inspect(&renamed(name, str::to_owned), Some(&config(name))));
        let wrapped = renamed(name, |name| format!("{prefix}{name}"));
        let found = ok(inspect(&wrapped, Some(&config(name))));
        assert_eq!(found.architecture, plain.architecture);
        assert_eq!(
            (found.missing, found.unexpected),
            (vec![], vec![]),
            "{prefix}"
        );
        assert_eq!(found.layers.len(), plain.layers.len());
        // Where the tensors are is told by the file's own names.
        assert_eq!(
            found.layers[1].prefix,
            format!("{prefix}{}", plain.layers[1].prefix)
        );
        let [warning] = found.warnings.as_slice() else {
            panic!("{:?}", found.warnings);
        };
        assert!(warning.contains("prefix"), "{warning}");
    }
    // The head of a base model is its table.
    let base = renamed("diffllama_mha", |name| name.replacen("model.", "", 1));
    let found = ok(inspect(&base, Some(&config("diffllama_mha"))));
    assert_eq!((found.missing, found.unexpected), (vec![], vec![]));
    assert_eq!(
        found.warnings,
        [
            "names of tensors lack the prefix model., as a base model's do: it is read as if it were there"
        ]
    );
    // What is missing has the model's name.
    let mut less = renamed("diffllama_mha", |name| format!("module.{name}"));
    less.retain(|entry| !entry.name.ends_with("layers.1.self_attn.lambda_k2"));
    let found = ok(inspect(&less, Some(&config("diffllama_mha"))));
    assert_eq!(found.missing, ["model.layers.1.self_attn.lambda_k2"]);
    // A prefix that nobody knows: what a load refuses is not passed over.
    let foreign = renamed("diffllama_mha", |name| format!("x.{name}"));
    let found = ok(inspect(&foreign, Some(&config("diffllama_mha"))));
    assert_eq!(found.unexpected.len(), foreign.len());
    assert!(found.missing.contains(&"model.norm.weight".to_owned()));
    // Two names that are one.
    let mut twice = renamed("diffllama_mha", str::to_owned);
    twice.push(Entry {
        name: "module.model.norm.weight".to_owned(),
        ..twice[0].clone()
    });
    let found = ok(inspect(&twice, Some(&config("diffllama_mha"))));
    assert!(
        found
            .warnings
            .iter()
            .any(|warning| warning.contains("are one weight"))
    );
}

/// What a checkpoint has besides what a model needs is said, and nothing is missing.
#[test]
fn more_than_a_model_needs() {
    let name = "diffllama_mha";
    let of = |change: &dyn Fn(&mut Vec<Entry>), config: &str| {
        let mut entries = renamed(name, str::to_owned);
        change(&mut entries);
        let found = ok(inspect(&entries, Some(config)));
        assert!(found.missing.is_empty(), "{:?}", found.missing);
        (found.warnings, found.unexpected)
    };
    let plain = config(name);
    let head = |entries: &mut Vec<Entry>| {
        for entry in entries {
            if entry.name == "model.embed_tokens.weight" {
                entry.name = "lm_head.weight".to_owned();
            }
        }
    };
    assert_eq!(
        of(&head, &plain).0,
        ["there are no embeddings: lm_head.weight, to which config.json ties them, is both"]
    );
    let wide = |entries: &mut Vec<Entry>| entries[3].dtype = Dtype::F64;
    let (warnings, unexpected) = of(&wide, &plain);
    assert!(
        warnings[0].starts_with("there are elements of F64 (model."),
        "{warnings:?}"
    );
    assert!(unexpected.is_empty());
    let value =
        |list: &mut Vec<Entry>| list.extend(entries(&[("v_head.summary.weight", &[1, 64])]));
    assert_eq!(
        of(&value, &plain),
        (vec![], vec!["v_head.summary.weight".to_owned()])
    );
    let fewer = plain.replace("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 2");
    let (warnings, unexpected) = of(&|_| (), &fewer);
    assert_eq!(
        warnings,
        ["config.json says 2 layers, but the tensors have 3"]
    );
    assert!(unexpected.len() == 13 && unexpected[0].starts_with("model.layers.2."));
    let biased =
        config("diffllama_bias").replace("\"attention_bias\": true", "\"attention_bias\": false");
    let found = ok(inspect(
        &renamed("diffllama_bias", str::to_owned),
        Some(&biased),
    ));
    assert_eq!(
        (found.warnings, found.unexpected),
        (
            vec![
                "config.json says attention_bias false, yet there are biases: they are used"
                    .to_owned()
            ],
            vec![]
        )
    );
    let mut vit = renamed("diff_vit", str::to_owned);
    vit.extend(entries(&[("head_dist.weight", &[1])]));
    let found = ok(inspect(&vit, Some(&config("diff_vit"))));
    assert_eq!(found.unexpected, ["head_dist.weight"]);
}

/// A layer read from a file is in place, and of its own type.
#[test]
fn read() {
    // SAFETY: the project's own files stay as they are.
    let shards = ok(unsafe { Shards::map(models().join("diff_vit")) });
    let found = ok(inspect(shards.entries(), None));
    let weights = ok(found.layers[1].read(&shards));
    assert_eq!(weights["q_proj.weight"].shape(), [64, 64]);
    assert_eq!(weights["v_proj.bias"].shape(), [64]);
    let whole = ok(shards.raw("blocks.1.attn.qkv.weight"));
    assert_eq!(
        weights["k_proj.weight"].bytes(),
        &whole.bytes()[64 * 64 * 4..2 * 64 * 64 * 4]
    );
    let floats = ok(weights["k_proj.weight"].floats("k"));
    assert!(floats.is_borrowed());
    assert_eq!(floats.tensor().data.dtype(), DType::F32);
}

#[test]
fn llama() {
    let found = model("llama", |config| config);
    assert_eq!(found.architecture, Some(Architecture::Llama));
    assert_eq!(
        (&found.missing, &found.unexpected, &found.warnings),
        (&vec![], &vec![], &vec![])
    );
    assert!(found.layers.is_empty());
    assert_eq!(found.plain_layers.len(), 2);
    for (depth, layer) in found.plain_layers.iter().enumerate() {
        assert_eq!(layer.depth, Some(depth));
        assert_eq!(layer.prefix, format!("model.layers.{depth}.self_attn."));
        let heads = PlainHeads {
            heads: 6,
            groups: 2,
            head_dim: 8,
        };
        assert_eq!((layer.heads, layer.embed_dim), (Some(heads), 48));
        assert!(layer.is_causal && !layer.rope.interleaved);
        assert_eq!(layer.rope.frequencies.theta, Some(10_000.0));
    }
    let layer = 2 * 48 * 48 + 2 * 16 * 48 + 3 * 64 * 48 + 2 * 48;
    assert_eq!(found.parameters, 2 * 59 * 48 + 2 * layer + 48);
}

/// What a configuration claims and the tensors are not is said.
#[test]
fn odd_llamas() {
    let warnings = |from: &str, to: &str| {
        let found = model("llama", |config| config.replace(from, to));
        assert_eq!(found.architecture, Some(Architecture::Llama));
        found.warnings
    };
    for (from, to, sentence) in [
        (
            "\"num_attention_heads\": 6",
            "\"num_attention_heads\": 12",
            "config.json says num_attention_heads 12 and head_dim 8, which the rows of model.layers.0.self_attn.q_proj and k_proj are not",
        ),
        (
            "\"num_key_value_heads\": 2",
            "\"num_key_value_heads\": 6",
            "config.json says num_key_value_heads 6, but the tensors have 2",
        ),
        (
            "\"intermediate_size\": 64",
            "\"intermediate_size\": 65",
            "config.json says intermediate_size 65, but the tensors have 64",
        ),
        (
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 1",
            "config.json says 1 layers, but the tensors have 2",
        ),
        (
            "\"model_type\": \"llama\"",
            "\"model_type\": \"diffllama\"",
            "config.json says Hugging Face diffllama, but the tensors are those of Hugging Face llama",
        ),
    ] {
        let found = warnings(from, to);
        assert!(found.iter().any(|said| said == sentence), "{found:?}");
    }
    // A model of another kind, although the names are the same.
    let other = model("llama", |config| {
        config.replace("\"model_type\": \"llama\"", "\"model_type\": \"mistral\"")
    });
    assert_eq!((other.architecture, other.plain_layers.len()), (None, 0));
    // A DIFF Llama under a plain one's name.
    let other = model("diffllama_gqa", |config| {
        config.replace("diffllama", "llama")
    });
    assert_eq!(other.architecture, Some(Architecture::DiffLlama));
    assert!(other.warnings.iter().any(|said| said
        == "config.json says Hugging Face llama, but the tensors are those of Hugging Face diffllama"));

    // Without a configuration names tell the architecture, not the heads.
    let shards = ok(Shards::open(models().join("llama")));
    let mut entries: Vec<Entry> = shards.entries().cloned().collect();
    let found = ok(inspect(&entries, None));
    assert_eq!(found.architecture, Some(Architecture::Llama));
    assert!(found.plain_layers.iter().all(|layer| layer.heads.is_none()));
    assert_eq!(
        found.warnings,
        ["no config.json says how many heads q_proj and k_proj have"]
    );
    // What is gone or too many is named, of a tied head and wrapped names, too.
    let config = std::fs::read_to_string(models().join("llama/config.json")).unwrap_or_default();
    entries.retain(|entry| {
        entry.name != "lm_head.weight" && entry.name != "model.layers.1.mlp.up_proj.weight"
    });
    for entry in &mut entries {
        entry.name.insert_str(0, "_orig_mod.");
    }
    entries.push(Entry {
        name: "model.layers.0.mlp.up_proj.bias".to_owned(),
        ..entries[0].clone()
    });
    let found = ok(inspect(&entries, Some(&config)));
    assert_eq!(
        found.missing,
        ["lm_head.weight", "model.layers.1.mlp.up_proj.weight"]
    );
    assert_eq!(found.unexpected, ["model.layers.0.mlp.up_proj.bias"]);
    assert_eq!(
        found.plain_layers[0].prefix,
        "_orig_mod.model.layers.0.self_attn."
    );
    let tied = config.replace(
        "\"tie_word_embeddings\": false",
        "\"tie_word_embeddings\": true",
    );
    let found = ok(inspect(&entries, Some(&tied)));
    assert_eq!(found.missing, ["model.layers.1.mlp.up_proj.weight"]);
    let biased = config.replace("\"mlp_bias\": false", "\"mlp_bias\": true");
    let found = ok(inspect(&entries, Some(&biased)));
    assert_eq!(found.missing.len(), 2 + 5);
    assert_eq!(found.unexpected.len(), 0);
}

#[test]
fn converted_llamas() {
    let v1 = ConversionKind::V1;
    let listed = |heads: [[usize; 3]; 2]| heads.map(|list| HeadChoice::Listed(list.to_vec()));
    let all = [HeadChoice::All, HeadChoice::All];
    for (name, kind, differential) in [
        (
            "share_half",
            ConversionKind::V2,
            listed([[0, 2, 4], [3, 4, 5]]),
        ),
        ("v2_mirror_lambda_0_3", ConversionKind::V2, all.clone()),
        ("v1_zero_scalars", v1(LambdaForm::Scalars), all.clone()),
        ("v1_mirror_half", v1(LambdaForm::Vectors), all),
        (
            "dex_trained",
            ConversionKind::Dex,
            listed([[1, 3, 5], [0, 1, 2]]),
        ),
    ] {
        let found = model(&format!("diffattn_llama/{name}"), |config| config);
        assert_eq!(found.architecture, Some(Architecture::DiffAttnLlama));
        assert_eq!(
            (&found.missing, &found.unexpected, &found.warnings),
            (&vec![], &vec![], &vec![]),
            "{name}"
        );
        assert!(found.layers.is_empty() && found.plain_layers.is_empty());
        assert_eq!(found.converted_layers.len(), 2);
        let layers = found.converted_layers.iter().zip(differential);
        for (depth, (layer, differential)) in layers.enumerate() {
            assert_eq!(layer.plain.depth, Some(depth));
            let heads = PlainHeads {
                heads: 6,
                groups: 2,
                head_dim: 8,
            };
            assert_eq!(layer.plain.heads, Some(heads), "{name}");
            assert_eq!(layer.kind, kind, "{name}");
            assert_eq!(layer.differential, Some(differential), "{name}");
        }
    }
}

/// Where a configuration and the tensors disagree, and what is gone or too many.
#[test]
fn odd_converted_llamas() {
    let found = model("diffattn_llama/share_half", |config| {
        config.replace("    4\n   ],", "    4,\n    5\n   ],")
    });
    assert_eq!(
        found.warnings,
        [
            "config.json says 4 differential heads in layer 0, with which model.layers.0.self_attn.q_proj \
             would have 80 rows, but it has 72"
        ]
    );
    assert_eq!(found.converted_layers[0].differential, None);
    let second = HeadChoice::Listed(vec![3, 4, 5]);
    assert_eq!(found.converted_layers[1].differential, Some(second));

    let folder = models().join("diffattn_llama/v1_zero_vectors");
    let config = std::fs::read_to_string(folder.join("config.json")).unwrap_or_default();
    let shards = ok(Shards::open(&folder));
    let mut entries: Vec<Entry> = shards.entries().cloned().collect();
    let gone = [
        "model.layers.0.self_attn.lambda_k2",
        "model.layers.1.mlp.up_proj.weight",
    ];
    entries.retain(|entry| !gone.contains(&entry.name.as_str()));
    let more = "model.layers.0.self_attn.lambda_a".to_owned();
    entries.push(Entry {
        name: more.clone(),
        ..entries[0].clone()
    });
    let found = ok(inspect(&entries, Some(&config)));
    assert_eq!(
        (found.missing, found.unexpected),
        (gone.map(str::to_owned).to_vec(), vec![more])
    );
}
