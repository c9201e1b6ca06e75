//! What only passes of models do: attention of a block over the states of its texts, residual
//! connections and MLPs, and hidden states that are given away.

use super::residual::add;
use super::{At, Memory, Outputs, Pass};
use crate::layers::attention::Queries;
use diffattn::{
    Error, KeysOnly, KeysValues, KvCacheOptions, Layout, MapOutputs, Tensor, checked_len,
    try_zeroed,
};
use std::ops::Range;

/// Rows of a piece in the buffers of its block, of `width` values each.
fn of_block(at: &At<'_>, piece: &super::pieces::Piece, width: usize) -> Range<usize> {
    let first = (piece.row - at.block.rows.start) * width;
    first..first + piece.tokens.len() * width
}

impl Pass<'_> {
    /// Tokens of each text that a layer's keys hold before the chunk. (Those of another layer hold
    /// the chunk's, too.) Recurrent states begin the chunk.
    pub(super) fn places(
        &self,
        index: usize,
        memory: &mut Memory<'_>,
    ) -> Result<Vec<usize>, Error> {
        let Memory::States(states) = memory else {
            return Ok(Vec::new());
        };
        let is_others = self.plan.layers[index].mixer.keys_of().is_some();
        let mut places = Vec::with_capacity(states.len());
        for (state, text) in states.iter_mut().zip(&self.plan.texts) {
            let tokens = self.plan.tokens(self.chunk, text.length);
            if !tokens.is_empty() {
                state.begin()?;
            }
            let held = state.kv().map_or(0, |kv| kv.cache.len());
            places.push(held.saturating_sub(if is_others { tokens.len() } else { 0 }));
        }
        Ok(places)
    }

    /// The states take the keys and values of the rows.
    pub(super) fn remember(&mut self, at: &At<'_>, memory: &mut Memory<'_>) -> Result<(), Error> {
        let Memory::States(states) = memory else {
            return Ok(());
        };
        let mixer = self.plan.layers[at.index].mixer;
        if !mixer.keeps() {
            return Ok(());
        }
        let widths = mixer.widths(self.plan.wanted(at.index));
        let operands = &self.buffers.operands;
        for piece in at.block.within(&at.rows) {
            let cache = states[piece.text].cache_mut()?;
            let KvCacheOptions {
                head_dim,
                value_dim,
                ..
            } = *cache.options();
            let tokens = piece.tokens.len();
            let k = &operands.k[of_block(at, &piece, widths.k)];
            let v = &operands.v[of_block(at, &piece, widths.v)];
            cache.append(
                Tensor::f32(k, &[1, tokens, widths.k / head_dim, head_dim]),
                Tensor::f32(v, &[1, tokens, widths.v / value_dim, value_dim]),
                Layout::Bshd,
            )?;
        }
        Ok(())
    }

    /// The queries of a piece; `places` is where each text's chunk begins among the keys held.
    fn piece_queries(
        &self,
        at: &At<'_>,
        piece: &super::pieces::Piece,
        places: &[usize],
    ) -> Queries<'_> {
        let mixer = self.plan.layers[at.index].mixer;
        let widths = mixer.widths(self.plan.wanted(at.index));
        let length = self.plan.texts[piece.text].length;
        let first = self.plan.tokens(self.chunk, length).start;
        let operands = &self.buffers.operands;
        Queries {
            q: &operands.q[of_block(at, piece, widths.q)],
            lambda: &operands.lambda[of_block(at, piece, widths.lambda)],
            shape: [1, piece.tokens.len()],
            mask: None,
            window: mixer.window(self.settings.window),
            place: Some(places[piece.text] + piece.tokens.start - first),
            run: self.settings.run,
        }
    }

    /// Attention of the rows, text by text.
    pub(super) fn attend(
        &mut self,
        at: &At<'_>,
        memory: &Memory<'_>,
        places: &[usize],
    ) -> Result<(), Error> {
        let attention = self.attention(at.index)?;
        let width = attention.widths(self.plan.wanted(at.index)).attended;
        let mut attended = std::mem::take(&mut self.buffers.attended);
        for piece in at.block.within(&at.rows) {
            let Some((cache, _)) = memory.held(piece.text) else {
                continue;
            };
            let queries = self.piece_queries(at, &piece, places);
            let out = &mut attended[of_block(at, &piece, width)];
            let work = attention.attend(&queries, KeysValues::Cache(cache), out)?;
            work.finish()?;
        }
        self.buffers.attended = attended;
        Ok(())
    }

    /// Maps of the rows, copied to where they belong; keys past those held, or let go of before,
    /// are seen by none of them. Of rows that are computed again nothing is wanted.
    pub(super) fn map(
        &mut self,
        at: &At<'_>,
        memory: &Memory<'_>,
        places: &[usize],
        outputs: &mut Outputs<'_>,
    ) -> Result<(), Error> {
        let attention = self.attention(at.index)?;
        let (heads, length, columns) = (attention.num_heads(), outputs.length, outputs.columns);
        for piece in at.block.within(&at.rows) {
            let Some((cache, _)) = memory.held(piece.text) else {
                continue;
            };
            let (queries, keys) = (piece.tokens.len(), cache.len());
            let len = checked_len(self.settings.argument, &[heads, queries, keys])?;
            let mut made = Vec::new();
            for _ in 0..=attention.terms() {
                made.push(try_zeroed(len)?);
            }
            let Some((diff, terms)) = made.split_last_mut() else {
                continue;
            };
            let to = MapOutputs {
                terms: terms.iter_mut().map(Vec::as_mut_slice).collect(),
                diff,
            };
            let of_piece = self.piece_queries(at, &piece, places);
            let work = attention.map(&of_piece, KeysOnly::Cache(cache), to)?;
            work.finish()?;
            let text = &self.plan.texts[piece.text];
            // Where the first key that is held stands among all tokens of the text.
            let chunk = self.plan.tokens(self.chunk, text.length);
            let held = (text.start + chunk.start).saturating_sub(places[piece.text]);
            let wanted = self.plan.map_layers.iter().zip(&mut outputs.maps);
            for (_, maps) in wanted.filter(|(layer, _)| **layer == at.index) {
                let maps = maps.terms.iter_mut().chain([&mut maps.diff]);
                for (to, from) in maps.zip(&made) {
                    for (row, from) in from.chunks_exact(keys).enumerate() {
                        let (head, query) = (row / queries, row % queries);
                        let Some(query) = (piece.tokens.start + query).checked_sub(text.again)
                        else {
                            continue;
                        };
                        let at = ((piece.text * heads + head) * length + query) * columns;
                        let to = &mut to[at..at + columns];
                        to.fill(0.0);
                        to[held..held + keys].copy_from_slice(from);
                    }
                }
            }
        }
        Ok(())
    }

    /// The first half of the MLP.
    pub(super) fn first(&mut self, at: &At<'_>) -> Result<(), Error> {
        let layer = self.plan.layers[at.index];
        let Some((branch, norm)) = layer
            .mlp
            .and_then(|branch| Some((branch, branch.norm.or(layer.norm)?)))
        else {
            return Ok(());
        };
        let run = self.settings.run;
        let width = layer.mixer.width();
        let normed = &mut self.buffers.row[..at.rows.len() * width];
        norm.rows(
            &self.x[at.rows.start * width..at.rows.end * width],
            normed,
            run,
        )?;
        let of = |width: usize| {
            let first = at.block.rows.start;
            (at.rows.start - first) * width..(at.rows.end - first) * width
        };
        let hidden = &mut self.buffers.hidden[of(branch.mlp.width())];
        let spare = &mut self.buffers.spare[..at.rows.len() * branch.mlp.spare()];
        branch.mlp.first(normed, hidden, spare, run)
    }

    /// The second half of the MLP, added to x.
    pub(super) fn second(&mut self, at: &At<'_>, outputs: &mut Outputs<'_>) -> Result<(), Error> {
        let layer = self.plan.layers[at.index];
        if let Some(branch) = layer.mlp {
            let (width, inner) = (layer.mixer.width(), branch.mlp.width());
            let added = &mut self.buffers.row[..at.rows.len() * width];
            let first = at.rows.start - at.block.rows.start;
            let hidden = &self.buffers.hidden[first * inner..(first + at.rows.len()) * inner];
            branch.mlp.second(hidden, added, self.settings.run)?;
            add(
                &mut self.x[at.rows.start * width..at.rows.end * width],
                added,
                branch.scale,
            );
        }
        // (The last layer's is given after the norm, by the model.)
        if at.index + 1 < self.plan.layers.len() {
            self.keep_state(at.index + 1, (at.block, &at.rows), outputs);
        }
        Ok(())
    }

    /// Copies rows of x to hidden state `index`, where they are wanted.
    pub(crate) fn keep_state(
        &self,
        index: usize,
        (block, rows): (&super::Block, &Range<usize>),
        outputs: &mut Outputs<'_>,
    ) {
        let (batch, length) = (self.plan.texts.len(), outputs.length);
        let Some(states) = &mut outputs.states else {
            return;
        };
        let width = states.len() / ((self.plan.layers.len() + 1) * batch * length).max(1);
        let pieces = block.within(rows);
        for piece in pieces.filter_map(|piece| piece.fresh(&self.plan.texts)) {
            let row = (index * batch + piece.text) * length + piece.tokens.start;
            let len = piece.tokens.len() * width;
            let from = &self.x[piece.row * width..][..len];
            states[row * width..][..len].copy_from_slice(from);
        }
    }
}
