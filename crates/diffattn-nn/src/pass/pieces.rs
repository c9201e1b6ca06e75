//! Rows of several texts, one text after the other, in blocks that go through a layer at once.
//! Knows nothing of layers and of numbers.

use std::ops::Range;

/// A text of a pass: tokens of any kind, patches of an image too.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Text {
    /// Its tokens in this pass.
    pub(crate) length: usize,
    /// The position of the first.
    pub(crate) start: usize,
    /// Of its tokens, the first so many are computed again, for the states alone: nothing is given
    /// of them.
    #[cfg(feature = "models")]
    pub(crate) again: usize,
}

/// Tokens of one text in a block.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) text: usize,
    /// Counted from the text's first token of the pass.
    pub(crate) tokens: Range<usize>,
    /// The first one's row in the chunk.
    pub(crate) row: usize,
}

impl Piece {
    /// The part of it in `rows`, if any.
    fn within(&self, rows: &Range<usize>) -> Option<Self> {
        let row = self.row.max(rows.start);
        let end = (self.row + self.tokens.len()).min(rows.end);
        (row < end).then(|| {
            let first = self.tokens.start + row - self.row;
            Self {
                text: self.text,
                tokens: first..first + end - row,
                row,
            }
        })
    }

    /// The part of it that is not computed again, its tokens counted from the first such one.
    #[cfg(feature = "models")]
    pub(crate) fn fresh(&self, texts: &[Text]) -> Option<Self> {
        let again = texts[self.text].again;
        let first = self.tokens.start.max(again);
        (first < self.tokens.end).then(|| Self {
            text: self.text,
            tokens: first - again..self.tokens.end - again,
            row: self.row + first - self.tokens.start,
        })
    }
}

/// Rows that go through a layer at once.
#[derive(Debug)]
pub(crate) struct Block {
    /// Of the chunk.
    pub(crate) rows: Range<usize>,
    pub(crate) pieces: Vec<Piece>,
}

impl Block {
    /// The parts of its pieces in `rows`.
    pub(crate) fn within<'b>(&'b self, rows: &'b Range<usize>) -> impl Iterator<Item = Piece> + 'b {
        self.pieces.iter().filter_map(|piece| piece.within(rows))
    }

    /// The rows of it that are the last of a text, those of neighbouring texts together.
    #[cfg(feature = "models")]
    pub(crate) fn last_rows(&self, texts: &[Text]) -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        let mut text = None;
        for piece in &self.pieces {
            let end = piece.row + piece.tokens.len();
            if piece.tokens.end < texts[piece.text].length {
                continue;
            }
            match found.last_mut() {
                Some(last) if last.end + 1 == end && text == piece.text.checked_sub(1) => {
                    last.end = end;
                }
                _ => found.push(end - 1..end),
            }
            text = Some(piece.text);
        }
        found
    }
}

/// Cuts the same stretch of each text, `tokens` of its tokens, into blocks of at most `block` rows.
pub(crate) fn blocks(texts: &[Text], tokens: &Range<usize>, block: usize) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let mut left = tokens.start.min(text.length)..tokens.end.min(text.length);
        while !left.is_empty() {
            let first = blocks.last().map_or(0, |block| block.rows.end);
            let last = match blocks.last_mut() {
                Some(last) if last.rows.len() < block => last,
                _ => {
                    blocks.push(Block {
                        rows: first..first,
                        pieces: Vec::new(),
                    });
                    continue;
                }
            };
            let count = left.len().min(block - last.rows.len());
            last.pieces.push(Piece {
                text: index,
                tokens: left.start..left.start + count,
                row: first,
            });
            last.rows.end += count;
            left.start += count;
        }
    }
    blocks
}
