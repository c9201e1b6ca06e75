//! Texts as vectors: a pass over them, and of each one's last hidden states (behind the last norm)
//! their mean, or the last token's. Sums in float64, token after token, so that a text's vector is
//! the same whatever lies beside it.

use super::decoder::Decoder;
use super::ids::Logits;
use super::texts::TextForward;
use diffattn::{Error, Run, Work, check_len, checked_len, try_zeroed};

/// What of a text's hidden states its vector is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pooling {
    /// The mean over its tokens.
    #[default]
    Mean,
    /// The last token's.
    Last,
}

/// What vectors of texts are, and how the pass is run.
#[derive(Debug, Clone, Copy)]
pub struct EmbedOptions {
    /// What of the hidden states; their mean by default.
    pub pooling: Pooling,
    /// Whether vectors have length 1 (one of zeros stays so); true by default.
    pub normalize: bool,
    /// How the call runs: instruction set, threads, fused or not.
    pub run: Run,
}

impl Default for EmbedOptions {
    fn default() -> Self {
        Self {
            pooling: Pooling::Mean,
            normalize: true,
            run: Run::default(),
        }
    }
}

/// A checked pass that makes vectors of texts: worked off by what [`TextEmbed::into_work`] makes of
/// it.
#[derive(Debug)]
pub struct TextEmbed<'a> {
    forward: TextForward<'a>,
    lengths: Vec<usize>,
    width: usize,
    options: EmbedOptions,
}

impl<'a> TextEmbed<'a> {
    /// Checks texts of any lengths.
    ///
    /// # Errors [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `texts` for one without
    /// ids or with an id outside of the vocabulary;
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) for more ids than can be.
    pub fn new(
        model: Decoder<'a>,
        texts: Vec<Vec<u32>>,
        options: &EmbedOptions,
    ) -> Result<Self, Error> {
        for (index, ids) in texts.iter().enumerate() {
            if ids.is_empty() {
                let got = format_args!("none in text {index}");
                return Err(Error::option("texts", "1 id or more in each", got));
            }
            model.check_ids("texts", ids.iter().map(|&id| i64::from(id)))?;
        }
        let wanted = match options.pooling {
            Pooling::Mean => Logits::All,
            Pooling::Last => Logits::Last,
        };
        Ok(Self {
            lengths: texts.iter().map(Vec::len).collect(),
            width: model.hidden_size(),
            forward: TextForward::features(model, texts, wanted, options.run)?,
            options: *options,
        })
    }

    /// `[B, hidden_size]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        [self.lengths.len(), self.width]
    }

    /// The work that writes the vectors into `out`.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) when it does not fit.
    pub fn into_work(self, out: &'a mut [f32]) -> Result<Work<'a>, Error> {
        check_len("embeddings", &self.shape(), out.len())?;
        let total = self.forward.units();
        Ok(Work::new(total, move |pace| async move {
            let Self {
                forward,
                mut lengths,
                width,
                options,
            } = self;
            if options.pooling == Pooling::Last {
                lengths.fill(1);
            }
            let rows = lengths.iter().sum();
            let mut states = try_zeroed(checked_len("texts", &[rows, width])?)?;
            forward.run_into(&mut states, pace).await?;
            let mut sums = try_zeroed(width)?;
            let mut states = states.as_slice();
            for (to, length) in out.chunks_exact_mut(width.max(1)).zip(lengths) {
                let (of_text, others) = states.split_at(length * width);
                states = others;
                pool(of_text, to, &mut sums, options.normalize);
            }
            Ok(())
        }))
    }
}

/// The mean of rows, of length 1 where that is wanted.
fn pool(rows: &[f32], to: &mut [f32], sums: &mut [f64], normalize: bool) {
    sums.fill(0.0);
    let width = to.len();
    for row in rows.chunks_exact(width) {
        for (sum, &x) in sums.iter_mut().zip(row) {
            *sum += f64::from(x);
        }
    }
    let mut scale = 1.0 / (rows.len() / width) as f64;
    if normalize {
        // (A vector's length is that of its direction: the count of rows is no part of it.)
        let length = libm::sqrt(sums.iter().map(|sum| sum * sum).sum());
        scale = if length > 0.0 { 1.0 / length } else { 0.0 };
        if length.is_nan() {
            scale = f64::NAN;
        }
    }
    for (to, sum) in to.iter_mut().zip(sums) {
        *to = (*sum * scale) as f32;
    }
}
