//! What is refused of GGUF files, each with its sentence.

use super::writer::{Writer, llama};
use super::{fixture, sentence};
use crate::common::{ok, peak, refusal};
use diffattn_files::{GgufFiles, GgufHeader, GgufParsed, MAX_TENSORS};

/// What is no such file, or no such Llama, has a sentence.
#[test]
fn refusals() {
    let mut old = llama().bytes();
    old[4] = 1;
    let mut big = llama().bytes();
    big[4..8].copy_from_slice(&3u32.to_be_bytes());
    let mut many = llama().bytes();
    many[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut keys = llama().bytes();
    keys[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    let tensor = |shape: &[u64], kind: u32, offset: u64| {
        llama()
            .tensor("token_embd.weight", shape, kind, offset)
            .data(64)
    };
    let list = |kind: u32, len: u64| {
        let bytes = [kind.to_le_bytes().to_vec(), len.to_le_bytes().to_vec()].concat();
        llama().value("x", 9, bytes)
    };
    let embedding = "f, tensor \"token_embd.weight\": expected";
    let cases: Vec<(Vec<u8>, String)> = vec![
        (b"GGUX".to_vec(), "f: expected a GGUF file, got text that begins with \"GGUX\"".into()),
        (b"GG".to_vec(), "f: expected what a GGUF file begins with within the 2 bytes of the file, got 4 bytes from byte 0 on".into()),
        (old, "f: expected GGUF of version 2 or 3, little-endian, got version 1".into()),
        (big, "f: expected GGUF of version 2 or 3, little-endian, got one of big-endian numbers".into()),
        (many, "f: expected at most 65536 tensors (maxTensors), got 18446744073709551615".into()),
        (keys, "f: expected at most 65536 values of metadata, got 18446744073709551615".into()),
        (llama().value("x", 13, vec![]).bytes(), "f, x: expected a value of a kind that GGUF 3 has, got kind 13".into()),
        (list(9, 1).bytes(), "f, x: expected a value of a kind that GGUF 3 has, got a list of lists".into()),
        (llama().value("x", 8, u64::MAX.to_le_bytes().to_vec()).bytes(), "f: expected x within the ".into()),
        (list(8, u64::MAX).bytes(), "f, x: expected a list within the ".into()),
        (list(10, u64::MAX / 8).bytes(), "f, x: expected a list within the ".into()),
        (llama().u32("general.alignment", 0).bytes(), "f, general.alignment: expected a power of two below 2^32, got 0".into()),
        (llama().u32("general.alignment", 24).bytes(), "f, general.alignment: expected a power of two below 2^32, got 24".into()),
        (tensor(&[4, 4], 0, 8).bytes(), format!("{embedding} an offset that is a multiple of 32, got 8")),
        (tensor(&[4, 4], 0, 32).bytes(), format!("{embedding} its bytes within the ")),
        (tensor(&[4, 4], 0, u64::MAX - 31).bytes(), format!("{embedding} bytes within the file, got offset 18446744073709551584")),
        (tensor(&[1 << 40, 1 << 40], 0, 0).bytes(), format!("{embedding} a shape whose size does not overflow, got [1099511627776, 1099511627776] of F32")),
        (tensor(&[16, 2], 8, 0).bytes(), format!("{embedding} a last axis of whole blocks of 32, got [2, 16] of Q8_0")),
        (tensor(&[4, 4], 12, 0).bytes(), format!("{embedding} a type among F32, F16, Q4_0, Q4_1, Q8_0, BF16, got Q4_K")),
        (tensor(&[4, 4], 99, 0).bytes(), format!("{embedding} a type among F32, F16, Q4_0, Q4_1, Q8_0, BF16, got type 99")),
        (tensor(&[1, 1, 1, 1, 1], 0, 0).bytes(), format!("{embedding} at most 4 axes, got 5")),
        (tensor(&[4, 4], 0, 0).tensor("output.weight", &[4], 0, 32).bytes(), "f, tensor \"output.weight\": expected bytes from".into()),
        (tensor(&[4, 4], 0, 0).tensor("blk.0.ffn_gate_inp.weight", &[0], 0, 64).bytes(), "f, tensor \"blk.0.ffn_gate_inp.weight\": expected a tensor that a Llama has, got one of another model".into()),
        (llama().tensor("blk.00.ffn_up.weight", &[0], 0, 0).bytes(), "f, tensor \"blk.00.ffn_up.weight\": expected a tensor that a Llama has, got one of another model".into()),
        (llama().tensor("blk.0.attn_q.weight", &[32, 8], 0, 0).data(1024).bytes(), "f, tensor \"blk.0.attn_q.weight\": expected the rows of 2 heads of 16, got 8".into()),
        (llama().text("general.architecture", "qwen3").bytes(), "f, general.architecture: expected \"llama\", the one architecture of GGUF files that is read, got \"qwen3\"".into()),
        (Writer::default().bytes(), "f, general.architecture: expected \"llama\", the one architecture of GGUF files that is read, got none".into()),
        (llama().u32("llama.expert_count", 8).bytes(), "f, llama.expert_count: expected none, as a Llama has none, got 8".into()),
        (llama().u32("llama.rope.dimension_count", 8).bytes(), "f, llama.rope.dimension_count: expected 16, as the whole head turns, got 8".into()),
        (llama().without("llama.block_count").bytes(), "f, llama.block_count: expected a value, got none".into()),
        (llama().text("llama.block_count", "1").bytes(), "f, llama.block_count: expected a whole number, the same in every layer, got \"1\"".into()),
        (llama().u32("llama.attention.head_count", 0).bytes(), "f, llama.attention.head_count: expected 1 or more, got 0".into()),
    ];
    let mut wrong = Vec::new();
    for (bytes, want) in cases {
        let got = sentence(&bytes);
        if !got.starts_with(&want) {
            wrong.push(format!("want {want}\n got {got}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // A value twice.
    let mut twice = llama();
    twice.values.extend_from_within(..1);
    assert_eq!(
        sentence(&twice.bytes()),
        "f, general.architecture: expected one value of this name, got more than one"
    );
}

/// Cut anywhere, a file is refused.
#[test]
fn cut_short() {
    let bytes = fixture("q4_0/model.gguf");
    for len in (0..5000).chain([bytes.len() - 1]) {
        sentence(&bytes[..len]);
    }
}

/// However long a file says that it is: a header has at most 100 MB, and so many tensors as are let
/// in.
#[test]
fn limits() {
    let parse = |bytes: &[u8], tensors: usize| {
        let (result, held) = peak(|| {
            GgufHeader::parse("f", bytes, 1 << 40, tensors).map(|parsed| match parsed {
                GgufParsed::Need(need) => need,
                GgufParsed::Header(header) => header.data_start(),
            })
        });
        assert!(held < 16_384, "{held} bytes held");
        result
    };
    let long = |len: u64| llama().value("x", 8, len.to_le_bytes().to_vec()).bytes();
    let need = ok(parse(&long(50_000_000), MAX_TENSORS));
    assert!((50_000_000..100_000_000).contains(&need), "{need}");
    assert_eq!(
        refusal(parse(&long(1 << 30), MAX_TENSORS)).1,
        "f: expected a header of at most 100000000 bytes, got more"
    );
    let three = ["a", "b", "c"]
        .iter()
        .fold(llama(), |writer, name| writer.tensor(name, &[0], 0, 0));
    assert!(parse(&three.bytes(), 3).is_ok());
    assert_eq!(
        refusal(parse(&three.bytes(), 2)).1,
        "f: expected at most 2 tensors (maxTensors), got 3"
    );
}

/// Files that are none of one model.
#[test]
fn files_of_a_model() {
    let part = |number: u32, tensor: &str, tensors: u32| {
        let writer = llama().tensor(tensor, &[0], 0, 0);
        let writer = writer.u32("split.no", number).u32("split.count", 2);
        writer.u32("split.tensors.count", tensors).bytes()
    };
    let open = |first: Vec<u8>, second: Vec<u8>| {
        GgufFiles::new(vec![("a".to_owned(), first), ("b".to_owned(), second)])
    };
    let files = ok(open(
        part(0, "output.weight", 2),
        part(1, "output_norm.weight", 2),
    ));
    assert_eq!(files.entries().len(), 2);
    let refused = |first, second| refusal(open(first, second)).1;
    assert_eq!(
        refused(part(0, "output.weight", 2), part(1, "output.weight", 2)),
        "b, tensor \"output.weight\": expected a tensor that no other file has, got one that a has, too"
    );
    assert_eq!(
        refused(
            part(0, "output.weight", 3),
            part(1, "output_norm.weight", 3)
        ),
        "a: expected 3 tensors in all files (split.tensors.count), got 2"
    );
    assert_eq!(
        refused(
            part(0, "output.weight", 2),
            part(0, "output_norm.weight", 2)
        ),
        "b: expected file 2 of its model (split.no 1), got split.no 0"
    );
    assert_eq!(
        refused(llama().bytes(), llama().bytes()),
        "a: expected one file, as its model has no others (split.count), got 2"
    );
    assert_eq!(
        refusal(GgufFiles::<&[u8]>::new(Vec::new())).1,
        "files: expected a GGUF file, got none"
    );
}
