//! What a crate's sources look like: lengths of files and functions, numbers of arguments, long
//! comments, blocks of unsafe code, and which file takes names from which. Parses by syn; expands
//! no macro, knows no types.
//!
//! A file takes a name from another where one of its paths (in a `use`, in code, in what is handed
//! to a macro) ends at an item that the other defines, through whatever re-exports. Methods and
//! fields are no names here. A module's `mod` lines are no import, and neither is its `pub use` of
//! what lies below it; its `use` lines of that are told apart.

mod modules;
mod names;
mod text;
mod visit;

use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// A function with a body.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Where its `fn` is, from 1.
    pub line: usize,
    /// From `fn` to its last brace.
    pub lines: usize,
    /// Without `self`.
    pub arguments: usize,
}

/// One file of a crate.
#[derive(Debug, Default, Serialize)]
pub struct File {
    /// All lines.
    pub lines: usize,
    /// The lines under `#[cfg(test)]`: of a file that is there for tests alone, all.
    pub test_lines: usize,
    /// Without tests, like all that follows: lines that hold nothing but a comment.
    pub comment_lines: usize,
    /// Lines with code.
    pub code_lines: usize,
    /// Lines with `unsafe {`.
    pub unsafe_lines: usize,
    /// Where a comment goes beyond the widest column.
    pub long_comments: Vec<usize>,
    /// The functions in their order.
    pub functions: Vec<Function>,
    /// The files that it takes names from, with the names.
    pub imports: BTreeMap<String, Vec<String>>,
    /// The same of files below its module, where a `use` line of its own names them and is no
    /// `pub use`.
    pub from_below: BTreeMap<String, Vec<String>>,
}

/// The facts of the crate whose `lib.rs` lies in `folder`: each file by its path in there.
///
/// # Errors
/// A sentence with the file that is not there or is no Rust.
pub fn facts(folder: &Path) -> Result<BTreeMap<String, File>, String> {
    let tree = modules::Tree::read(folder)?;
    let mut files: BTreeMap<String, File> = tree
        .sources
        .iter()
        .map(|source| (source.path.clone(), text::measure(source)))
        .collect();
    for import in names::imports(&tree) {
        let path = |index: usize| &tree.sources[index].path;
        let Some(file) = files.get_mut(path(import.from)) else {
            continue;
        };
        let imports = if import.is_from_below {
            &mut file.from_below
        } else {
            &mut file.imports
        };
        let names = imports.entry(path(import.to).clone()).or_default();
        if !names.contains(&import.name) {
            names.push(import.name);
        }
    }
    Ok(files)
}
