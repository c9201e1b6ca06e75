//! What both versions of the layer are: head counts, packed projections, λ, norm. Checks the sizes; runs nothing itself.

use crate::options::{RopeConfig, SequenceFusion};
use diffattn::{
    DType, Error, ErrorKind, HeadPlan, KvCacheOptions, KvRepeat, Linear, Pairing, RopeTable, Run,
    checked_len,
};
use diffattn_files::{AttentionSizes, Projections};

/// The highest difference along the sequence, as the operator has it.
const MAX_ORDER: usize = 64;

/// The sizes that a layer is asked to have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dimensions {
    pub(crate) embed_dim: usize,
    pub(crate) heads: usize,
    pub(crate) groups: Option<usize>,
    pub(crate) head_dim: usize,
    /// Channels of one output head.
    pub(crate) head_width: usize,
    pub(crate) pairing: Pairing,
    pub(crate) kv_repeat: Option<KvRepeat>,
    pub(crate) ratio: Option<usize>,
}

/// Checked sizes.
#[derive(Debug, Clone)]
pub(crate) struct Heads {
    pub(crate) dimensions: Dimensions,
    /// Flat heads of q, k and v.
    pub(crate) q: usize,
    pub(crate) k: usize,
    pub(crate) v: usize,
    /// Channels of one v head.
    pub(crate) value_dim: usize,
    /// Which of them make each output head.
    plan: Vec<HeadPlan>,
}

impl Dimensions {
    /// `head_dim` where none is given: half of what each head has of the channels (arXiv 2410.05258).
    pub(crate) fn default_head_dim(embed_dim: usize, num_heads: usize) -> Result<usize, Error> {
        match num_heads.checked_mul(2) {
            Some(halves) if halves > 0 && embed_dim > 0 && embed_dim.is_multiple_of(halves) => {
                Ok(embed_dim / halves)
            }
            _ => Err(Error::shape(
                "num_heads",
                format_args!("a number of which twice divides embed_dim {embed_dim}"),
                num_heads,
            )),
        }
    }

    /// Checks that heads and rope fit, and the q projection by `fits`, which is given its sizes; this first of all
    /// weights, so that no size is believed (and nothing made of it) that is not backed by as many elements.
    pub(crate) fn check(
        self,
        fits: impl FnOnce(AttentionSizes) -> Result<(), Error>,
        rope: Option<&RopeConfig>,
    ) -> Result<Heads, Error> {
        let Self {
            embed_dim,
            heads,
            groups,
            head_dim,
            head_width,
            pairing,
            kv_repeat,
            ratio,
        } = self;
        for (name, size) in [
            ("embed_dim", embed_dim),
            ("num_heads", heads),
            ("head_dim", head_dim),
        ] {
            if size == 0 {
                return Err(Error::shape(name, "1 or more", size));
            }
        }
        if rope.is_some() && !head_dim.is_multiple_of(2) {
            return Err(Error::shape(
                "head_dim",
                "an even number, as rope turns channels in pairs",
                head_dim,
            ));
        }
        if ratio == Some(0) {
            return Err(Error::option("ratio", "1 or more", 0));
        }
        let counts = pairing
            .head_counts(heads, groups, ratio.unwrap_or(1))
            .ok_or_else(|| match ratio {
                Some(ratio) => Error::shape(
                    "num_heads",
                    format_args!("a number that ratio {ratio} divides"),
                    heads,
                ),
                None => Error::shape("num_heads", "a number that fits this machine", heads),
            })?;
        for count in counts {
            checked_len("head_dim", &[count, head_width, embed_dim])?;
        }
        fits(AttentionSizes {
            embed_dim,
            q: counts[0] * head_dim,
            ..AttentionSizes::default()
        })?;
        if let Some(rope) = rope {
            check_frequencies(rope, head_dim)?;
        }
        // The rule that is broken is one of group counts: q and k follow from what the user gave.
        let plan = pairing
            .heads(counts, kv_repeat, ratio)
            .map_err(|error| error.renamed(ErrorKind::Shape, |_| "num_kv_heads".to_owned()))?;
        let values = plan.first().map_or(1, |head| head.v.len());
        let [q, k, v] = counts;
        Ok(Heads {
            dimensions: self,
            q,
            k,
            v,
            value_dim: head_width / values,
            plan,
        })
    }
}

impl Heads {
    /// The sizes of the layer's weights.
    pub(crate) fn sizes(&self) -> AttentionSizes {
        let Dimensions {
            embed_dim,
            heads,
            head_dim,
            head_width,
            ..
        } = self.dimensions;
        AttentionSizes {
            embed_dim,
            q: self.q * head_dim,
            k: self.k * head_dim,
            v: self.v * self.value_dim,
            out: heads * head_width,
            head_dim,
            head_width,
            heads,
        }
    }
}

/// Where λ comes from.
#[derive(Debug, Clone)]
pub(crate) enum LambdaSource {
    /// One for the layer.
    Value(f32),
    /// σ of a projection of x, per token and head.
    Projected(Linear),
}

/// The per-head norm.
#[derive(Debug, Clone)]
pub(crate) struct HeadNorm {
    pub(crate) eps: f32,
    pub(crate) weight: Option<Vec<f32>>,
    pub(crate) scale: f32,
}

/// Heads that mix in attention over differences. In the one attention call of such a layer, q, k and v have the
/// differences of the heads that take part behind the plain ones, and the plan has an output head for each of them.
#[derive(Debug, Clone)]
pub(crate) struct Fusion {
    pub(crate) order: usize,
    /// How many output heads take part.
    pub(crate) heads: usize,
    pub(crate) fusion: f64,
    /// The plain heads of which there are differences, in this order.
    pub(crate) q: Vec<usize>,
    pub(crate) k: Vec<usize>,
    pub(crate) v: Vec<usize>,
    /// The plain output heads, then those of the differences.
    pub(crate) plan: Vec<HeadPlan>,
}

impl Fusion {
    /// `None` when the share is so small that no head takes part.
    pub(crate) fn new(sequence: SequenceFusion, heads: &Heads) -> Result<Option<Self>, Error> {
        let SequenceFusion {
            order,
            share,
            fusion,
        } = sequence;
        if !(1..=MAX_ORDER).contains(&order) {
            return Err(Error::option(
                "sequence.order",
                format_args!("1 to {MAX_ORDER}"),
                order,
            ));
        }
        for (name, value) in [("sequence.share", share), ("sequence.fusion", fusion)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::option(name, "a number from 0 to 1", value));
            }
        }
        let count = libm::floor(share * heads.dimensions.heads as f64 + 0.5) as usize;
        let mixing = &heads.plan[..count.min(heads.plan.len())];
        if mixing.is_empty() {
            return Ok(None);
        }
        let used = |list: fn(&HeadPlan) -> &Vec<usize>| {
            let mut used: Vec<usize> = mixing
                .iter()
                .flat_map(|head| list(head).iter().copied())
                .collect();
            used.sort_unstable();
            used.dedup();
            used
        };
        let (q, k, v) = (
            used(|head| &head.q),
            used(|head| &head.k),
            used(|head| &head.v),
        );
        let place = |used: &[usize], plain: usize, list: &[usize]| -> Vec<usize> {
            list.iter()
                .filter_map(|head| used.binary_search(head).ok())
                .map(|place| plain + place)
                .collect()
        };
        let differences = mixing.iter().map(|head| HeadPlan {
            q: place(&q, heads.q, &head.q),
            k: place(&k, heads.k, &head.k),
            v: place(&v, heads.v, &head.v),
            coefficients: head.coefficients.clone(),
        });
        let plan = heads.plan.iter().cloned().chain(differences).collect();
        Ok(Some(Self {
            order,
            heads: mixing.len(),
            fusion,
            q,
            k,
            v,
            plan,
        }))
    }
}

/// Whether the frequencies are complete and sound.
fn check_frequencies(rope: &RopeConfig, head_dim: usize) -> Result<(), Error> {
    RopeTable::new(0..0, head_dim, &rope.frequencies, Run::default())
        .map(drop)
        .map_err(|error| error.renamed(ErrorKind::Option, |argument| format!("rope.{argument}")))
}

/// A layer of either version, ready to run: [`crate::MultiheadDiffAttn`] and [`crate::MultiheadDiffAttnV2`] make it.
#[derive(Debug, Clone)]
pub struct DiffAttnLayer {
    pub(crate) heads: Heads,
    pub(crate) q: Linear,
    pub(crate) k: Linear,
    pub(crate) v: Linear,
    pub(crate) out: Linear,
    pub(crate) lambda: LambdaSource,
    pub(crate) rope: Option<RopeConfig>,
    pub(crate) is_causal: bool,
    pub(crate) norm: Option<HeadNorm>,
    pub(crate) fusion: Option<Fusion>,
}

impl DiffAttnLayer {
    /// A layer of packed projections. No norm, no fusion.
    pub(crate) fn new(
        heads: Heads,
        projections: Projections<Linear>,
        lambda: LambdaSource,
        rope: Option<RopeConfig>,
        is_causal: bool,
    ) -> Self {
        let Projections { q, k, v, out } = projections;
        Self {
            q,
            k,
            v,
            out,
            heads,
            lambda,
            rope,
            is_causal,
            norm: None,
            fusion: None,
        }
    }

    /// Channels of x and y.
    #[must_use]
    pub fn embed_dim(&self) -> usize {
        self.heads.dimensions.embed_dim
    }

    /// H, output heads.
    #[must_use]
    pub fn num_heads(&self) -> usize {
        self.heads.dimensions.heads
    }

    /// The cache that the layer takes for `batch` sequences, with memory for `capacity` tokens at once. A layer with
    /// `sequence` keeps more in it: the differences of k and v, and its inputs (as further k heads), from which the
    /// differences of the next tokens are made.
    #[must_use]
    pub fn cache_options(&self, batch: usize, capacity: usize) -> KvCacheOptions {
        let Heads {
            k,
            v,
            value_dim,
            dimensions:
                Dimensions {
                    embed_dim,
                    head_dim,
                    ..
                },
            ..
        } = self.heads;
        let (groups, k_heads) = match &self.fusion {
            None => (v, k),
            Some(fusion) => (
                v + fusion.v.len(),
                k + fusion.k.len() + embed_dim.div_ceil(head_dim),
            ),
        };
        let terms = k_heads.div_ceil(groups);
        KvCacheOptions {
            batch,
            groups,
            terms,
            head_dim,
            value_dim,
            capacity,
            dtype: DType::F32,
        }
    }
}
