//! A file by its lines: how many hold code, comments or unsafe blocks, and which comments are too
//! wide.

use crate::File;
use crate::modules::Source;

/// Columns that a comment may fill: as many as rustfmt gives code.
const COLUMNS: usize = 100;

pub(crate) fn measure(source: &Source) -> File {
    let is_test = |line: usize| source.tests.iter().any(|span| span.contains(&line));
    let mut file = File {
        functions: source.functions.clone(),
        ..File::default()
    };
    file.functions.sort_by_key(|function| function.line);
    for (index, text) in source.text.lines().enumerate() {
        file.lines += 1;
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
