//! What training reads: rows by their numbers, in an order that follows from a seed, an epoch and a
//! number, so that the cursor is two integers and no list is shuffled. Knows neither texts nor
//! images.

use super::trainable::Trainable;
use diffattn::Error;
use std::ops::Range;

/// Where the next row is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// How often all rows were seen.
    pub epoch: u64,
    /// Rows of this epoch that were seen.
    pub index: u64,
}

/// Rows to train a model on, and to measure it by: windows of a text, or images. Each has a number,
/// and bytes in a file, which may be read elsewhere.
pub trait Dataset: Send + Sync {
    /// What is trained on it.
    type Model: Trainable;

    /// Whether a model can be trained on it.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) or
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) naming what does not fit.
    fn check(&self, model: &Self::Model) -> Result<(), Error>;

    /// Tokens of a row, as the model has them.
    fn row_tokens(&self, model: &Self::Model) -> usize;

    /// How many rows there are to train on, and to measure.
    fn windows(&self) -> [u64; 2];

    /// The numbers of the next `rows` rows to train on; the cursor moves behind them.
    fn next_windows(&self, cursor: &mut Cursor, rows: usize) -> Vec<u64>;

    /// The numbers of rows `first..first + rows` of those to measure, as far as there are any.
    fn eval_windows(&self, first: u64, rows: usize) -> Vec<u64>;

    /// Labels that count in rows.
    ///
    /// # Errors
    /// What the file says.
    fn counted(&self, windows: &[u64]) -> Result<usize, Error>;

    /// The bytes of the file that a row is.
    fn bytes_of(&self, window: u64) -> Range<u64>;

    /// The batch of rows, read from the file.
    ///
    /// # Errors
    /// What the file says.
    fn batch(&self, windows: &[u64]) -> Result<BatchOf<Self>, Error>;

    /// The batch of rows that were read elsewhere: `bytes`, those of [`Dataset::bytes_of`] one
    /// behind the other.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) for another number of them; what the file
    /// says.
    fn batch_of_bytes(&self, windows: &[u64], bytes: &[u8]) -> Result<BatchOf<Self>, Error>;

    /// Rows `first..first + rows` of those to measure, as far as there are any; `None` behind the
    /// last.
    ///
    /// # Errors
    /// What the file says.
    fn eval(&self, first: u64, rows: usize) -> Result<Option<BatchOf<Self>>, Error> {
        let windows = self.eval_windows(first, rows);
        if windows.is_empty() {
            return Ok(None);
        }
        self.batch(&windows).map(Some)
    }
}

/// What a dataset's model takes.
pub type BatchOf<D> = <<D as Dataset>::Model as Trainable>::Batch;

/// The places of the next `rows` of `count` rows in the order of a seed; the cursor moves behind
/// them.
pub(super) fn next_places(cursor: &mut Cursor, rows: usize, count: u64, seed: u64) -> Vec<u64> {
    let mut places = Vec::with_capacity(rows);
    for _ in 0..rows {
        if cursor.index >= count {
            *cursor = Cursor {
                epoch: cursor.epoch + 1,
                index: 0,
            };
        }
        places.push(permuted(cursor.index, count, [seed, cursor.epoch]));
        cursor.index += 1;
    }
    places
}

/// Where `index` of `count` goes in the order of a key: four rounds of a Feistel network over the
/// least even number of bits that count needs, walked until it lies below count.
fn permuted(index: u64, count: u64, key: [u64; 2]) -> u64 {
    let bits = u64::BITS - count.saturating_sub(1).leading_zeros();
    let half = bits.div_ceil(2).max(1);
    let mask = (1_u64 << half) - 1;
    let mut at = index;
    loop {
        let (mut left, mut right) = (at >> half, at & mask);
        for round in 0..4 {
            let mixed = mixed(right ^ key[0].wrapping_add(mixed(key[1] ^ round << 56)));
            (left, right) = (right, left ^ (mixed & mask));
        }
        at = left << half | right;
        if at < count {
            return at;
        }
    }
}

/// The finaliser of splitmix64.
fn mixed(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}
