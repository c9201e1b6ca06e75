//! What of a plan runs together: heads that share a map in one group, groups that share K or V in
//! one cluster. Knows nothing of queries or keys.

use super::mask::Sequence;
use super::panels::Panels;
use super::plan::Plan;
use std::ops::Range;

/// Slots of shared maps in a group at most: more would push the scores of long rows out of cache.
const SHARED_SLOTS: usize = 8;

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

/// Head groups that share K or V heads: what is packed together.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    pub(super) groups: Vec<usize>,
    pub(super) k: Vec<usize>,
    pub(super) v: Vec<usize>,
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

/// Puts heads that share a map into one group, and gives every map a slot. Heads whose masks
/// differ, `is_per_head`, share none.
pub(super) fn head_groups(plan: &Plan, is_per_head: bool) -> Vec<HeadGroup> {
    let heads = plan.heads.len();
    // The last head before each one that has a map in common with it.
    let mut before: Vec<Option<usize>> = vec![None; heads];
    if heads > 1 && !is_per_head {
        let users = users(plan, 0..heads);
        for pair in users.windows(2) {
            let ((one, other), (next, head)) = (pair[0], pair[1]);
            if one == next {
                before[head] = before[head].max(Some(other));
            }
        }
    }
    let mut groups = Vec::new();
    let mut first = 0;
    for (head, before) in before.iter().enumerate().skip(1) {
        // Heads that share lie side by side in every pairing: only the last group need be asked.
        if before.is_none_or(|other| other < first) {
            groups.push(head_group(plan, first..head));
            first = head;
        }
    }
    if first < heads {
        groups.push(head_group(plan, first..heads));
    }
    groups
}

/// Each map with each of the heads that use it: those of one map side by side.
fn users(plan: &Plan, heads: Range<usize>) -> Vec<((usize, usize), usize)> {
    let mut users: Vec<_> = heads
        .flat_map(|head| {
            let terms = plan.heads[head].terms.iter();
            terms.map(move |term| (*term, head))
        })
        .collect();
    users.sort_unstable();
    users.dedup();
    users
}

fn head_group(plan: &Plan, members: Range<usize>) -> HeadGroup {
    let terms_of = |head: usize| &plan.heads[head].terms;
    let mut shared: Vec<(usize, usize)> = Vec::new();
    if members.len() > 1 {
        let users = users(plan, members.clone());
        let is_shared = |term: &(usize, usize)| {
            let first = users.partition_point(|(other, _)| other < term);
            users.get(first + 1).is_some_and(|(other, _)| other == term)
        };
        for term in members.clone().flat_map(terms_of) {
            if shared.len() < SHARED_SLOTS && is_shared(term) && !shared.contains(term) {
                shared.push(*term);
            }
        }
    }
    let mut computed = [false; SHARED_SLOTS];
    let mut slots = shared.len();
    let mut steps = Vec::with_capacity(members.len());
    for head in members {
        // Past the shared maps, every head uses the same slots again.
        let mut own: Vec<(usize, usize)> = Vec::new();
        let mut step = HeadStep {
            head,
            compute: Vec::new(),
            slots: Vec::new(),
            v: plan.heads[head].v.clone(),
        };
        for term in terms_of(head) {
            let (slot, is_new) = match shared.iter().position(|other| other == term) {
                Some(slot) => (slot, !std::mem::replace(&mut computed[slot], true)),
                None => match own.iter().position(|other| other == term) {
                    Some(place) => (shared.len() + place, false),
                    None => {
                        own.push(*term);
                        (shared.len() + own.len() - 1, true)
                    }
                },
            };
            if is_new {
                step.compute.push(TermStep {
                    slot,
                    q: term.0,
                    k: term.1,
                });
            }
            step.slots.push(slot);
        }
        slots = slots.max(shared.len() + own.len());
        steps.push(step);
    }
    HeadGroup { steps, slots }
}

/// Which heads that groups have in common join them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(super) enum Shared {
    /// K: of maps.
    Keys,
    /// K and V: of a result.
    KeysValues,
    /// K, V and q: of gradients, which all three get.
    All,
}

/// Joins groups that share a head, as `shared` says.
pub(super) fn clusters(plan: &Plan, groups: &[HeadGroup], shared: Shared) -> Vec<Cluster> {
    let has_values = shared >= Shared::KeysValues;
    // Groups that touch are joined to the last of them, by number (a forest: each points to a later
    // one, or is the last).
    let mut joined: Vec<usize> = (0..groups.len()).collect();
    let (mut of_q, mut of_k, mut of_v) = (Vec::new(), Vec::new(), Vec::new());
    // (One group has nothing to be joined to.)
    let touching = if groups.len() > 1 { groups } else { &[] };
    for (index, group) in touching.iter().enumerate() {
        for step in &group.steps {
            let terms = &plan.heads[step.head].terms;
            for &(q, k) in terms {
                join(&mut joined, &mut of_k, k, index);
                if shared == Shared::All {
                    join(&mut joined, &mut of_q, q, index);
                }
            }
            if has_values {
                for &head in &step.v {
                    join(&mut joined, &mut of_v, head, index);
                }
            }
        }
    }
    let mut clusters: Vec<Cluster> = Vec::new();
    clusters.resize_with(groups.len(), Cluster::default);
    for (index, group) in groups.iter().enumerate() {
        let cluster = &mut clusters[last_of(&mut joined, index)];
        cluster.groups.push(index);
        for step in &group.steps {
            let terms = plan.heads[step.head].terms.iter();
            cluster.k.extend(terms.map(|term| term.1));
            if has_values {
                cluster.v.extend(&step.v);
            }
        }
    }
    clusters.retain(|cluster| !cluster.groups.is_empty());
    for cluster in &mut clusters {
        for list in [&mut cluster.k, &mut cluster.v] {
            list.sort_unstable();
            list.dedup();
        }
    }
    clusters
}

/// The last group that `group` is joined to.
fn last_of(joined: &mut [usize], mut group: usize) -> usize {
    while joined[group] != group {
        joined[group] = joined[joined[group]];
        group = joined[group];
    }
    group
}

/// Joins the groups that took `head` before to group `index`, which is the last so far. `takers`:
/// by head, one that took it.
fn join(joined: &mut [usize], takers: &mut Vec<Option<usize>>, head: usize, index: usize) {
    if takers.len() <= head {
        takers.resize(head + 1, None);
    }
    if let Some(taker) = takers[head].replace(index) {
        let last = last_of(joined, taker);
        joined[last] = index;
    }
}
