//! Checkpoint files: headers, shards, inspection, element types, conversion.

use crate::common::{Folder, Request, ok, refusal};
use diffattn_door::Door;
use diffattn_nn::checkpoint::{
    Checkpoint, Dtype, Layer, LayerTarget, RawTensor, Shards, convert_layer, inspect,
};
use serde_json::{Value, json};

fn entry<'v>(tensors: &'v Value, name: &str) -> &'v Value {
    tensors
        .as_array()
        .into_iter()
        .flatten()
        .find(|entry| entry["name"] == name)
        .unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn entries_are_those_of_the_file() {
    let folder = Folder::fixture("diffllama_gqa");
    let tensors = folder.entries(&Door::new());
    let file = folder.open("model.safetensors");
    assert_eq!(tensors.as_array().map_or(0, Vec::len), file.entries().len());
    for entry in file.entries() {
        let said = self::entry(&tensors, &entry.name);
        assert_eq!(
            *said,
            json!({
                "name": entry.name, "dtype": entry.dtype.to_string(), "shape": entry.shape,
                "file": "model.safetensors", "range": [entry.range.start, entry.range.end],
            })
        );
    }
}

/// What a file begins with, of a header's JSON.
fn header(json: &str) -> Vec<u8> {
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend(json.as_bytes());
    bytes
}

fn file(request: Request, name: &str, first: &[u8], length: f64) -> Request {
    request.text(name).n(&[length]).u8(first)
}

#[test]
fn hostile_files_are_refused() {
    let door = Door::new();
    let ask = |first: &[u8], length: f64| {
        let request = Request::default().n(&[0.0, 1.0]);
        let request = file(request, "a_b.safetensors", first, length);
        request.n(&[0.0]).run(&door, 64)
    };
    let whole = |json: &str, data: f64| {
        let first = header(json);
        let length = first.len() as f64 + data;
        refusal(ask(&first, length))
    };
    for (json, data) in [
        ("[]", 0.0),
        ("{", 0.0),
        (
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#,
            4.0,
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
            5.0,
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
            8.0,
        ),
        (
            r#"{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}"#,
            4.0,
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296,4294967296],"data_offsets":[0,4]}}"#,
            4.0,
        ),
        (
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
            4.0,
        ),
    ] {
        let (code, sentence) = whole(json, data);
        assert_eq!(code, "FILE", "{json}");
        assert!(sentence.starts_with("a_b.safetensors"), "{sentence}");
    }
    // Lengths that are lies; more than 2³² bytes are none.
    assert_eq!(refusal(ask(&u64::MAX.to_le_bytes(), 1e15)).0, "FILE");
    assert_eq!(refusal(ask(&100u64.to_le_bytes(), 50.0)).0, "FILE");
    assert_eq!(refusal(ask(&[], 3.0)).0, "FILE");
    let large = ok(ask(&[], 9e15))[0].json();
    assert_eq!(large, json!({ "need": [8] }));
    for length in [-1.0, 0.5, f64::NAN, 1e300] {
        assert_eq!(refusal(ask(&[], length)).0, "OPTION", "{length}");
    }
    // Text in names does not become structure.
    let name = r#"\"}],\"need\":[1"#;
    let json = format!(r#"{{"{name}":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}}}"#);
    let first = header(&json);
    let found = ok(ask(&first, first.len() as f64 + 1.0))[0].json();
    assert_eq!(found["tensors"][0]["name"], "\"}],\"need\":[1");
    assert_eq!(found["need"], Value::Null);
}

#[test]
fn shards_are_one_checkpoint() {
    let door = Door::new();
    let one = header(
        r#"{"__metadata__":{"by":"us"},"b":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"extra":{"dtype":"U8","shape":[1],"data_offsets":[4,5]}}"#,
    );
    let two = header(
        r#"{"__metadata__":{"by":"them"},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}"#,
    );
    let index = r#"{"weight_map":{"a":"two","b":"one"}}"#;
    let name = "model.safetensors.index.json";
    let names = Request::default().text(name).text(index).n(&[0.0]);
    assert_eq!(ok(names.run(&door, 65))[0].json(), json!(["one", "two"]));
    let request = |index: &str| {
        let request = Request::default()
            .n(&[1.0])
            .text(name)
            .text(index)
            .n(&[2.0]);
        let request = file(request, "one", &one, one.len() as f64 + 5.0);
        file(request, "two", &two, two.len() as f64 + 4.0)
            .n(&[0.0])
            .run(&door, 64)
    };
    let found = ok(request(index))[0].json();
    let names: Vec<&Value> = found["tensors"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|entry| &entry["name"])
        .collect();
    assert_eq!(names, ["b", "a"]);
    assert_eq!(found["tensors"][1]["file"], "two");
    assert_eq!(found["metadata"], json!({ "by": "us" }));
    assert_eq!(
        refusal(request(r#"{"weight_map":{"a":"one","b":"one"}}"#)).0,
        "FILE"
    );
    let outside = Request::default()
        .text(name)
        .text(r#"{"weight_map":{"a":"../two"}}"#)
        .n(&[0.0]);
    assert_eq!(refusal(outside.run(&door, 65)).0, "FILE");
    // Without an index a name may not be in two files.
    let twice = Request::default().n(&[0.0, 2.0]);
    let twice = file(twice, "one", &two, two.len() as f64 + 4.0);
    let twice = file(twice, "two", &two, two.len() as f64 + 4.0);
    assert_eq!(
        refusal(twice.n(&[0.0]).run(&door, 64)),
        (
            "FILE",
            "two, tensor \"a\": expected a tensor that no other file has, got one that one has, too".into()
        )
    );
    // Only one of two headers is whole.
    let part = Request::default().n(&[0.0, 2.0]);
    let part = file(part, "one", &one, one.len() as f64 + 5.0);
    let part = file(part, "two", &two[..9], two.len() as f64 + 4.0);
    assert_eq!(
        ok(part.n(&[0.0]).run(&door, 64))[0].json(),
        json!({ "need": [one.len(), two.len()] })
    );
}

/// As many as are asked for, in all files together, and in an index.
#[test]
fn too_many_tensors_are_refused() {
    let door = Door::new();
    let one = header(r#"{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#);
    let two = header(r#"{"b":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#);
    let ask = |max: &[f64]| {
        let request = Request::default().n(&[0.0, 2.0]);
        let request = file(request, "one", &one, one.len() as f64);
        file(request, "two", &two, two.len() as f64)
            .n(max)
            .run(&door, 64)
    };
    ok(ask(&[1.0, 2.0]));
    for (max, sentence) in [
        (
            1.0,
            "two: expected at most 1 tensors (maxTensors), got more, with those of the files before",
        ),
        (
            0.0,
            "one: expected at most 0 tensors (maxTensors), got more",
        ),
    ] {
        assert_eq!(refusal(ask(&[1.0, max])), ("FILE", sentence.into()));
    }
    for wrong in [-1.0, 0.5, f64::NAN] {
        let (code, sentence) = refusal(ask(&[1.0, wrong]));
        assert_eq!(code, "OPTION");
        assert!(sentence.starts_with("maxTensors: "), "{sentence}");
    }
    let index = r#"{"weight_map":{"a":"one","b":"two"}}"#;
    let names = |max: f64| {
        let request = Request::default().text("i").text(index);
        request.n(&[1.0, max]).run(&door, 65)
    };
    assert_eq!(ok(names(2.0))[0].json(), json!(["one", "two"]));
    assert_eq!(refusal(names(1.0)).0, "FILE");
}

#[test]
fn a_file_is_known_by_what_it_begins_with() {
    let door = Door::new();
    let ask = |first: &[u8]| ok(Request::default().u8(first).run(&door, 70))[0].json();
    assert_eq!(ask(&[0, 1]), Value::Null);
    let said = ask(b"version https://git-lfs.github.com/spec/v1\n");
    assert!(
        said.as_str()
            .is_some_and(|said| said.contains("git lfs pull")),
        "{said}"
    );
}

#[test]
fn a_header_that_is_written_can_be_read() {
    let door = Door::new();
    let ask = |spec: &Value| Request::default().text(&spec.to_string()).run(&door, 66);
    let spec = json!({
        "tensors": [
            { "name": "small", "dtype": "U8", "shape": [3] },
            { "name": "wide", "dtype": "F64", "shape": [2, 1] },
            { "name": "z", "dtype": "F16", "shape": [] },
        ],
        "metadata": { "format": "pt", "q\"": "}" },
    });
    let out = ok(ask(&spec));
    let [first, order, length] = out.as_slice() else {
        panic!("{out:?}")
    };
    assert_eq!(order.i32(), [1, 2, 0]);
    let data: [&[u8]; 3] = [&[1, 2, 3], &[7; 16], &[9, 9]];
    let mut bytes = first.bytes().to_vec();
    for &index in order.i32() {
        bytes.extend(data[index as usize]);
    }
    assert_eq!(length.json(), json!({ "length": bytes.len() }));
    let file = ok(Checkpoint::open("file", bytes));
    assert_eq!(ok(file.raw("small")).bytes(), data[0]);
    assert_eq!(ok(file.raw("wide")).shape(), [2, 1]);
    assert_eq!(file.metadata()["q\""], "}");
    for (spec, code) in [
        (
            json!({ "tensors": [{ "name": "a", "dtype": "F3", "shape": [] }] }),
            "OPTION",
        ),
        (
            json!({ "tensors": [{ "name": "a", "dtype": "F32", "shape": [-1] }] }),
            "OPTION",
        ),
        (
            json!({ "tensors": [{ "name": "__metadata__", "dtype": "F32", "shape": [] }] }),
            "OPTION",
        ),
        (
            json!({ "tensors": [{ "name": "a", "dtype": "F32", "shape": [u64::MAX, 2] }] }),
            "SHAPE",
        ),
    ] {
        assert_eq!(refusal(ask(&spec)).0, code, "{spec}");
    }
}

#[test]
fn checkpoints_are_inspected() {
    let door = Door::new();
    let folder = Folder::fixture("diffllama_gqa");
    let ask = |folder: &Folder| {
        let entries = folder.entries(&door).to_string();
        let request = Request::default().text(&entries).n(&[1.0]);
        ok(request.text(&folder.text("config.json")).run(&door, 67))[0].json()
    };
    let said = ask(&folder);
    assert_eq!(said["architecture"], "diffllama");
    for empty in ["missing", "unexpected", "warnings"] {
        assert_eq!(said[empty], json!([]), "{empty}");
    }
    let file = folder.open("model.safetensors");
    let parameters: u64 = file.entries().iter().map(|entry| entry.elements()).sum();
    assert_eq!(said["parameters"], parameters);
    assert_eq!(
        said["dtypes"],
        json!([{ "dtype": "F32", "tensors": file.entries().len(), "parameters": parameters, "bytes": 4 * parameters }])
    );
    let layer = &said["layers"][1];
    for (key, value) in [
        ("prefix", json!("model.layers.1.self_attn.")),
        ("depth", json!(1)),
        ("version", json!(1)),
        ("lambdaForm", json!("vectors")),
        ("pairing", json!("halves")),
        ("numHeads", json!(4)),
        ("numKvHeads", json!(4)),
        ("headDim", json!(8)),
        ("embedDim", json!(64)),
        ("rope", json!({ "interleaved": false, "theta": 10000.0 })),
        ("normWeight", json!(false)),
    ] {
        assert_eq!(layer[key], value, "{key}");
    }
    assert_eq!(
        layer["weights"]["q_proj.weight"]["tensor"],
        "model.layers.1.self_attn.q_proj.weight"
    );
    assert_eq!(
        ask(&Folder::fixture("diff_vit"))["architecture"],
        "diff_vit"
    );
    // A layer of the JSON is the layer.
    let inspection = ok(inspect(file.entries(), Some(&folder.text("config.json"))));
    assert_eq!(
        ok(Layer::from_json(&layer.to_string())),
        inspection.layers[1]
    );
    let nothing = Request::default().text("[]").n(&[0.0]);
    assert_eq!(
        ok(nothing.run(&door, 67))[0].json()["architecture"],
        Value::Null
    );
    assert_eq!(
        refusal(Request::default().text("{}").n(&[0.0]).run(&door, 67)).0,
        "FILE"
    );
}

#[test]
fn tensors_are_cast() {
    let door = Door::new();
    let ask = |from: &str, to: &str, shape: &[f64], bytes: &[u8]| {
        let request = Request::default().text("a_tensor").text(from).text(to);
        request.list(shape).u8(bytes).run(&door, 68)
    };
    // More than one unit of work, with what rounds, overflows and is no number.
    let values: Vec<f32> = (0..1_200_000)
        .map(|at| f32::from_bits((at as u32).wrapping_mul(2_654_435_761)))
        .collect();
    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    for to in [Dtype::F16, Dtype::BF16, Dtype::F32] {
        let raw = ok(RawTensor::new("x", Dtype::F32, &[1200, 1000], &bytes[..]));
        let expected = ok(raw.cast("x", to)).tensor;
        let got = ok(ask("F32", &to.to_string(), &[1200.0, 1000.0], &bytes));
        assert!(got[0].bytes() == expected.bytes(), "{to}");
        let back = ok(ask(
            &to.to_string(),
            "F32",
            &[1_200_000.0],
            expected.bytes(),
        ));
        let wide = ok(expected.to_f32("x"));
        let wide: Vec<u8> = wide.iter().flat_map(|x| x.to_le_bytes()).collect();
        assert!(back[0].bytes() == wide, "{to}");
    }
    let doubles: Vec<u8> = [0.1f64, -1e300]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    let got = ok(ask("F64", "F32", &[2.0], &doubles));
    let singles: Vec<u8> = [0.1f32, f32::NEG_INFINITY]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    assert_eq!(got[0].bytes(), singles);
    assert!(
        ok(ask("I64", "F32", &[0.0, 5.0], &[]))[0]
            .bytes()
            .is_empty()
    );
    assert_eq!(
        ok(ask("BOOL", "F32", &[], &[1]))[0].bytes(),
        1f32.to_le_bytes()
    );
    assert_eq!(
        refusal(ask("F8_E4M3", "F32", &[1.0], &[0])),
        (
            "FILE",
            "a_tensor: expected a boolean, an integer, F16, BF16, F32 or F64, got F8_E4M3".into()
        )
    );
    for (from, to, shape, bytes) in [
        ("F64", "F16", &[1.0][..], &[0; 8][..]),
        ("F32", "I32", &[1.0], &[0; 4]),
        ("F32", "F16", &[2.0], &[0; 4]),
        ("F4", "F32", &[1.0], &[0]),
        ("f32", "F16", &[1.0], &[0; 4]),
        ("F32", "F16", &[1e12, 1e12], &[0; 4]),
    ] {
        assert_eq!(
            refusal(ask(from, to, shape, bytes)).0,
            "FILE",
            "{from} {to}"
        );
    }
}

/// A layer's tensors through the door, against the conversion itself; and the model of converted
/// layers gives the same bits.
#[test]
fn layers_are_converted() {
    let door = Door::new();
    let folder = Folder::fixture("diffllama_gqa");
    let shards = Shards::single(folder.open("model.safetensors"));
    let found = ok(inspect(shards.entries(), Some(&folder.text("config.json"))));
    let layer = &found.layers[2];
    let json = serde_json::to_string(layer).unwrap_or_else(|why| panic!("{why}"));
    let ask = |layer: &str, target: &Value, count: usize| {
        let names: Vec<&str> = found.layers[2]
            .pieces
            .values()
            .map(|piece| piece.tensor.as_str())
            .take(count)
            .collect();
        let mut request = Request::default().text(layer).text(&target.to_string());
        request = request.n(&[names.len() as f64]);
        for name in names {
            let raw = ok(shards.raw(name));
            request = request.stored(name, &raw.dtype().to_string(), raw.shape(), raw.bytes());
        }
        request.run(&door, 69)
    };
    for (target, direct) in [
        (json!({}), LayerTarget::keep(&layer.heads)),
        (json!({ "like": "unilm" }), LayerTarget::unilm()),
        (
            json!({ "like": "unilm", "dtype": "BF16", "ropeInterleaved": false, "output": "o_proj", "normWeight": "keep" }),
            LayerTarget {
                dtype: Some(Dtype::BF16),
                rope_interleaved: Some(false),
                output: Some("o_proj"),
                norm_weight: diffattn_nn::checkpoint::NormWeight::Keep,
                ..LayerTarget::unilm()
            },
        ),
    ] {
        let weights = ok(layer.read(&shards));
        let expected = ok(convert_layer(&weights, &layer.form(), &direct));
        let out = ok(ask(&json, &target, usize::MAX));
        let told = out[0].json();
        assert_eq!(told["notes"], json!(expected.notes));
        assert_eq!(told["form"]["pairing"], expected.form.heads.pairing.name());
        assert_eq!(
            told["form"]["numKvHeads"],
            json!(expected.form.heads.groups)
        );
        assert_eq!(out.len(), 1 + expected.weights.len());
        let tensors = told["tensors"].as_array().into_iter().flatten();
        for (((name, tensor), told), out) in expected.weights.iter().zip(tensors).zip(&out[1..]) {
            let dtype = tensor.dtype().to_string();
            assert_eq!(
                *told,
                json!({ "name": name, "dtype": dtype, "shape": tensor.shape() })
            );
            assert_eq!(out.bytes(), tensor.bytes());
        }
    }
    for target in [
        json!({ "pairing": "diagonal" }),
        json!({ "like": "llama" }),
        json!({ "speed": 2 }),
        json!({ "pairing": "shared" }),
        json!([]),
    ] {
        assert_eq!(
            refusal(ask(&json, &target, usize::MAX)).0,
            "OPTION",
            "{target}"
        );
    }
    assert_eq!(refusal(ask("{}", &json!({}), usize::MAX)).0, "OPTION");
    let (code, sentence) = refusal(ask(&json, &json!({}), 2));
    assert_eq!(code, "OPTION");
    assert!(
        sentence.starts_with("tensors: expected every tensor"),
        "{sentence}"
    );
    // Numbers in a layer's description that its tensors do not bear out.
    for (key, value) in [
        ("numHeads", json!(1u64 << 40)),
        ("headDim", json!(usize::MAX - 1)),
        ("headDim", json!(1u64 << 36)),
        ("headWidth", json!(0)),
        ("numKvHeads", json!(0)),
        ("numHeads", json!(0)),
        ("headDim", json!(0)),
    ] {
        let mut wrong: Value = serde_json::from_str(&json).unwrap_or_else(|why| panic!("{why}"));
        wrong[key] = value;
        let (code, sentence) = refusal(ask(
            &wrong.to_string(),
            &json!({ "like": "unilm" }),
            usize::MAX,
        ));
        assert!(
            ["OPTION", "SHAPE", "OUT_OF_MEMORY"].contains(&code),
            "{key}: {sentence}"
        );
    }
    // Rows of nothing: any number of them has no bytes.
    let wide = json.replace("\"headDim\":8", &format!("\"headDim\":{}", 1u64 << 36));
    let mut request = Request::default()
        .text(&wide)
        .text(r#"{"like":"unilm"}"#)
        .n(&[layer.pieces.len() as f64]);
    for (name, piece) in &layer.pieces {
        let heads = if name.starts_with("q_") { 8 } else { 4 };
        request = request.stored(&piece.tensor, "F32", &[heads << 36, 0], &[]);
    }
    assert_eq!(refusal(request.run(&door, 69)).0, "SHAPE");
    let mut wrong: Value = serde_json::from_str(&json).unwrap_or_else(|why| panic!("{why}"));
    for rows in [json!([0, u64::MAX]), json!([5, 2]), json!([0, 1000])] {
        wrong["weights"]["q_proj.weight"]["rows"] = rows;
        assert_eq!(
            refusal(ask(&wrong.to_string(), &json!({}), usize::MAX)).0,
            "SHAPE"
        );
    }
}
