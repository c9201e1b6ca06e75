//! Where a call's results go: rows and their log-sum-exps, or maps. Written by several threads,
//! each its own rows. Knows nothing of how they are made.

use super::call::Call;
use super::groups::Block;
use super::mask::{RowAt, Sequence};
use super::options::MapOutputs;
use crate::error::Error;
use crate::run::threads::Disjoint;
use crate::simd::{Use, Vector};
use crate::tensor::DataMut;
use crate::tensor::output::Output;
use crate::tensor::shape::check_len;

/// What a call writes.
#[derive(Debug)]
pub(super) enum Outputs<'a> {
    Rows(RowsOut<'a>),
    Maps(MapsOut<'a>),
}

/// The result, and what else is wanted of its rows.
#[derive(Debug)]
pub(super) struct RowsOut<'a> {
    out: Output<'a>,
    /// `[B, H, T, Lq]`.
    lse: Option<Disjoint<'a, f32>>,
    /// Rows before their norm, of the result's shape.
    pre_norm: Option<Disjoint<'a, f32>>,
}

impl<'a> RowsOut<'a> {
    /// Checks that `out` is the call's result, `lse` there exactly when the call asks for it, and
    /// `pre_norm` only where it has a norm.
    pub(super) fn new(
        call: &Call<'_>,
        out: DataMut<'a>,
        lse: Option<&'a mut [f32]>,
        pre_norm: Option<&'a mut [f32]>,
    ) -> Result<Self, Error> {
        let out = Output::bind(out, call.dtype(), &call.axis.shape())?;
        match (&lse, call.return_lse) {
            (Some(lse), true) => {
                check_len("lse", &call.lse_shape(), lse.len())?;
            }
            (None, false) => {}
            _ => {
                return Err(Error::option(
                    "return_lse",
                    "an lse buffer exactly when it is set",
                    "the other",
                ));
            }
        }
        if let Some(rows) = &pre_norm {
            if call.norm().is_none() {
                return Err(Error::option("pre_norm", "none without a norm", "one"));
            }
            check_len("pre_norm", &call.axis.shape(), rows.len())?;
        }
        Ok(Self {
            out,
            lse: lse.map(Disjoint::new),
            pre_norm: pre_norm.map(Disjoint::new),
        })
    }

    /// Norm of one finished row, which is kept as it was where that is wanted.
    #[inline(always)]
    pub(super) fn norm_row<V: Vector>(
        &self,
        call: &Call<'_>,
        (batch, head, query): RowAt,
        y: &mut [f32],
    ) {
        if let Some(rows) = &self.pre_norm {
            keep(rows, call.axis.row(batch, head, query), y);
        }
        call.norm_row::<V>(y);
    }

    /// Norm and store of one finished row.
    #[inline(always)]
    pub(super) fn write_row<V: Vector>(&self, call: &Call<'_>, row: RowAt, y: &mut [f32]) {
        self.norm_row::<V>(call, row, y);
        let (batch, head, query) = row;
        let at = call.axis.row(batch, head, query);
        debug_assert_eq!(y.len(), call.axis.width);
        // SAFETY: no other block has this (batch, head, query).
        unsafe { self.out.narrow(at, y) };
    }

    /// Where rows of the result begin, from a query on, and how far apart, if the result is
    /// float32.
    pub(super) fn rows(
        &self,
        call: &Call<'_>,
        (batch, head, query): RowAt,
    ) -> Option<(*mut f32, usize)> {
        let row = |index| call.axis.row(batch, head, index);
        match &self.out {
            Output::F32(out) => Some((out.start().wrapping_add(row(query)), row(1) - row(0))),
            _ => None,
        }
    }

    /// Asks for the rows of a float32 result that a block will write.
    #[inline(always)]
    pub(super) fn prefetch<V: Vector>(&self, call: &Call<'_>, block: &Block<'_>, head: usize) {
        if let Some((start, stride)) = self.rows(call, block.sequence.row(head, block.first)) {
            for row in 0..block.rows {
                for channel in (0..call.axis.width).step_by(16) {
                    V::prefetch(start.wrapping_add(row * stride + channel), Use::Write);
                }
            }
        }
    }

    pub(super) fn wants_lse(&self) -> bool {
        self.lse.is_some()
    }

    pub(super) fn write_lse(
        &self,
        call: &Call<'_>,
        (batch, head, query): RowAt,
        term: usize,
        value: f32,
    ) {
        let [_, heads, terms, queries] = call.lse_shape();
        let at = ((batch * heads + head) * terms + term) * queries + query;
        if let Some(lse) = &self.lse {
            // SAFETY: each element is written by one block.
            let element = unsafe { lse.part(at..at + 1) };
            element[0] = value;
        }
    }
}

/// A finished row as it is before its norm. (Apart, so that who keeps none carries one call.)
#[cold]
#[inline(never)]
fn keep(rows: &Disjoint<'_, f32>, at: usize, y: &[f32]) {
    // SAFETY: a row of the result is finished by one block.
    unsafe { rows.part(at..at + y.len()) }.copy_from_slice(y);
}

/// Maps, term by term, and their combination: each `[B, H, rows, Lk]`.
#[derive(Debug)]
pub(super) struct MapsOut<'a> {
    terms: Vec<Disjoint<'a, f32>>,
    diff: Disjoint<'a, f32>,
    /// The half-open range of queries.
    rows: [usize; 2],
}

impl<'a> MapsOut<'a> {
    /// Of queries `rows` of a call, checked by [`MapOutputs::check`].
    pub(super) fn new(outputs: MapOutputs<'a>, rows: [usize; 2]) -> Self {
        Self {
            terms: outputs.terms.into_iter().map(Disjoint::new).collect(),
            diff: Disjoint::new(outputs.diff),
            rows,
        }
    }

    /// Row `i` of a sequence in every map of a head, zeros but for what `fill(t, map, diff)` puts
    /// there, which is called for each term of the head. Keys count from the sequence's first.
    #[inline(always)]
    pub(super) fn write_row(
        &self,
        call: &Call<'_>,
        (sequence, head, i): (&Sequence, usize, usize),
        mut fill: impl FnMut(usize, &mut [f32], &mut [f32]),
    ) {
        let (batch, _, query) = sequence.row(head, i);
        let rows = self.rows[1] - self.rows[0];
        let row = (batch * call.axis.heads + head) * rows + query - self.rows[0];
        let range = row * call.keys..(row + 1) * call.keys;
        // SAFETY: (of each map) a row is written by one block.
        let diff = unsafe { self.diff.part(range.clone()) };
        diff.fill(0.0);
        for (t, map) in self.terms.iter().enumerate() {
            // SAFETY: see above.
            let map = unsafe { map.part(range.clone()) };
            map.fill(0.0);
            if t < call.plan.heads[head].terms.len() {
                let first = sequence.first_key;
                fill(t, &mut map[first..], &mut diff[first..]);
            }
        }
    }
}
