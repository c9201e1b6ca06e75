//! Which tokens each step reads: windows of a file of tokens, in an order that follows from a seed,
//! an epoch and a number, so that the cursor is two integers and no list is shuffled. Knows no
//! model.

use super::batch::TrainingBatch;
use diffattn::{Error, check_len};
use diffattn_files::{ByteSource, TokenFile};
use std::ops::Range;

/// What becomes of documents within a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Documents {
    /// Each sees itself alone, from position 0, and its first token is no label.
    #[default]
    Mask,
    /// A window is one text.
    Join,
}

/// Options of [`TrainingData`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DataOptions {
    /// Tokens of a window. 256 by default.
    pub context: usize,
    /// What becomes of documents.
    pub documents: Documents,
    /// The share of the windows, the last ones, that is not trained on but measured. 0.05 by
    /// default.
    pub eval: f64,
    /// Of the order.
    pub seed: u64,
}

impl Default for DataOptions {
    fn default() -> Self {
        Self {
            context: 256,
            documents: Documents::default(),
            eval: 0.05,
            seed: 0,
        }
    }
}

/// Where the next window is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// How often all windows were seen.
    pub epoch: u64,
    /// Windows of this epoch that were seen.
    pub index: u64,
}

/// Windows of a file of tokens.
#[derive(Debug)]
pub struct TrainingData<S> {
    file: TokenFile<S>,
    options: DataOptions,
    /// Windows to train on, and to measure.
    windows: [u64; 2],
}

impl<S: ByteSource> TrainingData<S> {
    /// Windows of `file`; what is left behind the last whole one is not read.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `context` or `eval`, or `data` for
    /// a file of less than one window to train on.
    pub fn new(file: TokenFile<S>, options: DataOptions) -> Result<Self, Error> {
        if options.context < 2 {
            return Err(Error::option(
                "context",
                "2 tokens or more",
                options.context,
            ));
        }
        if !(0.0..1.0).contains(&options.eval) {
            return Err(Error::option(
                "eval",
                "a share from 0 to below 1",
                options.eval,
            ));
        }
        let all = file.tokens() / options.context as u64;
        let mut eval = (all as f64 * options.eval) as u64;
        if eval == 0 && options.eval > 0.0 && all > 1 {
            eval = 1;
        }
        if all == eval {
            return Err(Error::option(
                "data",
                format_args!("a window of {} tokens or more", options.context),
                format_args!("{} tokens", file.tokens()),
            ));
        }
        Ok(Self {
            file,
            options,
            windows: [all - eval, eval],
        })
    }

    /// Tokens of a window.
    #[must_use]
    pub fn context(&self) -> usize {
        self.options.context
    }

    /// Tokens of the file.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.file.tokens()
    }

    /// Windows to train on, and to measure.
    pub fn windows(&self) -> [u64; 2] {
        self.windows
    }

    /// The numbers of the next `rows` windows to train on; the cursor moves behind them.
    #[must_use]
    pub fn next_windows(&self, cursor: &mut Cursor, rows: usize) -> Vec<u64> {
        let [windows, _] = self.windows;
        let mut numbers = Vec::with_capacity(rows);
        for _ in 0..rows {
            if cursor.index >= windows {
                *cursor = Cursor {
                    epoch: cursor.epoch + 1,
                    index: 0,
                };
            }
            numbers.push(permuted(
                cursor.index,
                windows,
                [self.options.seed, cursor.epoch],
            ));
            cursor.index += 1;
        }
        numbers
    }

    /// The numbers of windows `first..first + rows` of those to measure, as far as there are any.
    #[must_use]
    pub fn eval_windows(&self, first: u64, rows: usize) -> Vec<u64> {
        let [train, eval] = self.windows;
        let last = first.saturating_add(rows as u64).min(eval);
        (train + first.min(last)..train + last).collect()
    }

    /// The next `rows` windows to train on; the cursor moves behind them.
    ///
    /// # Errors
    /// What the file says.
    pub fn next(&self, cursor: &mut Cursor, rows: usize) -> Result<TrainingBatch, Error> {
        let windows = self.next_windows(cursor, rows);
        self.batch(&windows)
    }

    /// Windows `first..first + rows` of those to measure, as far as there are any; `None` behind
    /// the last.
    ///
    /// # Errors
    /// What the file says.
    pub fn eval(&self, first: u64, rows: usize) -> Result<Option<TrainingBatch>, Error> {
        let windows = self.eval_windows(first, rows);
        if windows.is_empty() {
            return Ok(None);
        }
        self.batch(&windows).map(Some)
    }

    /// The bytes of the file that the ids of a window are.
    #[must_use]
    pub fn bytes_of(&self, window: u64) -> Range<u64> {
        self.file.bytes_of(self.tokens_of(window))
    }

    /// Labels that count in windows.
    ///
    /// # Errors
    /// What the file says of its documents.
    pub fn counted(&self, windows: &[u64]) -> Result<usize, Error> {
        let ids = vec![0; windows.len() * self.options.context];
        Ok(self.batch_of(windows, &ids)?.counted())
    }

    /// The batch of windows whose ids were read elsewhere: `bytes`, those of
    /// [`TrainingData::bytes_of`] one behind the other.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) naming `ids` for another number of them;
    /// what the file says of its documents.
    pub fn batch_of_bytes(&self, windows: &[u64], bytes: &[u8]) -> Result<TrainingBatch, Error> {
        let ids = self.file.decode(bytes)?;
        check_len("ids", &[windows.len(), self.options.context], ids.len())?;
        self.batch_of(windows, &ids)
    }

    fn tokens_of(&self, window: u64) -> Range<u64> {
        let first = window * self.options.context as u64;
        first..first + self.options.context as u64
    }

    pub(crate) fn batch(&self, windows: &[u64]) -> Result<TrainingBatch, Error> {
        let mut ids = Vec::new();
        for &window in windows {
            ids.extend(self.file.ids(self.tokens_of(window))?);
        }
        self.batch_of(windows, &ids)
    }

    fn batch_of(&self, windows: &[u64], ids: &[u32]) -> Result<TrainingBatch, Error> {
        let context = self.options.context;
        if self.options.documents == Documents::Join {
            return TrainingBatch::new(ids, context, None, None);
        }
        let mut documents = Vec::new();
        for &window in windows {
            let tokens = self.tokens_of(window);
            let number = self.file.document_of(tokens.start)?;
            let last = self.file.documents().min(number + 1 + context as u64);
            let mut starts = self.file.starts(number + 1..last)?.into_iter().peekable();
            let mut document = number;
            for token in tokens {
                if starts.next_if(|&start| start <= token).is_some() {
                    document += 1;
                }
                documents.push(document as i64);
            }
        }
        TrainingBatch::new(ids, context, Some(&documents), None)
    }
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
