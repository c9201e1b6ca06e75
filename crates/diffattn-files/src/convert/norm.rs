//! What becomes of the weight of the norm per head. Rounds each product once.

use super::rounded::map_rows;
use super::target::NormWeight;
use crate::attention::NORM;
use crate::dtype::Dtype;
use crate::elements::write;
use crate::layout::HeadLayout;
use crate::raw_weights::RawWeights;
use crate::tensor::RawTensor;
use diffattn::{Error, format_shape};

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
    let columns = match (projection.shape(), norm.shape()) {
        (&[_, columns], &[width]) if width > 0 && columns.is_multiple_of(width) => columns,
        (shape, norm) => {
            return Err(Error::shape(
                argument,
                format_args!("two axes, the second of them heads of subln.weight {norm:?}"),
                format_shape(shape),
            ));
        }
    };
    map_rows(argument, projection, columns, |row, made| {
        for ((made, value), &gain) in made.iter_mut().zip(row).zip(gain.iter().cycle()) {
            *made = value * f64::from(gain);
        }
    })
}
