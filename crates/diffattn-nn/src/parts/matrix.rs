//! A weight of two axes, floats or codes, as what it is asked for: for the maps and tables of
//! models, and for whoever writes checkpoints. Packs nothing for a kernel.

use super::WeightFormat;
use super::source::{Weight, WeightData};
use diffattn::{Error, Quantisation, Quantiser, Tensor};
use diffattn_files::{AffineRows, CodedTensor, Dtype, MlxPacking, MlxWeight};
use std::ops::Range;

/// A weight as it is to be held or written.
#[derive(Debug)]
pub(super) enum Matrix<'w> {
    Floats(Weight<'w>),
    /// Codes, as they are.
    Coded(CodedTensor<'w>),
    /// Floats that become codes.
    Quantised(Weight<'w>, Quantisation),
}

impl<'w> Matrix<'w> {
    /// The weight of this shape in the format, where one is given; as it is where its rows are no
    /// whole blocks. Codes of MLX's have scales and biases beside them.
    pub(super) fn new(
        argument: &str,
        weight: Weight<'w>,
        beside: Option<[Weight<'w>; 2]>,
        shape: &[usize],
        format: Option<WeightFormat>,
    ) -> Result<Self, Error> {
        let to = format.and_then(WeightFormat::quantisation);
        let is_coded = matches!(weight.data, WeightData::Stored(dtype, _)
            if dtype == Dtype::U32 || dtype.block_bytes().is_some() && shape.len() == 2);
        let mut floats = if is_coded {
            let codes = coded(argument, weight, beside, shape)?;
            // (More bits would tell nothing more.)
            let is_enough = |to: Quantisation| to.bits() >= codes.bits();
            if format.is_none() || to.is_some_and(is_enough) {
                return Ok(Self::Coded(codes));
            }
            Weight {
                shape: shape.to_vec(),
                data: WeightData::F32(codes.values()?.into()),
            }
        } else {
            weight.into_floats(argument)?
        };
        let is_whole = shape.last().is_some_and(|width| width % 32 == 0) && shape.len() == 2;
        match (format, to) {
            (_, Some(to)) if is_whole => return Ok(Self::Quantised(floats, to)),
            (Some(format), None) => floats = floats.cast(format)?,
            _ => {}
        }
        Ok(Self::Floats(floats))
    }
}

/// The codes of a weight that a file has as such.
fn coded<'w>(
    argument: &str,
    weight: Weight<'w>,
    beside: Option<[Weight<'w>; 2]>,
    shape: &[usize],
) -> Result<CodedTensor<'w>, Error> {
    let raw = weight.into_raw(argument)?;
    match (beside, shape) {
        (None, _) => CodedTensor::blocks(argument, raw),
        (Some([scales, biases]), &[outputs, inputs]) => {
            let scales = scales.into_floats(argument)?.into_float_tensor()?;
            let biases = biases.into_floats(argument)?.into_float_tensor()?;
            CodedTensor::mlx(argument, (raw, scales, biases), [outputs, inputs])
        }
        (Some(_), _) => Err(Error::internal(format!("{argument} is no matrix"))),
    }
}

/// A weight that is known to be floats.
pub(super) fn floats<'t>(weight: &'t Weight<'_>) -> Result<Tensor<'t>, Error> {
    let none = || Error::internal("codes where floats are meant");
    weight.tensor().ok_or_else(none)
}

/// A weight on its way into a file: as MLX's codes, or as floats.
#[derive(Debug)]
pub struct Recoding<'w> {
    matrix: Matrix<'w>,
    shape: Vec<usize>,
    group_size: usize,
}

/// Input channels that share a scale where nothing is said, and in all codes of GGUF.
pub(crate) const GROUP: usize = 32;

impl<'w> Recoding<'w> {
    /// The weight of this shape, with the scales and biases of MLX's codes; without a format codes
    /// stay the codes that they are. `group_size`: of floats that become codes, how many inputs of
    /// a row share a scale: 32, by GGUF's rules, or a larger multiple of it, by MLX's.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) or
    /// [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype) naming `argument` for tensors that do not
    /// fit each other; [`Error::out_of_memory`].
    pub fn new(
        argument: &str,
        (weight, beside): (Weight<'w>, Option<[Weight<'w>; 2]>),
        shape: &[usize],
        (format, group_size): (Option<WeightFormat>, usize),
    ) -> Result<Self, Error> {
        Ok(Self {
            matrix: Matrix::new(argument, weight, beside, shape, format)?,
            shape: shape.to_vec(),
            group_size,
        })
    }

    /// Input channels that share a scale and a bias in the codes that it becomes.
    #[must_use]
    pub fn group_size(&self) -> usize {
        match &self.matrix {
            Matrix::Quantised(..) => self.group_size,
            Matrix::Floats(_) | Matrix::Coded(_) => GROUP,
        }
    }

    /// Bits of the codes that it becomes; none for floats.
    #[must_use]
    pub fn bits(&self) -> Option<usize> {
        match &self.matrix {
            Matrix::Floats(_) => None,
            Matrix::Coded(codes) => Some(codes.bits()),
            Matrix::Quantised(_, to) => Some(to.bits()),
        }
    }

    /// The floats that it becomes.
    ///
    /// # Errors
    /// [`Error::internal`] where it becomes codes; [`Error::out_of_memory`].
    pub fn floats(&self) -> Result<Tensor<'_>, Error> {
        match &self.matrix {
            Matrix::Floats(weight) => floats(weight),
            Matrix::Coded(_) | Matrix::Quantised(..) => {
                Err(Error::internal("codes where floats are meant"))
            }
        }
    }

    /// Rows of the codes that it becomes, with a scale and a bias for each group: of float16 for
    /// each 32, else of bfloat16.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `weight` for numbers that these
    /// have no scale or bias for; [`Error::internal`] for floats; [`Error::out_of_memory`].
    pub fn rows(&self, rows: Range<usize>) -> Result<MlxWeight, Error> {
        let inputs = self.shape.last().copied().unwrap_or(0);
        let packing = |bits: usize| MlxPacking {
            bits,
            group_size: self.group_size(),
        };
        match &self.matrix {
            Matrix::Floats(_) => Err(Error::internal("floats where codes are meant")),
            Matrix::Coded(codes) => {
                let bits = codes.bits();
                MlxWeight::pack(&mut { codes }, inputs, rows, packing(bits))
            }
            Matrix::Quantised(weight, to) if self.group_size != GROUP => {
                let mut from = AffineRows::new(&floats(weight)?, to.bits(), self.group_size)?;
                MlxWeight::pack(&mut from, inputs, rows, packing(to.bits()))
            }
            Matrix::Quantised(weight, to) => {
                let mut from = Quantiser::new(&floats(weight)?, *to)?;
                MlxWeight::pack(&mut from, inputs, rows, packing(to.bits()))
            }
        }
    }
}
