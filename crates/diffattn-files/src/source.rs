//! Where a checkpoint's bytes come from: memory, a memory map, or a file that is read range by
//! range. The only file here that opens files, which WebAssembly has none of. Knows no format.

use diffattn::Error;
use std::borrow::Cow;
use std::ops::Range;

/// Bytes that can be read by range.
pub trait ByteSource {
    /// How many there are.
    fn byte_len(&self) -> u64;

    /// Some of them, borrowed where they lie in memory. `argument` names what is read, in errors.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) when they cannot be read;
    /// [`Error::out_of_memory`].
    fn read(&self, argument: &str, range: Range<u64>) -> Result<Cow<'_, [u8]>, Error>;
}

impl<B: AsRef<[u8]>> ByteSource for B {
    fn byte_len(&self) -> u64 {
        self.as_ref().len() as u64
    }

    fn read(&self, argument: &str, range: Range<u64>) -> Result<Cow<'_, [u8]>, Error> {
        let bytes = self.as_ref();
        let index = |at: u64| usize::try_from(at).ok();
        index(range.start)
            .zip(index(range.end))
            .and_then(|(start, end)| bytes.get(start..end))
            .map(Cow::Borrowed)
            .ok_or_else(|| {
                Error::file(
                    argument,
                    format_args!("bytes {} to {}", range.start, range.end),
                    format_args!("{} bytes", bytes.len()),
                )
            })
    }
}

#[cfg(not(target_arch = "wasm32"))]
pub use native::{FileMap, FileRanges};

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use super::ByteSource;
    use diffattn::{Error, try_zeroed};
    use memmap2::Mmap;
    use std::borrow::Cow;
    use std::fs::File;
    use std::ops::Range;
    use std::path::Path;

    fn refuse(path: &Path, expected: &str, error: &std::io::Error) -> Error {
        Error::file(path.display(), expected, error)
    }

    fn open(path: &Path) -> Result<(File, u64), Error> {
        let file = File::open(path).map_err(|error| refuse(path, "a file to read", &error))?;
        let metadata = file
            .metadata()
            .map_err(|error| refuse(path, "a file to read", &error))?;
        if !metadata.is_file() {
            return Err(Error::file(
                path.display(),
                "a file to read",
                "a folder or a device",
            ));
        }
        Ok((file, metadata.len()))
    }

    /// A file that is read range by range: each tensor is copied when it is asked for, and nothing
    /// else is held.
    #[derive(Debug)]
    pub struct FileRanges {
        file: File,
        len: u64,
    }

    impl FileRanges {
        /// Opens a file.
        ///
        /// # Errors
        /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the path.
        pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
            let (file, len) = open(path.as_ref())?;
            Ok(Self { file, len })
        }
    }

    impl ByteSource for FileRanges {
        fn byte_len(&self) -> u64 {
            self.len
        }

        fn read(&self, argument: &str, range: Range<u64>) -> Result<Cow<'_, [u8]>, Error> {
            let expected = |got: String| {
                Error::file(
                    argument,
                    format_args!("bytes {} to {}", range.start, range.end),
                    got,
                )
            };
            let len = range
                .end
                .checked_sub(range.start)
                .filter(|_| range.end <= self.len)
                .ok_or_else(|| expected(format!("{} bytes", self.len)))?;
            let len = usize::try_from(len).map_err(|_| Error::out_of_memory(len))?;
            let mut bytes = try_zeroed(len)?;
            read_at(&self.file, &mut bytes, range.start)
                .map_err(|error| expected(error.to_string()))?;
            Ok(Cow::Owned(bytes))
        }
    }

    /// Reads without moving the file's position, so that threads can share it.
    #[cfg(unix)]
    fn read_at(file: &File, to: &mut [u8], at: u64) -> std::io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(file, to, at)
    }

    #[cfg(windows)]
    fn read_at(file: &File, mut to: &mut [u8], mut at: u64) -> std::io::Result<()> {
        while !to.is_empty() {
            match std::os::windows::fs::FileExt::seek_read(file, to, at)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                count => {
                    to = &mut to[count..];
                    at += count as u64;
                }
            }
        }
        Ok(())
    }

    /// A file in memory as the system pages it in: tensors are read in place, whatever their size.
    #[derive(Debug)]
    pub struct FileMap(Mmap);

    impl FileMap {
        /// Maps a file.
        ///
        /// # Errors
        /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the path.
        ///
        /// # Safety
        /// As long as the map lives, nobody changes or shortens the file: its bytes are read as
        /// memory that does not change, and reading what a shortened file no longer has ends the
        /// process. [`FileRanges`] asks for no such promise. Replacing a file by renaming another
        /// over it, as downloads and trainers do, keeps it.
        pub unsafe fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
            let path = path.as_ref();
            let (file, _) = open(path)?;
            // SAFETY: the map is read-only, and the caller promises that the file stays as it is
            // while the map lives.
            let map = unsafe { Mmap::map(&file) };
            map.map(Self)
                .map_err(|error| refuse(path, "a file to map", &error))
        }
    }

    impl AsRef<[u8]> for FileMap {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
}
