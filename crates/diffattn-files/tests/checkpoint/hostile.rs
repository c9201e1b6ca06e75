//! Files that must be refused, each with its sentence; and files changed at random, which must not
//! panic nor make the reader allocate what they claim.

use crate::common::{file, models, ok, peak, refusal};
use diffattn_files::{
    Architecture, Checkpoint, Dtype, Header, MAX_TENSORS, Parsed, RawTensor, ShardIndex, inspect,
    json_text, kind_of, write,
};
use proptest::prelude::*;

/// Opens a file that is called `f`.
fn open(bytes: &[u8]) -> Result<Checkpoint<&[u8]>, diffattn::Error> {
    Checkpoint::open("f", bytes)
}

const DTYPES: &str = "BOOL, U8, I8, U16, I16, U32, I32, U64, I64, F16, BF16, F32, F64, F8_E4M3, F8_E5M2, F8_E8M0, F8_E4M3FNUZ, F8_E5M2FNUZ, F4, F6_E2M3, F6_E3M2, C64";

#[test]
fn headers() {
    let one = |info: &str| format!("{{\"a\":{info}}}");
    let info = |dtype: &str, shape: &str, offsets: &str| {
        one(&format!(
            "{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":{offsets}}}"
        ))
    };
    let two = |first: &str, second: &str| {
        format!(
            "{{\"a\":{{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":{first}}},\"b\":{{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":{second}}}}}"
        )
    };
    let object = "f, tensor \"a\": expected an object of dtype, shape and data_offsets, got";
    let sizes = "f, tensor \"a\": expected a shape of at most 64 sizes that fit this machine, got";
    let cases: Vec<(String, usize, String)> = vec![
        // Bytes that overlap, leave holes, or end elsewhere than the file.
        (two("[0,4]", "[2,6]"), 6, "f, tensor \"b\": expected data from offset 4 on, got an overlap: offset 2".into()),
        (two("[0,4]", "[0,4]"), 4, "f, tensor \"b\": expected data from offset 4 on, got an overlap: offset 0".into()),
        (two("[4,8]", "[2,6]"), 8, "f, tensor \"b\": expected data from offset 0 on, got a hole: offset 2".into()),
        (two("[0,4]", "[5,9]"), 9, "f, tensor \"b\": expected data from offset 4 on, got a hole: offset 5".into()),
        (two("[0,4]", "[4,8]"), 9, "f: expected tensors that fill the 9 bytes behind the header, got 8".into()),
        ("{}".into(), 1, "f: expected tensors that fill the 1 bytes behind the header, got 0".into()),
        (two("[0,4]", "[4,8]"), 7, "f, tensor \"b\": expected offsets in order within the 7 bytes behind the header, got [4, 8]".into()),
        (info("U8", "[4]", "[4,0]"), 4, "f, tensor \"a\": expected offsets in order within the 4 bytes behind the header, got [4, 0]".into()),
        (info("U8", "[4]", "[0,18446744073709551615]"), 4, "f, tensor \"a\": expected offsets in order within the 4 bytes behind the header, got [0, 18446744073709551615]".into()),
        // Shapes that disagree with their bytes.
        (info("F32", "[2]", "[0,4]"), 4, "f, tensor \"a\": expected 8 bytes for [2] of F32, got 4 (offsets [0, 4])".into()),
        (info("F32", "[]", "[0,8]"), 8, "f, tensor \"a\": expected 4 bytes for [] of F32, got 8 (offsets [0, 8])".into()),
        (info("F32", "[0]", "[0,4]"), 4, "f, tensor \"a\": expected 0 bytes for [0] of F32, got 4 (offsets [0, 4])".into()),
        (info("F4", "[3]", "[0,2]"), 2, "f, tensor \"a\": expected a shape of whole bytes, got [3] of F4, offsets [0, 2]".into()),
        // Shapes whose size overflows, also after the type's width.
        (info("U8", "[4294967296,4294967296]", "[0,0]"), 0, "f, tensor \"a\": expected a shape whose size does not overflow, got [4294967296, 4294967296] of U8, offsets [0, 0]".into()),
        (info("F32", "[4611686018427387904]", "[0,0]"), 0, "f, tensor \"a\": expected a shape whose size does not overflow, got [4611686018427387904] of F32, offsets [0, 0]".into()),
        (info("U8", "[18446744073709551616]", "[0,0]"), 0, format!("{sizes} [18446744073709551616] (invalid type: floating point `1.8446744073709552e+19`, expected usize)")),
        (info("U8", &format!("[{}1]", "1,".repeat(64)), "[0,1]"), 1, format!("{sizes} [{}1…", "1,".repeat(39))),
        // Repeated names: serde's map would keep the last.
        ("{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}".into(), 1, "f, tensor \"a\": expected one entry of this name, got more than one".into()),
        ("{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},\"\\u0061\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}".into(), 1, "f, tensor \"a\": expected one entry of this name, got more than one".into()),
        ("{\"__metadata__\":{},\"__metadata__\":{}}".into(), 0, "f, tensor \"__metadata__\": expected one entry of this name, got more than one".into()),
        ("{\"__metadata__\":{\"x\":\"1\",\"x\":\"2\"}}".into(), 0, "f, __metadata__: expected text by name, got {\"x\":\"1\",\"x\":\"2\"} (\"x\" more than once)".into()),
        (one("{\"dtype\":\"U8\",\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,1]}"), 1, format!("{object} {{\"dtype\":\"U8\",\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,1]}} (duplicate field `dtype`)")),
        // Wrong types.
        ("{\"__metadata__\":{\"x\":1}}".into(), 0, "f, __metadata__: expected text by name, got {\"x\":1} (invalid type: integer `1`, expected a string)".into()),
        ("{\"__metadata__\":[]}".into(), 0, "f, __metadata__: expected text by name, got [] (invalid type: sequence, expected a JSON object)".into()),
        (one("1"), 1, format!("{object} 1 (invalid type: integer `1`, expected an object)")),
        (one("{\"dtype\":\"U8\",\"shape\":[1]}"), 1, format!("{object} {{\"dtype\":\"U8\",\"shape\":[1]}} (missing field `data_offsets`)")),
        (one("{\"dtype\":8,\"shape\":[1],\"data_offsets\":[0,1]}"), 1, format!("{object} {{\"dtype\":8,\"shape\":[1],\"data_offsets\":[0,1]}} (invalid type: integer `8`, expected a string)")),
        (one("{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"strides\":[1]}"), 1, format!("{object} {{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"strides\":[1]}} (unknown field `strides`, expected one of `dtype`, `shape`, `data_offsets`)")),
        (info("U8", "[1]", "[0,1,2]"), 1, format!("{object} {{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,2]}} (trailing characters)")),
        (info("U8", "[1]", "[0]"), 1, format!("{object} {{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}} (invalid length 1, expected an array of length 2)")),
        (info("U8", "[1]", "[-1,0]"), 1, format!("{object} {{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[-1,0]}} (invalid value: integer `-1`, expected u64)")),
        (info("U8", "[-1]", "[0,1]"), 1, format!("{sizes} [-1] (invalid value: integer `-1`, expected usize)")),
        (info("U8", "[1.0]", "[0,1]"), 1, format!("{sizes} [1.0] (invalid type: floating point `1.0`, expected usize)")),
        (info("U8", "1", "[0,1]"), 1, format!("{sizes} 1 (invalid type: integer `1`, expected a sequence)")),
        (info("U8", "[[1]]", "[0,1]"), 1, format!("{sizes} [[1]] (invalid type: sequence, expected usize)")),
        (info("F128", "[1]", "[0,16]"), 16, format!("f, tensor \"a\": expected a dtype among {DTYPES}, got \"F128\"")),
        (info("f32", "[1]", "[0,4]"), 4, format!("f, tensor \"a\": expected a dtype among {DTYPES}, got \"f32\"")),
        // No JSON.
        (String::new(), 0, "f: expected a header that begins with {, got an empty one".into()),
        ("[]".into(), 0, "f: expected a header that begins with {, got \"[]\"".into()),
        (" {}".into(), 0, "f: expected a header that begins with {, got \" {}\"".into()),
        ("{\"a\":".into(), 0, "f: expected a header in JSON, got EOF while parsing a value at line 1 column 5".into()),
        ("{} x".into(), 0, "f: expected a header in JSON, got trailing characters at line 1 column 4".into()),
        ("{\"\\ud800\":1}".into(), 0, "f: expected a header in JSON, got unexpected end of hex escape at line 1 column 9".into()),
    ];
    let mut wrong = Vec::new();
    for (header, data, sentence) in cases {
        let (code, got) = refusal(open(&file(&header, data)));
        assert_eq!(code, "FILE", "{header}");
        if got != sentence {
            wrong.push(format!("{header}\n  want {sentence}\n  got  {got}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn lengths() {
    let cases: [(&[u8], &str); 6] = [
        (&[], "f: expected at least 8 bytes, got 0"),
        (
            &[2, 0, 0, 0, 0, 0, 0],
            "f: expected at least 8 bytes, got 7",
        ),
        (
            &[2, 0, 0, 0, 0, 0, 0, 0, b'{'],
            "f: expected a header within the 9 bytes of the file, got one of 2",
        ),
        (
            &[0xff; 8],
            "f: expected a header of at most 100000000 bytes, got one of 18446744073709551615",
        ),
        (
            &[1, 0xe1, 0xf5, 5, 0, 0, 0, 0],
            "f: expected a header of at most 100000000 bytes, got one of 100000001",
        ),
        (
            &[0, 0xe1, 0xf5, 5, 0, 0, 0, 0],
            "f: expected a header within the 8 bytes of the file, got one of 100000000",
        ),
    ];
    for (bytes, sentence) in cases {
        let ((), held) = peak(|| {
            assert_eq!(refusal(open(bytes)), ("FILE", sentence.to_owned()));
        });
        assert!(held < 4096, "{sentence}: {held} bytes held");
    }
    let mut bytes = file("{\"a\":0}", 0);
    bytes[10] = 0xff;
    assert_eq!(
        refusal(open(&bytes)),
        (
            "FILE",
            "f: expected a header in UTF-8, got byte 0xff at 2 of the header".to_owned()
        )
    );
}

/// From the header alone, of a file that this machine could not hold: 2^40 bytes.
#[test]
fn by_range() {
    let header = format!(
        "{{\"a\":{{\"dtype\":\"F32\",\"shape\":[{}],\"data_offsets\":[0,{}]}}}}",
        1u64 << 38,
        1u64 << 40
    );
    let bytes = file(&header, 0);
    let len = bytes.len() as u64 + (1 << 40);
    assert_eq!(ok(Header::parse("f", &[], len)), Parsed::Need(8));
    assert_eq!(ok(Header::parse("f", &bytes[..7], len)), Parsed::Need(8));
    let need = bytes.len() as u64;
    assert_eq!(ok(Header::parse("f", &bytes[..8], len)), Parsed::Need(need));
    assert_eq!(
        ok(Header::parse("f", &bytes[..bytes.len() - 1], len)),
        Parsed::Need(need)
    );
    let Parsed::Header(header) = ok(Header::parse("f", &bytes, len)) else {
        panic!("a header was there");
    };
    assert_eq!(header.data_start(), need);
    let entry = &header.entries()[0];
    assert_eq!(
        (entry.range.clone(), entry.elements()),
        (need..len, 1 << 38)
    );
    assert_eq!(header.get("a"), Some(entry));
    assert_eq!(header.get("b"), None);
    assert_eq!(
        refusal(entry.with_bytes(vec![0u8; 4])).1,
        "a: expected 1099511627776 bytes for [274877906944] of F32, got 4"
    );
}

/// The names stand in any order; so do tensors of no bytes.
#[test]
fn order() {
    let header = "{\"c\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]},\"__metadata__\":{\"k\":\"v\"},\"e\":{\"dtype\":\"F64\",\"shape\":[3,0],\"data_offsets\":[1,1]},\"a\":{\"dtype\":\"BOOL\",\"shape\":[],\"data_offsets\":[0,1]}}   ";
    let bytes = file(header, 3);
    let checkpoint = ok(open(&bytes));
    let names: Vec<&str> = checkpoint
        .entries()
        .iter()
        .map(|entry| entry.name.as_str())
        .collect();
    assert_eq!(names, ["a", "e", "c"]);
    assert_eq!(checkpoint.metadata()["k"], "v");
    assert_eq!(ok(checkpoint.raw("c")).bytes(), [1, 2]);
    assert_eq!(ok(checkpoint.raw("e")).shape(), [3, 0]);
    assert_eq!(
        refusal(checkpoint.raw("d")),
        (
            "FILE",
            "f, tensor \"d\": expected a tensor of this name, got none".to_owned()
        )
    );
}

/// A float32 behind three bytes is copied, one at an aligned place is not.
#[test]
fn unaligned() {
    let header = "{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[3,7]},\"c\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[7,8]},\"d\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}";
    let header = format!("{header:width$}", width = header.len().next_multiple_of(8));
    let bytes = file(&header, 12);
    // From an address that floats want, wherever the vector lies.
    let mut room = vec![0u8; bytes.len() + 8];
    let start = room.as_ptr().align_offset(8);
    let bytes = {
        let to = &mut room[start..start + bytes.len()];
        to.copy_from_slice(&bytes);
        &*to
    };
    let checkpoint = ok(open(bytes));
    for (name, value, in_place) in [("b", [3u8, 4, 5, 6], false), ("d", [8, 9, 10, 11], true)] {
        let raw = ok(checkpoint.raw(name));
        let floats = ok(raw.floats(name));
        assert_eq!(
            ok(floats.tensor().data.to_f32()),
            [f32::from_le_bytes(value)]
        );
        assert_eq!(floats.is_borrowed(), in_place, "{name}");
    }
}

/// A real header with tensors behind it, to be changed.
fn base() -> Vec<u8> {
    let path = models().join("diffllama_gqa/model.safetensors");
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Whatever opens is sound: each tensor has its bytes within the file.
fn survives(bytes: &[u8]) {
    let (result, held) = peak(|| {
        open(bytes).map(|checkpoint| {
            for entry in checkpoint.entries() {
                let raw = ok(checkpoint.raw(&entry.name));
                assert_eq!(raw.bytes().len() as u64, entry.byte_len());
            }
            inspect(checkpoint.entries(), None).is_ok()
        })
    });
    assert!(
        held <= bytes.len(),
        "{held} bytes held for a file of {}",
        bytes.len()
    );
    if let Err(error) = result {
        assert_eq!(error.code(), "FILE", "{error}");
        assert!(error.to_string().starts_with('f'), "{error}");
        assert!(error.to_string().len() < 600, "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Random bytes of a header changed, digits more often than others.
    #[test]
    fn changed_headers(
        changes in prop::collection::vec((0usize..4224, any::<u8>(), any::<bool>()), 1..6),
        cut in prop::option::weighted(0.1, 0usize..5000),
    ) {
        let mut bytes = base();
        for (at, byte, is_digit) in changes {
            if is_digit {
                let digits: Vec<usize> = (8..4224).filter(|&at| bytes[at].is_ascii_digit()).collect();
                bytes[digits[at % digits.len()]] = b'0' + byte % 10;
            } else {
                bytes[at] = byte;
            }
        }
        if let Some(cut) = cut {
            bytes.truncate(cut);
            // What is left holds no tensors: the header alone must not be multiplied.
            let _ = open(&bytes).map(|_| ());
        } else {
            survives(&bytes);
        }
    }

    /// A piece of the header moved to another place.
    #[test]
    fn moved_pieces(from in 8usize..4224, len in 1usize..200, to in 8usize..4224) {
        let mut bytes = base();
        let piece = bytes[from..(from + len).min(4224)].to_vec();
        let end = (to + piece.len()).min(4224);
        bytes[to..end].copy_from_slice(&piece[..end - to]);
        survives(&bytes);
    }
}

/// Headers of nothing but the smallest entries, the longest shapes, the deepest nesting: memory
/// stays a small multiple of the header.
#[test]
fn dense_headers() {
    let entries: Vec<String> = (0..20_000)
        .map(|at| format!("\"{at:x}\":{{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}"))
        .collect();
    let shapes: Vec<String> = (0..2_000)
        .map(|at| {
            let zeros = "0,".repeat(63);
            format!("\"{at:x}\":{{\"dtype\":\"U8\",\"shape\":[{zeros}0],\"data_offsets\":[0,0]}}")
        })
        .collect();
    let metadata = format!(
        "{{\"__metadata__\":{{{}}}}}",
        (0..20_000)
            .map(|at| format!("\"{at:x}\":\"\""))
            .collect::<Vec<_>>()
            .join(",")
    );
    for (header, times) in [
        (format!("{{{}}}", entries.join(",")), 4),
        (format!("{{{}}}", shapes.join(",")), 4),
        (metadata, 10),
        (format!("{{\"a\":{}", "[".repeat(1_000_000)), 2),
        (
            format!("{{\"a\":{}{}}}", "[".repeat(500_000), "]".repeat(500_000)),
            2,
        ),
        (format!("{{\"{}\":0}}", "{".repeat(1_000_000)), 4),
    ] {
        let bytes = file(&header, 0);
        let (_, held) = peak(|| open(&bytes).map(|_| ()).map_err(|error| error.to_string()));
        assert!(
            held <= times * bytes.len(),
            "{held} bytes held for a header of {}",
            bytes.len()
        );
    }
}

/// A header of ordinary names, as of a model with `count` weights.
fn ordinary(count: usize) -> Vec<u8> {
    let entries: Vec<String> = (0..count)
        .map(|at| {
            format!(
                "\"model.layers.{}.self_attn.q_proj.weight\":{{\"dtype\":\"BF16\",\"shape\":[1,2],\"data_offsets\":[{},{}]}}",
                at,
                4 * at,
                4 * at + 4
            )
        })
        .collect();
    file(&format!("{{{}}}", entries.join(",")), 4 * count)
}

/// As many tensors as there may be cost at most four times their header, one more is refused while
/// it is read.
#[test]
fn many_tensors() {
    let bytes = ordinary(MAX_TENSORS);
    let header = bytes.len() - 4 * MAX_TENSORS;
    let (checkpoint, held) = peak(|| ok(open(&bytes)));
    assert_eq!(checkpoint.entries().len(), MAX_TENSORS);
    assert!(
        held <= 4 * header,
        "{held} bytes held for a header of {header}"
    );
    drop(checkpoint);

    let bytes = ordinary(MAX_TENSORS + 1);
    assert_eq!(
        refusal(open(&bytes)),
        (
            "FILE",
            "f: expected at most 65536 tensors (maxTensors), got more".to_owned()
        )
    );
    ok(Checkpoint::open_at_most("f", &bytes[..], MAX_TENSORS + 1));
    // However long the rest is: what is held is that of the tensors that there may be.
    let bytes = ordinary(20_000);
    let (refused, held) = peak(|| Checkpoint::open_at_most("f", &bytes[..], 10).map(|_| ()));
    assert_eq!(refusal(refused).0, "FILE");
    assert!(held < 16_384, "{held} bytes held for 10 tensors");
    let metadata = file("{\"__metadata__\":{\"a\":\"1\",\"b\":\"2\"}}", 0);
    ok(Checkpoint::open_at_most("f", &metadata[..], 2));
    assert_eq!(
        refusal(Checkpoint::open_at_most("f", &metadata[..], 1)).1,
        "f, __metadata__: expected text by name, got {\"a\":\"1\",\"b\":\"2\"} (more than 1)"
    );
}

/// What lies under the name of a safetensors file and is none is named, with what to do.
#[test]
fn other_files() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 14400\n";
    let gzip = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0][..], &[0; 1 << 20]].concat();
    let zip = [&b"PK\x03\x04\0\0\0\0"[..], &[8; 100]].concat();
    let long = format!("{}ü", "x".repeat(511));
    for (bytes, words) in [
        (
            &pointer[..],
            "a Git LFS pointer, which only stands for the file: \"git lfs pull\" fetches it",
        ),
        (
            &zip,
            "a zip archive, as torch.save writes pickles: save the weights as safetensors",
        ),
        (b"PK\x03\x04\x14\0\x08\x08\0\0", "a zip archive"),
        (
            b"\x80\x02\x8a\x0alm\xfc\x9cF\xf9 j\xa8P\x19.",
            "a Python pickle",
        ),
        (b"GGUF\x03\0\0\0\x09\x09", "a GGUF file"),
        (&gzip, "a file that gzip packed: unpack it first (gunzip)"),
        (b"<!DOCTYPE html><title>x</title>", "an HTML page"),
        (b"<?xml version=\"1.0\"?><Error/>", "an XML document"),
        (
            b"{\"error\":\"Invalid credentials\"}",
            "JSON that begins with \"{\\\"error\\\"",
        ),
        (b"\xef\xbb\xbf{\"a\": 1}", "JSON that begins with"),
        (
            b"Entry not found\n",
            "text that begins with \"Entry not found\"",
        ),
        (
            b"root:x:0:0:root:/root:/bin/bash\nsys:x:3",
            "text that begins with \"root:x:0:0:root:/root:/bin/bash\"",
        ),
        (long.as_bytes(), "text that begins with \"xxx"),
        (b"gone", "text that begins with \"gone\""),
        (b"\xff\xfet\0e\0x\0t\0e\0", "text in UTF-16"),
    ] {
        let (result, held) = peak(|| refusal(open(bytes)));
        let sentence = format!("f: expected a safetensors file, got {words}");
        assert_eq!(result.0, "FILE");
        assert!(result.1.starts_with(&sentence), "{}\n{sentence}", result.1);
        assert!(held < 8192, "{sentence}: {held} bytes held");
        // Nothing that a terminal obeys.
        assert!(!result.1.chars().any(char::is_control), "{}", result.1);
        assert!(kind_of(&bytes[..bytes.len().min(512)]).is_some());
    }
    assert_eq!(kind_of(&[0, 1, 2]), None);
    // A sound file whose length looks like a pickle's first bytes.
    let header = format!("{:640}", "{}");
    assert_eq!(file(&header, 0)[..2], [0x80, 2]);
    ok(open(&file(&header, 0)));
}

/// Configurations and indices behind a byte order mark, and what lies in their place.
#[test]
fn json_files() {
    let marked = |json: &str| [b"\xef\xbb\xbf", json.as_bytes()].concat();
    let index = marked("{\"weight_map\":{\"a\":\"x\"}}");
    assert_eq!(ok(ShardIndex::parse("i", &index)).files(), ["x"]);
    let config = marked("{\"model_type\":\"diffllama\"}");
    let text = ok(json_text("config.json", &config));
    assert!(text.starts_with('{'));
    let found = ok(inspect([], Some("\u{feff}{\"model_type\":\"diffllama\"}")));
    assert_eq!(found.architecture, Some(Architecture::DiffLlama));
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n";
    let words = "got a Git LFS pointer, which only stands for the file";
    for (_, sentence) in [
        refusal(inspect([], Some(pointer))),
        refusal(ShardIndex::parse("i", pointer.as_bytes())),
    ] {
        assert!(sentence.contains(words), "{sentence}");
    }
    for (bytes, words) in [
        (&b"\xff\xfe{\0"[..], "text in UTF-16: save it as UTF-8"),
        (b"\x1f\x8b\x08\0", "a file that gzip packed"),
        (b"PK\x03\x04\xff", "a zip archive"),
    ] {
        let (code, sentence) = refusal(json_text("config.json", bytes));
        assert_eq!(code, "FILE");
        let expected = format!("config.json: expected JSON in UTF-8, got {words}");
        assert!(sentence.starts_with(&expected), "{sentence}");
    }
    let configuration = ShardIndex::parse("config.json", b"{\"model_type\":\"diffllama\"}");
    assert_eq!(
        refusal(configuration).1,
        "config.json: expected a weight_map, got the configuration of a model: name its folder or its weights"
    );
}

/// A tensor with bytes of another number.
#[test]
fn raw_tensors() {
    assert_eq!(
        refusal(RawTensor::new("x", Dtype::F32, &[2], vec![0u8; 7])),
        (
            "SHAPE",
            "x: expected 8 bytes for [2] of F32, got 7".to_owned()
        )
    );
    let x = ok(RawTensor::new("x", Dtype::F8_E4M3, &[2], vec![0u8; 2]));
    assert_eq!(
        refusal(x.to_f32("x")),
        (
            "DTYPE",
            "x: expected a boolean, an integer, F16, BF16, F32 or F64, got F8_E4M3".to_owned()
        )
    );
    assert_eq!(
        refusal(x.floats("x")),
        (
            "DTYPE",
            "x: expected F32, F16 or BF16, got F8_E4M3".to_owned()
        )
    );
    let pair = [("x", x.clone()), ("x", x.clone())];
    assert_eq!(
        refusal(write(&pair, &Default::default())),
        (
            "OPTION",
            "tensors: expected names that differ, got \"x\" more than once".to_owned()
        )
    );
    assert_eq!(
        refusal(write(&[("__metadata__", x)], &Default::default())),
        ("OPTION", "tensors: expected names of tensors, got \"__metadata__\", which the format keeps for itself".to_owned())
    );
}
