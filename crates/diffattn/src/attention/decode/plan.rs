//! Which rows share which K and V in one head cluster. Knows no numbers.

/// Made once per call.
#[derive(Debug, Clone, Default)]
pub(in crate::attention) struct DecodePlan {
    /// Maps to compute: (q head, an output head it is for), sorted by k head.
    pub(in crate::attention) pairs: Vec<(usize, usize)>,
    /// For each k head: its stretch of `pairs`.
    pub(in crate::attention) by_key: Vec<(usize, std::ops::Range<usize>)>,
    /// (output head, the pair of each term).
    pub(in crate::attention) heads: Vec<(usize, Vec<usize>)>,
    /// For each v head: (entry of `heads`, place on the channels of its result).
    pub(in crate::attention) by_value: Vec<(usize, Vec<(usize, usize)>)>,
    /// `[entry of heads][place]`: the row among those of all v heads, one v head's after the other's.
    pub(in crate::attention) rows: Vec<usize>,
}

impl DecodePlan {
    /// Results of all v heads, one per query: what a strip's products are for.
    pub(super) fn places(&self) -> usize {
        self.by_value.iter().map(|(_, uses)| uses.len()).sum()
    }
}
