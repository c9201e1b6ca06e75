//! Plans kept from call to call: what follows from head counts and a head layout alone, and not
//! from what tensors hold. A step of decoding is short: planning nine heads anew took as long as
//! their attention over 80 keys. Knows no layouts and no numbers.

use super::decode_plan::{DecodePlan, decode_plan};
use super::groups::{Cluster, HeadGroup, Shared, clusters, head_groups};
use super::options::{AttentionOptions, HeadPlan, KvRepeat, Pairing};
use super::pairing::plan;
use super::plan::{HeadCounts, Plan};
use crate::error::Error;
use std::ops::Deref;
use std::sync::{Arc, Mutex, OnceLock, TryLockError};

/// Plans that are kept: those of the layers of a model each of which has its own.
const KEPT: usize = 64;

/// Terms that all heads of a kept plan may have together, so that what is kept stays small (some
/// 64 KiB each).
const KEPT_TERMS: usize = 512;

/// The most recently used last.
static PLANS: Mutex<Vec<Arc<KeptPlan>>> = Mutex::new(Vec::new());

/// What a plan is made from.
#[derive(Debug)]
struct Key {
    counts: HeadCounts,
    has_lambda: bool,
    coefficients: Option<Vec<f32>>,
    pairing: Pairing,
    ratio: Option<usize>,
    kv_repeat: Option<KvRepeat>,
    heads: Option<Vec<HeadPlan>>,
}

/// A plan, and what runs together in calls with it.
#[derive(Debug)]
pub(super) struct KeptPlan {
    key: Key,
    plan: Plan,
    /// By whether masks differ between heads, and by [`Shared`].
    sharing: [OnceLock<Arc<Sharing>>; 6],
}

/// What runs together.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    pub(super) groups: Vec<HeadGroup>,
    pub(super) clusters: Vec<Cluster>,
    is_per_head: bool,
    decode: OnceLock<Vec<DecodePlan>>,
}

impl Deref for KeptPlan {
    type Target = Plan;
    fn deref(&self) -> &Plan {
        &self.plan
    }
}

impl KeptPlan {
    /// The plan of a call, kept or new.
    ///
    /// # Errors
    /// Those of [`plan`].
    pub(super) fn of(
        counts: HeadCounts,
        options: &AttentionOptions<'_>,
    ) -> Result<Arc<Self>, Error> {
        let kept = plans(|plans| {
            let place = plans
                .iter()
                .rposition(|kept| kept.key.is_of(counts, options))?;
            let kept = plans.remove(place);
            plans.push(Arc::clone(&kept));
            Some(kept)
        });
        if let Some(kept) = kept.flatten() {
            return Ok(kept);
        }
        let made = Arc::new(Self {
            key: Key::new(counts, options),
            plan: plan(counts, options)?,
            sharing: Default::default(),
        });
        let terms: usize = made.heads.iter().map(|head| head.terms.len()).sum();
        if terms <= KEPT_TERMS {
            plans(|plans| {
                if plans.len() == KEPT {
                    plans.remove(0);
                }
                plans.push(Arc::clone(&made));
            });
        }
        Ok(made)
    }

    /// What runs together where masks differ between heads or not, and `shared` joins groups.
    pub(super) fn sharing(&self, is_per_head: bool, shared: Shared) -> Arc<Sharing> {
        let index = usize::from(is_per_head) * 3 + shared as usize;
        let made = || {
            let groups = head_groups(&self.plan, is_per_head);
            let clusters = clusters(&self.plan, &groups, shared);
            Arc::new(Sharing {
                groups,
                clusters,
                is_per_head,
                decode: OnceLock::new(),
            })
        };
        Arc::clone(self.sharing[index].get_or_init(made))
    }
}

impl Sharing {
    /// How few queries run, by cluster.
    pub(super) fn decode(&self, plan: &Plan) -> &[DecodePlan] {
        self.decode.get_or_init(|| {
            let of = |cluster| decode_plan(plan, self.is_per_head, &self.groups, cluster);
            self.clusters.iter().map(of).collect()
        })
    }
}

impl Key {
    fn new(counts: HeadCounts, options: &AttentionOptions<'_>) -> Self {
        Self {
            counts,
            has_lambda: options.lambda.is_some(),
            coefficients: options.coefficients.map(<[f32]>::to_vec),
            pairing: options.pairing,
            ratio: options.ratio,
            kv_repeat: options.kv_repeat,
            heads: options.heads.as_deref().map(<[HeadPlan]>::to_vec),
        }
    }

    /// Whether a call with these has the same plan, to the bit.
    fn is_of(&self, counts: HeadCounts, options: &AttentionOptions<'_>) -> bool {
        let is_head = |(kept, head): (&HeadPlan, &HeadPlan)| {
            kept.q == head.q
                && kept.k == head.k
                && kept.v == head.v
                && same_bits(kept.coefficients.as_deref(), head.coefficients.as_deref())
        };
        let heads = match (&self.heads, options.heads.as_deref()) {
            (None, None) => true,
            (Some(kept), Some(heads)) => {
                kept.len() == heads.len() && kept.iter().zip(heads).all(is_head)
            }
            _ => false,
        };
        heads
            && self.counts == counts
            && self.has_lambda == options.lambda.is_some()
            && self.pairing == options.pairing
            && self.ratio == options.ratio
            && self.kv_repeat == options.kv_repeat
            && same_bits(self.coefficients.as_deref(), options.coefficients)
    }
}

/// Whether both are there, of the same bits, or neither: a zero has a sign.
fn same_bits(one: Option<&[f32]>, other: Option<&[f32]>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => {
            let same = |(one, other): (&f32, &f32)| one.to_bits() == other.to_bits();
            one.len() == other.len() && one.iter().zip(other).all(same)
        }
        _ => false,
    }
}

/// Never waits, as a browser's main thread must not: a plan is soon made.
fn plans<R>(work: impl FnOnce(&mut Vec<Arc<KeptPlan>>) -> R) -> Option<R> {
    match PLANS.try_lock() {
        Ok(mut plans) => Some(work(&mut plans)),
        Err(TryLockError::Poisoned(plans)) => Some(work(&mut plans.into_inner())),
        Err(TryLockError::WouldBlock) => None,
    }
}
