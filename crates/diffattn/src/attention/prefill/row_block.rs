//! What the passes of a row block share: the call, the block, and the memory to work it off in. The
//! passes themselves are in the files beside, each an `impl` of [`RowBlock`].

use crate::attention::call::Call;
use crate::attention::groups::Block;
use crate::attention::scratch::Scratch;

/// One block and the memory to work it off in.
pub(in crate::attention) struct RowBlock<'c, 'a> {
    pub(in crate::attention) call: &'c Call<'a>,
    pub(in crate::attention) block: Block<'c>,
    pub(in crate::attention) scratch: &'c mut Scratch<'c>,
}
