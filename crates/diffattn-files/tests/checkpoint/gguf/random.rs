//! GGUF files changed at random, which must not panic nor make the reader allocate what they claim,
//! and dense ones, of which memory stays in proportion to the bytes.

use super::writer::{Writer, list, llama, texts};
use super::{fixture, open};
use crate::common::{ok, peak};
use proptest::prelude::*;

/// Bytes held at most for each of a file, and beside them.
const EACH: usize = 24;
const BESIDE: usize = 1 << 20;

/// Opens what can be opened, and reads all of it; memory stays in proportion to the file, and what is
/// refused is refused for it.
fn survives(bytes: &[u8]) {
    let (result, held) = peak(|| -> Result<(), diffattn::Error> {
        let files = open(bytes)?;
        for entry in files.entries() {
            let tensor = files.raw(&entry.entry.name)?;
            assert_eq!(tensor.bytes().len() as u64, entry.entry.byte_len());
            tensor.to_f32("t")?;
        }
        files.tokenizer()?;
        Ok(())
    });
    assert!(held < EACH * bytes.len() + BESIDE, "{held} bytes held");
    if let Err(error) = result {
        assert_eq!(error.code(), "FILE", "{error}");
        assert!(error.to_string().starts_with('f'), "{error}");
        assert!(error.to_string().len() < 600, "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Random bytes of a header changed.
    #[test]
    fn changed_headers(
        changes in prop::collection::vec((0usize..4096, any::<u8>()), 1..6),
        cut in prop::option::weighted(0.1, 0usize..5000),
    ) {
        let mut bytes = fixture("q4_0/model.gguf");
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        bytes.truncate(cut.unwrap_or(usize::MAX));
        survives(&bytes);
    }

    /// A piece of the header moved to another place.
    #[test]
    fn moved_pieces(from in 8usize..4096, len in 1usize..200, to in 8usize..4096) {
        let mut bytes = fixture("q4_1/model.gguf");
        let piece = bytes[from..(from + len).min(4096)].to_vec();
        let end = (to + piece.len()).min(4096);
        bytes[to..end].copy_from_slice(&piece[..end - to]);
        survives(&bytes);
    }
}

/// As many values, tokens, merges and tensors as bytes can hold.
#[test]
fn dense_files() {
    let many = 40_000usize;
    let short: Vec<String> = (0..many).map(|at| format!("{at:x}")).collect();
    let short: Vec<&str> = short.iter().map(String::as_str).collect();
    let tokens = |writer: Writer, kind: u32| {
        writer
            .value("tokenizer.ggml.tokens", 9, texts(&short))
            .value("tokenizer.ggml.token_type", 9, {
                let mut types = 0u32.to_le_bytes().to_vec();
                types.extend((many as u64).to_le_bytes());
                types.resize(types.len() + many, kind as u8);
                types
            })
    };
    let gpt2 = || {
        let merges = vec!["1 1"; many];
        let writer = llama().text("tokenizer.ggml.model", "gpt2");
        writer.value("tokenizer.ggml.merges", 9, texts(&merges))
    };
    let scores = || {
        let writer = llama().text("tokenizer.ggml.model", "llama");
        writer.value("tokenizer.ggml.scores", 9, list(6, &vec![0; many]))
    };
    for kind in [1, 3] {
        for writer in [gpt2(), scores()] {
            let bytes = tokens(writer, kind).bytes();
            let (read, held) = peak(|| ok(ok(open(&bytes)).tokenizer()));
            assert!(read.is_some());
            assert!(
                held < EACH * bytes.len(),
                "{kind}: {held} of {}",
                bytes.len()
            );
        }
    }
    let mut values = llama();
    let names = short.iter().map(|name| ((*name).to_owned(), 0, vec![0]));
    values.values.extend(names);
    let bytes = values.bytes();
    let (_, held) = peak(|| ok(open(&bytes)).entries().len());
    assert!(held < EACH * bytes.len(), "{held} of {}", bytes.len());
    let mut tensors = llama();
    tensors
        .tensors
        .extend((0..many).map(|at| (format!("blk.{at}.ffn_up.weight"), vec![0], 0, 0)));
    let bytes = tensors.bytes();
    let (count, held) = peak(|| ok(open(&bytes)).entries().len());
    assert_eq!(count, many);
    assert!(held < EACH * bytes.len(), "{held} of {}", bytes.len());
    survives(&bytes);
}
