//! How much working memory the row blocks of a call need. Gets none.

use super::call::Call;
use super::held::CacheDType;
use super::kept::Sharing;

/// Sizes that a call's blocks need.
#[derive(Debug, Clone, Copy)]
pub(super) struct ScratchSize {
    /// Queries per block.
    pub(super) stride: usize,
    /// Keys that one block may see at most.
    pub(super) keys: usize,
    /// Score rows kept at once.
    pub(super) slots: usize,
    /// T.
    pub(super) terms: usize,
    /// d.
    pub(super) width: usize,
    /// Padded channels of a result row.
    pub(super) channels: usize,
    pub(super) elements: bool,
    /// Whether keys are held as less than float32.
    pub(super) widens: bool,
    /// Whether gradients are computed.
    pub(super) has_gradients: bool,
    /// Whether scores are capped.
    pub(super) has_softcap: bool,
}

impl ScratchSize {
    /// Of a call's blocks of `stride` queries.
    pub(super) fn of(
        call: &Call<'_>,
        sharing: &Sharing,
        stride: usize,
        has_gradients: bool,
    ) -> Self {
        let reach = call.sequences.iter().map(|s| call.band.reach(s, stride));
        let slots = sharing.groups.iter().map(|group| group.slots);
        Self {
            stride,
            keys: reach.max().unwrap_or(0),
            slots: slots.max().unwrap_or(0),
            terms: call.plan.terms,
            width: call.width,
            channels: call.plan.values * call.value_shape.padded(),
            elements: !call.elements.is_empty(),
            widens: call.source.dtype() != CacheDType::F32,
            has_gradients,
            has_softcap: call.softcap.is_some(),
        }
    }
}
