//! Resampling by separable filters that widen when an image shrinks ("antialiased"), as Pillow and
//! PyTorch have it: one set of taps for 8-bit images, in Pillow's fixed point, and for grids of
//! vectors, in float64.

use diffattn::{Error, checked_len, try_zeroed};
use std::ops::Range;

/// How pixels between pixels are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Interpolation {
    /// A triangle, one pixel to each side.
    Bilinear,
    /// The cubic convolution of Keys (1981) with a = −½, two pixels to each side.
    #[default]
    Bicubic,
}

impl Interpolation {
    /// timm's name for it, if it is one.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "bilinear" => Some(Self::Bilinear),
            "bicubic" => Some(Self::Bicubic),
            _ => None,
        }
    }

    /// timm's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bilinear => "bilinear",
            Self::Bicubic => "bicubic",
        }
    }

    /// Beyond it the filter is zero.
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let x = x.abs();
        match self {
            Self::Bilinear => (1.0 - x).max(0.0),
            Self::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            Self::Bicubic => 0.0,
        }
    }
}

/// What one pixel of the result is made of.
struct Tap {
    /// The first pixel that counts.
    first: usize,
    /// One for each from there on; they add up to 1.
    weights: Vec<f64>,
}

/// The taps of the pixels `wanted` when `from` pixels become `to`, none of them 0.
fn taps(filter: Interpolation, from: usize, to: usize, wanted: Range<usize>) -> Vec<Tap> {
    let scale = from as f64 / to as f64;
    let widened = scale.max(1.0);
    let support = filter.support() * widened;
    wanted
        .map(|index| {
            let centre = (index as f64 + 0.5) * scale;
            // (A cast to an unsigned number stops at 0.)
            let first = (centre - support + 0.5) as usize;
            let end = ((centre + support + 0.5) as usize).min(from);
            let mut weights: Vec<f64> = (first..end)
                .map(|pixel| filter.at((pixel as f64 - centre + 0.5) * (1.0 / widened)))
                .collect();
            let sum: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|weight| *weight /= sum);
            Tap { first, weights }
        })
        .collect()
}

/// Bits behind the point of a weight in fixed point: with 8 of the pixel and two spare, a sum fits
/// 32.
const PRECISION: u32 = 32 - 8 - 2;

/// The weights in fixed point, half away from zero.
fn fixed(tap: &Tap) -> Vec<i32> {
    let scale = f64::from(1u32 << PRECISION);
    let round = |weight: f64| (weight * scale + 0.5f64.copysign(weight)) as i32;
    tap.weights.iter().map(|&weight| round(weight)).collect()
}

/// A part of an image that has been resized to `[rows, columns]`.
#[derive(Debug, Clone)]
pub(crate) struct Resized {
    pub(crate) size: [usize; 2],
    pub(crate) rows: Range<usize>,
    pub(crate) columns: Range<usize>,
}

/// Resizes `[rows, columns, channels]` 8-bit pixels as Pillow does, columns first, each pass
/// rounded to 8 bits. Gives the `C` first channels of `part` alone, `[rows, columns, C]`; sizes are
/// not 0.
pub(crate) fn resize_8_bit<const C: usize>(
    pixels: &[u8],
    [rows, columns, channels]: [usize; 3],
    part: &Resized,
    filter: Interpolation,
) -> Result<Vec<u8>, Error> {
    const HALF: i32 = 1 << (PRECISION - 1);
    let narrow = |sum: i32| (sum >> PRECISION).clamp(0, 255) as u8;
    let [to_rows, to_columns] = part.size;
    let across: Vec<(usize, Vec<i32>)> = taps(filter, columns, to_columns, part.columns.clone())
        .iter()
        .map(|tap| (tap.first * channels, fixed(tap)))
        .collect();
    let down = taps(filter, rows, to_rows, part.rows.clone());
    let needed = down.first().map_or(0, |tap| tap.first)
        ..down.last().map_or(0, |tap| tap.first + tap.weights.len());
    let width = across.len() * C;
    let mut half = try_zeroed::<u8>(checked_len("image", &[needed.len(), width])?)?;
    let lines = pixels.chunks_exact(columns * channels).skip(needed.start);
    for (line, half) in lines.zip(half.chunks_exact_mut(width)) {
        for ((first, weights), to) in across.iter().zip(half.chunks_exact_mut(C)) {
            let mut sums = [HALF; C];
            for (pixel, weight) in line[*first..].chunks_exact(channels).zip(weights) {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(value) * weight;
                }
            }
            to.copy_from_slice(&sums.map(narrow));
        }
    }
    let mut whole = try_zeroed::<u8>(checked_len("image", &[part.rows.len(), width])?)?;
    let mut sums = try_zeroed::<i32>(width)?;
    for (tap, to) in down.iter().zip(whole.chunks_exact_mut(width)) {
        sums.fill(HALF);
        let lines = half.chunks_exact(width).skip(tap.first - needed.start);
        for (line, weight) in lines.zip(fixed(tap)) {
            for (sum, &value) in sums.iter_mut().zip(line) {
                *sum += i32::from(value) * weight;
            }
        }
        for (to, &sum) in to.iter_mut().zip(&sums) {
            *to = narrow(sum);
        }
    }
    Ok(whole)
}

/// Resamples a grid of vectors, `from` rows and columns of them `width` wide, to `to` rows and
/// columns, bicubic, as `torch.nn.functional.interpolate(mode="bicubic", antialias=True)` does; in
/// float64, rounded once. `argument`: what is at fault where that is too much.
pub(crate) fn resample_grid(
    argument: &str,
    grid: &[f32],
    from: [usize; 2],
    to: [usize; 2],
    width: usize,
) -> Result<Vec<f32>, Error> {
    let ([from_rows, from_columns], [to_rows, to_columns]) = (from, to);
    let across = taps(
        Interpolation::Bicubic,
        from_columns,
        to_columns,
        0..to_columns,
    );
    let down = taps(Interpolation::Bicubic, from_rows, to_rows, 0..to_rows);
    let mut half = try_zeroed::<f64>(checked_len(argument, &[from_rows, to_columns, width])?)?;
    let lines = grid.chunks_exact(from_columns * width);
    for (line, half) in lines.zip(half.chunks_exact_mut(to_columns * width)) {
        for (tap, to) in across.iter().zip(half.chunks_exact_mut(width)) {
            let vectors = line[tap.first * width..].chunks_exact(width);
            for (vector, weight) in vectors.zip(&tap.weights) {
                for (to, &value) in to.iter_mut().zip(vector) {
                    *to += f64::from(value) * weight;
                }
            }
        }
    }
    let mut whole = try_zeroed::<f32>(checked_len(argument, &[to_rows, to_columns, width])?)?;
    let mut sums = try_zeroed::<f64>(to_columns * width)?;
    for (tap, to_line) in down.iter().zip(whole.chunks_exact_mut(to_columns * width)) {
        sums.fill(0.0);
        let lines = half.chunks_exact(to_columns * width).skip(tap.first);
        for (line, weight) in lines.zip(&tap.weights) {
            for (sum, value) in sums.iter_mut().zip(line) {
                *sum += value * weight;
            }
        }
        for (to, &sum) in to_line.iter_mut().zip(&sums) {
            *to = sum as f32;
        }
    }
    Ok(whole)
}
