//! What a file is that is not what its name promises, known by its first bytes, and what to do about it. Reads no file; looks
//! only where something was refused, so a sound file that happens to begin like another is never mistaken.

use super::text::excerpt;

/// How much of a text tells that it is one.
const TEXT: usize = 512;

/// What files of other formats begin with.
const FORMATS: [(&[u8], &str); 14] = [
    (
        b"version https://git-lfs.github.com/spec/",
        "a Git LFS pointer, which only stands for the file: \"git lfs pull\" fetches it",
    ),
    (
        b"PK\x03\x04",
        "a zip archive, as torch.save writes pickles: save the weights as safetensors (save_pretrained, or safetensors.torch.save_file)",
    ),
    (
        b"GGUF",
        "a GGUF file, llama.cpp's format: take the safetensors checkpoint that it was made of",
    ),
    (
        b"\x1f\x8b",
        "a file that gzip packed: unpack it first (gunzip)",
    ),
    (
        b"\x28\xb5\x2f\xfd",
        "a file that zstd packed: unpack it first (unzstd)",
    ),
    (
        b"BZh",
        "a file that bzip2 packed: unpack it first (bunzip2)",
    ),
    (
        b"\xfd7zXZ\0",
        "a file that xz packed: unpack it first (unxz)",
    ),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive: unpack it first"),
    (
        b"\x89HDF\r\n\x1a\n",
        "an HDF5 file, as Keras writes: save the weights as safetensors",
    ),
    (
        b"\x93NUMPY",
        "a NumPy array: save the weights as safetensors (safetensors.numpy.save_file)",
    ),
    (b"\x89PNG", "a PNG picture"),
    (b"%PDF-", "a PDF document"),
    (b"\xff\xfe", "text in UTF-16: save it as UTF-8"),
    (b"\xfe\xff", "text in UTF-16: save it as UTF-8"),
];

/// What a file that begins so is, where it is of another format: neither JSON nor plain text.
fn format_of(first: &[u8]) -> Option<String> {
    if let Some((_, what)) = FORMATS.iter().find(|(magic, _)| first.starts_with(magic)) {
        return Some((*what).to_owned());
    }
    // Protocols 2 to 5.
    if let [0x80, 2..=5, ..] = first {
        return Some("a Python pickle, as torch.save writes: save the weights as safetensors (save_pretrained, or safetensors.torch.save_file)".to_owned());
    }
    let text = text_of(first)?;
    let lower = text
        .get(..text.floor_char_boundary(32))?
        .to_ascii_lowercase();
    let begins = |starts: &[&str]| starts.iter().any(|start| lower.starts_with(start));
    if begins(&["<!doctype html", "<html", "<head", "<body", "<!--"]) {
        Some("an HTML page, as servers send in place of a file".to_owned())
    } else if begins(&["<?xml", "<error"]) {
        Some("an XML document, as servers send in place of a file".to_owned())
    } else {
        None
    }
}

/// What a file that begins so is, where it should be JSON; none where it may be JSON that is merely broken.
pub(crate) fn instead_of_json(first: &[u8]) -> Option<String> {
    match first {
        [] => Some("an empty file".to_owned()),
        _ => format_of(first),
    }
}

/// What a file that begins so is, in words; none where nothing is known. JSON and other text count.
#[must_use]
pub fn kind_of(first: &[u8]) -> Option<String> {
    instead_of_json(first).or_else(|| {
        let text = text_of(first)?;
        let line = excerpt(text.lines().next().unwrap_or_default());
        Some(match text.starts_with(['{', '[']) {
            true => format!("JSON that begins with {line:?}"),
            false => format!("text that begins with {line:?}"),
        })
    })
}

/// The bytes as text, behind its byte order mark and spaces, where it is one that people read.
fn text_of(first: &[u8]) -> Option<&str> {
    let first = first.get(..TEXT).unwrap_or(first);
    let text = match std::str::from_utf8(first) {
        Ok(text) => text,
        // A letter that is cut in two at the end.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(first.get(..error.valid_up_to())?).ok()?
        }
        Err(_) => return None,
    };
    let is_text = |letter: char| !letter.is_control() || matches!(letter, '\t' | '\n' | '\r');
    let text = text.trim_start_matches('\u{feff}').trim_start();
    (!text.is_empty() && text.chars().all(is_text)).then_some(text)
}
