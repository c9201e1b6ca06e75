//! Differential attention and its companions in plain loops: what every fast kernel is compared
//! with.
//!
//! This file does: state each operator as its formula reads, in float64, and attention in float32
//! as well (the same body over [`Real`]), because the accuracy of a float32 kernel is judged by
//! what plain float32 arithmetic would give. It does not: run fast, save memory, or return errors.
//! It is a test oracle; sizes that do not fit panic.
//!
//! Letters: B batch, H output heads, G key/value groups, Lq queries, Lk keys, d and dv head widths,
//! T terms. Tensors are row-major; heads come before the sequence ("bhsd").
//!
//! Sources: the Differential Transformer (arXiv 2410.05258), its second version (microsoft/unilm,
//! Diff-Transformer), grouped differential attention (arXiv 2510.06949).
//!
//! ```
//! use diffattn_reference::{AttentionSpec, Pairing, Tensor, attention, plan};
//!
//! // One output head: two queries and keys of width 1, one value of width 1; two positions.
//! let q = Tensor::new(&[1, 2, 2, 1], vec![0.0; 4]);
//! let k = Tensor::new(&[1, 2, 2, 1], vec![1.0; 4]);
//! let v = Tensor::new(&[1, 1, 2, 1], vec![2.0, 4.0]);
//! let heads = plan(Pairing::default(), [2, 2, 1], &[1.0, -1.0]);
//! let lambda = Some(Tensor::scalar(0.5));
//! let spec = AttentionSpec { lambda, ..AttentionSpec::new(q, k, v, heads) };
//! // Equal scores: both maps are 1/2, 1/2, so y = (1 − 0.5)·mean(v).
//! assert_eq!(attention::<f64>(&spec).out.data, [1.5, 1.5]);
//! ```

mod accuracy;
#[cfg(feature = "fixture")]
pub mod fixture;
pub mod gradients;
mod layers;
mod measure;
mod quantised;
pub mod recurrent;
pub mod testing;

pub use accuracy::{Accuracy, CaseErrors};
pub use layers::{LambdaForm, MultiheadAttn, MultiheadDiffAttn, MultiheadDiffAttnV2, linear};
pub use measure::{LogitsDistance, compare_logits, map_entropy};
pub use quantised::{
    Int8, QuantisedWeight, linear_int8, quantise_int8, quantise_int8_rows, quantise_q4_0,
    quantise_q4_1, quantise_q8_0,
};

use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Range, Sub};

// ----------------------------------------------------------------------------- numbers and tensors

/// The arithmetic that attention is written in: float64 for the oracle, float32 for the plain
/// float32 computation.
pub trait Real:
    Copy
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + Sum
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Rounds to nearest even where `Self` is narrower.
    fn from_f64(x: f64) -> Self;
    /// Exact.
    fn to_f64(self) -> f64;
    /// e^self.
    fn exp(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// The error function.
    fn erf(self) -> Self;
}

impl Real for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    fn from_f64(x: f64) -> Self {
        x
    }
    fn to_f64(self) -> f64 {
        self
    }
    fn exp(self) -> Self {
        libm::exp(self)
    }
    fn ln(self) -> Self {
        libm::log(self)
    }
    fn tanh(self) -> Self {
        libm::tanh(self)
    }
    fn sqrt(self) -> Self {
        libm::sqrt(self)
    }
    fn erf(self) -> Self {
        libm::erf(self)
    }
}

impl Real for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    fn from_f64(x: f64) -> Self {
        x as f32
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    fn exp(self) -> Self {
        libm::expf(self)
    }
    fn ln(self) -> Self {
        libm::logf(self)
    }
    fn tanh(self) -> Self {
        libm::tanhf(self)
    }
    fn sqrt(self) -> Self {
        libm::sqrtf(self)
    }
    fn erf(self) -> Self {
        libm::erff(self)
    }
}

/// Row-major values with their shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor<T> {
    /// Length of each axis, outermost first; empty for a single number.
    pub shape: Vec<usize>,
    /// The product of `shape` many values.
    pub data: Vec<T>,
}

impl<T: Copy> Tensor<T> {
    /// Panics unless `data` has the product of `shape` many values.
    pub fn new(shape: &[usize], data: Vec<T>) -> Self {
        assert_eq!(
            shape.iter().product::<usize>(),
            data.len(),
            "values of a tensor of shape {shape:?}"
        );
        Self {
            shape: shape.to_vec(),
            data,
        }
    }

    /// A tensor of one value.
    pub fn full(shape: &[usize], value: T) -> Self {
        Self {
            shape: shape.to_vec(),
            data: vec![value; shape.iter().product()],
        }
    }

    /// A tensor without axes, which broadcasts to every shape.
    pub fn scalar(value: T) -> Self {
        Self {
            shape: Vec::new(),
            data: vec![value],
        }
    }

    /// The value at `index`; axes are aligned at the end, and an absent axis or one of length 1
    /// repeats.
    pub fn broadcast(&self, index: &[usize]) -> T {
        self.data[self.place(index)]
    }

    /// Where [`Self::broadcast`] finds the value at `index`.
    fn place(&self, index: &[usize]) -> usize {
        assert!(
            self.shape.len() <= index.len(),
            "shape {:?} has more axes than index {index:?}",
            self.shape
        );
        let mut at = 0;
        for (&len, &i) in self
            .shape
            .iter()
            .zip(&index[index.len() - self.shape.len()..])
        {
            assert!(
                len == 1 || i < len,
                "index {index:?} is outside shape {:?}",
                self.shape
            );
            at = at * len + if len == 1 { 0 } else { i };
        }
        at
    }

    /// The last axis at `index` of the others, which must all be given.
    pub fn row(&self, index: &[usize]) -> &[T] {
        &self.data[self.row_range(index)]
    }

    /// [`Self::row`], to be changed.
    fn row_mut(&mut self, index: &[usize]) -> &mut [T] {
        let range = self.row_range(index);
        &mut self.data[range]
    }

    fn row_range(&self, index: &[usize]) -> Range<usize> {
        assert_eq!(
            index.len() + 1,
            self.shape.len(),
            "row {index:?} of shape {:?}",
            self.shape
        );
        let width = self.shape[index.len()];
        let at = self.shape.iter().zip(index).fold(0, |at, (&len, &i)| {
            assert!(i < len, "row {index:?} is outside shape {:?}", self.shape);
            at * len + i
        });
        at * width..(at + 1) * width
    }

    /// [A, B, C, D] → [A, C, B, D]: from layout bhsd to bshd and back.
    pub fn swap_middle_axes(&self) -> Self {
        let [a, b, c, d] = shape4(self);
        let mut data = Vec::with_capacity(self.data.len());
        for i in 0..a {
            for k in 0..c {
                for j in 0..b {
                    let at = ((i * b + j) * c + k) * d;
                    data.extend_from_slice(&self.data[at..at + d]);
                }
            }
        }
        Self::new(&[a, c, b, d], data)
    }
}

impl Tensor<f64> {
    /// Widens float32 values, exactly.
    pub fn from_f32(shape: &[usize], data: &[f32]) -> Self {
        Self::new(shape, data.iter().map(|&x| f64::from(x)).collect())
    }

    /// The values in another arithmetic.
    pub fn cast<R: Real>(&self) -> Tensor<R> {
        Tensor {
            shape: self.shape.clone(),
            data: self.data.iter().map(|&x| R::from_f64(x)).collect(),
        }
    }
}

impl<R: Real> Tensor<R> {
    /// The values in float64, exactly.
    pub fn widen(&self) -> Tensor<f64> {
        Tensor {
            shape: self.shape.clone(),
            data: self.data.iter().map(|&x| x.to_f64()).collect(),
        }
    }

    /// Zeros.
    fn zeros(shape: &[usize]) -> Self {
        Self::full(shape, R::ZERO)
    }
}

fn shape4<T>(x: &Tensor<T>) -> [usize; 4] {
    match x.shape[..] {
        [a, b, c, d] => [a, b, c, d],
        _ => panic!("expected four axes, got shape {:?}", x.shape),
    }
}

// -------------------------------------------------------------------------------------- head plans

/// One output head: Σ_t c_t·softmax(q_t k_tᵀ), times the named v heads side by side on the
/// channels.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// A query head per term.
    pub q: Vec<usize>,
    /// A key head per term.
    pub k: Vec<usize>,
    /// Value heads, concatenated on channels.
    pub v: Vec<usize>,
    /// A factor per term; λ, where given, multiplies the second.
    pub coefficients: Vec<f64>,
}

/// Which q, k and v heads make an output head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// Neighbouring heads are partners (the first version's own code). Needs n_q = T·H, n_k = T·G,
    /// n_v = G, G divides H.
    Interleaved {
        /// Repeat each k head on its own instead of each group of T (the naive code of the first
        /// version); T = 2 only.
        flat: bool,
    },
    /// Head h and head h + H are partners (Hugging Face diffllama). Needs n_q = 2H, n_k = n_v = K,
    /// K divides 2H.
    Halves,
    /// `ratio` signal heads, then the noise head they share. Needs n_q = (H/r)(r+1), n_k = 2G,
    /// n_v = G, G divides H/r.
    Grouped {
        /// Signal heads per noise head, r.
        ratio: usize,
    },
    /// As `Grouped`, with one k for signal and noise (the second version). Needs n_k = n_v = G.
    Shared {
        /// Signal heads per noise head, r.
        ratio: usize,
    },
}

impl Default for Pairing {
    fn default() -> Self {
        Self::Interleaved { flat: false }
    }
}

impl Pairing {
    /// The number of output heads H that `[n_q, n_k, n_v]` heads and `terms` terms make, or the
    /// rule they break.
    pub fn output_heads(
        self,
        [n_q, n_k, n_v]: [usize; 3],
        terms: usize,
    ) -> Result<usize, &'static str> {
        let rule = |holds: bool, rule| if holds { Ok(()) } else { Err(rule) };
        rule(
            n_q > 0 && n_k > 0 && n_v > 0,
            "there is at least one q, k and v head",
        )?;
        match self {
            Self::Interleaved { flat } => {
                rule(terms >= 1, "there is at least one term")?;
                rule(!flat || terms == 2, "flat repeats need two terms")?;
                rule(n_q % terms == 0, "n_q = T·H")?;
                rule(n_k == terms * n_v, "n_k = T·n_v")?;
                rule((n_q / terms).is_multiple_of(n_v), "n_v divides H")?;
                Ok(n_q / terms)
            }
            Self::Halves => {
                rule(terms == 2, "halves has two terms")?;
                rule(n_q % 2 == 0, "n_q = 2H")?;
                rule(n_k == n_v, "n_k = n_v")?;
                rule(n_q % n_k == 0, "n_k divides 2H")?;
                Ok(n_q / 2)
            }
            Self::Grouped { ratio } | Self::Shared { ratio } => {
                rule(terms == 2, "grouped and shared have two terms")?;
                rule(ratio >= 1, "the ratio is at least 1")?;
                rule(n_q % (ratio + 1) == 0, "n_q = (H/r)(r+1)")?;
                let keys_per_group = if matches!(self, Self::Grouped { .. }) {
                    2
                } else {
                    1
                };
                rule(
                    n_k == keys_per_group * n_v,
                    "n_k = 2·n_v (grouped) or n_v (shared)",
                )?;
                rule((n_q / (ratio + 1)) % n_v == 0, "n_v divides H/r")?;
                Ok(n_q / (ratio + 1) * ratio)
            }
        }
    }
}

/// The heads that a pairing makes of `[n_q, n_k, n_v]` heads; T is the number of coefficients
/// (`[1, −1]` with a λ).
///
/// Panics, naming the rule, when the counts do not fit.
pub fn plan(pairing: Pairing, counts: [usize; 3], coefficients: &[f64]) -> Vec<Head> {
    let terms = coefficients.len();
    let h_count = match pairing.output_heads(counts, terms) {
        Ok(h_count) => h_count,
        Err(rule) => panic!("{pairing:?} of {counts:?} heads, {terms} terms: {rule}"),
    };
    let [_, n_k, n_v] = counts;
    (0..h_count)
        .map(|h| {
            let (q, k, v) = match pairing {
                Pairing::Interleaved { flat } => {
                    let rep = h_count / n_v;
                    let g = h / rep;
                    let key = |t| {
                        if flat {
                            (2 * h + t) / rep
                        } else {
                            terms * g + t
                        }
                    };
                    (
                        (0..terms).map(|t| terms * h + t).collect(),
                        (0..terms).map(key).collect(),
                        vec![g],
                    )
                }
                Pairing::Halves => {
                    let rep = 2 * h_count / n_k;
                    let kv = vec![h / rep, (h + h_count) / rep];
                    (vec![h, h + h_count], kv.clone(), kv)
                }
                Pairing::Grouped { ratio } | Pairing::Shared { ratio } => {
                    let noise = h / ratio;
                    let g = noise / (h_count / ratio / n_v);
                    let first = noise * (ratio + 1);
                    let k = if matches!(pairing, Pairing::Grouped { .. }) {
                        vec![2 * g, 2 * g + 1]
                    } else {
                        vec![g; 2]
                    };
                    (vec![first + h % ratio, first + ratio], k, vec![g])
                }
            };
            Head {
                q,
                k,
                v,
                coefficients: coefficients.to_vec(),
            }
        })
        .collect()
}

// --------------------------------------------------------------------------------------- attention

/// Everything an attention call depends on.
#[derive(Clone, Debug)]
pub struct AttentionSpec {
    /// [B, n_q, Lq, d].
    pub q: Tensor<f64>,
    /// [B, n_k, Lk, d].
    pub k: Tensor<f64>,
    /// [B, n_v, Lk, dv].
    pub v: Tensor<f64>,
    /// One entry per output head.
    pub heads: Vec<Head>,
    /// Multiplies each head's second coefficient; broadcast to [B, Lq, H].
    pub lambda: Option<Tensor<f64>>,
    /// Factor of q·k; none is 1/√d.
    pub scale: Option<f64>,
    /// Query i sees key j only when j ≤ i + offset.
    pub causal: bool,
    /// [left, right]: query i sees i + offset − left ≤ j ≤ i + offset + right; none is unbounded.
    pub window: [Option<usize>; 2],
    /// s becomes softcap·tanh(s / softcap), before bias and mask.
    pub softcap: Option<f64>,
    /// True takes part; broadcast to [B, H, Lq, Lk].
    pub mask: Option<Tensor<bool>>,
    /// Added to the scores, −Inf hides; broadcast to [B, H, Lq, Lk].
    pub bias: Option<Tensor<f64>>,
    /// True takes part, for blocks of 64 queries by 64 keys; broadcast to [B, H, ⌈Lq/64⌉, ⌈Lk/64⌉].
    pub block_mask: Option<Tensor<bool>>,
    /// A logit that joins the softmax of a head, `[H]`, or of each of its terms, `[H, T]`, and meets
    /// no value; −Inf is none.
    pub sinks: Option<Tensor<f64>>,
    /// Keys that count, per batch entry (or packed sequence).
    pub key_lengths: Option<Vec<usize>>,
    /// Key position of the first query, per batch entry (or packed sequence); none is Lk − Lq.
    pub query_offset: Option<Vec<i64>>,
    /// Bounds [0, …, ΣLq] and [0, …, ΣLk] of sequences packed into B = 1; each is attended to
    /// alone.
    pub cu_seqlens: Option<[Vec<usize>; 2]>,
    /// RMS norm of each output row.
    pub norm: Option<Norm>,
}

impl AttentionSpec {
    /// Attention in which every query sees every key; fields are public for what differs.
    pub fn new(q: Tensor<f64>, k: Tensor<f64>, v: Tensor<f64>, heads: Vec<Head>) -> Self {
        Self {
            q,
            k,
            v,
            heads,
            lambda: None,
            scale: None,
            causal: false,
            window: [None; 2],
            softcap: None,
            mask: None,
            bias: None,
            block_mask: None,
            sinks: None,
            key_lengths: None,
            query_offset: None,
            cu_seqlens: None,
            norm: None,
        }
    }

    /// Channels of the result: the v heads of an output head side by side.
    pub fn output_width(&self) -> usize {
        let widths: Vec<usize> = self
            .heads
            .iter()
            .map(|head| head.v.len() * shape4(&self.v)[3])
            .collect();
        let width = widths.first().copied().unwrap_or(0);
        assert!(
            widths.iter().all(|&w| w == width),
            "output heads differ in width: {widths:?}"
        );
        width
    }

    /// T of the head that has the most terms.
    pub fn terms(&self) -> usize {
        self.heads
            .iter()
            .map(|head| head.q.len())
            .max()
            .unwrap_or(0)
    }

    fn check(&self) {
        let ([b, n_q, lq, d], [bk, n_k, lk, dk], [bv, n_v, lv, _]) =
            (shape4(&self.q), shape4(&self.k), shape4(&self.v));
        assert!(
            b == bk && b == bv && lk == lv && d == dk,
            "q, k and v do not fit: {b},{bk},{bv} {lk},{lv} {d},{dk}"
        );
        for head in &self.heads {
            assert!(!head.q.is_empty() && !head.v.is_empty(), "{head:?}");
            assert!(
                head.q.len() == head.k.len() && head.q.len() == head.coefficients.len(),
                "{head:?}"
            );
            let inside = |list: &[usize], n| list.iter().all(|&x| x < n);
            assert!(
                inside(&head.q, n_q) && inside(&head.k, n_k) && inside(&head.v, n_v),
                "{head:?}"
            );
        }
        let mut sequences = b;
        if let Some([cu_q, cu_k]) = &self.cu_seqlens {
            assert!(
                b == 1 && self.mask.is_none() && self.bias.is_none() && self.block_mask.is_none(),
                "packed sequences: B = 1, no mask, no bias, no block mask"
            );
            assert!(cu_q.len() == cu_k.len(), "as many query as key sequences");
            for (cu, total) in [(cu_q, lq), (cu_k, lk)] {
                assert!(
                    cu.first() == Some(&0) && cu.last() == Some(&total) && cu.is_sorted(),
                    "{cu:?} of {total}"
                );
            }
            sequences = cu_q.len() - 1;
        }
        let lengths = [
            self.key_lengths.as_ref().map(Vec::len),
            self.query_offset.as_ref().map(Vec::len),
        ];
        assert!(
            lengths.iter().flatten().all(|&n| n == sequences),
            "one key length and offset per sequence: {lengths:?}"
        );
    }

    /// The keys that query `i` of batch entry `b` sees for output head `h`, in ascending order.
    fn seen_keys(&self, b: usize, h: usize, i: usize) -> Vec<usize> {
        let (lq, lk) = (shape4(&self.q)[2], shape4(&self.k)[2]);
        // The sequence that the query belongs to: its number, and where its queries and keys lie.
        let (sequence, queries, keys) = match &self.cu_seqlens {
            None => (b, 0..lq, 0..lk),
            Some([cu_q, cu_k]) => {
                // Empty sequences share a bound with the next one: the last start at or before i is
                // the query's own.
                let n = cu_q[..cu_q.len() - 1].partition_point(|&start| start <= i) - 1;
                (n, cu_q[n]..cu_q[n + 1], cu_k[n]..cu_k[n + 1])
            }
        };
        let length = self
            .key_lengths
            .as_ref()
            .map_or(keys.len(), |lengths| lengths[sequence]);
        assert!(
            length <= keys.len(),
            "key length {length} of {} keys",
            keys.len()
        );
        // 128 bits: positions and windows may be any 64-bit number.
        let bottom_right = keys.len() as i128 - queries.len() as i128;
        let offset = self
            .query_offset
            .as_ref()
            .map_or(bottom_right, |offsets| i128::from(offsets[sequence]));
        let p = (i - queries.start) as i128 + offset;
        (0..length)
            .filter(|&j| {
                let position = j as i128;
                (!self.causal || position <= p)
                    && self.window[0].is_none_or(|left| position >= p - left as i128)
                    && self.window[1].is_none_or(|right| position <= p + right as i128)
            })
            .map(|j| keys.start + j)
            .filter(|&j| {
                self.mask
                    .as_ref()
                    .is_none_or(|mask| mask.broadcast(&[b, h, i, j]))
            })
            .filter(|&j| {
                self.block_mask
                    .as_ref()
                    .is_none_or(|mask| mask.broadcast(&[b, h, i / BLOCK, j / BLOCK]))
            })
            .filter(|&j| {
                self.bias
                    .as_ref()
                    .is_none_or(|bias| bias.broadcast(&[b, h, i, j]) != f64::NEG_INFINITY)
            })
            .collect()
    }
}

/// Queries and keys of a block of a block mask.
const BLOCK: usize = 64;

/// What [`attention`] returns.
#[derive(Clone, Debug)]
pub struct AttentionOutput<R> {
    /// [B, H, Lq, channels], after the norm where the spec has one.
    pub out: Tensor<R>,
    /// [B, H, T, Lq]: natural log-sum-exp of each term's scores and its sink; −Inf where a term is
    /// missing, or sees nothing and has no sink.
    pub lse: Tensor<R>,
}

/// What [`attention_maps`] returns.
#[derive(Clone, Debug)]
pub struct AttentionMaps<R> {
    /// T maps, each [B, H, Lq, Lk]; zeros for unseen keys and where a head has fewer terms.
    pub maps: Vec<Tensor<R>>,
    /// [B, H, Lq, Lk]: the maps combined by the coefficients and λ.
    pub diff: Tensor<R>,
}

/// The inputs of an [`AttentionSpec`] in the arithmetic of the computation.
struct Operands<R> {
    q: Tensor<R>,
    k: Tensor<R>,
    v: Tensor<R>,
    bias: Option<Tensor<R>>,
    lambda: Option<Tensor<R>>,
    sinks: Option<Tensor<R>>,
    scale: R,
    softcap: Option<R>,
}

impl<R: Real> Operands<R> {
    /// scale·q·k of a query row and a key row, each given by batch entry, head and position.
    fn scaled(&self, query: [usize; 3], key: [usize; 3]) -> R {
        let mut s = R::ZERO;
        for (&x, &y) in self.q.row(&query).iter().zip(self.k.row(&key)) {
            s += x * y;
        }
        s * self.scale
    }

    /// The sink of a term of a head, −Inf where there is none.
    fn sink(&self, head: usize, term: usize) -> R {
        match &self.sinks {
            None => R::from_f64(f64::NEG_INFINITY),
            Some(sinks) if sinks.shape.len() == 1 => sinks.data[head],
            Some(sinks) => sinks.data[head * sinks.shape[1] + term],
        }
    }

    fn new(spec: &AttentionSpec) -> Self {
        spec.check();
        let d = shape4(&spec.q)[3];
        Self {
            q: spec.q.cast(),
            k: spec.k.cast(),
            v: spec.v.cast(),
            bias: spec.bias.as_ref().map(Tensor::cast),
            lambda: spec.lambda.as_ref().map(Tensor::cast),
            sinks: spec.sinks.as_ref().map(Tensor::cast),
            scale: R::from_f64(spec.scale.unwrap_or_else(|| 1.0 / libm::sqrt(d as f64))),
            softcap: spec.softcap.map(R::from_f64),
        }
    }
}

/// One query row of one output head. A term whose visible scores are all −Inf sees nothing: its map
/// is zero and it adds nothing, whatever its coefficient. A row in which no term sees anything is
/// empty.
struct Row<R> {
    /// The keys seen, ascending; the lists below follow it.
    keys: Vec<usize>,
    maps: Vec<Vec<R>>,
    lse: Vec<R>,
    /// What each term's sink takes of its softmax.
    sinks: Vec<R>,
    /// What each term is multiplied by, λ in it; none for a term that sees nothing.
    coefficients: Vec<Option<R>>,
    diff: Vec<R>,
    empty: bool,
}

impl<R: Real> Row<R> {
    fn new(spec: &AttentionSpec, operands: &Operands<R>, [b, h, i]: [usize; 3]) -> Self {
        let keys = spec.seen_keys(b, h, i);
        let head = &spec.heads[h];
        let mut row = Row {
            diff: vec![R::ZERO; keys.len()],
            keys,
            maps: Vec::new(),
            lse: Vec::new(),
            sinks: Vec::new(),
            coefficients: Vec::new(),
            empty: true,
        };
        for t in 0..head.q.len() {
            let score = |&j: &usize| {
                let mut s = operands.scaled([b, head.q[t], i], [b, head.k[t], j]);
                if let Some(cap) = operands.softcap {
                    s = cap * (s / cap).tanh();
                }
                operands
                    .bias
                    .as_ref()
                    .map_or(s, |bias| s + bias.broadcast(&[b, h, i, j]))
            };
            let scores: Vec<R> = row.keys.iter().map(score).collect();
            let sees = scores.iter().any(|s| s.to_f64() != f64::NEG_INFINITY);
            let (map, lse, sink) = softmax(&scores, operands.sink(h, t));
            let coefficient = sees.then(|| {
                let mut coefficient = R::from_f64(head.coefficients[t]);
                if let (1, Some(lambda)) = (t, &operands.lambda) {
                    coefficient = coefficient * lambda.broadcast(&[b, i, h]);
                }
                coefficient
            });
            if let Some(coefficient) = coefficient {
                row.empty = false;
                for (sum, &p) in row.diff.iter_mut().zip(&map) {
                    *sum += coefficient * p;
                }
            }
            row.maps.push(map);
            row.lse.push(lse);
            row.sinks.push(sink);
            row.coefficients.push(coefficient);
        }
        row
    }
}

/// Softmax, log-sum-exp and the sink's share, of scores with a sink, which joins the sum last;
/// scores that are all −Inf (or none) give zeros, the sink and a share of 0, a NaN or +Inf makes
/// all NaN.
fn softmax<R: Real>(scores: &[R], sink: R) -> (Vec<R>, R, R) {
    let none = R::from_f64(f64::NEG_INFINITY);
    if scores.iter().all(|&s| s == none) {
        return (vec![R::ZERO; scores.len()], sink, R::ZERO);
    }
    let max = scores
        .iter()
        .fold(sink, |max, &s| if s > max { s } else { max });
    let exps: Vec<R> = scores.iter().map(|&s| (s - max).exp()).collect();
    let mut sum = R::from_f64(0.0);
    for &e in &exps {
        sum += e;
    }
    let sink = (sink - max).exp();
    sum += sink;
    let map = exps.iter().map(|&e| e / sum).collect();
    (map, max + sum.ln(), sink / sum)
}

/// Differential attention: y = norm(Σ_t c_t softmax(mask(softcap(scale·q_t k_tᵀ) + bias)) v).
///
/// `attention::<f64>` is the oracle, `attention::<f32>` the plain float32 computation. A row that
/// sees no key is zeros, also after the norm and when its λ is NaN. Keys that a row does not see
/// are not read.
pub fn attention<R: Real>(spec: &AttentionSpec) -> AttentionOutput<R> {
    let operands = Operands::<R>::new(spec);
    let ([b_count, _, lq, _], dv) = (shape4(&spec.q), shape4(&spec.v)[3]);
    let (h_count, width, terms) = (spec.heads.len(), spec.output_width(), spec.terms());
    let mut out = Tensor::full(&[b_count, h_count, lq, width], R::from_f64(0.0));
    let mut lse = Tensor::full(
        &[b_count, h_count, terms, lq],
        R::from_f64(f64::NEG_INFINITY),
    );
    for b in 0..b_count {
        for (h, head) in spec.heads.iter().enumerate() {
            for i in 0..lq {
                let row = Row::new(spec, &operands, [b, h, i]);
                for (t, &value) in row.lse.iter().enumerate() {
                    lse.data[((b * h_count + h) * terms + t) * lq + i] = value;
                }
                if row.empty {
                    continue;
                }
                let first = ((b * h_count + h) * lq + i) * width;
                let y = &mut out.data[first..first + width];
                for (&j, &p) in row.keys.iter().zip(&row.diff) {
                    for (n, &v_head) in head.v.iter().enumerate() {
                        for (y, &v) in y[n * dv..].iter_mut().zip(operands.v.row(&[b, v_head, j])) {
                            *y += p * v;
                        }
                    }
                }
                if let Some(norm) = &spec.norm {
                    norm.apply(y);
                }
            }
        }
    }
    AttentionOutput { out, lse }
}

/// The attention maps behind [`attention`]; packed sequences give block-diagonal maps.
pub fn attention_maps<R: Real>(spec: &AttentionSpec) -> AttentionMaps<R> {
    let operands = Operands::<R>::new(spec);
    let ([b_count, _, lq, _], lk) = (shape4(&spec.q), shape4(&spec.k)[2]);
    let h_count = spec.heads.len();
    let mut diff = Tensor::full(&[b_count, h_count, lq, lk], R::from_f64(0.0));
    let mut maps = vec![diff.clone(); spec.terms()];
    for b in 0..b_count {
        for h in 0..h_count {
            for i in 0..lq {
                let row = Row::new(spec, &operands, [b, h, i]);
                let first = ((b * h_count + h) * lq + i) * lk;
                for (n, &j) in row.keys.iter().enumerate() {
                    diff.data[first + j] = row.diff[n];
                    for (map, values) in maps.iter_mut().zip(&row.maps) {
                        map.data[first + j] = values[n];
                    }
                }
            }
        }
    }
    AttentionMaps { maps, diff }
}

// ------------------------------------------------------------------------------------------- norms

/// RMS norm of a row: x / √(mean(x²) + eps)·weight·scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Norm {
    /// Added to the mean square.
    pub eps: f64,
    /// One factor per channel; none is 1.
    pub weight: Option<Vec<f64>>,
    /// A factor for all channels.
    pub scale: f64,
}

impl Default for Norm {
    fn default() -> Self {
        Self {
            eps: 1e-5,
            weight: None,
            scale: 1.0,
        }
    }
}

impl Norm {
    /// Zeros stay zeros with eps = 0 too; a row that holds NaN or ±Inf becomes NaN.
    fn apply<R: Real>(&self, row: &mut [R]) {
        if let Some(weight) = &self.weight {
            assert_eq!(weight.len(), row.len(), "one norm weight per channel");
        }
        if row.iter().any(|x| !x.to_f64().is_finite()) {
            row.fill(R::from_f64(f64::NAN));
            return;
        }
        let mut sum = R::from_f64(0.0);
        for &x in row.iter() {
            sum += x * x;
        }
        let rms = (sum / R::from_f64(row.len() as f64) + R::from_f64(self.eps)).sqrt();
        if rms.to_f64() == 0.0 {
            return row.fill(R::from_f64(0.0));
        }
        for (c, x) in row.iter_mut().enumerate() {
            let weight = R::from_f64(self.weight.as_ref().map_or(1.0, |weight| weight[c]));
            *x = *x / rms * weight * R::from_f64(self.scale);
        }
    }
}

/// RMS norm over the last axis.
pub fn rms_norm<R: Real>(x: &Tensor<R>, norm: &Norm) -> Tensor<R> {
    let mut y = x.clone();
    if let Some(&width) = x.shape.last()
        && width > 0
    {
        y.data.chunks_mut(width).for_each(|row| norm.apply(row));
    }
    y
}

/// What [`poly_norm`] makes of a row.
#[derive(Clone, Debug)]
pub struct PolyNorm {
    /// Factors of the normalised cubes, squares and values.
    pub weight: [f64; 3],
    /// Added to each result.
    pub bias: f64,
    /// Added to each mean square.
    pub eps: f64,
}

/// w₀·rms(x³) + w₁·rms(x²) + w₂·rms(x) + bias over the last axis (arXiv 2411.03884).
pub fn poly_norm<R: Real>(x: &Tensor<R>, norm: &PolyNorm) -> Tensor<R> {
    let mut y = Tensor::full(&x.shape, R::from_f64(norm.bias));
    for (power, weight) in [3, 2, 1].into_iter().zip(norm.weight) {
        let powers = x.data.iter().map(|&x| power_of(x, power)).collect();
        let rms = Norm {
            eps: norm.eps,
            ..Norm::default()
        };
        let terms = rms_norm(&Tensor::new(&x.shape, powers), &rms);
        for (y, term) in y.data.iter_mut().zip(terms.data) {
            *y += R::from_f64(weight) * term;
        }
    }
    y
}

fn power_of<R: Real>(x: R, power: usize) -> R {
    (0..power).fold(R::ONE, |product, _| product * x)
}

/// Dynamic tanh (arXiv 2503.10622) of rows as long as the weight or the bias: `tanh(alpha · x) ·
/// weight + bias`.
pub fn dynamic_tanh(
    x: &[f64],
    alpha: f64,
    weight: Option<&[f64]>,
    bias: Option<&[f64]>,
) -> Vec<f64> {
    let of = |values: Option<&[f64]>, at: usize, none: f64| {
        values.map_or(none, |values| values[at % values.len()])
    };
    let value =
        |(at, &x): (usize, &f64)| libm::tanh(alpha * x) * of(weight, at, 1.0) + of(bias, at, 0.0);
    x.iter().enumerate().map(value).collect()
}

/// How [`group_norm`] reads and treats its input.
#[derive(Clone, Debug)]
pub struct GroupNorm {
    /// Groups of neighbouring channels; divides the channels.
    pub num_groups: usize,
    /// A factor per channel; none is 1.
    pub weight: Option<Vec<f64>>,
    /// Added per channel; none is 0.
    pub bias: Option<Vec<f64>>,
    /// Added to the variance.
    pub eps: f64,
    /// Channels are the last axis (NHWC) instead of the second (NCHW).
    pub channels_last: bool,
    /// Apply y·sigmoid(y) at the end.
    pub silu: bool,
}

impl GroupNorm {
    /// NCHW, eps 1e-5, no weight, bias or activation.
    pub fn new(num_groups: usize) -> Self {
        Self {
            num_groups,
            weight: None,
            bias: None,
            eps: 1e-5,
            channels_last: false,
            silu: false,
        }
    }
}

/// Group normalisation of [N, C, …] or [N, …, C], rank ≥ 2: (x − mean) / √(biased variance +
/// eps)·weight + bias.
///
/// A group of equal values is its bias, with eps = 0 too.
pub fn group_norm<R: Real>(x: &Tensor<R>, spec: &GroupNorm) -> Tensor<R> {
    let groups = Groups::new(spec, &x.shape);
    let mut y = x.clone();
    for places in groups.places() {
        let (normalised, _) = groups.normalise(x, &places);
        for (&(c, at), &normalised) in places.iter().zip(&normalised) {
            let value = groups.affine(c, normalised);
            y.data[at] = if spec.silu {
                value * sigmoid(value)
            } else {
                value
            };
        }
    }
    y
}

/// Where the groups of a group norm lie.
struct Groups<'a> {
    spec: &'a GroupNorm,
    batch: usize,
    channels: usize,
    positions: usize,
}

impl<'a> Groups<'a> {
    fn new(spec: &'a GroupNorm, shape: &[usize]) -> Self {
        let rank = shape.len();
        assert!(
            rank >= 2,
            "group norm needs a rank of at least 2, got shape {shape:?}"
        );
        let channels = shape[if spec.channels_last { rank - 1 } else { 1 }];
        assert!(
            spec.num_groups > 0 && channels.is_multiple_of(spec.num_groups),
            "{} groups of {channels}",
            spec.num_groups
        );
        for values in [&spec.weight, &spec.bias].into_iter().flatten() {
            assert_eq!(values.len(), channels, "one weight and bias per channel");
        }
        let values: usize = shape.iter().product();
        Self {
            spec,
            batch: shape[0],
            channels,
            positions: values.checked_div(shape[0] * channels).unwrap_or(0),
        }
    }

    /// The channel and the index of each value, group by group.
    fn places(&self) -> impl Iterator<Item = Vec<(usize, usize)>> {
        let (channels, positions) = (self.channels, self.positions);
        let at = move |n: usize, c: usize, p: usize| match self.spec.channels_last {
            true => (n * positions + p) * channels + c,
            false => (n * channels + c) * positions + p,
        };
        let width = channels / self.spec.num_groups;
        let group = move |n: usize, g: usize| {
            let channels = g * width..(g + 1) * width;
            let places = channels.flat_map(|c| (0..positions).map(move |p| (c, at(n, c, p))));
            places.collect()
        };
        (0..self.batch).flat_map(move |n| (0..self.spec.num_groups).map(move |g| group(n, g)))
    }

    /// (x − mean) / std of a group, and its std; zeros where that is 0.
    fn normalise<R: Real>(&self, x: &Tensor<R>, places: &[(usize, usize)]) -> (Vec<R>, R) {
        normalise(
            &places.iter().map(|&(_, at)| x.data[at]).collect::<Vec<R>>(),
            self.spec.eps,
        )
    }

    fn affine<R: Real>(&self, channel: usize, normalised: R) -> R {
        let bias = self.spec.bias.as_ref().map_or(0.0, |bias| bias[channel]);
        normalised * self.weight(channel) + R::from_f64(bias)
    }

    fn weight<R: Real>(&self, channel: usize) -> R {
        let weight = self.spec.weight.as_ref();
        R::from_f64(weight.map_or(1.0, |weight| weight[channel]))
    }
}

/// (x − mean) / √(biased variance + eps), and that root; zeros where it is 0.
fn normalise<R: Real>(x: &[R], eps: f64) -> (Vec<R>, R) {
    let count = R::from_f64(x.len() as f64);
    let mean = x.iter().copied().sum::<R>() / count;
    let square = |d: R| d * d;
    let variance = x.iter().map(|&x| square(x - mean)).sum::<R>() / count;
    let std = (variance + R::from_f64(eps)).sqrt();
    let normalised = |&x: &R| {
        if std == R::ZERO {
            R::ZERO
        } else {
            (x - mean) / std
        }
    };
    (x.iter().map(normalised).collect(), std)
}

/// 1 / (1 + e^−x).
pub fn sigmoid<R: Real>(x: R) -> R {
    R::ONE / (R::ONE + (-x).exp())
}

// -------------------------------------------------------------------------------- rotary embedding

/// Rotary position embedding: which channels turn, and how fast.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Pairs (2i, 2i + 1) instead of (i, i + rotary_dim/2).
    pub interleaved: bool,
    /// Base of the frequencies theta^(−2i/rotary_dim).
    pub theta: f64,
    /// Channels that turn, even; none is all of them.
    pub rotary_dim: Option<usize>,
    /// How the frequencies are stretched beyond the trained length.
    pub scaling: RopeScaling,
}

impl Default for Rope {
    fn default() -> Self {
        Self {
            interleaved: true,
            theta: 10000.0,
            rotary_dim: None,
            scaling: RopeScaling::Default,
        }
    }
}

/// Frequency scaling in the words of Hugging Face `transformers` (`modeling_rope_utils.py`).
#[derive(Clone, Debug, PartialEq)]
pub enum RopeScaling {
    /// None.
    Default,
    /// Every frequency divided by `factor`.
    Linear {
        /// How many times longer the context is.
        factor: f64,
    },
    /// Long waves divided by `factor`, short ones kept, a linear blend between (Llama 3.1).
    Llama3 {
        /// How many times longer the context is.
        factor: f64,
        /// Waves longer than original/low are divided.
        low_freq_factor: f64,
        /// Waves shorter than original/high are kept.
        high_freq_factor: f64,
        /// Trained length.
        original_max_position_embeddings: f64,
    },
    /// Blend by number of turns within the trained length, and a factor on cos and sin (arXiv
    /// 2309.00071).
    Yarn {
        /// How many times longer the context is.
        factor: f64,
        /// Trained length.
        original_max_position_embeddings: f64,
        /// Factor of cos and sin; none is 0.1·ln(factor) + 1, or the quotient of the two mscales.
        attention_factor: Option<f64>,
        /// Slope of the numerator; counts when both mscales are given and not 0.
        mscale: Option<f64>,
        /// Slope of the denominator.
        mscale_all_dim: Option<f64>,
        /// Turns above which a frequency is kept (32).
        beta_fast: f64,
        /// Turns below which it is divided (1).
        beta_slow: f64,
        /// Round the bounds of the blend to whole channels (true).
        truncate: bool,
    },
}

impl Rope {
    /// The angle per position of each of the `rotary_dim`/2 pairs, and the factor of cos and sin.
    pub fn frequencies(&self, rotary_dim: usize) -> (Vec<f64>, f64) {
        assert!(
            rotary_dim.is_multiple_of(2),
            "an even number of channels turns, got {rotary_dim}"
        );
        let dim = rotary_dim as f64;
        let plain: Vec<f64> = (0..rotary_dim / 2)
            .map(|i| libm::pow(self.theta, -2.0 * i as f64 / dim))
            .collect();
        match self.scaling {
            RopeScaling::Default => (plain, 1.0),
            RopeScaling::Linear { factor } => (plain.iter().map(|f| f / factor).collect(), 1.0),
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                let scaled = |&f: &f64| {
                    // How often the wave fits into the trained length.
                    let waves = original_max_position_embeddings * f / std::f64::consts::TAU;
                    let keep = (waves - low_freq_factor) / (high_freq_factor - low_freq_factor);
                    if waves < low_freq_factor {
                        f / factor
                    } else if waves > high_freq_factor {
                        f
                    } else {
                        (1.0 - keep) * f / factor + keep * f
                    }
                };
                (plain.iter().map(scaled).collect(), 1.0)
            }
            RopeScaling::Yarn {
                factor,
                original_max_position_embeddings,
                attention_factor,
                mscale,
                mscale_all_dim,
                beta_fast,
                beta_slow,
                truncate,
            } => {
                let magnitude = |slope: f64| {
                    if factor <= 1.0 {
                        1.0
                    } else {
                        0.1 * slope * libm::log(factor) + 1.0
                    }
                };
                let attention_factor =
                    attention_factor.unwrap_or_else(|| match (mscale, mscale_all_dim) {
                        (Some(a), Some(b)) if a != 0.0 && b != 0.0 => magnitude(a) / magnitude(b),
                        _ => magnitude(1.0),
                    });
                // The pair that turns `turns` times within the trained length.
                let pair_of = |turns: f64| {
                    let wave = original_max_position_embeddings / (turns * std::f64::consts::TAU);
                    dim * libm::log(wave) / (2.0 * libm::log(self.theta))
                };
                let (mut low, mut high) = (pair_of(beta_fast), pair_of(beta_slow));
                if truncate {
                    (low, high) = (libm::floor(low), libm::ceil(high));
                }
                (low, high) = (low.max(0.0), high.min(dim - 1.0));
                if low == high {
                    high += 0.001;
                }
                let scaled = |(i, &f): (usize, &f64)| {
                    let divide = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    f / factor * divide + f * (1.0 - divide)
                };
                (
                    plain.iter().enumerate().map(scaled).collect(),
                    attention_factor,
                )
            }
        }
    }
}

/// Turns the channel pairs of x [B, n, L, d]; `positions` broadcasts to [B, L]. Channels past
/// `rotary_dim` pass unchanged. Cosine and sine are float64, rounded once.
pub fn apply_rope<R: Real>(x: &Tensor<R>, rope: &Rope, positions: &Tensor<i64>) -> Tensor<R> {
    turn(x, rope, positions, 1.0)
}

/// Turns by `direction` times the angles.
fn turn<R: Real>(x: &Tensor<R>, rope: &Rope, positions: &Tensor<i64>, direction: f64) -> Tensor<R> {
    let [b_count, n_count, l, d] = shape4(x);
    let rotary_dim = rope.rotary_dim.unwrap_or(d);
    assert!(rotary_dim <= d, "rotary_dim {rotary_dim} of {d} channels");
    let (frequencies, factor) = rope.frequencies(rotary_dim);
    let mut y = x.clone();
    for b in 0..b_count {
        for n in 0..n_count {
            for t in 0..l {
                let row = &mut y.data[((b * n_count + n) * l + t) * d..][..d];
                let position = positions.broadcast(&[b, t]) as f64;
                for (i, frequency) in frequencies.iter().enumerate() {
                    let (one, two) = if rope.interleaved {
                        (2 * i, 2 * i + 1)
                    } else {
                        (i, i + rotary_dim / 2)
                    };
                    let angle = position * frequency;
                    let cos = R::from_f64(libm::cos(angle) * factor);
                    let sin = R::from_f64(direction * libm::sin(angle) * factor);
                    (row[one], row[two]) = (
                        row[one] * cos - row[two] * sin,
                        row[one] * sin + row[two] * cos,
                    );
                }
            }
        }
    }
    y
}

/// Positions first, first + 1, … of `l` tokens, for [`apply_rope`].
pub fn positions_from(first: i64, l: usize) -> Tensor<i64> {
    Tensor::new(&[1, l], (first..).take(l).collect())
}

// ------------------------------------------------------------------ differences along the sequence

/// `order`-th backward difference of x [B, n, L, d] along L; before the first token lies zero.
pub fn sequence_difference<R: Real>(x: &Tensor<R>, order: usize) -> Tensor<R> {
    let [_, _, l, d] = shape4(x);
    let mut y = x.clone();
    if l * d > 0 {
        for sequence in y.data.chunks_mut(l * d) {
            for _ in 0..order {
                for at in (d..l * d).rev() {
                    sequence[at] = sequence[at] - sequence[at - d];
                }
            }
        }
    }
    y
}

/// A share of the heads mixes in attention over differences along the sequence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SequenceFusion {
    /// Order of the difference.
    pub order: usize,
    /// The first ⌊share·H + ½⌋ heads take part.
    pub share: f64,
    /// Weight of the attention over differences, 1 − `fusion` of the plain one.
    pub fusion: f64,
}

impl SequenceFusion {
    /// How many of the output heads take part.
    fn mixing_heads(&self, heads: usize) -> usize {
        libm::floor(self.share * heads as f64 + 0.5) as usize
    }

    /// (1 − fusion)·plain + fusion·difference in the heads that take part; both [B, H, L, dv].
    pub fn mix<R: Real>(&self, plain: &Tensor<R>, difference: &Tensor<R>) -> Tensor<R> {
        assert_eq!(plain.shape, difference.shape);
        let [b_count, h_count, l, dv] = shape4(plain);
        let mixing = self.mixing_heads(h_count);
        let fusion = R::from_f64(self.fusion);
        let mut y = plain.clone();
        for b in 0..b_count {
            for at in b * h_count * l * dv..(b * h_count + mixing) * l * dv {
                y.data[at] = (R::ONE - fusion) * plain.data[at] + fusion * difference.data[at];
            }
        }
        y
    }
}

/// Attention whose first heads mix in the attention over differences of q, k and v; a norm acts on
/// the mixture.
pub fn sequence_fused_attention(spec: &AttentionSpec, sequence: &SequenceFusion) -> Tensor<f64> {
    let mixed = fused_before_norm(spec, sequence);
    spec.norm
        .as_ref()
        .map_or(mixed.clone(), |norm| rms_norm(&mixed, norm))
}

fn fused_before_norm<R: Real>(spec: &AttentionSpec, sequence: &SequenceFusion) -> Tensor<R> {
    let [plain, difference] = fused_parts::<R>(spec, sequence);
    sequence.mix(&attention(&plain).out, &attention(&difference).out)
}

/// The attention over q, k and v and the one over their differences, without the norm.
fn fused_parts<R: Real>(spec: &AttentionSpec, sequence: &SequenceFusion) -> [AttentionSpec; 2] {
    let plain = AttentionSpec {
        norm: None,
        ..spec.clone()
    };
    let [q, k, v] = [&spec.q, &spec.k, &spec.v]
        .map(|x| sequence_difference(&x.cast::<R>(), sequence.order).widen());
    let difference = AttentionSpec {
        q,
        k,
        v,
        ..plain.clone()
    };
    [plain, difference]
}

// ------------------------------------------------------------------------------------------ lambda

/// λ_init = 0.8 − 0.6·exp(−0.3·layer), layer from 0.
pub fn lambda_init(layer: usize) -> f64 {
    0.8 - 0.6 * libm::exp(-0.3 * layer as f64)
}

/// λ = exp(q1·k1) − exp(q2·k2) + init, from four vectors of one length.
pub fn lambda_full<R: Real>(q1: &[R], k1: &[R], q2: &[R], k2: &[R], init: R) -> R {
    lambda_from_scalars(dot(q1, k1), dot(q2, k2), init)
}

fn dot<R: Real>(a: &[R], b: &[R]) -> R {
    assert_eq!(a.len(), b.len(), "λ vectors have one length");
    a.iter().zip(b).map(|(&x, &y)| x * y).sum()
}

/// λ = exp(a) − exp(b) + init.
pub fn lambda_from_scalars<R: Real>(a: R, b: R, init: R) -> R {
    a.exp() - b.exp() + init
}
