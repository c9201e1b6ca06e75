//! Texts of others in sentences of ours: cut where they are long. Knows no format.

/// The text, cut where it is too long for a sentence.
pub(crate) fn excerpt(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}
