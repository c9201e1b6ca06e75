//! What stands at both ends of a text model's layers, as rows of work: embeddings before them;
//! hidden states and logits after. Knows nothing of numbers.

use super::ids::Logits;
use crate::pass::{Block, Plan, Text};
use std::ops::Range;

/// Elements of a row that copying costs as much as a multiply-add of each: embeddings, norms.
const COPY_WORK: usize = 16;

/// What is wanted, and the sizes that it costs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    pub(super) hidden_size: usize,
    /// Numbers of a row of the result.
    pub(super) width: usize,
    pub(super) logits: Logits,
    pub(super) hidden_states: bool,
}

impl Ends {
    /// Units of a chunk.
    pub(super) fn units(&self, plan: &Plan<'_>, blocks: &[Block]) -> usize {
        let ends = [
            self.embeds(plan, blocks),
            self.states(plan, blocks),
            self.heads(plan, blocks),
        ];
        ends.iter().flatten().map(Stretch::units).sum()
    }

    /// x of the ids.
    pub(super) fn embeds(&self, plan: &Plan<'_>, blocks: &[Block]) -> Vec<Stretch> {
        if plan.layers.is_empty() {
            return Vec::new();
        }
        self.copies(plan, blocks)
    }

    /// The last hidden states.
    pub(super) fn states(&self, plan: &Plan<'_>, blocks: &[Block]) -> Vec<Stretch> {
        if !self.hidden_states {
            return Vec::new();
        }
        self.copies(plan, blocks)
    }

    /// All rows, each of which costs what copying it costs.
    fn copies(&self, plan: &Plan<'_>, blocks: &[Block]) -> Vec<Stretch> {
        let unit = plan.unit(self.hidden_size.saturating_mul(COPY_WORK));
        let blocks = blocks.iter().enumerate();
        blocks
            .map(|(index, block)| Stretch {
                block: index,
                rows: block.rows.clone(),
                unit,
                first: 0,
            })
            .collect()
    }

    /// Rows whose logits are wanted, and where these go.
    pub(super) fn heads(&self, plan: &Plan<'_>, blocks: &[Block]) -> Vec<Stretch> {
        let unit = plan.unit(self.width.saturating_mul(self.hidden_size));
        // The row of the result that each text's first is.
        let mut firsts = Vec::with_capacity(plan.texts.len());
        let mut first = 0;
        for text in &plan.texts {
            firsts.push(first);
            first += text.length - text.again;
        }
        let mut heads = Vec::new();
        for (index, block) in blocks.iter().enumerate() {
            let wanted = match self.logits {
                Logits::None => Vec::new(),
                Logits::Last => {
                    let rows = block.last_rows(&plan.texts).into_iter();
                    let text = |rows: &Range<usize>| {
                        block.within(rows).next().map_or(0, |piece| piece.text)
                    };
                    rows.map(|rows| (text(&rows), rows)).collect()
                }
                Logits::All => whole_rows(block, &plan.texts, &firsts),
            };
            heads.extend(wanted.into_iter().map(|(first, rows)| Stretch {
                block: index,
                rows,
                unit,
                first,
            }));
        }
        heads
    }
}

/// Rows of a block that go together.
#[derive(Debug)]
pub(super) struct Stretch {
    pub(super) block: usize,
    pub(super) rows: Range<usize>,
    /// Rows per unit.
    pub(super) unit: usize,
    /// The row of the result that the first one is.
    pub(super) first: usize,
}

impl Stretch {
    pub(super) fn units(&self) -> usize {
        self.rows.len().div_ceil(self.unit)
    }
}

/// All rows of a block in stretches that lie together in the result, too: where each begins there,
/// and its rows.
fn whole_rows(block: &Block, texts: &[Text], firsts: &[usize]) -> Vec<(usize, Range<usize>)> {
    let mut found: Vec<(usize, Range<usize>)> = Vec::new();
    let pieces = block.pieces.iter();
    for piece in pieces.filter_map(|piece| piece.fresh(texts)) {
        let to = firsts[piece.text] + piece.tokens.start;
        let end = piece.row + piece.tokens.len();
        match found.last_mut() {
            Some((first, rows)) if *first + rows.len() == to && rows.end == piece.row => {
                rows.end = end;
            }
            _ => found.push((to, piece.row..end)),
        }
    }
    found
}
