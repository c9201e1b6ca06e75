//! The position of each token of a call. Knows nothing of angles.

use std::ops::Range;

use super::axes::Axes;
use crate::error::Error;
use crate::tensor::shape::{check_len, format_shape};

/// Positions of tokens, `[L]` or `[B, L]`.
#[derive(Debug, Clone)]
pub struct Positions<'a> {
    /// The positions; negative ones are fine.
    pub data: &'a [i64],
    /// Their shape.
    pub shape: Vec<usize>,
}

/// The position of each token of each batch entry.
#[derive(Debug, Clone)]
pub(super) enum Places<'a> {
    /// The first token's, of every batch entry.
    From(i64),
    /// The first token's, one per batch entry.
    FromEach(Vec<i64>),
    /// `[L]`, or `[B, L]` when `by_batch`.
    Listed {
        positions: &'a [i64],
        by_batch: bool,
    },
}

impl<'a> Places<'a> {
    pub(super) fn new(
        axes: &Axes,
        first_position: Option<&[i64]>,
        positions: Option<&Positions<'a>>,
    ) -> Result<Self, Error> {
        match (first_position, positions) {
            (Some(_), Some(_)) => Err(Error::option(
                "first_position",
                "nothing beside positions",
                "both",
            )),
            (None, None) => Ok(Self::From(0)),
            (Some(first), None) => {
                if first.len() != 1 && first.len() != axes.batch {
                    let expected = format_args!("1 or {} values (one per batch entry)", axes.batch)
                        .to_string();
                    return Err(Error::shape("first_position", expected, first.len()));
                }
                // Past the last one, positions would wrap.
                match first
                    .iter()
                    .find(|first| first.checked_add_unsigned(axes.length as u64).is_none())
                {
                    Some(first) => Err(Error::option(
                        "first_position",
                        "positions that fit 64 bits",
                        first,
                    )),
                    None => Ok(match *first {
                        [first] => Self::From(first),
                        _ => Self::FromEach(first.to_vec()),
                    }),
                }
            }
            (None, Some(Positions { data, shape })) => {
                let by_batch = match *shape.as_slice() {
                    [length] if length == axes.length => false,
                    [batch, length] if batch == axes.batch && length == axes.length => true,
                    _ => {
                        let expected =
                            format!("shape [{1}] or [{0}, {1}]", axes.batch, axes.length);
                        return Err(Error::shape("positions", expected, format_shape(shape)));
                    }
                };
                check_len("positions", shape, data.len())?;
                Ok(Self::Listed {
                    positions: data,
                    by_batch,
                })
            }
        }
    }

    /// Whether batch entries differ.
    pub(super) fn by_batch(&self) -> bool {
        match self {
            Self::From(_) => false,
            Self::FromEach(_) => true,
            Self::Listed { by_batch, .. } => *by_batch,
        }
    }

    #[inline]
    pub(super) fn position(&self, batch: usize, token: usize, length: usize) -> i64 {
        match self {
            Self::From(first) => first + token as i64,
            Self::FromEach(first) => first[batch] + token as i64,
            Self::Listed {
                positions,
                by_batch,
            } => positions[if *by_batch { batch * length } else { 0 } + token],
        }
    }

    /// The position of each batch entry's first token, where no list has them.
    fn firsts(&self) -> &[i64] {
        match self {
            Self::From(first) => std::slice::from_ref(first),
            Self::FromEach(first) => first,
            Self::Listed { .. } => &[],
        }
    }

    /// The highest position, of tokens if there are any.
    pub(super) fn last(&self, length: usize) -> Option<i64> {
        match self {
            _ if length == 0 => None,
            Self::From(_) | Self::FromEach(_) => {
                let firsts = self.firsts().iter();
                firsts.map(|&first| first + (length as i64 - 1)).max()
            }
            Self::Listed { positions, .. } => positions.iter().copied().max(),
        }
    }

    /// The first position outside of `range`.
    pub(super) fn outside(&self, range: &Range<i64>, length: usize) -> Option<i64> {
        match self {
            _ if length == 0 => None,
            Self::From(_) | Self::FromEach(_) => {
                let firsts = self.firsts().iter();
                let mut ends = firsts.flat_map(|&first| [first, first + (length as i64 - 1)]);
                ends.find(|position| !range.contains(position))
            }
            Self::Listed { positions, .. } => positions
                .iter()
                .copied()
                .find(|position| !range.contains(position)),
        }
    }
}
