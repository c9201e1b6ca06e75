//! A file by its lines: how many hold code, comments or unsafe blocks, and which comments are too
//! wide.

use crate::File;
use crate::modules::Source;

/// Columns that a comment may fill: as many as rustfmt gives code.
const COLUMNS: usize = 100;

/// Beginnings of documentation that says nothing without what stands above it.
const LEANING: [&str; 16] = [
    "As above",
    "As below",
    "As here",
    "As there",
    "Ditto",
    "Likewise",
    "Of none.",
    "The same,",
    "The same.",
    "The same at",
    "The same from",
    "The same in",
    "The same of",
    "The same on",
    "The same out",
    "The same with",
];

/// The text of a line of documentation.
fn documentation(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let text = line
        .strip_prefix("///")
        .or_else(|| line.strip_prefix("//!"));
    text.map(str::trim)
}

pub(crate) fn measure(source: &Source) -> File {
    let is_test = |line: usize| source.tests.iter().any(|span| span.contains(&line));
    let mut file = File {
        functions: source.functions.clone(),
        ..File::default()
    };
    file.functions.sort_by_key(|function| function.line);
    let mut begins = true;
    for (index, text) in source.text.lines().enumerate() {
        file.lines += 1;
        let said = documentation(text);
        let leans = said.is_some_and(|said| LEANING.iter().any(|word| said.starts_with(word)));
        if begins && leans && !is_test(index + 1) {
            file.leaning.push(index + 1);
        }
        // A paragraph begins behind code, a heading or an empty line.
        begins = said.is_none_or(|said| said.is_empty() || said.starts_with('#'));
        if is_test(index + 1) {
            file.test_lines += 1;
            continue;
        }
        let is_comment = text.trim_start().starts_with("//");
        file.comment_lines += usize::from(is_comment);
        file.code_lines += usize::from(!is_comment && !text.trim().is_empty());
        file.unsafe_lines += usize::from(!is_comment && text.contains("unsafe {"));
        // Code and a comment behind it, or a text with two slashes, which rustfmt leaves alone.
        let has_comment = is_comment
            || text
                .rfind("// ")
                .is_some_and(|at| !text[at..].contains('"'));
        if has_comment && text.chars().count() > COLUMNS {
            file.long_comments.push(index + 1);
        }
    }
    file.functions.retain(|function| !is_test(function.line));
    file
}
