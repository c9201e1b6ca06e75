//! What text models of any family are built of: the table of embeddings, the head that may come
//! with it, layers, the last norm. What a layer is, its family says.

use crate::layers::Embedding;
use crate::parts::{Part, PartWeights};
use diffattn::{Error, Linear};
use diffattn_files::Declare;
use diffattn_files::decoder::{DecoderSizes, Head};

/// A list, and what `declare` calls its weights.
pub(crate) fn listed<T>(declare: impl FnOnce(&mut Declare) -> T) -> (Declare, T) {
    let mut list = Declare::new();
    let ids = declare(&mut list);
    (list, ids)
}

/// What is there of a text model of layers `L` and a last norm `N`.
#[derive(Debug)]
pub(crate) struct TextParts<L, N> {
    embedding: Option<Embedding>,
    pub(crate) layers: Vec<Option<L>>,
    pub(crate) norm: Option<N>,
    head: Option<Linear>,
}

/// All of a text model.
pub(crate) struct WholeText<L, N> {
    pub(crate) embedding: Embedding,
    pub(crate) layers: Vec<L>,
    pub(crate) norm: N,
    pub(crate) head: Linear,
}

impl<L, N> TextParts<L, N> {
    /// Nothing of a model of `layers` layers.
    pub(crate) fn new(layers: usize) -> Self {
        Self {
            embedding: None,
            layers: std::iter::repeat_with(|| None).take(layers).collect(),
            norm: None,
            head: None,
        }
    }

    /// Takes the part of the embeddings.
    pub(crate) fn embeddings(
        &mut self,
        sizes: &DecoderSizes,
        weights: PartWeights<'_>,
    ) -> Result<(), Error> {
        let (embedding, head) = embeddings(sizes, weights)?;
        self.embedding = Some(embedding);
        self.head = head.or(self.head.take());
        Ok(())
    }

    /// Takes the part of the output projection.
    pub(crate) fn head(
        &mut self,
        sizes: &DecoderSizes,
        weights: PartWeights<'_>,
    ) -> Result<(), Error> {
        let (list, id) = listed(|d| sizes.head(d));
        self.head = Some(Part::new(list, weights).linear(id)?);
        Ok(())
    }

    /// The whole, which leaves nothing here.
    pub(crate) fn complete(&mut self) -> Result<WholeText<L, N>, Error> {
        let layers = std::mem::take(&mut self.layers).into_iter().collect();
        let parts = (
            layers,
            self.embedding.take(),
            self.norm.take(),
            self.head.take(),
        );
        let (Some(layers), Some(embedding), Some(norm), Some(head)) = parts else {
            return Err(Error::internal("a part left nothing behind"));
        };
        Ok(WholeText {
            embedding,
            layers,
            norm,
            head,
        })
    }
}

/// The table, and the head where it comes with it, of the weights of their part.
fn embeddings(
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
