//! What a step is computed on: tokens of documents laid end to end, and the label of each row.
//! Knows no model.

use diffattn::Error;

/// A label that takes no part in the loss.
pub const IGNORED: i32 = -100;

/// Tokens of one micro-batch, rows laid end to end, each row cut into documents: a document sees
/// itself alone, and its positions begin at 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrainingBatch {
    /// `[tokens]`.
    pub(crate) ids: Vec<u32>,
    /// `[documents + 1]`: where each begins, and the end.
    pub(crate) starts: Vec<usize>,
    /// `[tokens]`: what the row of each token is to predict, [`IGNORED`] where nothing.
    pub(crate) labels: Vec<i32>,
}

impl TrainingBatch {
    /// Rows of `length` tokens: `ids` `[rows · length]`; `documents`, where given, as many numbers,
    /// equal within a document, which never goes on in the next row; `labels`, where given, as
    /// Hugging Face has them: `labels[t]` is what the row of the token before is to predict, −100
    /// takes no part. By default all tokens but the first of a document are labels.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) naming `ids`, `documents` or `labels` for
    /// lengths that do not fit.
    pub fn new(
        ids: &[u32],
        length: usize,
        documents: Option<&[i64]>,
        labels: Option<&[i32]>,
    ) -> Result<Self, Error> {
        if length == 0 || ids.is_empty() || !ids.len().is_multiple_of(length) {
            return Err(Error::shape(
                "ids",
                format_args!("whole rows of {length} tokens, one or more"),
                ids.len(),
            ));
        }
        for (name, len) in [
            ("documents", documents.map(<[i64]>::len)),
            ("labels", labels.map(<[i32]>::len)),
        ] {
            if len.is_some_and(|len| len != ids.len()) {
                return Err(Error::shape(name, ids.len(), len.unwrap_or(0)));
            }
        }
        let begins = |token: usize| {
            token.is_multiple_of(length) || documents.is_some_and(|of| of[token] != of[token - 1])
        };
        let mut starts: Vec<usize> = (0..ids.len()).filter(|&token| begins(token)).collect();
        starts.push(ids.len());
        let label = |token: usize| {
            let next = token + 1;
            if next.is_multiple_of(length) {
                return IGNORED;
            }
            match labels {
                Some(labels) => labels[next],
                None if begins(next) => IGNORED,
                None => i32::try_from(ids[next]).unwrap_or(IGNORED),
            }
        };
        Ok(Self {
            labels: (0..ids.len()).map(label).collect(),
            ids: ids.to_vec(),
            starts,
        })
    }

    /// Tokens.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Labels that count.
    #[must_use]
    pub fn counted(&self) -> usize {
        self.labels
            .iter()
            .filter(|&&label| label != IGNORED)
            .count()
    }

    /// The longest document.
    pub(crate) fn longest(&self) -> usize {
        let lengths = self.starts.windows(2).map(|ends| ends[1] - ends[0]);
        lengths.max().unwrap_or(0)
    }

    /// [`TrainingBatch::starts`] as attention takes them.
    pub(crate) fn cu_seqlens(&self) -> Result<Vec<i32>, Error> {
        let count = |&start: &usize| i32::try_from(start);
        let starts = self.starts.iter().map(count).collect::<Result<_, _>>();
        starts.map_err(|_| Error::shape("ids", "tokens that 31 bits count", self.tokens()))
    }
}
