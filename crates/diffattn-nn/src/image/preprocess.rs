//! From an 8-bit image of any size to the pixels that a model takes: resize, crop, normalise, as
//! timm's evaluation does it with Pillow and torchvision. Decodes no file format.

use super::resample::{Interpolation, Resized, resize_8_bit};
use diffattn::{Error, check_len, checked_len, try_zeroed};

/// What an image goes through on its way to a model: its shorter side becomes ⌊S / `crop_pct`⌋, its
/// middle S × S are taken, and each colour c becomes `(c / 255 − mean) / std`. S is the size of the
/// model's images.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preprocessing {
    /// Which share of the shorter side is left, above 0, 1 at most. 0.95 by default.
    pub crop_pct: f64,
    /// How the image is resized; bicubic by default.
    pub interpolation: Interpolation,
    /// What is taken from red, green and blue, which go from 0 to 1. 0.5 by default. From
    /// luminance, the first.
    pub mean: [f32; 3],
    /// What they are divided by then. 0.5 by default.
    pub std: [f32; 3],
}

impl Default for Preprocessing {
    fn default() -> Self {
        Self {
            crop_pct: 0.95,
            interpolation: Interpolation::Bicubic,
            mean: [0.5; 3],
            std: [0.5; 3],
        }
    }
}

/// Weights of red, green and blue in luminance, of 2¹⁶ in all: Pillow's. (Opacity, which comes
/// fourth, has none.)
const LUMINANCE: [u32; 3] = [19_595, 38_470, 7_471];

/// An 8-bit image.
#[derive(Debug, Clone, Copy)]
pub struct Image<'a> {
    /// `[height, width, 3]` (RGB) or `[height, width, 4]` (RGBA; the opacity is ignored).
    pub data: &'a [u8],
    /// Columns, 1 or more.
    pub width: usize,
    /// Rows, 1 or more.
    pub height: usize,
}

impl Preprocessing {
    /// Whether the numbers make sense.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let Self {
            crop_pct,
            mean,
            std,
            ..
        } = self;
        if !(*crop_pct > 0.0 && *crop_pct <= 1.0) {
            return Err(Error::option(
                "config.preprocessing.crop_pct",
                "a number above 0, 1 at most",
                crop_pct,
            ));
        }
        if !mean.iter().all(|x| x.is_finite()) {
            return Err(Error::option(
                "config.preprocessing.mean",
                "three numbers",
                format_args!("{mean:?}"),
            ));
        }
        if !std.iter().all(|&x| x > 0.0 && x.is_finite()) {
            return Err(Error::option(
                "config.preprocessing.std",
                "three positive numbers",
                format_args!("{std:?}"),
            ));
        }
        Ok(())
    }

    /// Writes the pixels of an image, `[3, S, S]`, into `out`. Resizing is Pillow's (`Image.resize`
    /// with antialiasing, 22 bits of weights, each of its two passes rounded to 8 bits) and gives
    /// the same bytes, on every machine; the rest is float32 as torchvision has it.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) naming `image` or `out`;
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) for a share or a spread that makes no
    /// sense; [`Error::out_of_memory`].
    pub fn apply(&self, image: &Image<'_>, size: usize, out: &mut [f32]) -> Result<(), Error> {
        let (part, channels) = self.checked(image, size, 3, out)?;
        let shape = [image.height, image.width, channels];
        let bytes = resize_8_bit::<3>(image.data, shape, &part, self.interpolation)?;
        self.normalise::<3>(&bytes, out);
        Ok(())
    }

    /// As [`Preprocessing::apply`] for a model of one channel: writes `[1, S, S]` of the image's
    /// luminance, L = (299 R + 587 G + 114 B) / 1000 (ITU-R 601-2), which is taken of each pixel
    /// before resizing, in Pillow's 16 bits of weights (`convert("L")`) and to its bytes. The first
    /// mean and spread count.
    ///
    /// # Errors
    /// As [`Preprocessing::apply`].
    pub fn apply_luminance(
        &self,
        image: &Image<'_>,
        size: usize,
        out: &mut [f32],
    ) -> Result<(), Error> {
        let (part, channels) = self.checked(image, size, 1, out)?;
        let mut grey = try_zeroed::<u8>(image.data.len() / channels)?;
        for (grey, pixel) in grey.iter_mut().zip(image.data.chunks_exact(channels)) {
            let weighed = pixel.iter().zip(LUMINANCE);
            let sum: u32 = weighed
                .map(|(&value, weight)| u32::from(value) * weight)
                .sum();
            *grey = ((sum + (1 << 15)) >> 16) as u8;
        }
        let shape = [image.height, image.width, 1];
        let bytes = resize_8_bit::<1>(&grey, shape, &part, self.interpolation)?;
        self.normalise::<1>(&bytes, out);
        Ok(())
    }

    /// Checks everything; gives to what the image is resized, and its channels. `out` has `planes`
    /// squares.
    fn checked(
        &self,
        image: &Image<'_>,
        size: usize,
        planes: usize,
        out: &[f32],
    ) -> Result<(Resized, usize), Error> {
        self.check()?;
        if size == 0 {
            return Err(Error::shape("size", "1 or more", size));
        }
        check_len("out", &[planes, size, size], out.len())?;
        let &Image {
            data,
            width,
            height,
        } = image;
        if width == 0 || height == 0 {
            return Err(Error::shape(
                "image",
                "1 row and 1 column or more",
                format_args!("{height} rows and {width} columns"),
            ));
        }
        let pixels = checked_len("image", &[height, width, 4])? / 4;
        let channels = match data.len().checked_div(pixels) {
            Some(channels @ (3 | 4)) if data.len() == channels * pixels => channels,
            _ => {
                return Err(Error::shape(
                    "image",
                    format_args!(
                        "{} (RGB) or {} (RGBA) bytes for {height} rows and {width} columns",
                        3 * pixels,
                        4 * pixels
                    ),
                    data.len(),
                ));
            }
        };
        Ok((self.part(size, [height, width])?, channels))
    }

    /// Writes pixels of `C` channels each, a plane of `out` after the other; there is a byte for
    /// each value.
    fn normalise<const C: usize>(&self, bytes: &[u8], out: &mut [f32]) {
        let mut table = [0.0f32; 256];
        for ((out, (mean, std)), colour) in out
            .chunks_exact_mut(bytes.len() / C)
            .zip(self.mean.iter().zip(&self.std))
            .zip(0..)
        {
            for (value, to) in (0u8..=255).zip(&mut table) {
                *to = (f32::from(value) / 255.0 - mean) / std;
            }
            for (to, pixel) in out.iter_mut().zip(bytes.chunks_exact(C)) {
                *to = table[usize::from(pixel[colour])];
            }
        }
    }

    /// As [`Preprocessing::apply`], into memory of its own.
    ///
    /// # Errors
    /// As [`Preprocessing::apply`].
    pub fn pixels(&self, image: &Image<'_>, size: usize) -> Result<Vec<f32>, Error> {
        let mut out = try_zeroed(checked_len("size", &[3, size, size])?)?;
        self.apply(image, size, &mut out)?;
        Ok(out)
    }

    /// As [`Preprocessing::apply_luminance`], into memory of its own.
    ///
    /// # Errors
    /// As [`Preprocessing::apply`].
    pub fn luminance(&self, image: &Image<'_>, size: usize) -> Result<Vec<f32>, Error> {
        let mut out = try_zeroed(checked_len("size", &[size, size])?)?;
        self.apply_luminance(image, size, &mut out)?;
        Ok(out)
    }

    /// To what an image is resized, and which part of that is its middle.
    fn part(&self, size: usize, [height, width]: [usize; 2]) -> Result<Resized, Error> {
        let shorter = (size as f64 / self.crop_pct) as usize;
        // The longer side keeps the ratio, rounded down.
        let longer = |long: usize, short: usize| -> Result<usize, Error> {
            let long = shorter as u128 * long as u128 / short as u128;
            usize::try_from(long).map_err(|_| {
                Error::shape(
                    "image",
                    "sides whose ratio fits this machine",
                    format_args!("{height} rows and {width} columns"),
                )
            })
        };
        let resized = if width <= height {
            [longer(height, width)?, shorter]
        } else {
            [shorter, longer(width, height)?]
        };
        let middle = |side: usize| {
            let rest = side - size;
            // Half of it, ties to even.
            let first = rest / 2 + usize::from(rest % 4 == 3);
            first..first + size
        };
        Ok(Resized {
            size: resized,
            rows: middle(resized[0]),
            columns: middle(resized[1]),
        })
    }
}
