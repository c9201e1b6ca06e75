//! The way from hidden states to what attention takes: q, k, v and λ, turned by position, with differences along the
//! sequence where the layer has them. Works row by row, so it can be cut anywhere; attends to nothing.

use crate::layer::{DiffAttnLayer, Dimensions, Fusion, LambdaSource};
use crate::options::{ForwardOptions, RopeConfig};
use diffattn::{
    Data, DataMut, Error, KvCache, Layout, Linear, Rope, RopeOptions, RopeTable,
    SequenceDifferenceOptions, Slices, Tensor, check_len, format_shape, sequence_difference,
    sigmoid, try_zeroed,
};
use std::ops::Range;

/// Rows that are projected at once at most: bounds the scratch, and is enough to keep threads busy.
pub(crate) const CHUNK: usize = 512;

/// Tokens per table of the rotary embedding; more than a chunk, so that whole short sequences have one table.
const TABLE: usize = 1024;

/// Multiply-adds per unit of work: a third of a millisecond of one core.
const UNIT_WORK: usize = 1 << 24;

/// The sizes of a call and how it is run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) batch: usize,
    /// L, tokens of x.
    pub(crate) length: usize,
    /// Tokens in the cache before the call.
    pub(crate) past: usize,
    pub(crate) run: diffattn::Run,
}

impl Run {
    /// Checks x; also gives its elements.
    pub(crate) fn new<'a>(
        layer: &DiffAttnLayer,
        x: &Tensor<'a>,
        past: usize,
        options: &ForwardOptions<'_>,
    ) -> Result<(Self, &'a [f32]), Error> {
        let embed_dim = layer.embed_dim();
        let Data::F32(data) = x.data else {
            return Err(Error::dtype("x", "float32", x.data.dtype().name()));
        };
        let (batch, length) = match x.shape.as_slice() {
            &[batch, length, channels] if channels == embed_dim => (batch, length),
            _ => {
                return Err(Error::shape(
                    "x",
                    format_args!("shape [B, L, {embed_dim}]"),
                    format_shape(&x.shape),
                ));
            }
        };
        check_len("x", &x.shape, data.len())?;
        Ok((
            Self {
                batch,
                length,
                past,
                run: options.run,
            },
            data,
        ))
    }

    /// Rows of x.
    pub(crate) fn rows(&self) -> usize {
        self.batch * self.length
    }
}

/// Rows per unit of a linear map (or several) of `weights` multiply-adds a row.
pub(crate) fn unit_rows(weights: usize) -> usize {
    (UNIT_WORK / weights.max(1)).clamp(1, CHUNK)
}

/// What is asked of a projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// q, k and λ of the plain heads, for maps.
    Maps,
    /// Everything, for attention over k and v as they are.
    Attention,
    /// Everything, for a cache: with the inputs as further k heads where there are differences.
    Cache,
}

/// What attention takes, each `[B, L, heads, width]`; λ `[B, L, H]` where it is projected.
#[derive(Debug, Default)]
pub(crate) struct Projected {
    pub(crate) q: Vec<f32>,
    pub(crate) k: Vec<f32>,
    pub(crate) v: Vec<f32>,
    pub(crate) lambda: Vec<f32>,
    /// Heads of a row of each.
    pub(crate) q_heads: usize,
    pub(crate) k_heads: usize,
    pub(crate) v_heads: usize,
}

/// Tokens of one sequence, or whole sequences side by side.
#[derive(Debug, Clone)]
struct Piece {
    batch: usize,
    sequences: usize,
    tokens: Range<usize>,
}

impl Piece {
    fn rows(&self, length: usize) -> Range<usize> {
        let first = self.batch * length + self.tokens.start;
        first..first + self.sequences * self.tokens.len()
    }
}

/// A started projection of all rows of x.
#[derive(Debug)]
pub(crate) struct Projection<'a> {
    layer: &'a DiffAttnLayer,
    run: Run,
    x: &'a [f32],
    wanted: Wanted,
    /// The differences to take.
    fusion: Option<&'a Fusion>,
    /// The last inputs before x, `[B, kept, embed_dim]`.
    history: Vec<f32>,
    kept: usize,
    unit_rows: usize,
    /// Rows done.
    next: usize,
    tables: Vec<RopeTable>,
    /// A chunk of q or k, not yet turned.
    still: Vec<f32>,
    projected: Projected,
}

impl<'a> Projection<'a> {
    /// Allocates nothing yet.
    pub(crate) fn new(layer: &'a DiffAttnLayer, run: Run, x: &'a [f32], wanted: Wanted) -> Self {
        let fusion = layer.fusion.as_ref().filter(|_| wanted != Wanted::Maps);
        let heads = &layer.heads;
        let more = |list: fn(&Fusion) -> &Vec<usize>| fusion.map_or(0, |fusion| list(fusion).len());
        let (q_heads, k_heads, v_heads) = match wanted {
            Wanted::Cache => {
                let cache = layer.cache_options(run.batch, 0);
                (
                    heads.q + more(|fusion| &fusion.q),
                    cache.terms * cache.groups,
                    cache.groups,
                )
            }
            _ => (
                heads.q + more(|fusion| &fusion.q),
                heads.k + more(|fusion| &fusion.k),
                heads.v + more(|fusion| &fusion.v),
            ),
        };
        let outputs = layer.q.outputs() + layer.k.outputs() + layer.v.outputs();
        Self {
            layer,
            run,
            x,
            wanted,
            fusion,
            history: Vec::new(),
            kept: 0,
            unit_rows: unit_rows(outputs.saturating_mul(layer.embed_dim())),
            next: 0,
            tables: Vec::new(),
            still: Vec::new(),
            projected: Projected {
                q_heads,
                k_heads,
                v_heads,
                ..Projected::default()
            },
        }
    }

    pub(crate) fn units(&self) -> usize {
        self.run.rows().div_ceil(self.unit_rows)
    }

    pub(crate) fn units_done(&self) -> usize {
        self.next.div_ceil(self.unit_rows)
    }

    /// Works on `count` further units at most; returns how many. `cache` is the one that `past` counts.
    pub(crate) fn step(&mut self, count: usize, cache: Option<&KvCache>) -> Result<usize, Error> {
        if self.next == 0 {
            self.start(cache)?;
        }
        let before = self.units_done();
        let end = self
            .next
            .saturating_add(count.saturating_mul(self.unit_rows))
            .min(self.run.rows());
        while self.next < end {
            let rows = self.next..(self.next + CHUNK).min(end);
            match self.fusion {
                None => self.plain(rows.clone())?,
                Some(fusion) => {
                    for piece in self.pieces(rows.clone(), false) {
                        self.fused(fusion, &piece)?;
                    }
                }
            }
            self.next = rows.end;
        }
        Ok(self.units_done() - before)
    }

    /// The result, once all units are done.
    pub(crate) fn into_projected(self) -> Projected {
        self.projected
    }

    /// Memory for the result, and the inputs that differences look back at.
    fn start(&mut self, cache: Option<&KvCache>) -> Result<(), Error> {
        let Dimensions {
            embed_dim,
            head_dim,
            heads,
            ..
        } = self.layer.heads.dimensions;
        let (rows, projected) = (self.run.rows(), &mut self.projected);
        projected.q = try_zeroed(rows * projected.q_heads * head_dim)?;
        projected.k = try_zeroed(rows * projected.k_heads * head_dim)?;
        if self.wanted != Wanted::Maps {
            projected.v = try_zeroed(rows * projected.v_heads * self.layer.heads.value_dim)?;
        }
        if let LambdaSource::Projected(_) = self.layer.lambda {
            projected.lambda = try_zeroed(rows * heads)?;
        }
        if let (Some(fusion), Some(cache)) = (self.fusion, cache) {
            self.kept = fusion.order.min(self.run.past);
            self.history = try_zeroed(self.run.batch * self.kept * embed_dim)?;
            let mut head_row = try_zeroed(head_dim)?;
            for (row, x) in self.history.chunks_exact_mut(embed_dim).enumerate() {
                let (batch, token) = (row / self.kept, self.run.past - self.kept + row % self.kept);
                for (part, x) in x.chunks_mut(head_dim).enumerate() {
                    cache.key(
                        batch,
                        self.layer.heads.k + fusion.k.len() + part,
                        token,
                        &mut head_row,
                    )?;
                    x.copy_from_slice(&head_row[..x.len()]);
                }
            }
        }
        Ok(())
    }

    /// Cuts rows at the ends of sequences and of tables; whole sequences stay together where `whole` allows it.
    fn pieces(&self, rows: Range<usize>, whole: bool) -> Vec<Piece> {
        let length = self.run.length;
        let mut pieces = Vec::new();
        let mut at = rows.start;
        while at < rows.end {
            let (batch, token) = (at / length, at % length);
            let left = rows.end - at;
            let piece = if whole && token == 0 && left >= length {
                Piece {
                    batch,
                    sequences: left / length,
                    tokens: 0..length,
                }
            } else {
                let end = (token + left).min(length).min((token / TABLE + 1) * TABLE);
                Piece {
                    batch,
                    sequences: 1,
                    tokens: token..end,
                }
            };
            at += piece.sequences * piece.tokens.len();
            pieces.push(piece);
        }
        pieces
    }

    /// Projects rows of a layer without differences.
    fn plain(&mut self, rows: Range<usize>) -> Result<(), Error> {
        let layer = self.layer;
        let embed_dim = layer.embed_dim();
        let x = &self.x[rows.start * embed_dim..rows.end * embed_dim];
        let run = self.run.run;
        let pieces = self.pieces(rows.clone(), true);
        self.extend_tables(&pieces)?;
        let Projected { q, k, v, .. } = &mut self.projected;
        for (linear, to) in [(&layer.q, q), (&layer.k, k)] {
            let width = linear.outputs();
            let to = &mut to[rows.start * width..rows.end * width];
            let Some(rope) = &layer.rope else {
                linear.forward(x, to, run)?;
                continue;
            };
            if self.still.len() < to.len() {
                self.still = try_zeroed(to.len())?;
            }
            let still = &mut self.still[..to.len()];
            linear.forward(x, still, run)?;
            for piece in &pieces {
                let piece_rows = piece.rows(self.run.length);
                let range =
                    (piece_rows.start - rows.start) * width..(piece_rows.end - rows.start) * width;
                turn(
                    &self.run,
                    rope,
                    &self.tables,
                    layer.heads.dimensions.head_dim,
                    piece,
                    &still[range.clone()],
                    &mut to[range],
                )?;
            }
        }
        if self.wanted != Wanted::Maps {
            let width = layer.v.outputs();
            layer
                .v
                .forward(x, &mut v[rows.start * width..rows.end * width], run)?;
        }
        self.lambda(x, &rows)
    }

    /// λ = σ(W x) where it is projected.
    fn lambda(&mut self, x: &[f32], rows: &Range<usize>) -> Result<(), Error> {
        if let LambdaSource::Projected(linear) = &self.layer.lambda {
            let to = &mut self.projected.lambda
                [rows.start * linear.outputs()..rows.end * linear.outputs()];
            linear.forward(x, to, self.run.run)?;
            sigmoid(to, self.run.run);
        }
        Ok(())
    }

    /// Projects a piece of one sequence of a layer with differences: these look back `order` tokens, which are projected
    /// again (a row's bits do not depend on that).
    fn fused(&mut self, fusion: &Fusion, piece: &Piece) -> Result<(), Error> {
        let layer = self.layer;
        let Dimensions {
            embed_dim,
            head_dim,
            ..
        } = layer.heads.dimensions;
        let Range { start, end } = piece.tokens;
        let sequence = &self.x[piece.batch * self.run.length * embed_dim..][..end * embed_dim];
        let back = fusion.order.min(start + self.kept);
        let rows = piece.rows(self.run.length);
        let mut joined = Vec::new();
        let x = if back <= start {
            &sequence[(start - back) * embed_dim..]
        } else {
            let history =
                &self.history[piece.batch * self.kept * embed_dim..][..self.kept * embed_dim];
            let history = &history[(self.kept - (back - start)) * embed_dim..];
            joined
                .try_reserve_exact(history.len() + sequence.len())
                .map_err(|_| refused(history.len() + sequence.len()))?;
            joined.extend_from_slice(history);
            joined.extend_from_slice(sequence);
            &joined
        };
        self.extend_tables(std::slice::from_ref(piece))?;
        let with_differences = |linear: &Linear, width: usize, taken: &[usize]| {
            project_with_differences(&self.run, linear, x, back, width, fusion.order, taken)
        };
        let q = with_differences(&layer.q, head_dim, &fusion.q)?;
        let k = with_differences(&layer.k, head_dim, &fusion.k)?;
        let v = with_differences(&layer.v, layer.heads.value_dim, &fusion.v)?;
        let Projected {
            q: q_to,
            k: k_to,
            v: v_to,
            q_heads,
            k_heads,
            v_heads,
            ..
        } = &mut self.projected;
        let turned = |still: Vec<f32>| match &layer.rope {
            None => Ok(still),
            Some(rope) => {
                let mut turned = try_zeroed(still.len())?;
                turn(
                    &self.run,
                    rope,
                    &self.tables,
                    head_dim,
                    piece,
                    &still,
                    &mut turned,
                )?;
                Ok(turned)
            }
        };
        place_rows(
            &turned(q)?,
            &mut q_to[rows.start * *q_heads * head_dim..],
            rows.len(),
            *q_heads * head_dim,
            0,
        );
        let k = turned(k)?;
        let k_to = &mut k_to[rows.start * *k_heads * head_dim..];
        place_rows(&k, k_to, rows.len(), *k_heads * head_dim, 0);
        if self.wanted == Wanted::Cache {
            place_rows(
                &x[back * embed_dim..],
                k_to,
                rows.len(),
                *k_heads * head_dim,
                k.len() / rows.len(),
            );
        }
        place_rows(
            &v,
            &mut v_to[rows.start * *v_heads * layer.heads.value_dim..],
            rows.len(),
            *v_heads * layer.heads.value_dim,
            0,
        );
        Ok(())
    }

    /// Makes the tables that the pieces need.
    fn extend_tables(&mut self, pieces: &[Piece]) -> Result<(), Error> {
        let Some(rope) = &self.layer.rope else {
            return Ok(());
        };
        let last = pieces
            .iter()
            .map(|piece| piece.tokens.end - 1)
            .max()
            .unwrap_or(0);
        while self.tables.len() <= last / TABLE {
            let first = self.tables.len() * TABLE;
            let end = (first + TABLE).min(self.run.length);
            let positions = (self.run.past + first) as i64..(self.run.past + end) as i64;
            let head_dim = self.layer.heads.dimensions.head_dim;
            self.tables.push(RopeTable::new(
                positions,
                head_dim,
                &rope.frequencies,
                self.run.run,
            )?);
        }
        Ok(())
    }
}

fn refused(values: usize) -> Error {
    Error::OutOfMemory {
        bytes: values as u64 * size_of::<f32>() as u64,
    }
}

/// Turns the heads of a piece by their positions; `from` and `to` are `[tokens, heads, head_dim]`.
fn turn(
    run: &Run,
    rope: &RopeConfig,
    tables: &[RopeTable],
    head_dim: usize,
    piece: &Piece,
    from: &[f32],
    to: &mut [f32],
) -> Result<(), Error> {
    let tokens = piece.tokens.len();
    let heads = from.len() / (piece.sequences * tokens * head_dim);
    let options = RopeOptions {
        layout: Layout::Bshd,
        interleaved: rope.interleaved,
        first_position: Some(vec![(run.past + piece.tokens.start) as i64]),
        table: tables.get(piece.tokens.start / TABLE),
        run: run.run,
        ..RopeOptions::default()
    };
    let call = Rope::new(
        Tensor::f32(from, &[piece.sequences, tokens, heads, head_dim]),
        &options,
    )?;
    call.finish_into(DataMut::F32(to))
}

/// `[rows, heads + taken, width]`: the heads of x's rows past `back`, then the differences of those `taken`.
fn project_with_differences(
    run: &Run,
    linear: &Linear,
    x: &[f32],
    back: usize,
    width: usize,
    order: usize,
    taken: &[usize],
) -> Result<Vec<f32>, Error> {
    let (rows, channels) = (x.len() / linear.inputs(), linear.outputs());
    let mut plain = try_zeroed(rows * channels)?;
    linear.forward(x, &mut plain, run.run)?;
    let options = SequenceDifferenceOptions {
        order,
        layout: Layout::Bshd,
        run: run.run,
    };
    let differences = sequence_difference(
        Tensor::f32(&plain, &[1, rows, channels / width, width]),
        &options,
    )?;
    let mut both = try_zeroed((rows - back) * (channels + taken.len() * width))?;
    for (row, to) in both
        .chunks_exact_mut(channels + taken.len() * width)
        .enumerate()
    {
        let from = (back + row) * channels;
        to[..channels].copy_from_slice(&plain[from..from + channels]);
        for (&head, to) in taken.iter().zip(to[channels..].chunks_exact_mut(width)) {
            to.copy_from_slice(&differences[from + head * width..][..width]);
        }
    }
    Ok(both)
}

/// Copies `rows` rows into ones of `stride` values, from value `first` of each.
fn place_rows(from: &[f32], to: &mut [f32], rows: usize, stride: usize, first: usize) {
    let width = from.len() / rows;
    for (from, to) in from.chunks_exact(width).zip(to.chunks_exact_mut(stride)) {
        to[first..first + width].copy_from_slice(from);
    }
}
