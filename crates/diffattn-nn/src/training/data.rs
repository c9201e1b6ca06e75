//! Which tokens each step reads: windows of a file of tokens. Knows no model but by its name.

use super::batch::TrainingBatch;
use super::dataset::{Cursor, Dataset, next_places};
use crate::models::diff_llama::DiffLlama;
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

/// Windows of a file of tokens.
#[derive(Debug)]
pub struct TrainingData<S> {
    file: TokenFile<S>,
    options: DataOptions,
    /// Windows to train on, and to measure.
    windows: [u64; 2],
}

impl<S: ByteSource + Send + Sync> TrainingData<S> {
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

    /// The next `rows` windows to train on; the cursor moves behind them.
    ///
    /// # Errors
    /// What the file says.
    pub fn next(&self, cursor: &mut Cursor, rows: usize) -> Result<TrainingBatch, Error> {
        let windows = self.next_windows(cursor, rows);
        self.batch(&windows)
    }

    fn tokens_of(&self, window: u64) -> Range<u64> {
        let first = window * self.options.context as u64;
        first..first + self.options.context as u64
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

impl<S: ByteSource + Send + Sync> Dataset for TrainingData<S> {
    type Model = DiffLlama;

    fn check(&self, _: &DiffLlama) -> Result<(), Error> {
        // Ids are read as they are needed, and checked then.
        Ok(())
    }

    fn row_tokens(&self, _: &DiffLlama) -> usize {
        self.options.context
    }

    fn windows(&self) -> [u64; 2] {
        self.windows
    }

    fn next_windows(&self, cursor: &mut Cursor, rows: usize) -> Vec<u64> {
        next_places(cursor, rows, self.windows[0], self.options.seed)
    }

    fn eval_windows(&self, first: u64, rows: usize) -> Vec<u64> {
        let [train, eval] = self.windows;
        let last = first.saturating_add(rows as u64).min(eval);
        (train + first.min(last)..train + last).collect()
    }

    fn counted(&self, windows: &[u64]) -> Result<usize, Error> {
        let ids = vec![0; windows.len() * self.options.context];
        Ok(self.batch_of(windows, &ids)?.counted())
    }

    fn bytes_of(&self, window: u64) -> Range<u64> {
        self.file.bytes_of(self.tokens_of(window))
    }

    fn batch(&self, windows: &[u64]) -> Result<TrainingBatch, Error> {
        let mut ids = Vec::new();
        for &window in windows {
            ids.extend(self.file.ids(self.tokens_of(window))?);
        }
        self.batch_of(windows, &ids)
    }

    fn batch_of_bytes(&self, windows: &[u64], bytes: &[u8]) -> Result<TrainingBatch, Error> {
        let ids = self.file.decode(bytes)?;
        check_len("ids", &[windows.len(), self.options.context], ids.len())?;
        self.batch_of(windows, &ids)
    }
}
