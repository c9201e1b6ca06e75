//! What a row may see: first as one range of keys (causality, windows, lengths), then element by
//! element (boolean mask, bias). Knows nothing of tiles.

use crate::run::few::Few;

/// A row of the result or of a map: batch entry, output head, and query, counted in the call.
pub(super) type RowAt = (usize, usize, usize);

/// A stretch of queries and the keys they may look at: a batch entry, or one packed sequence.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sequence {
    pub(super) batch: usize,
    /// First query and first key of the stretch, counted along the tensor's sequence axis.
    pub(super) first_query: usize,
    pub(super) queries: usize,
    pub(super) first_key: usize,
    /// Keys that exist (key lengths applied).
    pub(super) keys: usize,
    /// Key position of the first query.
    pub(super) query_offset: i64,
}

impl Sequence {
    /// The row of query `i` of the sequence.
    #[inline(always)]
    pub(super) fn row(&self, head: usize, i: usize) -> RowAt {
        (self.batch, head, self.first_query + i)
    }
}

/// The sequences of a call: in place where there is one.
pub(super) type Sequences = Few<Sequence, 1>;

/// Causality and window, as bounds around a query's key position p.
#[derive(Debug, Clone, Copy)]
pub(super) struct Band {
    /// Keys j ≥ p − left.
    left: Option<i64>,
    /// Keys j ≤ p + right.
    right: Option<i64>,
}

impl Band {
    pub(super) fn new(window: Option<[Option<usize>; 2]>, is_causal: bool) -> Self {
        let bound =
            |side: Option<usize>| side.map(|width| i64::try_from(width).unwrap_or(i64::MAX));
        let [left, right] = window.unwrap_or([None, None]).map(bound);
        let right = if is_causal {
            Some(right.unwrap_or(0).min(0))
        } else {
            right
        };
        Self { left, right }
    }

    /// Keys that `queries` neighbouring queries of `sequence` see at most.
    pub(super) fn reach(&self, sequence: &Sequence, queries: usize) -> usize {
        let width = match (self.left, self.right) {
            (Some(left), Some(right)) => left.saturating_add(right).saturating_add(queries as i64),
            _ => i64::MAX,
        };
        usize::try_from(width.max(0))
            .unwrap_or(usize::MAX)
            .min(sequence.keys)
    }

    /// What queries from `first` of `sequence` on may see.
    pub(super) fn ends(&self, sequence: &Sequence, first: usize) -> Ends {
        // Further away from every key than a block has queries, and than keys are from one another.
        const FAR: i64 = 1 << 30;
        let position = sequence.query_offset.saturating_add(first as i64);
        let low = self.left.map_or(-FAR, |left| position.saturating_sub(left));
        let high = self.right.map_or(FAR, |right| {
            position.saturating_add(right).saturating_add(1)
        });
        Ends {
            low: low.clamp(-FAR, FAR) as i32,
            high: high.clamp(-FAR, FAR) as i32,
            keys: sequence.keys as i32,
        }
    }

    /// The half-open range of keys that query `i` of `sequence` may see; `(0, 0)` when it sees
    /// none.
    pub(super) fn keys(&self, sequence: &Sequence, i: usize) -> (usize, usize) {
        let (low, high) = self.ends(sequence, i).of(0);
        if low < high {
            (low as usize, high as usize)
        } else {
            (0, 0)
        }
    }
}

/// The keys that neighbouring queries may see; of a call, which has fewer than 2²⁴. Neither end
/// falls from one query to the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    /// Of the first query, where keys had no ends.
    low: i32,
    high: i32,
    /// Keys that exist.
    keys: i32,
}

impl Ends {
    /// First and end key of the query so many after the first, fewer than 2²⁴; the end is not
    /// beyond the first key where it sees none.
    #[inline(always)]
    pub(super) fn of(self, query: i32) -> (i32, i32) {
        let end = |end: i32| (end + query).max(0).min(self.keys);
        (end(self.low), end(self.high))
    }
}

/// A `[B|1, H|1, Lq|1, Lk]` operand with its strides; an axis of extent 1 has stride 0.
#[derive(Debug, Clone, Copy)]
pub(super) struct Broadcast<'a, T> {
    pub(super) data: &'a [T],
    pub(super) strides: [usize; 3],
}

impl<'a, T> Broadcast<'a, T> {
    pub(super) fn new(data: &'a [T], shape: &[usize; 4]) -> Self {
        let stride = |axis: usize, inner: usize| if shape[axis] == 1 { 0 } else { inner };
        let rows = shape[3];
        let heads = shape[2] * rows;
        Self {
            data,
            strides: [
                stride(0, shape[1] * heads),
                stride(1, heads),
                stride(2, rows),
            ],
        }
    }

    /// The row of keys of one (batch, head, query).
    pub(super) fn row(&self, batch: usize, head: usize, query: usize) -> &'a [T] {
        let first = batch * self.strides[0] + head * self.strides[1] + query * self.strides[2];
        self.data.get(first..).unwrap_or_default()
    }
}

/// Boolean mask and bias of a call.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Elements<'a> {
    pub(super) mask: Option<Broadcast<'a, u8>>,
    pub(super) bias: Option<Broadcast<'a, f32>>,
}

impl Elements<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.mask.is_none() && self.bias.is_none()
    }

    /// Whether they differ between heads, so that heads cannot share a map.
    pub(super) fn depend_on_head(&self) -> bool {
        self.mask.is_some_and(|mask| mask.strides[1] != 0)
            || self.bias.is_some_and(|bias| bias.strides[1] != 0)
    }

    /// What is added to the scores of (batch, head, query) for keys `first..`, `−∞` where masked:
    /// `put(index, value)` for each of `count` keys.
    pub(super) fn each(
        &self,
        (batch, head, query): RowAt,
        first: usize,
        count: usize,
        mut put: impl FnMut(usize, f32),
    ) {
        let mask = self.mask.map(|mask| mask.row(batch, head, query));
        let bias = self.bias.map(|bias| bias.row(batch, head, query));
        for index in 0..count {
            let key = first + index;
            let hidden = mask.is_some_and(|mask| mask.get(key).is_none_or(|&byte| byte == 0));
            let added = bias.map_or(0.0, |bias| {
                bias.get(key).map_or(f32::NEG_INFINITY, |&bias| bias)
            });
            put(index, if hidden { f32::NEG_INFINITY } else { added });
        }
    }

    /// Whether (batch, head, query) sees `key` as far as mask and bias go.
    pub(super) fn sees(&self, row: RowAt, key: usize) -> bool {
        let mut seen = true;
        self.each(row, key, 1, |_, added| seen = added != f32::NEG_INFINITY);
        seen
    }
}
