//! The order of work of a forward pass: chunks of tokens that go through all layers, blocks of rows that go through one layer
//! at a time, tasks of a block in units of a few milliseconds. Knows nothing of numbers: no result depends on it.

use super::DiffLlama;
use super::forward::Logits;
use diffattn::{Error, checked_len};
use std::ops::Range;

/// Rows that go through a layer at once at most: what the MLP makes of them stays in the caches, and weights are read often
/// enough only for this many rows.
const BLOCK_ROWS: usize = 256;

/// Multiply-adds per unit of work: about a millisecond of one core.
const UNIT_WORK: usize = 1 << 24;

/// Rows of a unit at least: reading weights costs as much as using them for about so many.
const MIN_ROWS: usize = 16;

/// What is asked of a forward pass.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) logits: Logits,
    pub(super) hidden_states: bool,
    pub(super) caches: bool,
}

/// A part of the work on some rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// x of the ids.
    Embed,
    /// q, k, v; the latter two go to the caches.
    Project,
    /// The maps that are wanted.
    Maps,
    Attend,
    /// Attention's output projection, added to x.
    Output,
    /// The first half of the MLP.
    Gate,
    /// The second, added to x.
    Down,
    /// The last hidden state.
    Norm,
    /// Logits, from that row of the result on.
    Head {
        first: usize,
    },
    /// Caches take over the chunk. One unit.
    Commit,
}

#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) part: Part,
    pub(super) chunk: usize,
    pub(super) layer: usize,
    /// Index in the chunk.
    pub(super) block: usize,
    /// Rows of the chunk, all in the block.
    pub(super) rows: Range<usize>,
    /// Rows per unit.
    pub(super) unit: usize,
}

/// Tokens of one text in a block.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) segment: usize,
    /// Counted from the first id of the call.
    pub(super) tokens: Range<usize>,
    /// The first one's row in the chunk.
    pub(super) row: usize,
}

impl Piece {
    /// The part of it in `rows`, if any.
    fn within(&self, rows: &Range<usize>) -> Option<Self> {
        let row = self.row.max(rows.start);
        let end = (self.row + self.tokens.len()).min(rows.end);
        (row < end).then(|| {
            let first = self.tokens.start + row - self.row;
            Self {
                segment: self.segment,
                tokens: first..first + end - row,
                row,
            }
        })
    }
}

/// Rows that go through a layer at once.
#[derive(Debug)]
pub(super) struct Block {
    /// Of the chunk.
    pub(super) rows: Range<usize>,
    pub(super) pieces: Vec<Piece>,
}

impl Block {
    /// The parts of its pieces in `rows`.
    pub(super) fn within<'b>(&'b self, rows: &'b Range<usize>) -> impl Iterator<Item = Piece> + 'b {
        self.pieces.iter().filter_map(|piece| piece.within(rows))
    }

    /// The same, each with what `list` has for its piece.
    pub(super) fn within_with<'b, T>(
        &'b self,
        rows: &'b Range<usize>,
        list: &'b [T],
    ) -> impl Iterator<Item = (Piece, &'b T)> + 'b {
        let pieces = self.pieces.iter().zip(list);
        pieces.filter_map(|(piece, item)| Some((piece.within(rows)?, item)))
    }
}

/// All tasks, in order.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) tasks: Vec<Task>,
    pub(super) units: usize,
    chunks: Vec<Vec<Block>>,
    /// Tokens of a text per chunk.
    chunk: usize,
}

impl Plan {
    /// For texts of `lengths` whose first tokens have the positions `starts`.
    pub(super) fn new(
        model: &DiffLlama,
        lengths: &[usize],
        starts: &[usize],
        chunk: usize,
        wanted: Wanted,
        map_layers: &[usize],
    ) -> Result<Self, Error> {
        let mut plan = Self {
            tasks: Vec::new(),
            units: 0,
            chunks: Vec::new(),
            chunk,
        };
        let total = lengths
            .iter()
            .try_fold(0usize, |total, &length| total.checked_add(length));
        checked_len("ids", &[total.unwrap_or(usize::MAX), 8])?;
        let longest = lengths.iter().copied().max().unwrap_or(0);
        for index in 0..longest.div_ceil(chunk.max(1)) {
            let blocks = plan.blocks(index, lengths);
            plan.chunks.push(blocks);
            plan.chunk_tasks(model, lengths, starts, wanted, map_layers);
        }
        plan.units = plan
            .tasks
            .iter()
            .map(|task| task.rows.len().div_ceil(task.unit))
            .sum();
        Ok(plan)
    }

    pub(super) fn block(&self, task: &Task) -> &Block {
        &self.chunks[task.chunk][task.block]
    }

    /// The tokens of a text of `length` in a chunk.
    pub(super) fn tokens(&self, chunk: usize, length: usize) -> Range<usize> {
        let first = chunk.saturating_mul(self.chunk).min(length);
        first..first.saturating_add(self.chunk).min(length)
    }

    /// Rows of a chunk at most.
    pub(super) fn chunk_rows(&self) -> usize {
        let rows = self.chunks.iter().filter_map(|blocks| blocks.last());
        rows.map(|block| block.rows.end).max().unwrap_or(0)
    }

    /// Rows of a block at most.
    pub(super) fn block_rows(&self) -> usize {
        self.chunk_rows().min(BLOCK_ROWS)
    }

    fn blocks(&self, chunk: usize, lengths: &[usize]) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        for (segment, &length) in lengths.iter().enumerate() {
            let mut tokens = self.tokens(chunk, length);
            while !tokens.is_empty() {
                let first = blocks.last().map_or(0, |block| block.rows.end);
                let block = match blocks.last_mut() {
                    Some(block) if block.rows.len() < BLOCK_ROWS => block,
                    _ => {
                        blocks.push(Block {
                            rows: first..first,
                            pieces: Vec::new(),
                        });
                        continue;
                    }
                };
                let count = tokens.len().min(BLOCK_ROWS - block.rows.len());
                block.pieces.push(Piece {
                    segment,
                    tokens: tokens.start..tokens.start + count,
                    row: first,
                });
                block.rows.end += count;
                tokens.start += count;
            }
        }
        blocks
    }

    /// Appends the tasks of the last chunk.
    fn chunk_tasks(
        &mut self,
        model: &DiffLlama,
        lengths: &[usize],
        starts: &[usize],
        wanted: Wanted,
        map_layers: &[usize],
    ) {
        let config = &model.config;
        let chunk = self.chunks.len() - 1;
        let blocks = std::mem::take(&mut self.chunks[chunk]);
        let layers = model.layers.len();
        let goes_on = wanted.logits != Logits::None || wanted.hidden_states;
        let end = if goes_on || wanted.caches {
            layers
        } else {
            map_layers.iter().max().map_or(0, |layer| layer + 1)
        };
        let mut push = |part, layer, block, rows: Range<usize>, unit| {
            self.tasks.push(Task {
                part,
                chunk,
                layer,
                block,
                rows,
                unit,
            });
        };
        if end > 0 {
            for (index, block) in blocks.iter().enumerate() {
                // A row costs what copying it costs.
                let unit = unit_rows(config.hidden_size.saturating_mul(16));
                push(Part::Embed, 0, index, block.rows.clone(), unit);
            }
        }
        for (layer, parts) in model.layers.iter().enumerate().take(end) {
            let attention = &parts.attention;
            let projections = [&attention.q, &attention.k, &attention.v];
            let outputs: usize = projections.iter().map(|linear| linear.outputs()).sum();
            let projection = unit_rows(outputs.saturating_mul(config.hidden_size));
            let output = unit_rows(attention.out.inputs().saturating_mul(config.hidden_size));
            let mlp = config.intermediate_size.saturating_mul(config.hidden_size);
            let is_last = layer + 1 == layers;
            for (index, block) in blocks.iter().enumerate() {
                push(Part::Project, layer, index, block.rows.clone(), projection);
                // Scores and values of two flat heads each: as many multiply-adds per key.
                let pieces = block.pieces.iter();
                let keys = pieces
                    .map(|piece| starts[piece.segment] + piece.tokens.end)
                    .max()
                    .unwrap_or(0);
                let heads = config.num_attention_heads * config.head_dim;
                let attended = unit_rows(heads.saturating_mul(2).saturating_mul(keys));
                if map_layers.contains(&layer) {
                    push(Part::Maps, layer, index, block.rows.clone(), attended);
                }
                let rows = if !goes_on && layer + 1 == end {
                    Vec::new()
                } else if is_last && wanted.logits == Logits::Last && !wanted.hidden_states {
                    last_rows(block, lengths)
                } else {
                    vec![block.rows.clone()]
                };
                for rows in rows {
                    push(Part::Attend, layer, index, rows.clone(), attended);
                    push(Part::Output, layer, index, rows.clone(), output);
                    push(
                        Part::Gate,
                        layer,
                        index,
                        rows.clone(),
                        unit_rows(mlp.saturating_mul(2)),
                    );
                    push(Part::Down, layer, index, rows, unit_rows(mlp));
                }
            }
        }
        // The row of the result that each text's first is.
        let mut firsts = Vec::with_capacity(lengths.len());
        let mut first = 0;
        for length in lengths {
            firsts.push(first);
            first += length;
        }
        let head = unit_rows(config.vocab_size.saturating_mul(config.hidden_size));
        for (index, block) in blocks.iter().enumerate() {
            if wanted.hidden_states {
                let unit = unit_rows(config.hidden_size.saturating_mul(16));
                push(Part::Norm, layers, index, block.rows.clone(), unit);
            }
            match wanted.logits {
                Logits::None => {}
                Logits::Last => {
                    for rows in last_rows(block, lengths) {
                        let first = block.within(&rows).next().map_or(0, |piece| piece.segment);
                        push(Part::Head { first }, layers, index, rows, head);
                    }
                }
                Logits::All => {
                    for (first, rows) in whole_rows(block, &firsts) {
                        push(Part::Head { first }, layers, index, rows, head);
                    }
                }
            }
        }
        push(Part::Commit, layers, 0, 0..1, 1);
        self.chunks[chunk] = blocks;
    }
}

/// The rows of a block that are the last of a text, those of neighbouring texts together.
fn last_rows(block: &Block, lengths: &[usize]) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut segment = None;
    for piece in &block.pieces {
        let end = piece.row + piece.tokens.len();
        if piece.tokens.end < lengths[piece.segment] {
            continue;
        }
        match found.last_mut() {
            Some(last) if last.end + 1 == end && segment == piece.segment.checked_sub(1) => {
                last.end = end;
            }
            _ => found.push(end - 1..end),
        }
        segment = Some(piece.segment);
    }
    found
}

/// All rows of a block in stretches that lie together in the result, too: where each begins there, and its rows.
fn whole_rows(block: &Block, firsts: &[usize]) -> Vec<(usize, Range<usize>)> {
    let mut found: Vec<(usize, Range<usize>)> = Vec::new();
    for piece in &block.pieces {
        let to = firsts[piece.segment] + piece.tokens.start;
        let end = piece.row + piece.tokens.len();
        match found.last_mut() {
            Some((first, rows)) if *first + rows.len() == to => rows.end = end,
            _ => found.push((to, piece.row..end)),
        }
    }
    found
}

/// Rows per unit of work of `work` multiply-adds a row.
fn unit_rows(work: usize) -> usize {
    (UNIT_WORK / work.max(1)).clamp(MIN_ROWS, BLOCK_ROWS)
}
