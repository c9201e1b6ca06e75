//! What passes do with mixers that are no attention: rows of each text go through its state in
//! order, and what a recurrent layer gives is kept for the layers that read it. Computes nothing
//! itself.

use super::marks::MARK;
use super::plan::After;
use super::{At, Memory, Pass, Plan, Text};
use crate::layers::{Mamba, MambaRows, MemoryGate, Mixer};
use diffattn::Error;
use std::ops::Range;

/// Rows of one text in a block.
struct Rows {
    text: usize,
    /// Counted from the first row that is at work.
    rows: Range<usize>,
    /// Tokens of the text up to the last of them, from its beginning.
    end: usize,
}

impl Plan<'_> {
    /// Of which rows what a recurrent layer gives goes into a later one.
    fn memory_of(&self) -> After {
        let gates = self.layers.iter().enumerate();
        let mut gates = gates.filter(|(_, layer)| matches!(layer.mixer, Mixer::MemoryGate(_)));
        // (Later ones take no more rows than the first.)
        gates
            .next()
            .map_or(After::None, |(first, _)| self.before_layer(first))
    }

    /// Which of a text's rows at work are of these, and the first one's place among all of them;
    /// `first` is the first row at work.
    fn remembered(&self, kept: After, of: &Rows, first: usize) -> (Range<usize>, usize) {
        let Text { start, length, .. } = self.texts[of.text];
        match kept {
            After::All => (of.rows.clone(), first + of.rows.start),
            After::Last if of.end == start + length => (of.rows.end - 1..of.rows.end, of.text),
            After::Last | After::None => (0..0, 0),
        }
    }

    /// How many rows these are at most.
    pub(super) fn memory_rows(&self, rows: usize) -> usize {
        match self.memory_of() {
            After::None => 0,
            After::Last => self.texts.len(),
            After::All => rows,
        }
    }

    /// How wide they are.
    pub(super) fn memory_width(&self) -> usize {
        let widths = self.layers.iter().map(|layer| match layer.mixer {
            Mixer::MemoryGate(gate) => gate.gate.outputs(),
            _ => 0,
        });
        widths.max().unwrap_or(0)
    }
}

impl Pass<'_> {
    /// All of a mixer that is no attention but its output projection.
    pub(super) fn recur(&mut self, at: &At<'_>, memory: &mut Memory<'_>) -> Result<(), Error> {
        let layer = self.plan.layers[at.index];
        let (width, run) = (layer.mixer.width(), self.settings.run);
        let x = &self.x[at.rows.start * width..at.rows.end * width];
        let mut normed = std::mem::take(&mut self.buffers.row);
        let result = match layer.norm {
            Some(norm) => norm.rows(x, &mut normed[..x.len()], run),
            None => Err(Error::internal("a recurrent layer without a norm")),
        };
        let normed_rows = &normed[..x.len()];
        let result = result.and_then(|()| match layer.mixer {
            Mixer::Mamba(mamba) => self.mamba(mamba, normed_rows, at, memory),
            Mixer::MemoryGate(gate) => self.gate(gate, normed_rows, at),
            Mixer::Attention(_) => Err(Error::internal("attention is no recurrence")),
        });
        self.buffers.row = normed;
        result
    }

    /// The rows of each text, cut where its states are marked.
    fn rows_by_text(&self, at: &At<'_>) -> Vec<Rows> {
        let mut cut = Vec::new();
        for piece in at.block.within(&at.rows) {
            let start = self.plan.texts[piece.text].start;
            let mut token = start + piece.tokens.start;
            let (end, mut row) = (start + piece.tokens.end, piece.row - at.rows.start);
            while token < end {
                let next = ((token / MARK + 1) * MARK).min(end);
                cut.push(Rows {
                    text: piece.text,
                    rows: row..row + next - token,
                    end: next,
                });
                (row, token) = (row + next - token, next);
            }
        }
        cut
    }

    fn mamba(
        &mut self,
        mamba: &Mamba,
        x: &[f32],
        at: &At<'_>,
        memory: &mut Memory<'_>,
    ) -> Result<(), Error> {
        let Memory::States(states) = memory else {
            return Err(Error::internal("a recurrent layer without states"));
        };
        let run = self.settings.run;
        let first = at.rows.start - at.block.rows.start;
        let by_text = self.rows_by_text(at);
        let (channels, parts) = (mamba.channels(), mamba.widths());
        let of = |width: usize| first * width..(first + at.rows.len()) * width;
        let buffers = &mut self.buffers;
        let mut rows = MambaRows {
            inputs: &mut buffers.operands.q[of(channels)],
            u: &mut buffers.operands.k[of(channels)],
            delta: &mut buffers.operands.v[of(channels)],
            rank: &mut buffers.operands.lambda[of(parts.lambda)],
            b_c: &mut buffers.still[..at.rows.len() * mamba.b_c.outputs()],
            gated: &mut buffers.attended[of(channels)],
        };
        mamba.enter(x, &mut rows, run)?;
        for of in &by_text {
            let state = states[of.text].recurrent_mut()?;
            mamba.convolve(&mut rows, &of.rows, &mut state.window, run)?;
            state.mark_window(of.end)?;
        }
        mamba.choose(&mut rows, run)?;
        for of in &by_text {
            let state = states[of.text].recurrent_mut()?;
            mamba.scan(&mut rows, &of.rows, &mut state.scan, run)?;
            state.mark_scan(of.end)?;
        }
        if mamba.is_memory {
            let kept = self.plan.memory_of();
            for of in &by_text {
                let (from, to) = self.plan.remembered(kept, of, at.rows.start);
                let given = &rows.inputs[from.start * channels..from.end * channels];
                buffers.memory[to * channels..][..given.len()].copy_from_slice(given);
            }
        }
        mamba.leave(x, &mut rows, run)
    }

    fn gate(&mut self, gate: &MemoryGate, x: &[f32], at: &At<'_>) -> Result<(), Error> {
        let channels = gate.gate.outputs();
        let first = at.rows.start - at.block.rows.start;
        let from = match self.plan.memory_of() {
            After::None => return Ok(()),
            After::All => at.rows.start,
            // (Rows of neighbouring texts, the last of each.)
            After::Last => at
                .block
                .within(&at.rows)
                .next()
                .map_or(0, |piece| piece.text),
        };
        let count = at.rows.len();
        let gated = &mut self.buffers.attended[first * channels..(first + count) * channels];
        let memory = &self.buffers.memory[from * channels..(from + count) * channels];
        gate.rows(x, memory, gated, self.settings.run)
    }

    /// Recurrent states end the chunk.
    pub(super) fn end_states(&self, memory: &mut Memory<'_>) {
        if let Memory::States(states) = memory {
            for (state, text) in states.iter_mut().zip(&self.plan.texts) {
                let tokens = self.plan.tokens(self.chunk, text.length);
                if !tokens.is_empty() {
                    state.end(text.start + tokens.end);
                }
            }
        }
    }
}
