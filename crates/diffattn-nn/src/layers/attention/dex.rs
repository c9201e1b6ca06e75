//! DEX (arXiv 2505.16333): from what some heads of plain attention made, that times one matrix of
//! the layer is subtracted, `O − λ · O W`. Works row by row.
//!
//! It could be folded into the output projection, whose columns of a head would then be multiplied
//! with `(I − λ W)ᵀ`. Here it is a step of its own, so that the projection keeps the elements that
//! a checkpoint has (folded ones would be rounded anew, or held as float32), and W of zeros leaves
//! every bit of plain attention. It costs `value_dim²` multiply-adds of a head and row, where the
//! projection has `value_dim · embed_dim`.

use diffattn::{Error, Linear, Run, Tensor, try_copied, try_zeroed};

/// What is subtracted from what some heads made.
#[derive(Debug, Clone)]
pub(crate) struct Dex {
    /// `−λ W`, as it is multiplied with rows.
    map: Linear,
    /// The heads that it is for, ascending.
    heads: Vec<usize>,
    /// Output heads of the layer.
    count: usize,
}

impl Dex {
    /// Of W `[width, width]`, rows of heads times which are subtracted from `heads` of `count`.
    pub(crate) fn new(
        weight: &[f32],
        lambda: f64,
        (heads, count): (Vec<usize>, usize),
    ) -> Result<Self, Error> {
        let width = weight.len().isqrt();
        // (A linear map has a row per output.)
        let mut turned = try_zeroed(weight.len())?;
        for (output, row) in turned.chunks_exact_mut(width.max(1)).enumerate() {
            for (input, to) in row.iter_mut().enumerate() {
                *to = (-lambda * f64::from(weight[input * width + output])) as f32;
            }
        }
        let map = Linear::new(&Tensor::f32(&turned, &[width, width]), None)?;
        Ok(Self { map, heads, count })
    }

    /// The rows, of `count` heads each, with what is subtracted from some of them.
    pub(super) fn rows(&self, attended: &[f32], run: Run) -> Result<Vec<f32>, Error> {
        let width = self.map.inputs();
        let stride = self.count * width;
        let rows = attended.len() / stride.max(1);
        let len = rows * self.heads.len() * width;
        let (mut taken, mut added) = (try_zeroed(len)?, try_zeroed(len)?);
        let heads = &self.heads;
        let of_row = move |row: usize| heads.iter().map(move |head| row * stride + head * width);
        let places = move || (0..rows).flat_map(of_row);
        for (place, to) in places().zip(taken.chunks_exact_mut(width)) {
            to.copy_from_slice(&attended[place..place + width]);
        }
        self.map.forward(&taken, &mut added, run)?;
        let mut made = try_copied(attended)?;
        for (place, added) in places().zip(added.chunks_exact(width)) {
            let to = made[place..place + width].iter_mut();
            to.zip(added).for_each(|(to, added)| *to += added);
        }
        Ok(made)
    }
}
