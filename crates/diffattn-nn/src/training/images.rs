//! Which images each step sees: a file of pixels, a label each, and which of them are not trained
//! on but measured. Decodes no picture.

use super::dataset::{Cursor, Dataset, next_places};
use crate::models::diff_vit::DiffViT;
use diffattn::{Error, check_len, checked_len, format_shape};
use diffattn_files::ByteSource;
use std::ops::Range;

/// Bytes of a value of a file of pixels.
const BYTES: usize = 4;

/// Images of one micro-batch, and the class of each.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ImageBatch {
    /// `[images, C, S, S]`.
    pub(crate) pixels: Vec<f32>,
    /// C and S.
    pub(crate) sizes: [usize; 2],
    /// `[images]`.
    pub(crate) labels: Vec<i32>,
}

impl ImageBatch {
    /// Of `pixels` `[images, C, S, S]`, normalised as the model takes them, and a class of each.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) naming `images` or `labels` for lengths
    /// that do not fit.
    pub fn new(pixels: &[f32], shape: [usize; 4], labels: &[i32]) -> Result<Self, Error> {
        let [count, sizes @ ..] = checked(shape)?;
        check_len("images", &shape, pixels.len())?;
        check_len("labels", &[count], labels.len())?;
        Ok(Self {
            pixels: pixels.to_vec(),
            sizes,
            labels: labels.to_vec(),
        })
    }

    /// How many there are.
    #[must_use]
    pub fn images(&self) -> usize {
        self.labels.len()
    }

    /// Whether they are such as a model takes, and their labels its classes.
    pub(crate) fn check(&self, model: &DiffViT) -> Result<(), Error> {
        check_sizes(self.sizes, model)?;
        check_labels(&self.labels, model)
    }
}

/// How many images there are of a shape `[images, C, S, S]`, C and S.
fn checked(shape: [usize; 4]) -> Result<[usize; 3], Error> {
    let [count, channels, rows, columns] = shape;
    if rows != columns || shape.contains(&0) {
        let expected = "[images, C, S, S], none of them 0";
        return Err(Error::shape("images", expected, format_shape(&shape)));
    }
    Ok([count, channels, rows])
}

/// Whether images `[C, S, S]` are those of a model.
fn check_sizes([channels, side]: [usize; 2], model: &DiffViT) -> Result<(), Error> {
    let (in_chans, size) = (model.in_chans(), model.img_size());
    if [channels, side] == [in_chans, size] {
        return Ok(());
    }
    Err(Error::shape(
        "images",
        format_args!("[images, {in_chans}, {size}, {size}], as the model takes them"),
        format_shape(&[channels, side, side]),
    ))
}

/// Whether labels are classes of a model.
fn check_labels(labels: &[i32], model: &DiffViT) -> Result<(), Error> {
    let classes = model.num_classes();
    let is_class = |label: &i32| usize::try_from(*label).is_ok_and(|label| label < classes);
    match labels.iter().find(|label| !is_class(label)) {
        None => Ok(()),
        Some(label) => Err(Error::option(
            "labels",
            format_args!("classes from 0 to below {classes}"),
            label,
        )),
    }
}

/// Which images are not trained on but measured.
#[derive(Debug, Clone, PartialEq)]
pub enum HeldOut {
    /// That share of them, the last ones.
    Share(f64),
    /// Those of these numbers, in this order.
    List(Vec<u64>),
}

/// Options of [`ImageData`].
#[derive(Debug, Clone, PartialEq)]
pub struct ImageOptions {
    /// What is measured. The last fifth by default.
    pub eval: HeldOut,
    /// Of the order.
    pub seed: u64,
}

impl Default for ImageOptions {
    fn default() -> Self {
        Self {
            eval: HeldOut::Share(0.2),
            seed: 0,
        }
    }
}

/// Images of a file of pixels, float32, little-endian, one image behind the other, each `[C, S,
/// S]`.
#[derive(Debug)]
pub struct ImageData<S> {
    file: S,
    /// C and S.
    sizes: [usize; 2],
    /// Values of an image.
    image_len: usize,
    labels: Vec<i32>,
    /// The numbers of those to train on, and to measure.
    numbers: [Vec<u64>; 2],
    seed: u64,
}

impl<S: ByteSource + Send + Sync> ImageData<S> {
    /// Images `[images, C, S, S]` of `file`, and a class of each.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) naming `images` or `labels` for lengths
    /// that do not fit; [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `eval`, or
    /// `images` where none is left to train on.
    pub fn new(
        file: S,
        shape: [usize; 4],
        labels: Vec<i32>,
        options: &ImageOptions,
    ) -> Result<Self, Error> {
        let [count, channels, side] = checked(shape)?;
        let bytes = checked_len("images", &[count, channels, side, side, BYTES])?;
        if file.byte_len() != bytes as u64 {
            return Err(Error::shape(
                "images",
                format_args!("{bytes} bytes, float32 of {}", format_shape(&shape)),
                format_args!("{} bytes", file.byte_len()),
            ));
        }
        check_len("labels", &[count], labels.len())?;
        let numbers = split(count as u64, &options.eval)?;
        Ok(Self {
            file,
            sizes: [channels, side],
            image_len: channels * side * side,
            labels,
            numbers,
            seed: options.seed,
        })
    }

    /// The labels of some images, and whether there are such.
    fn labels_of(&self, numbers: &[u64]) -> Result<Vec<i32>, Error> {
        let label = |&number: &u64| {
            let index = usize::try_from(number).ok();
            let label = index.and_then(|index| self.labels.get(index));
            let none = || Error::option("images", "numbers of images", number);
            label.copied().ok_or_else(none)
        };
        numbers.iter().map(label).collect()
    }
}

/// The numbers of the images to train on, and to measure.
fn split(count: u64, eval: &HeldOut) -> Result<[Vec<u64>; 2], Error> {
    let measured: Vec<u64> = match eval {
        &HeldOut::Share(share) => {
            if !(0.0..1.0).contains(&share) {
                return Err(Error::option("eval", "a share from 0 to below 1", share));
            }
            let of = (count as f64 * share) as u64;
            (count - of..count).collect()
        }
        HeldOut::List(numbers) => numbers.clone(),
    };
    let mut is_measured = vec![false; usize::try_from(count).unwrap_or(0)];
    for &number in &measured {
        let place = usize::try_from(number).ok();
        let place = place.and_then(|place| is_measured.get_mut(place));
        match place {
            Some(place) if !*place => *place = true,
            _ => {
                let expected = format_args!("numbers of images below {count}, none twice");
                return Err(Error::option("eval", expected, number));
            }
        }
    }
    let trained = (0..count).zip(&is_measured).filter(|(_, is)| !**is);
    let trained: Vec<u64> = trained.map(|(number, _)| number).collect();
    if trained.is_empty() {
        let got = format_args!("{count}, all of them measured");
        return Err(Error::option("images", "one or more to train on", got));
    }
    Ok([trained, measured])
}

impl<S: ByteSource + Send + Sync> Dataset for ImageData<S> {
    type Model = DiffViT;

    fn check(&self, model: &DiffViT) -> Result<(), Error> {
        check_sizes(self.sizes, model)?;
        check_labels(&self.labels, model)
    }

    fn row_tokens(&self, model: &DiffViT) -> usize {
        model.tokens()
    }

    fn windows(&self) -> [u64; 2] {
        [0, 1].map(|part: usize| self.numbers[part].len() as u64)
    }

    fn next_windows(&self, cursor: &mut Cursor, rows: usize) -> Vec<u64> {
        let trained = &self.numbers[0];
        let places = next_places(cursor, rows, trained.len() as u64, self.seed);
        let number = |place: u64| usize::try_from(place).ok().and_then(|at| trained.get(at));
        places.into_iter().filter_map(number).copied().collect()
    }

    fn eval_windows(&self, first: u64, rows: usize) -> Vec<u64> {
        let measured = self.numbers[1].iter().copied();
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        measured.skip(first).take(rows).collect()
    }

    fn counted(&self, windows: &[u64]) -> Result<usize, Error> {
        Ok(windows.len())
    }

    fn bytes_of(&self, window: u64) -> Range<u64> {
        let len = (self.image_len * BYTES) as u64;
        window * len..(window + 1) * len
    }

    fn batch(&self, windows: &[u64]) -> Result<ImageBatch, Error> {
        let mut bytes = Vec::new();
        for &window in windows {
            bytes.extend_from_slice(&self.file.read("images", self.bytes_of(window))?);
        }
        self.batch_of_bytes(windows, &bytes)
    }

    fn batch_of_bytes(&self, windows: &[u64], bytes: &[u8]) -> Result<ImageBatch, Error> {
        let labels = self.labels_of(windows)?;
        let expected = [windows.len(), self.image_len, BYTES];
        check_len("images", &expected, bytes.len())?;
        let (values, _) = bytes.as_chunks::<BYTES>();
        Ok(ImageBatch {
            pixels: values.iter().copied().map(f32::from_le_bytes).collect(),
            sizes: self.sizes,
            labels,
        })
    }
}
