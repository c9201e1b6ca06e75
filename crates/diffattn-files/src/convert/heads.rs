//! Which heads of a Llama are to be differential. Moves none.

use crate::plain::PlainHeads;
use diffattn::Error;

/// Which heads are to be differential.
#[derive(Debug, Clone, PartialEq)]
pub enum TargetHeads {
    /// All of every layer.
    All,
    /// The first ⌊share · H + ½⌋ of every layer; a share from 0 to 1.
    First(f64),
    /// The last ⌊share · H + ½⌋ of every layer; a share from 0 to 1.
    Last(f64),
    /// Those of these numbers, layer by layer, ascending.
    Listed(Vec<Vec<usize>>),
}

/// The heads of each layer that are chosen, of layers with these.
pub(super) fn chosen(
    target: &TargetHeads,
    layers: &[PlainHeads],
) -> Result<Vec<Vec<usize>>, Error> {
    let of_share = |share: f64, is_last: bool| -> Result<Vec<Vec<usize>>, Error> {
        if !(0.0..=1.0).contains(&share) {
            return Err(Error::option("share", "a number from 0 to 1", share));
        }
        let lists = layers.iter().map(|of| {
            let count = ((share * of.heads as f64 + 0.5).floor() as usize).min(of.heads);
            let first = if is_last { of.heads - count } else { 0 };
            (first..first + count).collect()
        });
        Ok(lists.collect())
    };
    let chosen = match target {
        TargetHeads::All => of_share(1.0, false)?,
        &TargetHeads::First(share) => of_share(share, false)?,
        &TargetHeads::Last(share) => of_share(share, true)?,
        TargetHeads::Listed(lists) => {
            check(lists, layers)?;
            lists.clone()
        }
    };
    match chosen.iter().all(Vec::is_empty) {
        true => Err(Error::option("heads", "one head or more", "none")),
        false => Ok(chosen),
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
