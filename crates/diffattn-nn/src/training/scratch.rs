//! Working memory of training, kept from step to step. Knows nothing of what is in it.

use diffattn::Error;

/// `len` values of arbitrary content in `buffer`, which keeps its memory.
pub(super) fn sized(buffer: &mut Vec<f32>, len: usize) -> Result<&mut [f32], Error> {
    if buffer.len() < len {
        let more = len - buffer.len();
        buffer
            .try_reserve_exact(more)
            .map_err(|_| Error::out_of_memory(4 * len as u64))?;
    }
    buffer.resize(len, 0.0);
    Ok(buffer)
}

/// What attention needs.
#[derive(Debug, Default)]
pub(super) struct AttentionScratch {
    /// Heads before they turn.
    pub(super) still: Vec<f32>,
    /// Heads without differences.
    pub(super) plain: Vec<f32>,
    pub(super) mixed: Vec<f32>,
    pub(super) normed: Vec<f32>,
    pub(super) d_normed: Vec<f32>,
    pub(super) d_mixed: Vec<f32>,
    pub(super) d_attended: Vec<f32>,
    pub(super) dq: Vec<f32>,
    pub(super) dk: Vec<f32>,
    pub(super) dv: Vec<f32>,
    pub(super) d_lambda: Vec<f32>,
}

/// What a pass over layers needs, rows of hidden states unless it says otherwise.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) attention: AttentionScratch,
    pub(super) normed: Vec<f32>,
    pub(super) added: Vec<f32>,
    pub(super) d_normed: Vec<f32>,
    /// Rows within the MLP.
    pub(super) hidden: Vec<f32>,
    pub(super) d_gate: Vec<f32>,
    /// Gate and up, where they are not kept.
    pub(super) gates: [Vec<f32>; 2],
}
