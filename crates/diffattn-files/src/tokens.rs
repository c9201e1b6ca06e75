//! Files of token ids, what training reads: a header, ids of two or four bytes, and where documents
//! begin. Read range by range, so that a file may be larger than memory. Knows no tokenizer.
//!
//! 32 bytes of header: `DATK`, version (u32, 1), bytes of an id (u32, 2 or 4), 0 (u32), tokens
//! (u64), documents (u64); then the ids; then the token that each document begins with (u64), from
//! 0 on, ascending. All numbers little-endian.

use crate::source::ByteSource;
use diffattn::{Error, try_zeroed};
use std::ops::Range;

/// What a file begins with.
pub const TOKENS_MAGIC: &[u8; 4] = b"DATK";

/// The version that is read and written.
const VERSION: u32 = 1;

/// Bytes of the header.
const HEADER: u64 = 32;

/// Starts of documents that are checked at a time.
const STARTS: usize = 1 << 16;

/// Bytes of the header, and of the starts behind the ids, of a file that begins with `header`: what
/// [`TokenFile`] reads before any ids.
///
/// # Errors
/// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the file where it is no such header.
pub fn token_starts(name: &str, header: &[u8], len: u64) -> Result<Range<u64>, Error> {
    let Counts {
        id_bytes, tokens, ..
    } = Counts::read(name, header, len)?;
    Ok(HEADER + tokens * id_bytes..len)
}

/// A checked file of token ids.
#[derive(Debug)]
pub struct TokenFile<S> {
    source: S,
    name: String,
    id_bytes: u64,
    tokens: u64,
    documents: u64,
}

/// What a header says.
struct Counts {
    id_bytes: u64,
    tokens: u64,
    documents: u64,
}

impl Counts {
    /// Of a file of `len` bytes.
    fn read(name: &str, header: &[u8], len: u64) -> Result<Self, Error> {
        let wrong = |expected: &str, got: String| Error::file(name, expected, got);
        if len < HEADER || (header.len() as u64) < HEADER {
            return Err(wrong("a file of tokens", format!("{len} bytes")));
        }
        let word = |at: usize| u32_at(header, at);
        if &header[..4] != TOKENS_MAGIC {
            return Err(wrong(
                "a file of tokens, which begins with DATK",
                "another".into(),
            ));
        }
        if word(4) != VERSION {
            return Err(wrong("version 1 of files of tokens", word(4).to_string()));
        }
        let id_bytes = u64::from(word(8));
        let (tokens, documents) = (u64_at(header, 16), u64_at(header, 24));
        if id_bytes != 2 && id_bytes != 4 {
            return Err(wrong("ids of 2 or 4 bytes", id_bytes.to_string()));
        }
        let told = tokens.checked_mul(id_bytes).and_then(|ids| {
            documents
                .checked_mul(8)?
                .checked_add(ids)?
                .checked_add(HEADER)
        });
        if told != Some(len) {
            let expected = format!("{tokens} tokens of {documents} documents");
            return Err(wrong(&expected, format!("{len} bytes")));
        }
        Ok(Self {
            id_bytes,
            tokens,
            documents,
        })
    }
}

impl<S: ByteSource> TokenFile<S> {
    /// Checks the header, the length and the starts of documents. `name` is what errors call it.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the file.
    pub fn open(name: &str, source: S) -> Result<Self, Error> {
        let len = source.byte_len();
        let header = source.read(name, 0..HEADER.min(len))?.into_owned();
        let Counts {
            id_bytes,
            tokens,
            documents,
        } = Counts::read(name, &header, len)?;
        let file = Self {
            source,
            name: name.to_owned(),
            id_bytes,
            tokens,
            documents,
        };
        file.check_starts()?;
        Ok(file)
    }

    fn check_starts(&self) -> Result<(), Error> {
        let mut before = None;
        let mut first = 0;
        while first < self.documents {
            let last = (first + STARTS as u64).min(self.documents);
            for start in self.starts(first..last)? {
                let follows = match before {
                    None => start == 0,
                    Some(before) => start > before,
                };
                if !follows || start >= self.tokens {
                    return Err(Error::file(
                        &self.name,
                        "documents that begin at token 0 and one behind the other",
                        start,
                    ));
                }
                before = Some(start);
            }
            first = last;
        }
        if self.tokens > 0 && self.documents == 0 {
            return Err(Error::file(&self.name, "one document or more", 0));
        }
        Ok(())
    }

    /// Tokens.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Documents.
    pub fn documents(&self) -> u64 {
        self.documents
    }

    /// The tokens that some documents begin with.
    ///
    /// # Errors
    /// What the source says.
    pub fn starts(&self, documents: Range<u64>) -> Result<Vec<u64>, Error> {
        let first = HEADER + self.tokens * self.id_bytes;
        let range = first + 8 * documents.start..first + 8 * documents.end;
        let bytes = self.source.read(&self.name, range)?;
        Ok(bytes
            .chunks_exact(8)
            .map(|bytes| u64_at(bytes, 0))
            .collect())
    }

    /// Some ids, as far as there are any.
    ///
    /// # Errors
    /// What the source says; [`Error::out_of_memory`].
    pub fn ids(&self, tokens: Range<u64>) -> Result<Vec<u32>, Error> {
        let bytes = self.source.read(&self.name, self.bytes_of(tokens))?;
        self.decode(&bytes)
    }

    /// The bytes of the file that some ids are, as far as there are any.
    pub fn bytes_of(&self, tokens: Range<u64>) -> Range<u64> {
        let (start, end) = (tokens.start.min(self.tokens), tokens.end.min(self.tokens));
        HEADER + start * self.id_bytes..HEADER + end.max(start) * self.id_bytes
    }

    /// The ids that such bytes are.
    ///
    /// # Errors
    /// [`Error::out_of_memory`].
    pub fn decode(&self, bytes: &[u8]) -> Result<Vec<u32>, Error> {
        let width = self.id_bytes as usize;
        let mut ids = try_zeroed(bytes.len() / width)?;
        for (id, bytes) in ids.iter_mut().zip(bytes.chunks_exact(width)) {
            *id = match width {
                2 => u32::from(u16::from_le_bytes([bytes[0], bytes[1]])),
                _ => u32_at(bytes, 0),
            };
        }
        Ok(ids)
    }

    /// The number of the document that a token is of.
    ///
    /// # Errors
    /// What the source says.
    pub fn document_of(&self, token: u64) -> Result<u64, Error> {
        let (mut low, mut high) = (0, self.documents);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match self.starts(middle..middle + 1)?.first() {
                Some(&start) if start <= token => low = middle,
                _ => high = middle,
            }
        }
        Ok(low)
    }
}

/// The bytes of a file of `ids` whose documents begin at `starts`: ids of two bytes where all fit.
///
/// # Errors
/// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `starts` where they do not begin at 0
/// and ascend within the ids.
pub fn write_tokens(ids: &[u32], starts: &[u64]) -> Result<Vec<u8>, Error> {
    let is_sound = match starts.first() {
        None => ids.is_empty(),
        Some(&first) => {
            first == 0
                && starts.windows(2).all(|pair| pair[0] < pair[1])
                && starts.last().is_some_and(|&last| last < ids.len() as u64)
        }
    };
    if !is_sound {
        return Err(Error::option(
            "starts",
            "documents that begin at token 0 and one behind the other",
            format_args!("{} starts of {} tokens", starts.len(), ids.len()),
        ));
    }
    let is_short = ids.iter().all(|&id| u16::try_from(id).is_ok());
    let id_bytes: u32 = if is_short { 2 } else { 4 };
    let mut bytes = Vec::new();
    let len = HEADER as usize + ids.len() * id_bytes as usize + starts.len() * 8;
    bytes
        .try_reserve_exact(len)
        .map_err(|_| Error::out_of_memory(len as u64))?;
    bytes.extend(TOKENS_MAGIC);
    for word in [VERSION, id_bytes, 0] {
        bytes.extend(word.to_le_bytes());
    }
    for long in [ids.len() as u64, starts.len() as u64] {
        bytes.extend(long.to_le_bytes());
    }
    for &id in ids {
        bytes.extend(&id.to_le_bytes()[..id_bytes as usize]);
    }
    for start in starts {
        bytes.extend(start.to_le_bytes());
    }
    Ok(bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut long = [0; 8];
    long.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(long)
}
