//! From logits to classes.

use diffattn::Error;
use std::cmp::Ordering;

/// A class and how likely it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassScore {
    /// Its number: its place among the logits.
    pub id: usize,
    /// Its share of the softmax over all classes, computed in float64.
    pub probability: f64,
}

/// The `top` classes of one row of logits, the likeliest first; of equals the lower number first. A
/// NaN among the logits makes every probability NaN, and its class comes first.
///
/// ```
/// let top = diffattn_nn::top_classes(&[0.0, 1.0, 1.0], 2)?;
/// assert_eq!([top[0].id, top[1].id], [1, 2]);
/// assert!((top[0].probability - 1.0 / (2.0 + (-1f64).exp())).abs() < 1e-15);
/// # Ok::<(), diffattn::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::Option`](diffattn::ErrorKind::Option) when `top` is 0 or more than there are
/// classes.
pub fn top_classes(logits: &[f32], top: usize) -> Result<Vec<ClassScore>, Error> {
    if top == 0 || top > logits.len() {
        return Err(Error::option(
            "top",
            format_args!("1 to {}", logits.len()),
            top,
        ));
    }
    let largest = logits.iter().fold(f32::NEG_INFINITY, |max, &x| max.max(x));
    // A row of −∞ alone is one of equals; so is +∞ among itself, before which all else vanishes.
    let power = |x: f32| {
        if x == largest {
            1.0
        } else {
            libm::exp(f64::from(x) - f64::from(largest))
        }
    };
    let sum: f64 = logits.iter().map(|&x| power(x)).sum();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    // (A stable sort: equals stay in order.)
    order.sort_by(|&a, &b| {
        let (a, b) = (logits[a], logits[b]);
        let by_value = b.partial_cmp(&a).unwrap_or(Ordering::Equal);
        b.is_nan().cmp(&a.is_nan()).then(by_value)
    });
    order.truncate(top);
    let scores = order.into_iter().map(|id| ClassScore {
        id,
        probability: power(logits[id]) / sum,
    });
    Ok(scores.collect())
}
