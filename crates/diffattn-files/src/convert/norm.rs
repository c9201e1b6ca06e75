//! What becomes of the weight of the norm per head. Rounds each product once.

use super::target::NormWeight;
use crate::attention::NORM;
use crate::dtype::Dtype;
use crate::elements::write;
use crate::layout::HeadLayout;
use crate::raw_weights::RawWeights;
use crate::tensor::RawTensor;
use diffattn::{Error, format_shape};
use half::{bf16, f16};
use std::borrow::Cow;

pub(super) fn apply_norm(
    weights: &mut RawWeights<'static>,
    output: &str,
    heads: &HeadLayout,
    norm: NormWeight,
    notes: &mut Vec<String>,
) -> Result<(), Error> {
    match norm {
        NormWeight::Keep => {}
        NormWeight::Fold => {
            if let Some(weight) = weights.remove(NORM) {
                let name = format!("{output}.weight");
                if let Some(projection) = weights.get_mut(&name) {
                    *projection = fold_norm(&format!("weights.{name}"), projection, &weight)?;
                    notes.push(format!("{NORM} is part of {name} now, rounded once"));
                }
            }
        }
        NormWeight::Provide => {
            if !weights.contains_key(NORM) {
                let ones = write(&vec![1.0f32; heads.head_width], f32::to_le_bytes)?;
                let ones = RawTensor::new(NORM, Dtype::F32, &[heads.head_width], ones)?;
                let dtype = weights
                    .get(&format!("{output}.weight"))
                    .map_or(Dtype::F32, RawTensor::dtype);
                let ones = ones.cast(NORM, dtype)?.tensor.into_owned()?;
                weights.insert(NORM.to_owned(), ones);
            }
        }
    }
    Ok(())
}

/// The output projection `[E, H · width]` with the norm's weight `[width]` multiplied into its
/// columns, in the projection's own element type. The product of two floats of 24 bits or less is
/// exact in float64; it is rounded once, to nearest, ties to even.
///
/// # Errors
/// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) or
/// [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype) naming `argument` or `subln.weight`;
/// [`Error::out_of_memory`].
pub fn fold_norm(
    argument: &str,
    projection: &RawTensor<'_>,
    norm: &RawTensor<'_>,
) -> Result<RawTensor<'static>, Error> {
    for (argument, tensor) in [(argument, projection), ("weights.subln.weight", norm)] {
        if ![Dtype::F32, Dtype::F16, Dtype::BF16].contains(&tensor.dtype()) {
            return Err(Error::dtype(argument, "F32, F16 or BF16", tensor.dtype()));
        }
    }
    let gain = norm.to_f32("weights.subln.weight")?;
    match (projection.shape(), norm.shape()) {
        (&[_, columns], &[width]) if width > 0 && columns.is_multiple_of(width) => {}
        (shape, norm) => {
            return Err(Error::shape(
                argument,
                format_args!("two axes, the second of them heads of subln.weight {norm:?}"),
                format_shape(shape),
            ));
        }
    }
    let mut values = projection.to_f32(argument)?;
    let scaled = |value: f32, gain: f32| f64::from(value) * f64::from(gain);
    let gains = gain.iter().cycle();
    let bytes = match projection.dtype() {
        Dtype::F32 => {
            for (value, &gain) in values.iter_mut().zip(gains) {
                *value = scaled(*value, gain) as f32;
            }
            write(&values, f32::to_le_bytes)?
        }
        narrow => {
            for (value, &gain) in values.iter_mut().zip(gains) {
                *value = to_odd(scaled(*value, gain));
            }
            match narrow {
                Dtype::F16 => write(&values, |x| f16::from_f32(x).to_le_bytes())?,
                _ => write(&values, |x| bf16::from_f32(x).to_le_bytes())?,
            }
        }
    };
    RawTensor::new(
        argument,
        projection.dtype(),
        projection.shape(),
        Cow::Owned(bytes),
    )
}

/// Rounds to odd: what rounds the result again, to at most 22 bits, gets what it would have got of
/// `x` itself.
fn to_odd(x: f64) -> f32 {
    let near = x as f32;
    if f64::from(near) == x || x.is_nan() {
        return near;
    }
    // One step towards zero where the rounding went away from it; the bits of a float count up with
    // its magnitude.
    let away = f64::from(near).abs() > x.abs();
    f32::from_bits((near.to_bits() - u32::from(away)) | 1)
}
