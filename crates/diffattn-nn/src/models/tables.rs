//! The table of embeddings of a text model, and the head where it comes with it, of any family.

use crate::layers::Embedding;
use crate::parts::{Part, PartWeights};
use diffattn::{Error, Linear};
use diffattn_files::Declare;
use diffattn_files::decoder::{DecoderSizes, Head};

/// The table, and the head where it comes with it, of the weights of their part.
pub(crate) fn embeddings(
    sizes: &DecoderSizes,
    weights: PartWeights<'_>,
) -> Result<(Embedding, Option<Linear>), Error> {
    let mut list = Declare::new();
    let ids = sizes.embeddings(&mut list);
    let mut part = Part::new(list, weights);
    let are_equal = |table| ids.head.is_some_and(|head| part.are_equal(table, head));
    let tied = match sizes.head {
        Head::Stored => None,
        Head::Tied => ids.table,
        Head::Alone => ids.head,
        Head::Both => ids.table.filter(|&table| are_equal(table)),
    };
    if let Some(tied) = tied {
        let head = part.linear(tied)?;
        return Ok((Embedding::of_head(&head), Some(head)));
    }
    let none = || Error::internal("the embeddings are not in their part");
    let table = Embedding::new(part.table(ids.table.ok_or_else(none)?)?)?;
    let head = ids.head.map(|head| part.linear(head)).transpose()?;
    Ok((table, head))
}
