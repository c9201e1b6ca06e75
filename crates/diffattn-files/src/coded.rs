//! Quantised weights of files as the kernels read them, row by row: the blocks of GGUF, and MLX's
//! codes with scales and biases beside them. Makes no codes.

use crate::blocks::Block;
use crate::dtype::{BLOCK, Dtype};
use crate::floats::FloatTensor;
use crate::mlx;
use crate::tensor::RawTensor;
use diffattn::{
    CodedRow, CodedRows, Codes, DType, Error, Linear, Quantised, Tensor, coded_values, format_shape,
};
use std::ops::Range;

/// A quantised weight `[outputs, inputs]`.
#[derive(Debug, Clone)]
pub struct CodedTensor<'a> {
    shape: [usize; 2],
    stored: Stored<'a>,
}

#[derive(Debug, Clone)]
enum Stored<'a> {
    Blocks(RawTensor<'a>),
    Mlx {
        bits: usize,
        codes: RawTensor<'a>,
        scales: FloatTensor<'a>,
        biases: FloatTensor<'a>,
    },
}

impl<'a> CodedTensor<'a> {
    /// A tensor of GGUF's blocks.
    ///
    /// # Errors
    /// [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype) naming `argument` for elements that lie in
    /// no blocks, [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) for other than two axes.
    pub fn blocks(argument: &str, tensor: RawTensor<'a>) -> Result<Self, Error> {
        if tensor.dtype().block_bytes().is_none() {
            return Err(Error::dtype(argument, "Q8_0, Q4_0 or Q4_1", tensor.dtype()));
        }
        let &[outputs, inputs] = tensor.shape() else {
            let got = format_shape(tensor.shape());
            return Err(Error::shape(argument, "2 axes, [outputs, inputs]", got));
        };
        Ok(Self {
            shape: [outputs, inputs],
            stored: Stored::Blocks(tensor),
        })
    }

    /// A weight `[outputs, inputs]` of MLX's codes, scales and biases.
    ///
    /// # Errors
    /// [`ErrorKind::Dtype`](diffattn::ErrorKind::Dtype) or
    /// [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) naming `argument` where they do not fit the
    /// shape and each other.
    pub fn mlx(
        argument: &str,
        (codes, scales, biases): (RawTensor<'a>, FloatTensor<'a>, FloatTensor<'a>),
        shape: [usize; 2],
    ) -> Result<Self, Error> {
        let fitting = mlx::packing([codes.shape(), &scales.shape], &shape);
        let dtypes = [&scales, &biases].map(|numbers| numbers.tensor().data.dtype());
        let is_alike = dtypes[0] == dtypes[1] && scales.shape == biases.shape;
        let packing = match fitting {
            Ok(packing) if is_alike && dtypes[0] != DType::F32 && codes.dtype() == Dtype::U32 => {
                packing
            }
            _ => {
                return Err(Error::shape(
                    argument,
                    format_args!("codes, scales and biases of {}", format_shape(&shape)),
                    format_args!(
                        "{} of {}, {} and {}",
                        format_shape(codes.shape()),
                        codes.dtype(),
                        format_shape(&scales.shape),
                        format_shape(&biases.shape)
                    ),
                ));
            }
        };
        Ok(Self {
            shape,
            stored: Stored::Mlx {
                bits: packing.bits,
                codes,
                scales,
                biases,
            },
        })
    }

    /// `[outputs, inputs]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Bits of a code: 4, or 8.
    #[must_use]
    pub fn bits(&self) -> usize {
        match &self.stored {
            Stored::Blocks(tensor) if tensor.dtype() == Dtype::Q8_0 => 8,
            Stored::Blocks(_) => 4,
            Stored::Mlx { bits, .. } => *bits,
        }
    }

    /// The linear map of this weight, its codes as they are.
    ///
    /// # Errors
    /// Those of [`Linear::of_codes`].
    pub fn linear(&self, bias: Option<&Tensor<'_>>) -> Result<Linear, Error> {
        Linear::of_codes(self, self.shape, bias)
    }

    /// As [`CodedTensor::linear`], of some of the rows.
    ///
    /// # Errors
    /// Those of [`Linear::of_codes`]; [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) for rows
    /// that there are not.
    pub fn rows(&self, rows: Range<usize>, bias: Option<&Tensor<'_>>) -> Result<Linear, Error> {
        let [outputs, inputs] = self.shape;
        if rows.start > rows.end || rows.end > outputs {
            let expected = format_args!("rows of {outputs}").to_string();
            let given = format!("{} to {}", rows.start, rows.end);
            return Err(Error::shape("rows", expected, given));
        }
        let shape = [rows.len(), inputs];
        let rows = SomeRows {
            of: self,
            first: rows.start,
        };
        Linear::of_codes(rows, shape, bias)
    }

    /// What the codes stand for, as float32.
    ///
    /// # Errors
    /// [`Error::out_of_memory`].
    pub fn values(&self) -> Result<Vec<f32>, Error> {
        coded_values(&mut &*self, self.shape)
    }
}

impl CodedRows for &CodedTensor<'_> {
    fn bits(&self) -> usize {
        CodedTensor::bits(self)
    }

    fn bf16(&self) -> bool {
        match &self.stored {
            Stored::Blocks(_) => false,
            Stored::Mlx { scales, .. } => scales.tensor().data.dtype() == DType::Bf16,
        }
    }

    fn read(&mut self, index: usize, row: CodedRow<'_>) -> Result<(), Error> {
        match &self.stored {
            Stored::Blocks(tensor) => read_blocks(tensor, index, row),
            Stored::Mlx {
                bits,
                codes,
                scales,
                biases,
            } => {
                let codes = codes.bytes();
                let quantised = Quantised {
                    shape: self.shape,
                    codes: match bits {
                        4 => Codes::U4(codes),
                        _ => Codes::U8(codes),
                    },
                    scales: scales.tensor().data,
                    biases: Some(biases.tensor().data),
                };
                (&quantised).read(index, row)
            }
        }
    }
}

/// The rows of a tensor from one on.
struct SomeRows<'t, 'a> {
    of: &'t CodedTensor<'a>,
    first: usize,
}

impl CodedRows for SomeRows<'_, '_> {
    fn bits(&self) -> usize {
        self.of.bits()
    }

    fn bf16(&self) -> bool {
        self.of.bf16()
    }

    fn read(&mut self, index: usize, row: CodedRow<'_>) -> Result<(), Error> {
        (&mut self.of).read(self.first + index, row)
    }
}

/// A row of blocks: codes from 0 on, and the bias that takes them to where they count from.
fn read_blocks(tensor: &RawTensor<'_>, index: usize, row: CodedRow<'_>) -> Result<(), Error> {
    let dtype = tensor.dtype();
    let zero = match dtype {
        Dtype::Q8_0 => 128,
        Dtype::Q4_0 => 8,
        _ => 0,
    };
    let width = dtype.block_bytes().unwrap_or(1);
    let bytes = row.scales.len() * width;
    let of_row = tensor.bytes().get(index * bytes..).unwrap_or_default();
    let numbers = row.scales.iter_mut().zip(row.biases);
    let codes = row.codes.as_chunks_mut::<BLOCK>().0;
    for ((bytes, codes), (scale, bias)) in of_row.chunks_exact(width).zip(codes).zip(numbers) {
        let block = Block::read(dtype, bytes);
        for (to, code) in codes.iter_mut().zip(block.codes) {
            *to = code.cast_unsigned().wrapping_add(zero);
        }
        *scale = block.scale;
        *bias = if zero == 0 {
            block.bias
        } else {
            -f32::from(zero) * block.scale
        };
    }
    Ok(())
}
