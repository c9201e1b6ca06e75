//! Checkpoints of several files, sound and not.

use crate::common::{ok, put, refusal, scratch, values};
use diffattn::Tensor;
use diffattn_files::{Checkpoint, INDEX_FILE, RawTensor, ShardIndex, Shards, write};
use std::collections::BTreeMap;

/// A file of one-row tensors.
fn shard(names: &[&str]) -> Vec<u8> {
    let tensors: Vec<(&str, RawTensor<'_>)> = names
        .iter()
        .map(|&name| {
            let x = values(name.len() as u64, 4, 1.0);
            (name, ok(RawTensor::of(name, &Tensor::f32(&x, &[4]))))
        })
        .collect();
    ok(write(&tensors, &BTreeMap::new()))
}

const INDEX: &str = "{\"metadata\":{\"total_size\":48},\"weight_map\":{\"a\":\"m-1.safetensors\",\"bb\":\"m-2.safetensors\",\"ccc\":\"m-1.safetensors\"}}";

#[test]
fn sound() {
    let index = ok(ShardIndex::parse("i", INDEX.as_bytes()));
    assert_eq!(index.files(), ["m-1.safetensors", "m-2.safetensors"]);
    assert_eq!(index.total_size(), Some(48));
    assert_eq!(index.weight_map()["bb"], "m-2.safetensors");
    let open = |file: &'static str, names: &[&str]| ok(Checkpoint::open(file, shard(names)));
    // In another order, and with a tensor that the index does not name.
    let shards = ok(Shards::new(
        &index,
        vec![
            open("m-2.safetensors", &["bb", "dddd"]),
            open("m-1.safetensors", &["a", "ccc"]),
        ],
    ));
    let names: Vec<&str> = shards.entries().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["a", "bb", "ccc"]);
    for name in names {
        assert_eq!(ok(shards.read_f32(name)), values(name.len() as u64, 4, 1.0));
    }
    assert_eq!(
        refusal(shards.raw("dddd")),
        ("FILE", "m-2.safetensors + m-1.safetensors, tensor \"dddd\": expected a tensor of this name, got none".to_owned())
    );
    let missing = Shards::new(&index, vec![open("m-1.safetensors", &["a", "ccc"])]);
    assert_eq!(
        refusal(missing),
        (
            "FILE",
            "i: expected the file \"m-2.safetensors\", got none of this name".to_owned()
        )
    );
    let lacking = vec![
        open("m-1.safetensors", &["a"]),
        open("m-2.safetensors", &["bb"]),
    ];
    assert_eq!(
        refusal(Shards::new(&index, lacking)),
        (
            "FILE",
            "i, tensor \"ccc\": expected it in \"m-1.safetensors\", got no such tensor there"
                .to_owned()
        )
    );
    let twice = vec![
        open("m-1.safetensors", &["a", "ccc"]),
        open("m-2.safetensors", &["a", "bb"]),
    ];
    assert_eq!(
        refusal(Shards::new(&index, twice)),
        ("FILE", "i, tensor \"a\": expected it in \"m-1.safetensors\" alone, got it in \"m-2.safetensors\" too".to_owned())
    );
}

#[test]
fn hostile() {
    let map = |value: &str| format!("{{\"weight_map\":{{\"a\":{value}}}}}");
    let plain =
        "i, tensor \"a\": expected the name of a file beside the index or in a folder there, got";
    let mut cases: Vec<(String, String)> = [
        "\"../x\"",
        "\"/etc/passwd\"",
        "\"a/../b\"",
        "\"a/./b\"",
        "\"a//b\"",
        "\"a/\"",
        "\"a/b:c\"",
        "\"//server/share\"",
        "\"..\\\\x\"",
        "\"a\\\\b\"",
        "\"..\"",
        "\".\"",
        "\"\"",
        "\"C:x\"",
        "\"a\\u0000\"",
        "1",
        "null",
        "[\"x\"]",
    ]
    .iter()
    .map(|value| (map(value), format!("{plain} {value}")))
    .collect();
    let more = [
        (
            "[]",
            "i: expected an object in JSON, got invalid type: sequence, expected a JSON object at line 1 column 0",
        ),
        ("{}", "i: expected a weight_map, got none"),
        (
            "{\"weight_map\":[]}",
            "i: expected a weight_map of file names by tensor, 65536 at most (maxTensors), got [] (invalid type: sequence, expected a JSON object)",
        ),
        (
            "{\"weight_map\":{},\"weight_map\":{}}",
            "i: expected keys that differ, got \"weight_map\" more than once",
        ),
        (
            "{\"weight_map\":{\"a\":\"x\",\"a\":\"y\"}}",
            "i, tensor \"a\": expected one entry of this name, got more than one",
        ),
    ];
    cases.extend(more.map(|(json, sentence)| (json.to_owned(), sentence.to_owned())));
    for (json, sentence) in cases {
        assert_eq!(
            refusal(ShardIndex::parse("i", json.as_bytes())),
            ("FILE", sentence),
            "{json}"
        );
    }
    assert_eq!(refusal(ShardIndex::parse("i", &[b'{', 0xff])).0, "FILE");
    let two = b"{\"weight_map\":{\"a\":\"x\",\"b\":\"x\"}}";
    ok(ShardIndex::parse_at_most("i", two, 2));
    let (code, sentence) = refusal(ShardIndex::parse_at_most("i", two, 1));
    assert_eq!(code, "FILE");
    assert!(sentence.ends_with("(more than 1)"), "{sentence}");
    // Sizes that are no sizes are none.
    for (size, read) in [
        ("1e3", Some(1000)),
        ("1.5", None),
        ("-1", None),
        ("\"x\"", None),
    ] {
        let json = format!("{{\"weight_map\":{{}},\"metadata\":{{\"total_size\":{size}}}}}");
        assert_eq!(
            ok(ShardIndex::parse("i", json.as_bytes())).total_size(),
            read,
            "{size}"
        );
    }
}

#[test]
fn folders() {
    let folder = scratch("shards");
    let (code, sentence) = refusal(Shards::open(&folder));
    assert_eq!(code, "FILE");
    assert!(
        sentence.ends_with(
            "expected model.safetensors or model.safetensors.index.json in it, got neither"
        ),
        "{sentence}"
    );
    put(&folder.join(INDEX_FILE), INDEX.as_bytes());
    put(&folder.join("m-1.safetensors"), &shard(&["a", "ccc"]));
    let (_, sentence) = refusal(Shards::open(&folder));
    assert!(
        sentence.ends_with("expected the file \"m-2.safetensors\", got none of this name"),
        "{sentence}"
    );
    put(&folder.join("m-2.safetensors"), &shard(&["bb"]));
    let shards = ok(Shards::open(&folder));
    assert_eq!(shards.files().len(), 2);
    assert_eq!(ok(shards.read_f32("ccc")), values(3, 4, 1.0));
    // SAFETY: nobody else knows of the files.
    let mapped = ok(unsafe { Shards::map(&folder) });
    assert_eq!(ok(mapped.raw("bb")), ok(shards.raw("bb")));
    // In folders beside the index.
    let within = scratch("shards_within");
    let deep = INDEX.replace("m-2.safetensors", "parts/of two/m-2.safetensors");
    put(&within.join(INDEX_FILE), deep.as_bytes());
    put(&within.join("m-1.safetensors"), &shard(&["a", "ccc"]));
    std::fs::create_dir_all(within.join("parts/of two")).unwrap_or_else(|e| panic!("{e}"));
    put(
        &within.join("parts/of two/m-2.safetensors"),
        &shard(&["bb"]),
    );
    let found = ok(Shards::open(&within));
    assert_eq!(ok(found.read_f32("bb")), ok(shards.read_f32("bb")));
    // One file beside an index is the checkpoint.
    put(&folder.join("model.safetensors"), &shard(&["z"]));
    let single = ok(Shards::open(&folder));
    assert_eq!(
        single
            .entries()
            .map(|entry| entry.name.as_str())
            .collect::<Vec<_>>(),
        ["z"]
    );
    let named = ok(Shards::open(folder.join("m-1.safetensors")));
    assert_eq!(named.entries().count(), 2);
}
