//! Head counts of a layer and the sizes that follow from them, checked.

use super::options::RopeConfig;
use diffattn::{Error, ErrorKind, HeadPlan, KvRepeat, Pairing, RopeTable, Run, checked_len};
use diffattn_files::AttentionSizes;

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
    pub(crate) plan: Vec<HeadPlan>,
    /// Whether the plan is none that the pairing makes.
    pub(crate) is_own_plan: bool,
}

impl Dimensions {
    /// `head_dim` where none is given: half of what each head has of the channels (arXiv
    /// 2410.05258).
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

    /// Checks that heads and rope fit, and the q projection by `fits`, which is given its sizes;
    /// this first of all weights, so that no size is believed (and nothing made of it) that is not
    /// backed by as many elements.
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
            is_own_plan: false,
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

/// Whether the frequencies are complete and sound.
fn check_frequencies(rope: &RopeConfig, head_dim: usize) -> Result<(), Error> {
    RopeTable::new(0..0, head_dim, &rope.frequencies, Run::default())
        .map(drop)
        .map_err(|error| error.renamed(ErrorKind::Option, |argument| format!("rope.{argument}")))
}
