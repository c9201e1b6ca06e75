//! The loss of logits that are there, and their gradients.

use super::chunks::Chunks;
use super::options::{CrossEntropyOptions, Logits, Loss};
use crate::error::Error;
use crate::tensor::shape::check_len;

/// Where gradients of logits, and the losses of rows, go; what is `None` is not computed.
#[derive(Debug, Default)]
pub struct CrossEntropyGradients<'g> {
    /// `[rows, vocabulary]`: written; zeros in rows that take no part.
    pub dlogits: Option<&'g mut [f32]>,
    /// `[rows]`: each row's loss, undivided; 0 in rows that take no part.
    pub rows: Option<&'g mut [f64]>,
}

/// The mean cross entropy of rows of `logits` `[rows, vocabulary]` with the class that each of
/// `labels` `[rows]` names: `lse − x_label`, lse = ln Σ e^x, over the rows that count; and what the
/// options add. Exponentials are float32, sums and losses float64. A row with NaN or +∞ has a NaN
/// loss and NaN gradients, and no other row has. Where no label counts, loss and gradients are 0.
///
/// ```
/// use diffattn::{CrossEntropyGradients, CrossEntropyOptions, cross_entropy};
///
/// let mut dlogits = [0.0; 4];
/// let gradients = CrossEntropyGradients {
///     dlogits: Some(&mut dlogits),
///     ..CrossEntropyGradients::default()
/// };
/// let options = CrossEntropyOptions::default();
/// let loss = cross_entropy(&[0.5, 0.5, 7.0, 1.0], &[1, -100], gradients, &options)?;
/// assert!((loss.loss - 2.0_f64.ln()).abs() < 1e-7);
/// assert_eq!(dlogits, [0.5, -0.5, 0.0, 0.0]);
/// # Ok::<(), diffattn::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape) naming `logits`, `dlogits`, `rows`, `teacher` or
/// what of it does not fit; [`ErrorKind::Option`](crate::ErrorKind::Option) naming `labels` for one
/// that is no class, or `label_smoothing`, `z_loss`, `count` or `alpha`; [`Error::out_of_memory`].
pub fn cross_entropy<'a>(
    logits: &'a [f32],
    labels: &'a [i32],
    gradients: CrossEntropyGradients<'_>,
    options: &CrossEntropyOptions<'a>,
) -> Result<Loss, Error> {
    let CrossEntropyGradients {
        mut dlogits,
        mut rows,
    } = gradients;
    let chunks = Chunks::new(Logits::Rows(logits), labels, options, dlogits.is_some())?;
    let width = chunks.vocabulary;
    if let Some(dlogits) = &mut dlogits {
        check_len("dlogits", &[labels.len(), width], dlogits.len())?;
    }
    if let Some(rows) = &mut rows {
        check_len("rows", &[labels.len()], rows.len())?;
        rows.fill(0.0);
    }
    if let Some(dlogits) = &mut dlogits {
        dlogits.fill(0.0);
    }
    let mut chunk = chunks.memory()?;
    let mut sums = Loss::default();
    for numbers in chunks.each() {
        chunk.rows = numbers;
        let count = chunk.rows.len();
        chunks.run(&mut chunk, 0..count)?;
        chunks.join(&chunk, &mut sums, rows.as_deref_mut());
        if let Some(dlogits) = &mut dlogits {
            for (from, &row) in chunk.logits.chunks_exact(width).zip(&chunk.rows) {
                dlogits[row * width..(row + 1) * width].copy_from_slice(from);
            }
        }
    }
    Ok(chunks.means(&sums))
}
