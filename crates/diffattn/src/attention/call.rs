//! A checked call: everything that its blocks share, and where their results go. All lengths of attention
//! are checked in `Call::new`; below it, indices are trusted.

use super::cache::KvCache;
use super::mask::{Band, Broadcast, Elements, Sequence};
use super::options::{AttentionOptions, Lambda, Layout, Mask};
use super::packed::{KeyPanels, Rows, ValuePanels, ValueShape};
use super::pairing::{HeadCounts, Plan, plan};
use crate::error::Error;
use crate::norm::rms_norm_row;
use crate::output::Output;
use crate::run::Run;
use crate::shape::{DType, Data, DataMut, Tensor, check_len, checked_len, format_shape};
use crate::vector::math::ExponentScale;
use crate::vector::{Use, Vector};
use std::f64::consts::LOG2_E;
use std::sync::atomic::AtomicBool;

/// Keys at most: key positions are exact in float32 (score masks compare them so).
const MAX_KEYS: usize = 1 << 24;

/// Channels of a value at most where there are no keys: the result has them, and no element of v answers for them.
const MAX_UNBACKED: usize = 1 << 16;

/// The strides of a `[B, heads, L, width]` tensor in either layout.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadAxis {
    pub(super) batch: usize,
    pub(super) heads: usize,
    pub(super) length: usize,
    pub(super) width: usize,
    pub(super) layout: Layout,
}

impl HeadAxis {
    fn new(argument: &str, tensor: &Tensor<'_>, layout: Layout) -> Result<Self, Error> {
        let &[batch, second, third, width] = tensor.shape.as_slice() else {
            return Err(Error::shape(
                argument,
                "4 axes",
                format_shape(&tensor.shape),
            ));
        };
        check_len(argument, &tensor.shape, tensor.data.len())?;
        if width == 0 {
            return Err(Error::shape(
                argument,
                "a last axis of 1 or more",
                format_shape(&tensor.shape),
            ));
        }
        let (heads, length) = match layout {
            Layout::Bhsd => (second, third),
            Layout::Bshd => (third, second),
        };
        Ok(Self {
            batch,
            heads,
            length,
            width,
            layout,
        })
    }

    /// Rows of one head from row `first`.
    pub(super) fn rows<'a>(
        &self,
        data: Data<'a>,
        batch: usize,
        head: usize,
        first: usize,
    ) -> Rows<'a> {
        let stride = match self.layout {
            Layout::Bhsd => self.width,
            Layout::Bshd => self.heads * self.width,
        };
        Rows {
            data,
            first: self.row(batch, head, first),
            stride,
            width: self.width,
        }
    }

    /// Where row `index` begins.
    fn row(&self, batch: usize, head: usize, index: usize) -> usize {
        let row = match self.layout {
            Layout::Bhsd => (batch * self.heads + head) * self.length + index,
            Layout::Bshd => (batch * self.length + index) * self.heads + head,
        };
        row * self.width
    }

    pub(super) fn shape(&self) -> [usize; 4] {
        match self.layout {
            Layout::Bhsd => [self.batch, self.heads, self.length, self.width],
            Layout::Bshd => [self.batch, self.length, self.heads, self.width],
        }
    }
}

/// Where K and V come from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source<'a> {
    Tensors {
        k: (Data<'a>, HeadAxis),
        v: Option<(Data<'a>, HeadAxis)>,
    },
    Cache(&'a KvCache),
}

/// One term to compute: the slot its scores go to, and its heads.
#[derive(Debug, Clone, Copy)]
pub(super) struct TermStep {
    pub(super) slot: usize,
    pub(super) q: usize,
    pub(super) k: usize,
}

/// One output head within its group.
#[derive(Debug, Clone)]
pub(super) struct HeadStep {
    pub(super) head: usize,
    /// Terms whose scores no earlier head of the group left behind.
    pub(super) compute: Vec<TermStep>,
    /// The slot of each term.
    pub(super) slots: Vec<usize>,
    pub(super) v: Vec<usize>,
}

/// Output heads that share a map: they run in one block, the shared map is computed once.
#[derive(Debug, Clone)]
pub(super) struct HeadGroup {
    pub(super) steps: Vec<HeadStep>,
    pub(super) slots: usize,
}

/// Packed heads of one unit, in the order of their numbers: (head, where its panels begin).
#[derive(Debug, Default)]
pub(super) struct PackedUnit {
    pub(super) k: Vec<(usize, usize)>,
    /// (head, where its panels begin, where its strips' flags begin).
    pub(super) v: Vec<(usize, usize, usize)>,
}

/// Panels of the heads that a block may ask for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Panels<'c> {
    Packed {
        k: &'c [f32],
        v: &'c [f32],
        special: &'c [AtomicBool],
        unit: &'c PackedUnit,
        width: usize,
        shape: ValueShape,
    },
    Cache {
        cache: &'c KvCache,
        batch: usize,
    },
}

impl<'c> Panels<'c> {
    /// The panels of k head `head`.
    pub(super) fn keys(&self, head: usize) -> KeyPanels<'c> {
        match *self {
            Self::Packed { k, unit, width, .. } => {
                let place = unit.k.binary_search_by_key(&head, |entry| entry.0);
                let first = place.map_or(k.len(), |place| unit.k[place].1);
                KeyPanels {
                    data: &k[first..],
                    width,
                }
            }
            Self::Cache { cache, batch } => cache.keys(batch, head),
        }
    }

    /// The panels of v head `head`.
    pub(super) fn values(&self, head: usize) -> ValuePanels<'c> {
        match *self {
            Self::Packed {
                v,
                special,
                unit,
                shape,
                ..
            } => {
                let place = unit.v.binary_search_by_key(&head, |entry| entry.0);
                let (first, flags) = place.map_or((v.len(), special.len()), |place| {
                    let (_, first, flags) = unit.v[place];
                    (first, flags)
                });
                ValuePanels {
                    data: &v[first..],
                    shape,
                    special: &special[flags..],
                }
            }
            Self::Cache { cache, batch } => cache.values(batch, head),
        }
    }
}

/// A block of queries of one head group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block<'c> {
    pub(super) sequence: &'c Sequence,
    pub(super) group: &'c HeadGroup,
    pub(super) panels: Panels<'c>,
    /// First query, counted within the sequence.
    pub(super) first: usize,
    pub(super) rows: usize,
}

#[derive(Debug, Clone, Copy)]
struct Norm<'a> {
    eps: f32,
    weight: Option<&'a [f32]>,
    scale: f32,
}

/// Where maps go: float32 `[B, H, rows, Lk]`.
#[derive(Debug, Clone)]
pub(super) struct MapsOut {
    pub(super) terms: Vec<*mut f32>,
    pub(super) diff: *mut f32,
    /// The half-open range of queries.
    pub(super) rows: [usize; 2],
}

/// Where the scale of the scores is applied. Folded into q it would cost nothing, but rounds every channel
/// of q: 1.1 to 1.3 times the error of plain float32.
#[derive(Debug, Clone, Copy)]
pub(super) struct ScoreScale {
    /// A factor of q: the scale's sign, so that the others are positive; an extreme scale as a whole.
    pub(super) query: f32,
    /// A factor of the finished dot products, where softcap or bias want true scores.
    pub(super) dot: Option<f32>,
    /// A factor of (score − strip_max) before exp2: log2 e, and the scale unless `dot` has it.
    pub(super) exponent: ExponentScale,
    /// A factor of row_max that makes it a true score.
    pub(super) natural: f64,
}

impl ScoreScale {
    fn new(scale: f64, true_scores: bool) -> Self {
        // Scales whose reciprocal is near overflow round q instead.
        let extreme = !(1e-9..=1e9).contains(&scale.abs());
        let query = if extreme {
            scale as f32
        } else {
            scale.signum() as f32
        };
        let size = if extreme { 1.0 } else { scale.abs() };
        if true_scores {
            Self {
                query,
                dot: Some(size as f32),
                exponent: ExponentScale::new(LOG2_E),
                natural: 1.0,
            }
        } else {
            Self {
                query,
                dot: None,
                exponent: ExponentScale::new(size * LOG2_E),
                natural: size,
            }
        }
    }

    /// `ln Σ exp` of a row; −∞ for one that saw nothing.
    pub(super) fn log_sum_exp(&self, row_max: f32, row_sum: f64) -> f32 {
        if row_sum == 0.0 {
            return f32::NEG_INFINITY;
        }
        (f64::from(row_max) * self.natural + libm::log(row_sum)) as f32
    }
}

/// What all blocks share.
#[derive(Debug)]
pub(super) struct Call<'a> {
    q: Data<'a>,
    q_axis: HeadAxis,
    pub(super) source: Source<'a>,
    pub(super) plan: Plan,
    pub(super) sequences: Vec<Sequence>,
    pub(super) band: Band,
    pub(super) elements: Elements<'a>,
    lambda: Option<(Lambda<'a>, [usize; 2])>,
    pub(super) scores: ScoreScale,
    pub(super) softcap: Option<f32>,
    norm: Option<Norm<'a>>,
    /// d.
    pub(super) width: usize,
    pub(super) value_shape: ValueShape,
    /// Lk, with padding.
    pub(super) keys: usize,
    out_axis: HeadAxis,
    out: Option<Output>,
    lse: Option<*mut f32>,
    pub(super) return_lse: bool,
    pub(super) maps: Option<MapsOut>,
    pub(super) run: Run,
}

// SAFETY: the pointers are outputs that `bind` borrowed mutably for 'a; blocks write disjoint rows.
unsafe impl Send for Call<'_> {}
// SAFETY: as above.
unsafe impl Sync for Call<'_> {}

/// `[B|1, H|1, Lq|1, Lk]`, or an error naming `argument`.
fn check_elements(argument: &str, shape: &[usize], full: [usize; 4]) -> Result<[usize; 4], Error> {
    let [batch, heads, queries, keys] = full;
    let fits = |axis: usize| shape[axis] == full[axis] || (axis < 3 && shape[axis] == 1);
    match <[usize; 4]>::try_from(shape) {
        Ok(shape) if (0..4).all(fits) => Ok(shape),
        _ => Err(Error::shape(
            argument,
            format_args!("shape [{batch}|1, {heads}|1, {queries}|1, {keys}]"),
            format_shape(shape),
        )),
    }
}

impl<'a> Call<'a> {
    /// Checks everything; allocates nothing of the size of the work. No v and no norm for maps.
    pub(super) fn new(
        q: Tensor<'a>,
        k: Option<Tensor<'a>>,
        v: Option<Tensor<'a>>,
        cache: Option<&'a KvCache>,
        options: &AttentionOptions<'a>,
    ) -> Result<Self, Error> {
        let layout = options.layout;
        let q_axis = HeadAxis::new("q", &q, layout)?;
        let dtype = q.data.dtype();
        let HeadAxis {
            batch,
            length: queries,
            width,
            ..
        } = q_axis;
        let same_dtype = |argument: &str, other: DType| {
            if other == dtype {
                Ok(())
            } else {
                Err(Error::dtype(
                    argument,
                    format_args!("{} as q", dtype.name()),
                    other.name(),
                ))
            }
        };
        let (source, counts, keys, value_shape) = match (cache, k) {
            (Some(cache), _) => {
                let of = cache.options();
                same_dtype("cache", of.dtype)?;
                if of.batch != batch {
                    return Err(Error::shape(
                        "cache",
                        format_args!("batch {batch} as q"),
                        of.batch,
                    ));
                }
                if of.head_dim != width {
                    return Err(Error::shape(
                        "cache",
                        format_args!("head_dim {width} as q"),
                        of.head_dim,
                    ));
                }
                let counts = HeadCounts {
                    q: q_axis.heads,
                    k: of.terms * of.groups,
                    v: Some(of.groups),
                };
                (
                    Source::Cache(cache),
                    counts,
                    cache.len(),
                    cache.value_shape(),
                )
            }
            (None, Some(k)) => {
                let k_axis = HeadAxis::new("k", &k, layout)?;
                same_dtype("k", k.data.dtype())?;
                if k_axis.batch != batch {
                    return Err(Error::shape(
                        "k",
                        format_args!("batch {batch} as q"),
                        k_axis.batch,
                    ));
                }
                if k_axis.width != width {
                    return Err(Error::shape(
                        "k",
                        format_args!("head width {width} as q"),
                        k_axis.width,
                    ));
                }
                let v = match v {
                    None => None,
                    Some(v) => {
                        let v_axis = HeadAxis::new("v", &v, layout)?;
                        same_dtype("v", v.data.dtype())?;
                        if v_axis.batch != batch {
                            return Err(Error::shape(
                                "v",
                                format_args!("batch {batch} as q"),
                                v_axis.batch,
                            ));
                        }
                        if v_axis.length != k_axis.length {
                            return Err(Error::shape(
                                "v",
                                format_args!("{} keys as k", k_axis.length),
                                v_axis.length,
                            ));
                        }
                        Some((v.data, v_axis))
                    }
                };
                let counts = HeadCounts {
                    q: q_axis.heads,
                    k: k_axis.heads,
                    v: v.map(|(_, axis)| axis.heads),
                };
                let longest = match options.cu_seqlens_k {
                    None => k_axis.length,
                    Some(cu) => cu
                        .windows(2)
                        .map(|ends| ends[1].saturating_sub(ends[0]))
                        .max()
                        .unwrap_or(0)
                        .max(0) as usize,
                };
                let value_shape = ValueShape::new(
                    longest.min(k_axis.length),
                    v.map_or(0, |(_, axis)| axis.width),
                );
                (
                    Source::Tensors {
                        k: (k.data, k_axis),
                        v,
                    },
                    counts,
                    k_axis.length,
                    value_shape,
                )
            }
            (None, None) => return Err(Error::shape("k", "a tensor or a cache", "none")),
        };
        if keys >= MAX_KEYS {
            return Err(Error::shape(
                "k",
                format_args!("fewer than {MAX_KEYS} keys"),
                keys,
            ));
        }
        if keys == 0 && queries > 0 && value_shape.width > MAX_UNBACKED {
            return Err(Error::shape(
                "v",
                format_args!("at most {MAX_UNBACKED} channels where there are no keys"),
                value_shape.width,
            ));
        }
        let plan = plan(counts, options)?;
        let heads = plan.heads.len();
        let out_width = plan.values.checked_mul(value_shape.width).ok_or_else(|| {
            Error::shape(
                "v",
                "a result whose channels fit this machine",
                value_shape.width,
            )
        })?;
        let out_axis = HeadAxis {
            batch,
            heads,
            length: queries,
            width: out_width,
            layout,
        };
        checked_len("q", &out_axis.shape())?;
        checked_len("q", &[batch, heads, plan.terms, queries])?;
        let lambda = check_lambda(options, batch, queries, heads)?;
        let elements = check_mask_and_bias(options, [batch, heads, queries, keys])?;
        let sequences = sequences(options, cache.is_some(), batch, queries, keys)?;
        let scale = options
            .scale
            .map_or_else(|| 1.0 / (width as f64).sqrt(), f64::from);
        if !(scale as f32).is_finite() {
            return Err(Error::option("scale", "a finite number", scale));
        }
        if let Some(softcap) = options.softcap
            && !(softcap > 0.0 && softcap.is_finite())
        {
            return Err(Error::option("softcap", "a positive number", softcap));
        }
        let norm = match &options.norm {
            None => None,
            Some(norm) => {
                if !(norm.eps >= 0.0 && norm.eps.is_finite()) {
                    return Err(Error::option(
                        "norm.eps",
                        "0 or a positive number",
                        norm.eps,
                    ));
                }
                if let Some(weight) = norm.weight
                    && weight.len() != out_width
                {
                    return Err(Error::shape(
                        "norm.weight",
                        format_args!("length {out_width}, the result's channels"),
                        weight.len(),
                    ));
                }
                Some(Norm {
                    eps: norm.eps,
                    weight: norm.weight,
                    scale: norm.scale,
                })
            }
        };
        Ok(Self {
            q: q.data,
            q_axis,
            source,
            plan,
            sequences,
            band: Band::new(options),
            elements,
            lambda,
            scores: ScoreScale::new(scale, options.softcap.is_some() || !elements.is_empty()),
            softcap: options.softcap,
            norm,
            width,
            value_shape,
            keys,
            out_axis,
            out: None,
            lse: None,
            return_lse: options.return_lse,
            maps: None,
            run: options.run,
        })
    }

    pub(super) fn output_shape(&self) -> [usize; 4] {
        self.out_axis.shape()
    }

    pub(super) fn dtype(&self) -> DType {
        self.q.dtype()
    }

    pub(super) fn lse_shape(&self) -> [usize; 4] {
        [
            self.out_axis.batch,
            self.out_axis.heads,
            self.plan.terms,
            self.out_axis.length,
        ]
    }

    pub(super) fn bind(
        &mut self,
        out: DataMut<'a>,
        lse: Option<&'a mut [f32]>,
    ) -> Result<(), Error> {
        let out = Output::bind(out, self.dtype(), &self.output_shape())?;
        match (&lse, self.return_lse) {
            (Some(lse), true) => {
                check_len("lse", &self.lse_shape(), lse.len())?;
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
        self.out = Some(out);
        self.lse = lse.map(<[f32]>::as_mut_ptr);
        Ok(())
    }

    /// G that the pairing implies: the v heads that its plan names.
    pub(super) fn value_heads(&self) -> usize {
        self.plan
            .heads
            .iter()
            .flat_map(|head| &head.v)
            .max()
            .map_or(0, |head| head + 1)
    }

    /// Whether outputs were given.
    pub(super) fn is_bound(&self) -> bool {
        self.out.is_some() || self.maps.is_some()
    }

    pub(super) fn query_rows(&self, sequence: &Sequence, head: usize) -> Rows<'a> {
        self.q_axis
            .rows(self.q, sequence.batch, head, sequence.first_query)
    }

    /// c_t of a head at a token: λ scales the second term.
    #[inline]
    pub(super) fn coefficient(&self, head: usize, term: usize, batch: usize, query: usize) -> f32 {
        let coefficient = self.plan.heads[head].coefficients[term];
        match &self.lambda {
            Some((lambda, strides)) if term == 1 => {
                coefficient
                    * match lambda {
                        Lambda::Value(value) => *value,
                        Lambda::PerHead(values) => values[head],
                        Lambda::PerToken { data, .. } => {
                            data[batch * strides[0] + query * strides[1] + head]
                        }
                    }
            }
            _ => coefficient,
        }
    }

    /// Norm and store of one finished row; `query` counts within the sequence.
    #[inline(always)]
    pub(super) fn write_row<V: Vector>(
        &self,
        y: &mut [f32],
        sequence: &Sequence,
        head: usize,
        query: usize,
    ) {
        self.norm_row::<V>(y);
        let at = self
            .out_axis
            .row(sequence.batch, head, sequence.first_query + query);
        debug_assert_eq!(y.len(), self.out_axis.width);
        match self.out {
            // SAFETY: `bind` checked that the result has this row, and borrowed it for 'a; no other block has this
            // (batch, head, query).
            Some(out) => unsafe { out.narrow(at, y) },
            None => debug_assert!(false, "outputs are bound before any step"),
        }
    }

    /// The norm of one finished row, if there is one.
    #[inline(always)]
    pub(super) fn norm_row<V: Vector>(&self, y: &mut [f32]) {
        if let Some(Norm { eps, weight, scale }) = self.norm {
            rms_norm_row::<V>(y, weight, eps, scale);
        }
    }

    /// Where rows of the result begin, from `query` on, and how far apart, if the result is float32.
    pub(super) fn result_rows(
        &self,
        sequence: &Sequence,
        head: usize,
        query: usize,
    ) -> Option<(*mut f32, usize)> {
        let row = |index| self.out_axis.row(sequence.batch, head, index);
        match self.out {
            Some(Output::F32(out)) => {
                let first = sequence.first_query + query;
                Some((out.wrapping_add(row(first)), row(1) - row(0)))
            }
            _ => None,
        }
    }

    /// Asks for the rows of a float32 result that `finish` will write.
    #[inline(always)]
    pub(super) fn prefetch_result<V: Vector>(&self, block: &Block<'_>, head: usize) {
        if let Some((start, stride)) = self.result_rows(block.sequence, head, block.first) {
            for row in 0..block.rows {
                for channel in (0..self.out_axis.width).step_by(16) {
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
        sequence: &Sequence,
        head: usize,
        term: usize,
        query: usize,
        value: f32,
    ) {
        let HeadAxis { heads, length, .. } = self.out_axis;
        let row = (sequence.batch * heads + head) * self.plan.terms + term;
        if let Some(lse) = self.lse {
            // SAFETY: `bind` checked the length of [B, H, T, Lq]; each element is written by one block.
            unsafe { *lse.add(row * length + sequence.first_query + query) = value };
        }
    }

    /// One row of every map: `value(t, key)` for the keys it sees (`None` where term t saw nothing, so that
    /// the row stays zero whatever its λ is), zeros elsewhere. `query` counts within the sequence.
    pub(super) fn write_map_row(
        &self,
        sequence: &Sequence,
        head: usize,
        query: usize,
        (low, high): (usize, usize),
        value: impl Fn(usize, usize) -> Option<f32>,
    ) {
        let Some(MapsOut { terms, diff, rows }) = &self.maps else {
            return;
        };
        let HeadAxis { heads, .. } = self.out_axis;
        let row =
            (sequence.batch * heads + head) * (rows[1] - rows[0]) + sequence.first_query + query
                - rows[0];
        // SAFETY: `DiffAttentionMaps::bind` checked the lengths; each row is written by one block.
        let row_of = |map: *mut f32| unsafe {
            std::slice::from_raw_parts_mut(map.add(row * self.keys), self.keys)
        };
        let diff = row_of(*diff);
        diff.fill(0.0);
        for (t, &map) in terms.iter().enumerate() {
            let map = row_of(map);
            map.fill(0.0);
            if t >= self.plan.heads[head].terms.len() {
                continue;
            }
            let coefficient =
                self.coefficient(head, t, sequence.batch, sequence.first_query + query);
            let at = (sequence.batch, head, sequence.first_query + query);
            for key in low..high {
                // A masked key of a NaN row, or under a NaN λ, is 0 all the same.
                if !self.elements.is_empty() && !self.elements.sees(at, key) {
                    continue;
                }
                let Some(p) = value(t, key) else { break };
                map[sequence.first_key + key] = p;
                diff[sequence.first_key + key] += coefficient * p;
            }
        }
    }
}

type Strided<'a> = (Lambda<'a>, [usize; 2]);

fn check_lambda<'a>(
    options: &AttentionOptions<'a>,
    batch: usize,
    queries: usize,
    heads: usize,
) -> Result<Option<Strided<'a>>, Error> {
    let Some(lambda) = &options.lambda else {
        return Ok(None);
    };
    let mut strides = [0, 0];
    match lambda {
        Lambda::Value(_) => {}
        Lambda::PerHead(values) => {
            if values.len() != heads {
                return Err(Error::shape(
                    "lambda",
                    format_args!("length {heads}, one per output head"),
                    values.len(),
                ));
            }
        }
        Lambda::PerToken { data, shape } => {
            let fits = |axis: usize, full: usize| shape[axis] == full || shape[axis] == 1;
            if shape.len() != 3 || !fits(0, batch) || !fits(1, queries) || shape[2] != heads {
                return Err(Error::shape(
                    "lambda",
                    format_args!("shape [{batch}|1, {queries}|1, {heads}]"),
                    format_shape(shape),
                ));
            }
            check_len("lambda", shape, data.len())?;
            strides = [
                if shape[0] == 1 { 0 } else { shape[1] * heads },
                if shape[1] == 1 { 0 } else { heads },
            ];
        }
    }
    Ok(Some((lambda.clone(), strides)))
}

fn check_mask_and_bias<'a>(
    options: &AttentionOptions<'a>,
    full: [usize; 4],
) -> Result<Elements<'a>, Error> {
    let mut elements = Elements::default();
    if let Some(Mask { data, shape }) = &options.attn_mask {
        let shape = check_elements("attn_mask", shape, full)?;
        check_len("attn_mask", &shape, data.len())?;
        elements.mask = Some(Broadcast::new(data, &shape));
    }
    if let Some(bias) = &options.attn_bias {
        let shape = check_elements("attn_bias", &bias.shape, full)?;
        check_len("attn_bias", &shape, bias.data.len())?;
        let Data::F32(data) = bias.data else {
            return Err(Error::dtype(
                "attn_bias",
                "float32",
                bias.data.dtype().name(),
            ));
        };
        elements.bias = Some(Broadcast::new(data, &shape));
    }
    Ok(elements)
}

/// The sequences of a call: one per batch entry, or the packed ones.
fn sequences(
    options: &AttentionOptions<'_>,
    cached: bool,
    batch: usize,
    queries: usize,
    keys: usize,
) -> Result<Vec<Sequence>, Error> {
    // Of packed sequences, the stretch of queries and of keys of each.
    let packed = match (options.cu_seqlens_q, options.cu_seqlens_k) {
        (None, None) => None,
        (Some(_), None) => {
            return Err(Error::option(
                "cu_seqlens_k",
                "cu_seqlens_q and cu_seqlens_k together",
                "only cu_seqlens_q",
            ));
        }
        (None, Some(_)) => {
            return Err(Error::option(
                "cu_seqlens_q",
                "cu_seqlens_q and cu_seqlens_k together",
                "only cu_seqlens_k",
            ));
        }
        (Some(cu_q), Some(cu_k)) => {
            if cached {
                return Err(Error::option("cu_seqlens_k", "none with a cache", "one"));
            }
            if batch != 1 {
                return Err(Error::shape("q", "batch 1 with packed sequences", batch));
            }
            if options.attn_mask.is_some() {
                return Err(Error::option(
                    "attn_mask",
                    "none with packed sequences",
                    "one",
                ));
            }
            if options.attn_bias.is_some() {
                return Err(Error::option(
                    "attn_bias",
                    "none with packed sequences",
                    "one",
                ));
            }
            if cu_q.len() != cu_k.len() {
                return Err(Error::shape(
                    "cu_seqlens_k",
                    format_args!("length {} as cu_seqlens_q", cu_q.len()),
                    cu_k.len(),
                ));
            }
            let of_q = check_cumulative("cu_seqlens_q", cu_q, queries)?;
            let of_k = check_cumulative("cu_seqlens_k", cu_k, keys)?;
            Some((of_q, of_k))
        }
    };
    let (count, per) = match &packed {
        Some((of_q, _)) => (of_q.len(), "sequence"),
        None => (batch, "batch entry"),
    };
    let stretch = |index: usize| match &packed {
        Some((of_q, of_k)) => (0, of_q[index], of_k[index]),
        None => (index, [0, queries], [0, keys]),
    };
    if let Some(lengths) = options.key_lengths
        && lengths.len() != count
    {
        return Err(Error::shape(
            "key_lengths",
            format_args!("length {count}, one per {per}"),
            lengths.len(),
        ));
    }
    if let Some(offsets) = &options.query_offset
        && offsets.len() != 1
        && offsets.len() != count
    {
        return Err(Error::shape(
            "query_offset",
            format_args!("1 or {count} values, one per {per}"),
            offsets.len(),
        ));
    }
    for (index, &length) in options.key_lengths.unwrap_or_default().iter().enumerate() {
        let (_, _, [_, keys]) = stretch(index);
        if !usize::try_from(length).is_ok_and(|length| length <= keys) {
            let expected = format_args!("lengths from 0 to {keys}").to_string();
            return Err(Error::shape("key_lengths", expected, length));
        }
    }
    let mut sequences = Vec::new();
    // Without queries there is no row to compute, however many batch entries there are.
    if queries == 0 {
        return Ok(sequences);
    }
    sequences
        .try_reserve_exact(count)
        .map_err(|_| Error::OutOfMemory {
            bytes: (count as u64).saturating_mul(size_of::<Sequence>() as u64),
        })?;
    for index in 0..count {
        let (batch, [first_query, queries], [first_key, keys]) = stretch(index);
        // (Checked: it is from 0 to `keys`.)
        let seen = options.key_lengths.map(|lengths| lengths[index] as usize);
        let query_offset = match options.query_offset.as_deref() {
            None => keys as i64 - queries as i64,
            Some([offset]) => *offset,
            Some(offsets) => offsets[index],
        };
        sequences.push(Sequence {
            batch,
            first_query,
            queries,
            first_key,
            keys: seen.unwrap_or(keys),
            query_offset,
        });
    }
    Ok(sequences)
}

/// `[0, …, total]`, never falling, as (first, length) pairs.
fn check_cumulative(argument: &str, cu: &[i32], total: usize) -> Result<Vec<[usize; 2]>, Error> {
    if cu.first() != Some(&0) {
        return Err(Error::shape(
            argument,
            "a first entry of 0",
            cu.first().map_or("none".to_owned(), i32::to_string),
        ));
    }
    if cu.last().and_then(|&last| usize::try_from(last).ok()) != Some(total) {
        return Err(Error::shape(
            argument,
            format_args!("a last entry of {total}, the tokens given"),
            cu.last().map_or("none".to_owned(), i32::to_string),
        ));
    }
    cu.windows(2)
        .map(
            |ends| match (usize::try_from(ends[0]), usize::try_from(ends[1])) {
                (Ok(first), Ok(end)) if first <= end => Ok([first, end - first]),
                _ => Err(Error::shape(
                    argument,
                    "entries that never fall",
                    format_args!("{} after {}", ends[1], ends[0]),
                )),
            },
        )
        .collect()
}
