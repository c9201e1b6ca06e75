//! One pass over layers: takes rows of hidden states through a list of layers, block by block, in
//! units that its pace grants. What is done in which order, `plan.rs` says; what a row becomes, the
//! layers say.

pub(crate) mod alone;
#[cfg(feature = "models")]
mod apart;
mod buffers;
#[cfg(feature = "models")]
mod marks;
mod pieces;
mod plan;
#[cfg(feature = "models")]
mod recurrent;
#[cfg(feature = "models")]
mod residual;
#[cfg(feature = "models")]
mod state;
mod tables;
mod whole;

#[cfg(feature = "models")]
pub(crate) use marks::{MARKED, TAKEN_BACK};
pub(crate) use pieces::{Block, Text};
#[cfg(feature = "models")]
pub(crate) use plan::After;
pub(crate) use plan::{Keys, Plan};
#[cfg(feature = "models")]
pub use state::{LayerState, PartData, StatePart};
#[cfg(feature = "models")]
pub(crate) use state::{STRIP, State, StateOptions};

use crate::layers::attention::{DiffAttnLayer, LayerMask};
use buffers::Buffers;
#[cfg(feature = "models")]
use diffattn::checked_len;
use diffattn::{Error, KvCache, MapOutputs, Pace, Run, try_zeroed};
use plan::Part;
use std::ops::Range;
use std::sync::Arc;
use tables::{Positioned, Tables};

/// Where a pass writes besides the rows of its last layer.
#[derive(Debug, Default)]
pub(crate) struct Outputs<'o> {
    /// The result of attention alone, as many rows as x.
    pub(crate) alone: Option<&'o mut [f32]>,
    /// `[layers + 1, B, L, hidden_size]`: the hidden states before the first layer and after each
    /// but the last.
    #[cfg(feature = "models")]
    pub(crate) states: Option<&'o mut [f32]>,
    /// One for each layer whose maps are wanted, `[B, H, L, T]`.
    pub(crate) maps: Vec<MapOutputs<'o>>,
    /// L.
    #[cfg(feature = "models")]
    pub(crate) length: usize,
    /// T, L where nothing stands before the rows.
    #[cfg(feature = "models")]
    pub(crate) columns: usize,
}

/// The keys and values of one layer, at work.
#[derive(Debug)]
pub(crate) enum Memory<'c> {
    /// In the pass.
    Rows,
    /// In one cache of all texts.
    Cache(&'c mut KvCache),
    /// A state for each text.
    #[cfg(feature = "models")]
    States(Vec<&'c mut State>),
}

/// How the rows of a pass are run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings<'a> {
    pub(crate) run: Run,
    /// Tokens that each token sees, itself included; all where there is none.
    pub(crate) window: Option<usize>,
    /// What errors call the inputs.
    pub(crate) argument: &'static str,
    pub(crate) mask: Option<&'a LayerMask<'a>>,
}

/// A pass at work.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    pub(crate) plan: Plan<'a>,
    pub(crate) settings: Settings<'a>,
    /// What attention alone reads in the place of x.
    given: Option<&'a [f32]>,
    /// The hidden states of the chunk.
    pub(crate) x: Vec<f32>,
    buffers: Buffers,
    tables: Tables,
    /// Of each text, the inputs that differences of the layer at work look back at.
    tails: Vec<Vec<f32>>,
    #[cfg(feature = "models")]
    chunk: usize,
    blocks: Arc<Vec<Block>>,
}

impl<'a> Pass<'a> {
    /// A pass over rows of its own, all zeros. Memory is for the longest chunk.
    #[cfg(feature = "models")]
    pub(crate) fn new(plan: Plan<'a>, settings: Settings<'a>, width: usize) -> Result<Self, Error> {
        let mut pass = Self::over(plan, settings, None)?;
        let rows = pass.blocks.last().map_or(0, |block| block.rows.end);
        pass.x = try_zeroed(checked_len(settings.argument, &[rows, width])?)?;
        Ok(pass)
    }

    /// A pass of attention alone over `given` rows.
    pub(crate) fn over(
        plan: Plan<'a>,
        settings: Settings<'a>,
        given: Option<&'a [f32]>,
    ) -> Result<Self, Error> {
        // (No chunk is longer than the first.)
        let blocks = plan.blocks(0);
        Ok(Self {
            buffers: Buffers::new(&plan, &blocks, settings.argument)?,
            plan,
            settings,
            given,
            x: Vec::new(),
            tables: Tables::default(),
            tails: Vec::new(),
            #[cfg(feature = "models")]
            chunk: 0,
            blocks: Arc::new(blocks),
        })
    }

    /// Turns to a chunk; gives its blocks.
    #[cfg(feature = "models")]
    pub(crate) fn begin(&mut self, chunk: usize) -> Arc<Vec<Block>> {
        if chunk != self.chunk {
            self.chunk = chunk;
            self.blocks = Arc::new(self.plan.blocks(chunk));
            self.tables.clear();
        }
        self.blocks.clone()
    }

    /// Takes the rows of the chunk through a layer.
    pub(crate) async fn layer(
        &mut self,
        index: usize,
        mut memory: Memory<'_>,
        outputs: &mut Outputs<'_>,
        pace: &Pace,
    ) -> Result<(), Error> {
        let blocks = self.blocks.clone();
        self.look_back(index, &memory)?;
        #[cfg(feature = "models")]
        let places = self.places(index, &mut memory)?;
        for task in self.plan.tasks(&blocks, index) {
            if matches!(task.part, Part::AttendWhole | Part::MapWhole) {
                let mut attended = std::mem::take(&mut self.buffers.attended);
                let mut work = if task.part == Part::MapWhole {
                    self.map_whole(index, outputs)
                } else {
                    self.attend_whole(index, &memory, &mut attended)
                }?;
                pace.within(&mut work, task.units()).await?;
                drop(work);
                self.buffers.attended = attended;
                continue;
            }
            let work = |rows| {
                let at = At {
                    index,
                    block: &blocks[task.block],
                    rows,
                };
                match task.part {
                    #[cfg(feature = "models")]
                    Part::Project if self.plan.layers[index].mixer.attention().is_none() => {
                        self.recur(&at, &mut memory)
                    }
                    #[cfg(feature = "models")]
                    Part::Project if matches!(memory, Memory::States(_)) => {
                        self.project(&at)?;
                        self.remember(&at, &mut memory)
                    }
                    Part::Project => self.project(&at),
                    Part::Append => self.append(index, &mut memory, at.rows),
                    #[cfg(feature = "models")]
                    Part::Map => self.map(&at, &memory, &places, outputs),
                    #[cfg(feature = "models")]
                    Part::Attend => self.attend(&at, &memory, &places),
                    #[cfg(feature = "models")]
                    Part::First => self.first(&at),
                    #[cfg(feature = "models")]
                    Part::Second => self.second(&at, outputs),
                    _ => self.output(&at, outputs),
                }
            };
            pace.rows(task.rows.clone(), task.unit, work).await?;
        }
        #[cfg(feature = "models")]
        self.end_states(&mut memory);
        Ok(())
    }

    /// The attention of a layer.
    fn attention(&self, index: usize) -> Result<&'a DiffAttnLayer, Error> {
        let attention = self.plan.layers[index].mixer.attention();
        attention.ok_or_else(|| Error::internal("attention of a layer that has none"))
    }

    /// What the differences of a layer look back at: the last inputs that it was given before this
    /// pass.
    fn look_back(&mut self, index: usize, memory: &Memory<'_>) -> Result<(), Error> {
        self.tails.clear();
        let wanted = self.plan.wanted(index);
        if let Some(attention) = self.plan.layers[index].mixer.attention()
            && let Some(fusion) = attention.fused(wanted)
        {
            for text in 0..self.plan.texts.len() {
                let tail = match memory.held(text) {
                    None => Vec::new(),
                    Some((cache, batch)) => attention.last_inputs(fusion, cache, batch)?,
                };
                self.tails.push(tail);
            }
        }
        Ok(())
    }

    /// The first row that the operands of attention are kept of.
    fn first_kept(&self, at: &At<'_>) -> usize {
        let is_whole = matches!(self.plan.keys, Keys::Whole { .. });
        if is_whole { 0 } else { at.block.rows.start }
    }

    /// q, k, v and λ of rows.
    fn project(&mut self, at: &At<'_>) -> Result<(), Error> {
        let (index, rows) = (at.index, &at.rows);
        let (attention, wanted) = (self.attention(index)?, self.plan.wanted(index));
        let first = rows.start - self.first_kept(at);
        let width = attention.embed_dim();
        let run = self.settings.run;
        let positioned: Vec<Positioned> = self.positioned(at).collect();
        let Buffers {
            #[cfg(feature = "models")]
            row,
            still,
            operands,
            ..
        } = &mut self.buffers;
        let x = &self.given.unwrap_or(&self.x)[rows.start * width..rows.end * width];
        #[cfg(feature = "models")]
        let x = match self.plan.layers[index].norm {
            None => x,
            Some(norm) => {
                let normed = &mut row[..x.len()];
                norm.rows(x, normed, run)?;
                &*normed
            }
        };
        let rotary_dim = attention.rotary_dim;
        if let Some(rope) = &attention.rope {
            self.tables.cover(rope, rotary_dim, &positioned, run)?;
        }
        let turns = |rows: &[Positioned]| match &attention.rope {
            None => Vec::new(),
            Some(rope) => self.tables.turns(rope, rotary_dim, rows),
        };
        let widths = self.plan.layers[index].mixer.widths(wanted);
        let Some(fusion) = attention.fused(wanted) else {
            let to = operands.rows(&widths, first..first + rows.len());
            return attention.project(x, to, &turns(&positioned), still, run);
        };
        for (piece, part) in at.block.within(rows).zip(positioned) {
            let tail = &mut self.tails[piece.text];
            let back = tail.len() / width;
            let joined = joined(tail, &x[part.rows.start * width..part.rows.end * width])?;
            let to = operands.rows(&widths, first + part.rows.start..first + part.rows.end);
            let part = Positioned {
                rows: 0..part.rows.len(),
                ..part
            };
            attention.project_fused(fusion, (&joined, back), to, &turns(&[part]), run)?;
            let kept = fusion.order.min(joined.len() / width) * width;
            *tail = joined[joined.len() - kept..].to_vec();
        }
        Ok(())
    }

    /// The rows of each text, counted from the first, by their positions.
    fn positioned(&self, at: &At<'_>) -> impl Iterator<Item = Positioned> {
        let first = at.rows.start;
        at.block.within(&at.rows).map(move |piece| {
            let Text { start, length, .. } = self.plan.texts[piece.text];
            let row = piece.row - first;
            Positioned {
                rows: row..row + piece.tokens.len(),
                position: start + piece.tokens.start,
                text: start..start + length,
            }
        })
    }

    /// The mixer's output projection of rows.
    fn output(&mut self, at: &At<'_>, outputs: &mut Outputs<'_>) -> Result<(), Error> {
        let layer = self.plan.layers[at.index];
        let first = at.rows.start - self.first_kept(at);
        let run = self.settings.run;
        let width = layer.mixer.widths(self.plan.wanted(at.index)).attended;
        let attended = &self.buffers.attended[first * width..(first + at.rows.len()) * width];
        let width = layer.mixer.width();
        let to = at.rows.start * width..at.rows.end * width;
        if let Some(y) = &mut outputs.alone {
            return layer.mixer.output(attended, &mut y[to], run);
        }
        #[cfg(feature = "models")]
        {
            let added = &mut self.buffers.row[..to.len()];
            layer.mixer.output(attended, added, run)?;
            residual::add(&mut self.x[to], added, layer.scale);
        }
        Ok(())
    }
}

/// Some rows of a block in a layer.
#[derive(Debug)]
struct At<'b> {
    /// The layer's.
    index: usize,
    block: &'b Block,
    /// Of the chunk.
    rows: Range<usize>,
}

/// Rows behind one another.
fn joined(first: &[f32], second: &[f32]) -> Result<Vec<f32>, Error> {
    let mut rows = try_zeroed(first.len() + second.len())?;
    rows[..first.len()].copy_from_slice(first);
    rows[first.len()..].copy_from_slice(second);
    Ok(rows)
}

impl Memory<'_> {
    /// Where the keys of a text's past are, and as which entry of the batch.
    fn held(&self, text: usize) -> Option<(&KvCache, usize)> {
        match self {
            Self::Rows => None,
            Self::Cache(cache) => Some((cache, text)),
            #[cfg(feature = "models")]
            Self::States(states) => Some((&states[text].kv()?.cache, 0)),
        }
    }
}
