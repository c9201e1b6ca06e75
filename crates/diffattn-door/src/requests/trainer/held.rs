//! A trainer as an object, of texts or of images, and what of its data's file lies in memory.
//! Computes nothing.

use std::borrow::Cow;
use std::ops::Range;

use diffattn::Error;
use diffattn_nn::checkpoint::ByteSource;
use diffattn_nn::training::{ImageData, Trainer, TrainingData};

use crate::objects::Held;

/// What of a file of data stays in memory: its beginning and its end, of tokens the header and the
/// starts of documents. The rest comes with each step.
#[derive(Debug)]
pub(crate) struct FileParts {
    first: Vec<u8>,
    last: Vec<u8>,
    /// Where the last bytes lie in the file.
    range: Range<u64>,
}

impl FileParts {
    /// Of a file of `length` bytes.
    pub(super) fn new(first: Vec<u8>, last: Vec<u8>, length: u64) -> Self {
        let start = length.saturating_sub(last.len() as u64);
        Self {
            first,
            last,
            range: start..length,
        }
    }
}

impl ByteSource for FileParts {
    fn byte_len(&self) -> u64 {
        self.range.end
    }

    fn read(&self, argument: &str, range: Range<u64>) -> Result<Cow<'_, [u8]>, Error> {
        let (from, base) = if range.start < self.range.start {
            (&self.first, 0)
        } else {
            (&self.last, self.range.start)
        };
        let index = |at: u64| usize::try_from(at.checked_sub(base)?).ok();
        let found = index(range.start).zip(index(range.end));
        let bytes = found.and_then(|(start, end)| from.get(start..end));
        let missing = || {
            let (start, end) = (range.start, range.end);
            Error::file(
                argument,
                format_args!("bytes {start} to {end}"),
                "a file without them",
            )
        };
        bytes.map(Cow::Borrowed).ok_or_else(missing)
    }
}

/// A trainer, of what it reads.
#[derive(Debug)]
pub(crate) enum Training {
    Text(Box<Trainer<TrainingData<FileParts>>>),
    Images(Box<Trainer<ImageData<FileParts>>>),
}

/// What is done with a trainer, whatever it reads.
macro_rules! on_trainer {
    ($training:expr, $trainer:ident => $body:expr) => {
        match $training {
            $crate::requests::trainer::held::Training::Text($trainer) => $body,
            $crate::requests::trainer::held::Training::Images($trainer) => $body,
        }
    };
}
pub(crate) use on_trainer;

/// A trainer as an object; empty until it is given a model and data.
#[derive(Debug, Default)]
pub(crate) struct HeldTrainer(Option<Training>);

impl Held for HeldTrainer {
    const NAME: &'static str = "a trainer";
    const ARGUMENT: &'static str = "trainer";
}

/// That a trainer was not given a model yet: a call that was made before its start ended.
fn empty() -> Error {
    Error::option("trainer", "one that was started", "one that was not")
}

impl HeldTrainer {
    pub(super) fn get(&self) -> Result<&Training, Error> {
        self.0.as_ref().ok_or_else(empty)
    }

    pub(super) fn get_mut(&mut self) -> Result<&mut Training, Error> {
        self.0.as_mut().ok_or_else(empty)
    }

    pub(super) fn set(&mut self, training: Training) {
        self.0 = Some(training);
    }
}
