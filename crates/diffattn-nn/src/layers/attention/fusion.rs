//! Heads that mix in attention over differences along the sequence: which they are, and the plan of
//! the one call that computes both.

use super::heads::Heads;
use super::options::SequenceFusion;
use diffattn::{Error, HeadPlan};

/// The highest difference along the sequence, as the operator has it.
const MAX_ORDER: usize = 64;

/// Heads that mix in attention over differences. In the one attention call of such a layer, q, k
/// and v have the differences of the heads that take part behind the plain ones, and the plan has
/// an output head for each of them.
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
