//! Which rows of few queries share which K and V. Knows nothing of numbers.

use super::groups::{Cluster, HeadGroup};
use super::plan::Plan;
use std::ops::Range;

/// Which rows share which K and V in one head cluster. Made once per plan.
#[derive(Debug, Clone, Default)]
pub(super) struct DecodePlan {
    /// Maps to compute: (q head, an output head it is for), sorted by k head.
    pub(super) pairs: Vec<(usize, usize)>,
    /// For each k head: its stretch of `pairs`.
    pub(super) by_key: Vec<(usize, Range<usize>)>,
    /// (output head, the pair of each term).
    pub(super) heads: Vec<(usize, Vec<usize>)>,
    /// For each v head: (entry of `heads`, place on the channels of its result).
    pub(super) by_value: Vec<(usize, Vec<(usize, usize)>)>,
    /// `[entry of heads][place]`: the row among those of all v heads, one v head's after the
    /// other's.
    pub(super) rows: Vec<usize>,
}

/// The plan of one cluster of a plan's heads, whose masks differ where they are `per_head`.
pub(super) fn decode_plan(
    of: &Plan,
    per_head: bool,
    groups: &[HeadGroup],
    cluster: &Cluster,
) -> DecodePlan {
    let heads: Vec<usize> = cluster
        .groups
        .iter()
        .flat_map(|&group| groups[group].steps.iter().map(|step| step.head))
        .collect();
    // (k, q, output head): sorted by k. The head only tells maps apart where their masks differ.
    let key =
        |head: usize, term: &(usize, usize)| (term.1, term.0, if per_head { head } else { 0 });
    let mut maps: Vec<(usize, usize, usize)> = heads
        .iter()
        .flat_map(|&head| of.heads[head].terms.iter().map(move |term| key(head, term)))
        .collect();
    maps.sort_unstable();
    maps.dedup();
    let mut plan = DecodePlan {
        pairs: maps.iter().map(|map| (map.1, map.2)).collect(),
        ..DecodePlan::default()
    };
    for (index, map) in maps.iter().enumerate() {
        match plan.by_key.last_mut().filter(|entry| entry.0 == map.0) {
            Some((_, range)) => range.end = index + 1,
            None => plan.by_key.push((map.0, index..index + 1)),
        }
    }
    // By v head, its entry of `by_value`.
    let mut places: Vec<Option<usize>> = Vec::new();
    for (entry, &head) in heads.iter().enumerate() {
        let pairs = of.heads[head]
            .terms
            .iter()
            .filter_map(|term| maps.binary_search(&key(head, term)).ok());
        plan.heads.push((head, pairs.collect()));
        for (place, &v) in of.heads[head].v.iter().enumerate() {
            if places.len() <= v {
                places.resize(v + 1, None);
            }
            let by = *places[v].get_or_insert_with(|| {
                plan.by_value.push((v, Vec::new()));
                plan.by_value.len() - 1
            });
            plan.by_value[by].1.push((entry, place));
        }
    }
    let values = of.values;
    plan.rows = vec![0; heads.len() * values];
    let uses = plan.by_value.iter().flat_map(|(_, uses)| uses);
    for (row, &(entry, place)) in uses.enumerate() {
        plan.rows[entry * values + place] = row;
    }
    plan
}
