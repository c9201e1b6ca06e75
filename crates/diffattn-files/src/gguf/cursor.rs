//! Bytes of a GGUF header, read one after the other: what reaches beyond the file is refused, what
//! reaches beyond the bytes that came is asked for. Allocates nothing.

use crate::entry::MAX_HEADER;
use diffattn::Error;

/// Why a header could not be read to its end.
#[derive(Debug)]
pub(super) enum Stop {
    /// There are too few bytes: so many are needed, counted from the start of the file.
    Need(u64),
    /// It is refused.
    Refused(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// A place in a header.
#[derive(Debug)]
pub(super) struct Cursor<'f, 'b> {
    /// The file's name in errors.
    pub(super) file: &'f str,
    bytes: &'b [u8],
    at: u64,
    file_len: u64,
}

impl<'f, 'b> Cursor<'f, 'b> {
    pub(super) fn new(file: &'f str, bytes: &'b [u8], file_len: u64) -> Self {
        Self {
            file,
            bytes,
            at: 0,
            file_len,
        }
    }

    /// Bytes that were read.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Bytes of the file that were not.
    pub(super) fn left(&self) -> u64 {
        self.file_len.saturating_sub(self.at)
    }

    /// The bytes that came and were not read.
    pub(super) fn rest(&self) -> &'b [u8] {
        // (What was read is at most 1e8 bytes.)
        self.bytes.get(self.at as usize..).unwrap_or_default()
    }

    /// The next bytes; `what` they are, in errors.
    pub(super) fn take(&mut self, len: u64, what: &str) -> Result<&'b [u8], Stop> {
        if len > self.left() {
            let expected = format!("{what} within the {} bytes of the file", self.file_len);
            let got = format!("{len} bytes from byte {} on", self.at);
            return Err(Error::file(self.file, expected, got).into());
        }
        // (Within the file, so it does not overflow.)
        let end = self.at + len;
        if end > MAX_HEADER {
            let expected = format!("a header of at most {MAX_HEADER} bytes");
            return Err(Error::file(self.file, expected, "more").into());
        }
        // (They fit a usize: a header is at most 1e8.)
        match self.bytes.get(self.at as usize..end as usize) {
            Some(bytes) => {
                self.at = end;
                Ok(bytes)
            }
            None => Err(Stop::Need(end)),
        }
    }

    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Stop> {
        let bytes = self.take(N as u64, what)?;
        // (They are as many.)
        Ok(*bytes.first_chunk().unwrap_or(&[0; N]))
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, Stop> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, Stop> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A text: its length, then its bytes.
    pub(super) fn text(&mut self, what: &str) -> Result<&'b [u8], Stop> {
        let len = self.u64(what)?;
        self.take(len, what)
    }
}
