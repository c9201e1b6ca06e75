//! Parameters in training: values, gradients and moments of all of them in flat arrays, by names.
//! Knows no layers.

use diffattn::{AdamW, Error, Parameters, Run, check_len, checked_len, gradient_norm, try_zeroed};
use std::ops::Range;

/// Which parameter of an [`Arena`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ParameterId(usize);

/// A tensor that training moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in a checkpoint.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    range: Range<usize>,
}

impl Parameter {
    /// Whether weight decay is for it: tensors of two axes, embeddings too; vectors never.
    #[must_use]
    pub fn decays(&self) -> bool {
        self.shape.len() == 2
    }
}

/// Parameters, and what belongs to each: masters in float32, whatever the model holds.
#[derive(Debug, Default)]
pub struct Arena {
    parameters: Vec<Parameter>,
    values: Vec<f32>,
    gradients: Vec<f32>,
    first_moments: Vec<f32>,
    second_moments: Vec<f32>,
}

impl Arena {
    /// Adds a parameter; its values are given before [`Arena::allocate`] makes the other arrays.
    pub(crate) fn add(
        &mut self,
        name: String,
        shape: &[usize],
        fill: impl FnOnce(&mut [f32]) -> Result<(), Error>,
    ) -> Result<ParameterId, Error> {
        let len = checked_len(&name, shape)?;
        let first = self.values.len();
        self.values
            .try_reserve(len)
            .map_err(|_| Error::out_of_memory(4 * len as u64))?;
        self.values.resize(first + len, 0.0);
        fill(&mut self.values[first..])?;
        self.parameters.push(Parameter {
            name,
            shape: shape.to_vec(),
            range: first..first + len,
        });
        Ok(ParameterId(self.parameters.len() - 1))
    }

    /// Makes room for gradients alone.
    pub(crate) fn allocate_gradients(&mut self) -> Result<(), Error> {
        self.gradients = try_zeroed(self.values.len())?;
        Ok(())
    }

    /// Makes room for gradients and moments.
    pub(crate) fn allocate(&mut self) -> Result<(), Error> {
        let len = self.values.len();
        self.gradients = try_zeroed(len)?;
        self.first_moments = try_zeroed(len)?;
        self.second_moments = try_zeroed(len)?;
        Ok(())
    }

    /// All parameters, in the order of the model.
    #[must_use]
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// How many values there are in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    fn find(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|of| of.name == name)
    }

    /// The values of a parameter.
    #[must_use]
    pub fn values(&self, name: &str) -> Option<&[f32]> {
        self.find(name).map(|of| &self.values[of.range.clone()])
    }

    /// The gradient of a parameter, as the last step left it.
    #[must_use]
    pub fn gradients(&self, name: &str) -> Option<&[f32]> {
        self.find(name).map(|of| &self.gradients[of.range.clone()])
    }

    /// The first and the second moments of a parameter.
    #[must_use]
    pub fn moments(&self, name: &str) -> Option<[&[f32]; 2]> {
        self.find(name).map(|of| {
            [
                &self.first_moments[of.range.clone()],
                &self.second_moments[of.range.clone()],
            ]
        })
    }

    /// Makes `values` those of a parameter: of a checkpoint, or a caller's own.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `name` where there is no such
    /// parameter, [`ErrorKind::Shape`](diffattn::ErrorKind::Shape) for another length.
    pub(crate) fn set(&mut self, name: &str, values: &[f32]) -> Result<(), Error> {
        let range = self.range(name, values.len())?;
        self.values[range].copy_from_slice(values);
        Ok(())
    }

    /// Makes `first` and `second` the moments of a parameter.
    ///
    /// # Errors
    /// As [`Arena::set`].
    pub(crate) fn set_moments(
        &mut self,
        name: &str,
        [first, second]: [&[f32]; 2],
    ) -> Result<(), Error> {
        let range = self.range(name, first.len())?;
        check_len("second_moments", &[first.len()], second.len())?;
        self.first_moments[range.clone()].copy_from_slice(first);
        self.second_moments[range].copy_from_slice(second);
        Ok(())
    }

    fn range(&self, name: &str, len: usize) -> Result<Range<usize>, Error> {
        let found = self.find(name).ok_or_else(|| {
            Error::option("name", "a parameter that moves", format_args!("{name:?}"))
        })?;
        check_len(name, &found.shape, len)?;
        Ok(found.range.clone())
    }

    pub(crate) fn parameter(&self, ParameterId(index): ParameterId) -> &Parameter {
        &self.parameters[index]
    }

    pub(crate) fn value(&self, id: ParameterId) -> &[f32] {
        &self.values[self.parameter(id).range.clone()]
    }

    pub(crate) fn gradient(&mut self, id: ParameterId) -> &mut [f32] {
        let range = self.parameter(id).range.clone();
        &mut self.gradients[range]
    }

    /// The gradients of two parameters of which either may be frozen.
    pub(crate) fn gradient_pair(
        &mut self,
        [one, other]: [Option<ParameterId>; 2],
    ) -> Result<[Option<&mut [f32]>; 2], Error> {
        Ok(match (one, other) {
            (Some(one), Some(other)) => {
                let ranges = [one, other].map(|id| self.parameter(id).range.clone());
                let both = self.gradients.get_disjoint_mut(ranges);
                both.map_err(|_| Error::internal("one parameter twice"))?
                    .map(Some)
            }
            (Some(one), None) => [Some(self.gradient(one)), None],
            (None, Some(other)) => [None, Some(self.gradient(other))],
            (None, None) => [None, None],
        })
    }

    /// Zeros all gradients.
    pub(crate) fn clear_gradients(&mut self) {
        self.gradients.fill(0.0);
    }

    /// The joint norm of all gradients, in float64, tensor after tensor.
    pub(crate) fn gradient_norm(&self, run: Run) -> Result<f64, Error> {
        let of = self.parameters.iter();
        let gradients: Vec<_> = of.map(|of| &self.gradients[of.range.clone()]).collect();
        gradient_norm(&gradients, run)
    }

    /// One step of the optimizer: `adamw` for each parameter, as `of` changes it for one of them.
    pub(crate) fn step(
        &mut self,
        step: u64,
        clip: f64,
        of: impl Fn(&Parameter) -> AdamW,
        run: Run,
    ) -> Result<(), Error> {
        for parameter in &self.parameters {
            let range = parameter.range.clone();
            let parts = Parameters {
                parameters: &mut self.values[range.clone()],
                gradients: &self.gradients[range.clone()],
                first_moments: &mut self.first_moments[range.clone()],
                second_moments: &mut self.second_moments[range],
            };
            of(parameter).step(step, parts, clip, run)?;
        }
        Ok(())
    }
}
