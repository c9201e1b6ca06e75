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
    pub(crate) map: Linear,
    /// The heads that it is for, ascending.
    heads: Vec<usize>,
    /// Output heads of the layer.
    count: usize,
    #[cfg(feature = "training")]
    parts: DexParts,
    #[cfg(feature = "training")]
    annealing: Annealing,
}

/// What λ W is made of.
#[derive(Debug, Clone)]
pub(crate) struct DexParts {
    /// W `[width, width]`: rows of heads are multiplied with it from the left.
    pub(crate) weight: Vec<f32>,
    /// λ as it is learned.
    pub(crate) lambda: f64,
    /// What λ is multiplied with.
    pub(crate) mix: f64,
}

impl Dex {
    /// Of what rows of heads times which is subtracted from `heads` of `count`.
    pub(crate) fn new(parts: DexParts, (heads, count): (Vec<usize>, usize)) -> Result<Self, Error> {
        let map = parts.map(parts.mix * parts.lambda)?;
        Ok(Self {
            map,
            heads,
            count,
            #[cfg(feature = "training")]
            parts,
            #[cfg(feature = "training")]
            annealing: Annealing::DONE,
        })
    }

    /// The rows, of `count` heads each, with what is subtracted from some of them.
    pub(crate) fn rows(&self, attended: &[f32], run: Run) -> Result<Vec<f32>, Error> {
        let taken = self.taken(attended)?;
        let mut added = try_zeroed(taken.len())?;
        self.map.forward(&taken, &mut added, run)?;
        let mut made = try_copied(attended)?;
        self.add(&added, &mut made);
        Ok(made)
    }

    /// Where the rows of the heads that it is for begin, among so many values of all heads.
    fn places(&self, len: usize) -> impl Iterator<Item = usize> + use<'_> {
        let width = self.map.inputs();
        let stride = self.count * width;
        let heads = &self.heads;
        let of_row = move |row: usize| heads.iter().map(move |head| row * stride + head * width);
        (0..len / stride.max(1)).flat_map(of_row)
    }

    /// The rows of the heads that it is for.
    pub(crate) fn taken(&self, rows: &[f32]) -> Result<Vec<f32>, Error> {
        let width = self.map.inputs();
        let stride = self.count * width;
        let mut taken = try_zeroed(rows.len() / stride.max(1) * self.heads.len() * width)?;
        for (place, to) in self.places(rows.len()).zip(taken.chunks_exact_mut(width)) {
            to.copy_from_slice(&rows[place..place + width]);
        }
        Ok(taken)
    }

    /// Adds rows of the heads that it is for to theirs among those of all.
    pub(crate) fn add(&self, of_heads: &[f32], rows: &mut [f32]) {
        let width = self.map.inputs();
        let added = of_heads.chunks_exact(width);
        for (place, added) in self.places(rows.len()).zip(added) {
            let to = rows[place..place + width].iter_mut();
            to.zip(added).for_each(|(to, added)| *to += added);
        }
    }
}

impl DexParts {
    /// `−λ W`. (A linear map has a row per output.)
    fn map(&self, lambda: f64) -> Result<Linear, Error> {
        let weight = &self.weight;
        let width = weight.len().isqrt();
        let mut turned = try_zeroed(weight.len())?;
        for (output, row) in turned.chunks_exact_mut(width.max(1)).enumerate() {
            for (input, to) in row.iter_mut().enumerate() {
                *to = (-lambda * f64::from(weight[input * width + output])) as f32;
            }
        }
        Linear::new(&Tensor::f32(&turned, &[width, width]), None)
    }
}

/// In training λ is annealed: with W and λ of zeros, both gradients are zero.
#[cfg(feature = "training")]
impl Dex {
    /// W and λ.
    pub(crate) fn parts(&self) -> &DexParts {
        &self.parts
    }

    /// λ as heads meet it: `mix · ((1 − α) α λ_init + α λ)`.
    pub(crate) fn lambda(&self) -> f64 {
        let Annealing { alpha, init } = self.annealing;
        self.parts.mix * ((1.0 - alpha) * alpha * init + alpha * self.parts.lambda)
    }

    /// The slope of that by the λ that is learned.
    pub(crate) fn lambda_slope(&self) -> f64 {
        self.parts.mix * self.annealing.alpha
    }

    /// Other W, or λ.
    pub(crate) fn set(&mut self, weight: Option<&[f32]>, lambda: Option<f64>) -> Result<(), Error> {
        if let Some(weight) = weight {
            self.parts.weight.copy_from_slice(weight);
        }
        self.parts.lambda = lambda.unwrap_or(self.parts.lambda);
        self.map = self.parts.map(self.lambda())?;
        Ok(())
    }

    /// How far λ is annealed.
    pub(crate) fn anneal(&mut self, annealing: Annealing) -> Result<(), Error> {
        let before = self.lambda();
        self.annealing = annealing;
        if self.lambda() != before {
            self.map = self.parts.map(self.lambda())?;
        }
        Ok(())
    }
}

/// How far a λ is annealed (arXiv 2505.16333): heads meet `(1 − α)(t/T) λ_init + α λ` with α =
/// min(1, t/T), in which t/T may stand for α, whose share λ_init has no more where they differ.
#[cfg(feature = "training")]
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Annealing {
    /// α.
    pub(crate) alpha: f64,
    /// λ_init.
    pub(crate) init: f64,
}

#[cfg(feature = "training")]
impl Annealing {
    /// The λ that is learned, alone.
    const DONE: Self = Self {
        alpha: 1.0,
        init: 0.0,
    };
}
