//! The head layouts, one function each: a new one is a new function here. Sources: arXiv 2410.05258
//! (interleaved), Hugging Face diffllama (halves), arXiv 2510.06949 (grouped), the V2 note of
//! microsoft/unilm (shared).

use crate::attention::plan::{Head, HeadCounts};
use crate::error::Error;

/// Terms side by side: head h has q heads T·h to T·h + T − 1.
pub(super) fn interleaved(
    counts: HeadCounts,
    coefficients: &[f32],
    flat: bool,
) -> Result<Vec<Head>, Error> {
    let terms = coefficients.len();
    let output = divided("q", "q heads", counts.q, terms, "terms")?;
    let groups = divided("k", "k heads", counts.k, terms, "terms")?;
    expect_values(counts.v, groups, "k heads / terms")?;
    let repeat = divided("q", "output heads", output, groups, "key/value groups")?;
    let head = |h: usize| {
        let k = |t: usize| {
            if flat {
                (2 * h + t) / repeat
            } else {
                terms * (h / repeat) + t
            }
        };
        let pairs = (0..terms).map(|t| (terms * h + t, k(t)));
        Head::new(pairs.collect(), vec![h / repeat], coefficients)
    };
    Ok((0..output).map(head).collect())
}

/// Second terms in the second half: head h has q heads h and h + H, and the v heads of both.
pub(super) fn halves(counts: HeadCounts, coefficients: &[f32]) -> Result<Vec<Head>, Error> {
    let output = divided("q", "q heads", counts.q, 2, "halves")?;
    expect_values(counts.v, counts.k, "k heads")?;
    let repeat = divided("q", "q heads", counts.q, counts.k, "k heads")?;
    let head = |h: usize| {
        let (first, second) = (h / repeat, (h + output) / repeat);
        let pairs = vec![(h, first), (h + output, second)];
        Head::new(pairs, vec![first, second], coefficients)
    };
    Ok((0..output).map(head).collect())
}

/// `ratio` signal heads, then the noise head that they share; each group has a k head for signal
/// and one for noise.
pub(super) fn grouped(
    counts: HeadCounts,
    coefficients: &[f32],
    ratio: usize,
) -> Result<Vec<Head>, Error> {
    let noise_heads = noise_heads(counts, ratio)?;
    let groups = divided("k", "k heads", counts.k, 2, "maps")?;
    expect_values(counts.v, groups, "k heads / 2")?;
    with_noise([noise_heads, ratio, groups], coefficients, |group| {
        [2 * group, 2 * group + 1]
    })
}

/// As [`grouped`], with one k head per group for signal and noise.
pub(super) fn shared(
    counts: HeadCounts,
    coefficients: &[f32],
    ratio: usize,
) -> Result<Vec<Head>, Error> {
    let noise_heads = noise_heads(counts, ratio)?;
    expect_values(counts.v, counts.k, "k heads")?;
    let keys = |group| [group, group];
    with_noise([noise_heads, ratio, counts.k], coefficients, keys)
}

fn noise_heads(counts: HeadCounts, ratio: usize) -> Result<usize, Error> {
    let per_noise = "heads per noise group (ratio + 1)";
    divided("q", "q heads", counts.q, ratio + 1, per_noise)
}

/// Heads of `ratio` signal heads per noise head; `keys` gives the k heads of a group for signal and
/// for noise.
fn with_noise(
    [noise_heads, ratio, groups]: [usize; 3],
    coefficients: &[f32],
    keys: impl Fn(usize) -> [usize; 2],
) -> Result<Vec<Head>, Error> {
    let repeat = divided("q", "noise groups", noise_heads, groups, "key/value groups")?;
    let head = |h: usize| {
        let noise = h / ratio;
        let first = noise * (ratio + 1);
        let group = noise / repeat;
        let [signal_k, noise_k] = keys(group);
        let pairs = vec![(first + h % ratio, signal_k), (first + ratio, noise_k)];
        Head::new(pairs, vec![group], coefficients)
    };
    Ok((0..noise_heads * ratio).map(head).collect())
}

/// `count / by`, which must be a whole number of at least one.
fn divided(
    argument: &str,
    what: &str,
    count: usize,
    by: usize,
    by_what: &str,
) -> Result<usize, Error> {
    if by > 0 && count > 0 && count.is_multiple_of(by) {
        Ok(count / by)
    } else {
        Err(Error::shape(
            argument,
            format_args!("a number of {what} that {by} {by_what} divide"),
            format_args!("{count} {what}"),
        ))
    }
}

fn expect_values(n_v: Option<usize>, groups: usize, rule: &str) -> Result<(), Error> {
    match n_v {
        Some(n_v) if n_v != groups => Err(Error::shape(
            "v",
            format_args!("{groups} v heads ({rule})"),
            format_args!("{n_v} v heads"),
        )),
        _ => Ok(()),
    }
}
