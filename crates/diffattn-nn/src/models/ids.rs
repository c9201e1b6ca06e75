//! What goes into a forward pass over texts, and of which tokens something comes out.

use super::decoder::Decoder;
use diffattn::{Error, check_len, format_shape, try_zeroed};

/// Token ids of a batch of texts of one length, `[B, L]`.
#[derive(Debug, Clone)]
pub struct TokenIds<'a> {
    data: IdData<'a>,
    shape: Vec<usize>,
}

#[derive(Debug, Clone, Copy)]
enum IdData<'a> {
    U32(&'a [u32]),
    I32(&'a [i32]),
}

impl<'a> TokenIds<'a> {
    /// Ids of shape `[B, L]`.
    #[must_use]
    pub fn u32(data: &'a [u32], shape: &[usize]) -> Self {
        Self {
            data: IdData::U32(data),
            shape: shape.to_vec(),
        }
    }

    /// Ids of shape `[B, L]`; negative ones are an error of the call.
    #[must_use]
    pub fn i32(data: &'a [i32], shape: &[usize]) -> Self {
        Self {
            data: IdData::I32(data),
            shape: shape.to_vec(),
        }
    }

    /// Checks them for a model; gives the texts.
    pub(crate) fn check(&self, model: &Decoder<'_>) -> Result<([usize; 2], Vec<Vec<u32>>), Error> {
        let &[batch, length] = self.shape.as_slice() else {
            return Err(Error::shape(
                "ids",
                "2 axes, [B, L]",
                format_shape(&self.shape),
            ));
        };
        let len = match self.data {
            IdData::U32(data) => data.len(),
            IdData::I32(data) => data.len(),
        };
        check_len("ids", &self.shape, len)?;
        // (Of texts without ids, there could be any number.)
        if length == 0 {
            return Ok(([batch, 0], Vec::new()));
        }
        let mut ids = try_zeroed::<u32>(len)?;
        match self.data {
            IdData::U32(data) => {
                model.check_ids("ids", data.iter().map(|&id| i64::from(id)))?;
                ids.copy_from_slice(data);
            }
            IdData::I32(data) => {
                model.check_ids("ids", data.iter().map(|&id| i64::from(id)))?;
                for (to, &id) in ids.iter_mut().zip(data) {
                    *to = id.unsigned_abs();
                }
            }
        }
        let texts = ids.chunks_exact(length).map(<[u32]>::to_vec).collect();
        Ok(([batch, length], texts))
    }
}

/// Of which tokens a forward pass gives logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Logits {
    /// Of no token.
    None,
    /// Of each text's last: `[B, 1, vocab_size]`. The others' are not computed.
    Last,
    /// Of all: `[B, L, vocab_size]`.
    #[default]
    All,
}
