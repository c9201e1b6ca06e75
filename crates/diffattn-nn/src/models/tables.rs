//! The table of embeddings of a text model, and the head where it comes with it, of any family.

use crate::layers::Embedding;
use crate::parts::{Part, PartWeights, WeightData};
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
    let of_both = |part: &Part<'_>| {
        let weight = |id: Option<_>| id.and_then(|id| part.weight(id));
        Some(is_equal(&weight(ids.table)?.data, &weight(ids.head)?.data))
    };
    let tied = match sizes.head {
        Head::Stored => None,
        Head::Tied => ids.table,
        Head::Alone => ids.head,
        Head::Both => ids.table.filter(|_| of_both(&part) == Some(true)),
    };
    if let Some(tied) = tied {
        let head = part.linear(tied)?;
        return Ok((Embedding::of_head(&head), Some(head)));
    }
    let none = || Error::internal("the embeddings are not in their part");
    let table = Embedding::new(part.take(ids.table.ok_or_else(none)?)?)?;
    let head = ids.head.map(|head| part.linear(head)).transpose()?;
    Ok((table, head))
}

/// Whether two weights of one shape are the same bits.
fn is_equal(a: &WeightData<'_>, b: &WeightData<'_>) -> bool {
    match (a, b) {
        (WeightData::F32(a), WeightData::F32(b)) => {
            a.iter().zip(&**b).all(|(a, b)| a.to_bits() == b.to_bits())
        }
        (WeightData::F16(a), WeightData::F16(b)) | (WeightData::Bf16(a), WeightData::Bf16(b)) => {
            a == b
        }
        _ => false,
    }
}
