//! Several processes that make the steps of one training together: what they tell each other, and
//! which of them has which part of the arena. Opens no connection: who carries the messages is
//! [`Ranks`], MPI in `diffattn-mpi`.
//!
//! A bucket is a stretch of the arena whose gradients become whole at one time: what stands before
//! the layers, each layer, what stands behind them. Each bucket is cut into as many parts as there
//! are ranks; a rank has the sums of gradients and the moments of its part alone (ZeRO stage 1,
//! arXiv 1910.02054) and moves the parameters of it.

use diffattn::{Error, NORM_CHUNK};
use std::fmt::Debug;
use std::ops::Range;

/// A message of floats, by which both sides know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Message {
    /// Who sends it.
    pub from: usize,
    /// Who receives it.
    pub to: usize,
    /// What it is of: a number that none has that is on its way between the same two.
    pub tag: u32,
}

/// What carries messages between the processes of one training. All of them call the same gathering
/// functions in the same order.
pub trait Ranks: Debug + Send {
    /// The number of this process, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Makes room for a message of so many values to this rank: it may arrive from now on.
    ///
    /// # Errors
    /// Where the connection is lost.
    fn expect(&mut self, message: Message, len: usize) -> Result<(), Error>;

    /// Begins to send values; they may change once this returns, and have not arrived yet.
    ///
    /// # Errors
    /// Where the connection is lost.
    fn send(&mut self, message: Message, values: &[f32]) -> Result<(), Error>;

    /// Waits for a message that is expected.
    ///
    /// # Errors
    /// Where the connection is lost.
    fn receive(&mut self, message: Message) -> Result<Vec<f32>, Error>;

    /// Lets messages go on that are on their way, without waiting for any.
    ///
    /// # Errors
    /// Where the connection is lost.
    fn progress(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Of an array that all have, each rank's stretch `parts[rank]` to all others.
    ///
    /// # Errors
    /// Where the connection is lost.
    fn gather(&mut self, values: &mut [f32], parts: &[Range<usize>]) -> Result<(), Error>;

    /// What each rank gives, `counts[rank]` numbers, one behind the other.
    ///
    /// # Errors
    /// Where the connection is lost.
    fn gather_numbers(&mut self, own: &[f64], counts: &[usize]) -> Result<Vec<f64>, Error>;
}

/// A training of one process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Ranks for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn expect(&mut self, _: Message, _: usize) -> Result<(), Error> {
        Err(Error::internal("one process alone has nobody to tell"))
    }

    fn send(&mut self, _: Message, _: &[f32]) -> Result<(), Error> {
        Err(Error::internal("one process alone has nobody to tell"))
    }

    fn receive(&mut self, _: Message) -> Result<Vec<f32>, Error> {
        Err(Error::internal("one process alone has nobody to tell"))
    }

    fn gather(&mut self, _: &mut [f32], _: &[Range<usize>]) -> Result<(), Error> {
        Ok(())
    }

    fn gather_numbers(&mut self, own: &[f64], _: &[usize]) -> Result<Vec<f64>, Error> {
        Ok(own.to_vec())
    }
}

/// Who has which part of an arena.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Shards {
    /// `[buckets][ranks]`: stretches of the arena, whole chunks of [`NORM_CHUNK`] values counted
    /// from a tensor's beginning, so that whatever ranks there are, sums of squares are the same.
    pub(crate) parts: Vec<Vec<Range<usize>>>,
}

impl Shards {
    /// Of buckets, each given as the stretches of its tensors, one behind the other.
    pub(crate) fn new(buckets: &[Vec<Range<usize>>], ranks: usize) -> Self {
        let of_bucket = |tensors: &Vec<Range<usize>>| {
            let mut starts: Vec<usize> = tensors
                .iter()
                .flat_map(|tensor| tensor.clone().step_by(NORM_CHUNK))
                .collect();
            let end = tensors.last().map_or(0, |tensor| tensor.end);
            starts.push(end);
            let chunks = starts.len() - 1;
            let at = |rank: usize| starts[chunks * rank / ranks];
            (0..ranks).map(|rank| at(rank)..at(rank + 1)).collect()
        };
        Self {
            parts: buckets.iter().map(of_bucket).collect(),
        }
    }

    /// The stretches that a rank has, ascending.
    pub(crate) fn of(&self, rank: usize) -> impl Iterator<Item = Range<usize>> {
        self.parts.iter().map(move |parts| parts[rank].clone())
    }
}
