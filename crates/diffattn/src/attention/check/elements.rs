//! What is said of single pairs of query and key, or of blocks of them: boolean mask, bias, block
//! mask.

use crate::attention::mask::{Broadcast, Elements};
use crate::attention::options::{AttentionOptions, BlockMask, Mask};
use crate::attention::visible::{Blocks, MASK_BLOCK};
use crate::error::Error;
use crate::tensor::Data;
use crate::tensor::axis::HeadAxis;
use crate::tensor::shape::{check_len, format_shape};

/// Boolean mask and bias of a call whose result has `out_axis`, over `keys` keys.
pub(in crate::attention) fn elements<'a>(
    options: &AttentionOptions<'a>,
    out_axis: &HeadAxis,
    keys: usize,
) -> Result<Elements<'a>, Error> {
    let full = [out_axis.batch, out_axis.heads, out_axis.length, keys];
    let mut elements = Elements::default();
    if let Some(Mask { data, shape }) = &options.attn_mask {
        let shape = check_elements("attn_mask", shape, full)?;
        check_len("attn_mask", &shape, data.len())?;
        elements.mask = Some(Broadcast::new(data, &shape));
    }
    if let Some(bias) = &options.attn_bias {
        let shape = check_elements("attn_bias", &bias.shape, full)?;
        check_len("attn_bias", &shape, bias.data.len())?;
        let Data::F32(data) = bias.data else {
            return Err(Error::dtype(
                "attn_bias",
                "float32",
                bias.data.dtype().name(),
            ));
        };
        elements.bias = Some(Broadcast::new(data, &shape));
    }
    Ok(elements)
}

/// `[B|1, H|1, Lq|1, Lk]`, or an error naming `argument`.
fn check_elements(argument: &str, shape: &[usize], full: [usize; 4]) -> Result<[usize; 4], Error> {
    let [batch, heads, queries, keys] = full;
    let fits = |axis: usize| shape[axis] == full[axis] || (axis < 3 && shape[axis] == 1);
    match <[usize; 4]>::try_from(shape) {
        Ok(shape) if (0..4).all(fits) => Ok(shape),
        _ => Err(Error::shape(
            argument,
            format_args!("shape [{batch}|1, {heads}|1, {queries}|1, {keys}]"),
            format_shape(shape),
        )),
    }
}

/// The block mask of a call whose result has `out_axis`, over `keys` keys. (That packed sequences
/// have none, `sequences` has checked.)
pub(in crate::attention) fn blocks<'a>(
    options: &AttentionOptions<'a>,
    out_axis: &HeadAxis,
    keys: usize,
) -> Result<Blocks<'a>, Error> {
    let Some(BlockMask { data, shape }) = &options.block_mask else {
        return Ok(Blocks::default());
    };
    let (batch, heads) = (out_axis.batch, out_axis.heads);
    let rows = out_axis.length.div_ceil(MASK_BLOCK);
    let columns = keys.div_ceil(MASK_BLOCK);
    match *shape.as_slice() {
        [b, h, r, c]
            if (b == batch || b == 1) && (h == heads || h == 1) && [r, c] == [rows, columns] => {}
        _ => {
            return Err(Error::shape(
                "block_mask",
                format_args!("shape [{batch}|1, {heads}|1, {rows}, {columns}]"),
                format_shape(shape),
            ));
        }
    }
    check_len("block_mask", shape, data.len())?;
    Ok(Blocks::new(data, [shape[0], shape[1], rows, columns]))
}
