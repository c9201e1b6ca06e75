//! What the tests of checkpoints share.

use diffattn::Error;
use diffattn_reference::testing;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::{Path, PathBuf};

pub(crate) use diffattn_reference::testing::{ok, values};

/// The code and sentence of what must fail.
pub(crate) fn refusal<T>(result: Result<T, Error>) -> (&'static str, String) {
    testing::refusal(result, |error| (error.code(), error.to_string()))
}

/// A safetensors file: header and data.
pub(crate) fn file(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend((0..data).map(|at| at as u8));
    file
}

/// The folders with checkpoints: the project's own and those that `DIFFATTN_CHECKPOINTS` names,
/// divided by colons.
pub(crate) fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut folders = vec![
        root.join("test/fixtures"),
        root.join("test/models"),
        root.join("examples/data"),
    ];
    if let Some(more) = std::env::var_os("DIFFATTN_CHECKPOINTS") {
        folders.extend(std::env::split_paths(&more));
    }
    folders
}

/// All files with that extension below the folders.
pub(crate) fn all_files(extension: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, extension: &str, files: &mut Vec<PathBuf>) {
        let entries =
            std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        for entry in entries {
            let path = entry
                .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
                .path();
            if path.is_dir() {
                walk(&path, extension, files);
            } else if path.extension().is_some_and(|of| of == extension) {
                files.push(path);
            }
        }
    }
    let mut files = Vec::new();
    for folder in folders() {
        walk(&folder, extension, &mut files);
    }
    files.sort();
    files
}

/// Small models as their sources write them.
pub(crate) fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test/models")
}

/// The reference cases.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test/fixtures")
}

/// A folder of its own for a test; the last run's is removed.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    folder
}

pub(crate) fn put(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// The system's allocator, counting what the calling thread has of it and had at most.
pub(crate) struct Counting;

thread_local! {
    static NOW: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    let now = NOW.get() + change;
    NOW.set(now);
    PEAK.set(PEAK.get().max(now));
}

// SAFETY: every call goes to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

/// The most bytes that `work` holds at once in this thread, beyond what was held before.
pub(crate) fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = NOW.get();
    PEAK.set(before);
    let result = work();
    (result, (PEAK.get() - before) as usize)
}
