//! The order of work of a pass: chunks of tokens that go through all layers, blocks of rows that go
//! through one layer at a time, tasks of a block in units of a few milliseconds. Knows nothing of
//! numbers: no result depends on it.

use super::pieces::{Block, Text, blocks};
use crate::layers::Layer;
use crate::layers::attention::{DiffAttnLayer, Wanted};
use std::ops::Range;

/// Rows that go through a layer at once at most, where each text has a cache: what the MLP makes of
/// them stays in the caches of the machine, and weights are read often enough only for this many
/// rows.
#[cfg(feature = "models")]
const BLOCK_ROWS: usize = 256;

/// Rows that go through a layer at once at most, where all keys come before the first query: bounds
/// the scratch, and is enough to keep threads busy. Blocks are of one size.
const WHOLE_ROWS: usize = 512;

/// Multiply-adds per unit of work: about a millisecond of one core.
const UNIT_WORK: usize = 1 << 24;

/// Rows of a unit at least, where texts have caches: reading weights costs as much as using them
/// for about so many.
#[cfg(feature = "models")]
const MIN_ROWS: usize = 16;

/// Queries of a unit of attention, as far as the count of units goes.
const ATTENTION_ROWS: usize = 48;

/// Queries of a unit of maps.
const MAP_ROWS: usize = 16;

/// Where the keys and values of a layer are during a pass, and thereby when they can be seen.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Keys {
    /// All texts have one length, and all keys are there before the first query: in the pass, for
    /// one layer at a time, or in one cache of all texts, which takes so many tokens of each per
    /// unit.
    Whole { append: Option<usize> },
    /// Each text has a state of its own, and every query sees only what came before it, so that a
    /// block goes through the whole layer while it is near.
    #[cfg(feature = "models")]
    Apart,
}

/// Of which rows the hidden states are wanted after the last layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// Of none: what the last layer keeps is enough.
    None,
    /// Of each text's last.
    #[cfg(feature = "models")]
    Last,
    /// Of all.
    All,
}

/// A part of a layer's work on some rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// q, k, v and λ; the states of texts take the keys. Of a mixer that is no attention, all but
    /// its output projection.
    Project,
    /// The way of k and v into the one cache; rows are tokens of each text.
    Append,
    /// All maps, as one call; rows are units.
    MapWhole,
    /// All of attention, as one call; rows are units.
    AttendWhole,
    /// Maps of the rows.
    #[cfg(feature = "models")]
    Map,
    /// Attention of the rows.
    #[cfg(feature = "models")]
    Attend,
    /// The mixer's output projection, added to x or given as the result.
    Output,
    /// The first half of the MLP.
    #[cfg(feature = "models")]
    First,
    /// The second, added to x.
    #[cfg(feature = "models")]
    Second,
}

#[derive(Debug, Clone)]
pub(crate) struct Task {
    pub(crate) part: Part,
    /// Index in the chunk.
    pub(crate) block: usize,
    /// Rows of the chunk, all in the block.
    pub(crate) rows: Range<usize>,
    /// Rows per unit.
    pub(crate) unit: usize,
}

impl Task {
    fn new(part: Part, block: usize, rows: Range<usize>, unit: usize) -> Self {
        Self {
            part,
            block,
            rows,
            unit,
        }
    }

    pub(crate) fn units(&self) -> usize {
        self.rows.len().div_ceil(self.unit)
    }
}

/// What goes through which layers.
#[derive(Debug)]
pub(crate) struct Plan<'m> {
    /// Those that are run.
    pub(crate) layers: Vec<Layer<'m>>,
    pub(crate) texts: Vec<Text>,
    /// Tokens of a text per chunk.
    pub(crate) chunk: usize,
    pub(crate) keys: Keys,
    pub(crate) after: After,
    /// The layers whose maps are wanted.
    pub(crate) map_layers: Vec<usize>,
}

impl Plan<'_> {
    /// Chunks of the longest text.
    pub(crate) fn chunks(&self) -> usize {
        let longest = self.texts.iter().map(|text| text.length).max();
        longest.unwrap_or(0).div_ceil(self.chunk.max(1))
    }

    /// The tokens of a chunk that a text of `length` has.
    pub(crate) fn tokens(&self, chunk: usize, length: usize) -> Range<usize> {
        let first = chunk.saturating_mul(self.chunk).min(length);
        first..first.saturating_add(self.chunk).min(length)
    }

    pub(crate) fn blocks(&self, chunk: usize) -> Vec<Block> {
        let rows = match self.keys {
            Keys::Whole { .. } => {
                let rows: usize = self.texts.iter().map(|text| text.length).sum();
                rows.div_ceil(rows.div_ceil(WHOLE_ROWS).max(1)).max(1)
            }
            #[cfg(feature = "models")]
            Keys::Apart => BLOCK_ROWS,
        };
        blocks(&self.texts, &self.tokens(chunk, usize::MAX), rows)
    }

    /// Rows per unit of work of `work` multiply-adds a row.
    pub(crate) fn unit(&self, work: usize) -> usize {
        let rows = UNIT_WORK / work.max(1);
        match self.keys {
            Keys::Whole { .. } => rows.clamp(1, WHOLE_ROWS),
            #[cfg(feature = "models")]
            Keys::Apart => rows.clamp(MIN_ROWS, BLOCK_ROWS),
        }
    }

    /// What the projections of a layer are for.
    pub(crate) fn wanted(&self, layer: usize) -> Wanted {
        match self.keys {
            Keys::Whole { append: Some(_) } => Wanted::Cache,
            Keys::Whole { append: None } if self.after_layer(layer) == After::None => Wanted::Maps,
            Keys::Whole { append: None } => Wanted::Attention,
            #[cfg(feature = "models")]
            Keys::Apart => Wanted::Cache,
        }
    }

    /// Of which rows the hidden states are wanted after a layer: behind the last one that keeps
    /// anything for later tokens or has maps to give, of those alone that are wanted at the end.
    pub(crate) fn after_layer(&self, layer: usize) -> After {
        if layer >= self.last_of_all() {
            self.after
        } else {
            After::All
        }
    }

    /// Of which rows the hidden states go into a layer.
    #[cfg(feature = "models")]
    pub(crate) fn before_layer(&self, layer: usize) -> After {
        match layer.checked_sub(1) {
            None => After::All,
            Some(before) => self.after_layer(before),
        }
    }

    /// The last layer that every row must go into.
    fn last_of_all(&self) -> usize {
        let keeps = self.layers.iter().rposition(|layer| layer.mixer.keeps());
        let maps = self.map_layers.iter().max().copied();
        keeps.max(maps).unwrap_or(0)
    }

    /// The rows of a block that `after` says.
    #[cfg(feature = "models")]
    fn rows_of(&self, block: &Block, after: After) -> Vec<Range<usize>> {
        match after {
            After::None => Vec::new(),
            After::Last => block.last_rows(&self.texts),
            After::All => vec![block.rows.clone()],
        }
    }

    /// The units of all layers and chunks.
    pub(crate) fn units(&self) -> usize {
        let mut units = 0usize;
        for chunk in 0..self.chunks() {
            let blocks = self.blocks(chunk);
            for layer in 0..self.layers.len() {
                let tasks = self.tasks(&blocks, layer);
                units += tasks.iter().map(Task::units).sum::<usize>();
            }
        }
        units
    }

    /// What is done with the blocks of a chunk in a layer, in order.
    pub(crate) fn tasks(&self, blocks: &[Block], layer: usize) -> Vec<Task> {
        match self.keys {
            Keys::Whole { append } => self.whole_tasks(blocks, layer, append),
            #[cfg(feature = "models")]
            Keys::Apart => self.apart_tasks(blocks, layer),
        }
    }

    fn whole_tasks(&self, blocks: &[Block], layer: usize, append: Option<usize>) -> Vec<Task> {
        let mut tasks = Vec::new();
        let Some(text) = self.texts.first() else {
            return tasks;
        };
        let mixer = self.layers[layer].mixer;
        let unit = self.unit(mixer.project_work());
        for (index, block) in blocks.iter().enumerate() {
            tasks.push(Task::new(Part::Project, index, block.rows.clone(), unit));
        }
        if let Some(unit) = append {
            tasks.push(Task::new(Part::Append, 0, 0..text.length, unit));
        }
        let heads = mixer.attention().map_or(0, DiffAttnLayer::num_heads);
        let heads = self.texts.len() * heads;
        if self.map_layers.contains(&layer) {
            let units = heads * text.length.div_ceil(MAP_ROWS);
            tasks.push(Task::new(Part::MapWhole, 0, 0..units, 1));
        }
        if self.after_layer(layer) == After::None {
            return tasks;
        }
        let units = heads * text.length.div_ceil(ATTENTION_ROWS);
        tasks.push(Task::new(Part::AttendWhole, 0, 0..units, 1));
        for (index, block) in blocks.iter().enumerate() {
            self.rest_tasks(&mut tasks, layer, index, &block.rows);
        }
        tasks
    }

    #[cfg(feature = "models")]
    fn apart_tasks(&self, blocks: &[Block], layer: usize) -> Vec<Task> {
        let mut tasks = Vec::new();
        let mixer = self.layers[layer].mixer;
        let projection = self.unit(mixer.project_work());
        for (index, block) in blocks.iter().enumerate() {
            for rows in self.rows_of(block, self.before_layer(layer)) {
                tasks.push(Task::new(Part::Project, index, rows, projection));
            }
            let wanted = self.rows_of(block, self.after_layer(layer));
            let Some(attention) = mixer.attention() else {
                for rows in wanted {
                    self.rest_tasks(&mut tasks, layer, index, &rows);
                }
                continue;
            };
            let pieces = block.pieces.iter();
            let keys = pieces.map(|piece| self.texts[piece.text].start + piece.tokens.end);
            let attended = self.unit(attention.attend_work(keys.max().unwrap_or(0)));
            if self.map_layers.contains(&layer) {
                tasks.push(Task::new(Part::Map, index, block.rows.clone(), attended));
            }
            for rows in wanted {
                tasks.push(Task::new(Part::Attend, index, rows.clone(), attended));
                self.rest_tasks(&mut tasks, layer, index, &rows);
            }
        }
        tasks
    }

    /// What follows the mixer.
    fn rest_tasks(&self, tasks: &mut Vec<Task>, layer: usize, block: usize, rows: &Range<usize>) {
        let layer = &self.layers[layer];
        let output = self.unit(layer.mixer.output_work());
        #[cfg(feature = "models")]
        if let Some(branch) = &layer.mlp {
            let [first, second] = branch.mlp.work().map(|work| self.unit(work));
            // An MLP that reads what the mixer reads does so before x changes.
            if branch.norm.is_none() {
                tasks.push(Task::new(Part::First, block, rows.clone(), first));
            }
            tasks.push(Task::new(Part::Output, block, rows.clone(), output));
            if branch.norm.is_some() {
                tasks.push(Task::new(Part::First, block, rows.clone(), first));
            }
            tasks.push(Task::new(Part::Second, block, rows.clone(), second));
            return;
        }
        tasks.push(Task::new(Part::Output, block, rows.clone(), output));
    }
}
