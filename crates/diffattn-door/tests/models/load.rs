//! Models made part by part.

use crate::common::{Folder, Request, assert_has, info, ok, parts, refusal};
use crate::llama::{PLAIN, forward};
use diffattn_door::Door;
use serde_json::{Value, json};

#[test]
fn what_a_model_says_of_itself() {
    let door = Door::new();
    let folder = Folder::fixture("diffllama_gqa");
    let model = ok(folder.create(&door, &folder.entries(&door)));
    let said = info(&door, model);
    let expected = json!({
        "vocab_size": 97, "head_dim": 8, "num_key_value_heads": 4, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": false, "rope_theta": 10000.0, "hidden_act": "silu", "lambda_std_dev": 0.1,
    });
    assert_has(&said["config"], &expected);
    let parts = said["parts"].as_array().map_or(0, Vec::len);
    assert_eq!(parts, 2 + 3 + 1);
    assert_eq!(said["parts"][0], json!(["model.embed_tokens.weight"]));
    assert_eq!(said["parts"][1], json!(["lm_head.weight"]));
    assert_eq!(said["parts"][5], json!(["model.norm.weight"]));
    assert_eq!(said["parts"][2].as_array().map_or(0, Vec::len), 13);
    // Two tables, three layers (norms, MLP, q, o, k, v, λ), the last norm.
    let layer = 2 * 64 + 3 * 64 * 112 + 2 * 64 * 64 + 2 * 32 * 64 + 4 * 8;
    let parameters = 2 * 97 * 64 + 3 * layer + 64;
    let told = (&said["parameters"], &said["dtype"]);
    assert_eq!(told, (&json!(parameters), &json!("float32")));

    let folder = Folder::fixture("llama");
    let model = ok(folder.create(&door, &folder.entries(&door)));
    let plain = info(&door, model);
    assert_eq!(
        (&said["family"], &plain["family"]),
        (&json!("diffllama"), &json!("llama"))
    );
    let expected = json!({
        "model_type": "llama", "vocab_size": 59, "num_key_value_heads": 2, "mlp_bias": false, "eos_token_id": 2,
    });
    assert_has(&plain["config"], &expected);
    assert!(plain["config"].get("lambda_std_dev").is_none());
    assert_eq!(plain["parts"].as_array().map_or(0, Vec::len), 2 + 2 + 1);
    assert_eq!(plain["parts"][2].as_array().map_or(0, Vec::len), 9);

    let folder = Folder::fixture("diffattn_llama/share_half");
    let model = ok(folder.create(&door, &folder.entries(&door)));
    let converted = info(&door, model);
    assert_eq!(converted["family"], "diffattn_llama");
    // Its own entries stay, those of objects, too.
    let expected = json!({ "version": 1, "kind": "v2", "heads": [[0, 2, 4], [3, 4, 5]],
        "order": "appended", "lambda": "sigmoid", "share": 0.5, "mix": 1.0 });
    assert_eq!(converted["config"]["diff_attention"], expected);
    assert_eq!(converted["parts"][2].as_array().map_or(0, Vec::len), 10);

    let folder = Folder::fixture("diff_vit");
    let model = ok(folder.create(&door, &folder.entries(&door)));
    let said = info(&door, model);
    assert_eq!(said["family"], "diff_vit");
    let expected = json!({
        "img_size": 64, "patch_size": 16, "depth": 3, "num_heads": 2, "mlp_ratio": 5.0,
        "interpolation": "bicubic", "mean": [0.5, 0.5, 0.5],
    });
    assert_has(&said["config"], &expected);
    assert_eq!(said["parts"].as_array().map_or(0, Vec::len), 1 + 3 + 1);
}

#[test]
fn parts_come_in_any_order_and_a_cancelled_one_changes_nothing() {
    let folder = Folder::fixture("diffllama_gqa");
    let door = Door::new();
    let model = ok(folder.create(&door, &folder.entries(&door)));
    let use_it = || forward(model, &[1], &[1, 1], &PLAIN).run(&door, 80);
    assert_eq!(
        refusal(use_it()),
        (
            "OPTION",
            "model: expected one with all of its 6 parts, got one without part 0".into()
        )
    );
    let list = parts(&door, model);
    for (part, names) in list.iter().enumerate().rev() {
        let request = folder.part(model, part, names);
        for steps in 0..3 {
            if let Some(outputs) = ok(request.run_for(&door, 73, steps)) {
                panic!("a part of {} units: {outputs:?}", steps + 1);
            }
            if steps + 1 == units(&request, &door) {
                break;
            }
        }
        assert_eq!(refusal(use_it()).0, "OPTION", "part {part}");
        assert_eq!(ok(request.run(&door, 73)), []);
        assert_eq!(
            refusal(request.run(&door, 73)),
            (
                "OPTION",
                format!("part: expected one that is not loaded yet, got {part}, which is")
            )
        );
    }
    ok(use_it());
    let request = Request::default().n(&[model, 6.0, 0.0]);
    assert_eq!(
        refusal(request.run(&door, 73)),
        (
            "OPTION",
            "part: expected one of 6 parts, counted from 0, got 6".into()
        )
    );
}

fn units(request: &Request, door: &Door) -> usize {
    let call = ok(request.call(door, 73));
    let mut job = ok(call.prepare(&request.operands()));
    ok(job.bind(Vec::new()));
    job.total()
}

/// What is wrong with entries is known before there is an element.
#[test]
fn wrong_entries_are_refused_at_once() {
    let folder = Folder::fixture("diffllama_gqa");
    let door = Door::new();
    let entries = folder.entries(&door);
    let refused = |change: &dyn Fn(&mut Vec<Value>)| {
        let mut changed = match &entries {
            Value::Array(entries) => entries.clone(),
            other => panic!("{other}"),
        };
        change(&mut changed);
        refusal(folder.create(&door, &Value::Array(changed)))
    };
    let (code, sentence) = refused(&|entries| {
        entries.retain(|entry| entry["name"] != "model.layers.2.mlp.up_proj.weight");
    });
    assert_eq!(code, "FILE");
    assert_eq!(
        sentence,
        "weights.model.layers.2.mlp.up_proj.weight: expected a tensor of shape [112, 64], got none"
    );
    let (code, sentence) = refused(&|entries| {
        for entry in entries {
            if entry["name"] == "model.norm.weight" {
                entry["dtype"] = "I32".into();
            }
        }
    });
    assert_eq!(code, "FILE");
    assert_eq!(
        sentence,
        "weights.model.norm.weight: expected elements of F64, F32, F16 or BF16, got I32"
    );
    let (_, sentence) = refused(&|entries| {
        for entry in entries {
            if entry["name"] == "model.embed_tokens.weight" {
                entry["shape"] = json!([98, 64]);
            }
        }
    });
    assert_eq!(
        sentence,
        "weights.model.embed_tokens.weight: expected a tensor of shape [97, 64], got [98, 64]"
    );
    let (_, sentence) = refused(&|entries| entries.push(entries[0].clone()));
    assert!(sentence.ends_with("expected one weight of this name, got more than one"));
    let (code, _) = refused(&|entries| entries[0]["dtype"] = "F31".into());
    assert_eq!(code, "FILE");
    // A config that asks for more than there can be makes nothing of it.
    let config = folder.text("config.json");
    let create = |config: &str| {
        let request = Request::default().n(&[0.0]).text(config).n(&[0.0]);
        refusal(
            request
                .text(&entries.to_string())
                .n(&[0.0, 0.0])
                .query(&door, 96),
        )
    };
    let many = config.replace(
        "\"num_hidden_layers\": 3",
        "\"num_hidden_layers\": 4000000000",
    );
    assert_eq!(create(&many).0, "FILE");
    let (code, sentence) = create(&config.replace("\"vocab_size\": 97", "\"vocab_size\": 0"));
    assert_eq!(code, "FILE");
    assert!(sentence.starts_with("config.vocab_size: "), "{sentence}");
    assert_eq!(create("[").0, "FILE");
    let (code, sentence) = create(&config.replace("diffllama", "llama"));
    assert_eq!(code, "FILE");
    assert_eq!(
        sentence,
        "config.model_type: expected \"diffllama\", as the weights have λ (model.layers.0.self_attn.lambda_k1), got \"llama\""
    );
    let (_, sentence) = create(&config.replace("diffllama", "gpt2"));
    assert_eq!(
        sentence,
        "config.model_type: expected one of \"diffllama\", \"llama\", \"diffattn_llama\", \"motif\", \"phi4flash\", got \"gpt2\""
    );
    let not_text = Request::default().n(&[0.0]).u8(&[0xff]).n(&[0.0]);
    assert_eq!(
        refusal(not_text.text("[]").n(&[0.0, 0.0]).query(&door, 96)).0,
        "FILE"
    );
}

/// Weights that are not as their entries said.
#[test]
fn wrong_parts_are_refused() {
    let folder = Folder::fixture("diffllama_gqa");
    let door = Door::new();
    let model = ok(folder.create(&door, &folder.entries(&door)));
    let name = "model.norm.weight";
    let part = |dtype: &str, shape: &[usize], bytes: &[u8]| {
        let request = Request::default().n(&[model, 5.0, 1.0]);
        refusal(request.stored(name, dtype, shape, bytes).run(&door, 73))
    };
    assert_eq!(
        part("F16", &[64], &[0; 128]),
        (
            "FILE",
            "weights.model.norm.weight: expected a tensor of shape [64] and type F32, got [64] of F16".into()
        )
    );
    assert_eq!(part("F32", &[65], &[0; 260]).0, "FILE");
    assert_eq!(part("F32", &[64], &[0; 255]).0, "FILE");
    assert_eq!(part("F64", &[64], &[0; 512]).0, "FILE");
    assert_eq!(part("float", &[64], &[0; 256]).0, "FILE");
    assert_eq!(part("F32", &[1 << 40, 1 << 40], &[0; 256]).0, "FILE");
    let none = Request::default().n(&[model, 5.0, 0.0]);
    assert_eq!(refusal(none.run(&door, 73)).0, "FILE");
    let other = Request::default().n(&[model, 5.0, 2.0]);
    let other = other.stored(name, "F32", &[64], &[0; 256]);
    let twice = other.clone().stored(name, "F32", &[64], &[0; 256]);
    assert_eq!(refusal(twice.run(&door, 73)).0, "FILE");
    let other = other.stored("lm_head.weight", "F32", &[0], &[]);
    assert_eq!(
        refusal(other.run(&door, 73)),
        (
            "FILE",
            "weights.lm_head.weight: expected only the weights of part 5, got one of another"
                .into()
        )
    );
}

/// A model whose embeddings are its output projection, too, and half-precision weights.
#[test]
fn the_trained_model_is_loaded() {
    let folder = Folder::trained();
    let door = Door::new();
    let model = folder.load(&door);
    let (shape, ids) = folder.ids("0.input_ids");
    let got = ok(forward(model, &ids, &shape, &PLAIN).run(&door, 80));
    let direct = folder.llama();
    let expected = ok(direct.forward(
        diffattn_nn::TokenIds::i32(&ids, &shape),
        None,
        &diffattn_nn::DiffLlamaOptions::default(),
    ));
    assert_eq!(
        crate::common::bits(got[0].f32()),
        crate::common::bits(&expected.logits)
    );
}

/// A model of weights in F64 is that of the same weights in F32, and is told of, as are extra
/// weights.
#[test]
fn wide_weights_are_rounded() {
    let folder = Folder::fixture("diffllama_mha");
    let door = Door::new();
    let plain = folder.load(&door);
    assert_eq!(info(&door, plain)["notices"], json!([]));
    let mut entries = folder.entries(&door);
    for entry in entries.as_array_mut().into_iter().flatten() {
        entry["dtype"] = "F64".into();
    }
    if let Value::Array(list) = &mut entries {
        let mut extra = list[0].clone();
        extra["name"] = "v_head.weight".into();
        list.push(extra);
    }
    let model = ok(folder.create(&door, &entries));
    let notices = info(&door, model)["notices"].clone();
    assert_eq!(notices.as_array().map_or(0, Vec::len), 2, "{notices}");
    let file = folder.open("model.safetensors");
    for (part, names) in parts(&door, model).iter().enumerate() {
        let names: Vec<&str> = names
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let mut request = Request::default().n(&[model, part as f64, names.len() as f64]);
        for name in names {
            let tensor = ok(file.raw(name));
            let wide = ok(file.read_f32(name))
                .into_iter()
                .flat_map(|x| f64::from(x).to_le_bytes());
            request = request.stored(name, "F64", tensor.shape(), &wide.collect::<Vec<u8>>());
        }
        ok(request.run(&door, 73));
    }
    let logits = |model| ok(forward(model, &[1, 2, 3], &[1, 3], &PLAIN).run(&door, 80));
    let (got, expected) = (logits(model), logits(plain));
    assert_eq!(
        crate::common::bits(got[0].f32()),
        crate::common::bits(expected[0].f32())
    );
}
