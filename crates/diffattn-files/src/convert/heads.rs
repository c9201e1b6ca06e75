//! Which heads of a Llama are to be differential. Moves none.

use crate::plain::PlainHeads;
use diffattn::Error;
use std::cmp::Ordering;

/// Which heads are to be differential.
#[derive(Debug, Clone, PartialEq)]
pub enum TargetHeads {
    /// All of every layer.
    All,
    /// The first ⌊share · H + ½⌋ of every layer; a share from 0 to 1.
    First(f64),
    /// The last ⌊share · H + ½⌋ of every layer; a share from 0 to 1.
    Last(f64),
    /// The ⌊share · H + ½⌋ of every layer whose number is highest, of equal ones the first: the
    /// entropy of their maps, for instance, head by head and layer by layer.
    Highest {
        /// From 0 to 1.
        share: f64,
        /// A number for each head of each layer.
        numbers: Vec<Vec<f64>>,
    },
    /// Those of these numbers, layer by layer, ascending.
    Listed(Vec<Vec<usize>>),
}

/// The heads of each layer that are chosen, of layers with these; none of layers other than
/// `layers`, where some are named.
pub(crate) fn chosen(
    target: &TargetHeads,
    layers: Option<&[usize]>,
    of: &[PlainHeads],
) -> Result<Vec<Vec<usize>>, Error> {
    let each = |share: f64, choose: &dyn Fn(usize, usize, usize) -> Vec<usize>| {
        if !(0.0..=1.0).contains(&share) {
            return Err(Error::option("share", "a number from 0 to 1", share));
        }
        let lists = of.iter().enumerate().map(|(layer, of)| {
            let count = ((share * of.heads as f64 + 0.5).floor() as usize).min(of.heads);
            choose(layer, count, of.heads)
        });
        Ok(lists.collect::<Vec<_>>())
    };
    let mut chosen = match target {
        TargetHeads::All => each(1.0, &|_, _, all| (0..all).collect())?,
        &TargetHeads::First(share) => each(share, &|_, count, _| (0..count).collect())?,
        &TargetHeads::Last(share) => each(share, &|_, count, all| (all - count..all).collect())?,
        TargetHeads::Highest { share, numbers } => {
            check_numbers(numbers, of)?;
            each(*share, &|layer, count, _| highest(&numbers[layer], count))?
        }
        TargetHeads::Listed(lists) => {
            check(lists, of)?;
            lists.clone()
        }
    };
    if let Some(layers) = layers {
        if let Some(&unknown) = layers.iter().find(|&&layer| layer >= of.len()) {
            let expected = format_args!("numbers of layers below {}", of.len());
            return Err(Error::option("layers", expected, unknown));
        }
        for (layer, list) in chosen.iter_mut().enumerate() {
            if !layers.contains(&layer) {
                list.clear();
            }
        }
    }
    match chosen.iter().all(Vec::is_empty) {
        true => Err(Error::option("heads", "one head or more", "none")),
        false => Ok(chosen),
    }
}

/// The heads whose numbers are highest, ascending.
fn highest(numbers: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    // (Stable, so of equal ones the first.)
    order.sort_by(|&a, &b| {
        let order = numbers[b].partial_cmp(&numbers[a]);
        order.unwrap_or(Ordering::Equal)
    });
    order.truncate(count);
    order.sort_unstable();
    order
}

/// Whether there is a number for each head.
fn check_numbers(numbers: &[Vec<f64>], of: &[PlainHeads]) -> Result<(), Error> {
    let fits = |(numbers, of): (&Vec<f64>, &PlainHeads)| {
        numbers.len() == of.heads && numbers.iter().all(|number| number.is_finite())
    };
    match numbers.len() == of.len() && numbers.iter().zip(of).all(fits) {
        true => Ok(()),
        false => Err(Error::option(
            "entropy",
            format_args!("a number for each head of {} layers", of.len()),
            format_args!("{} lists", numbers.len()),
        )),
    }
}

/// Whether there are such heads.
fn check(lists: &[Vec<usize>], layers: &[PlainHeads]) -> Result<(), Error> {
    if lists.len() != layers.len() {
        return Err(Error::option(
            "heads",
            format_args!("a list for each of {} layers", layers.len()),
            lists.len(),
        ));
    }
    for (index, (list, of)) in lists.iter().zip(layers).enumerate() {
        let is_ascending = list.is_sorted_by(|a, b| a < b);
        if !is_ascending || list.last().is_some_and(|&head| head >= of.heads) {
            return Err(Error::option(
                format_args!("heads[{index}]"),
                format_args!("numbers of heads below {}, ascending", of.heads),
                format_args!("{list:?}"),
            ));
        }
    }
    Ok(())
}
