//! Parameters in training: values, gradients and moments of all of them in flat arrays, by names.
//! Knows no layers.

use diffattn::{AdamW, Error, Parameters, Run, check_len, checked_len, gradient_norm, try_zeroed};
use std::ops::Range;

/// Which parameter of an [`Arena`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ParameterId(usize);

/// A tensor that training moves.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Its name in a checkpoint.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// What its learning rate is multiplied with.
    pub(crate) lr_scale: f64,
    /// Rows that stay as they are: ascending, none twice.
    pub(crate) frozen_rows: Vec<Range<usize>>,
    range: Range<usize>,
}

impl Parameter {
    /// Whether weight decay is for it: tensors of two axes, embeddings too; vectors never.
    #[must_use]
    pub fn decays(&self) -> bool {
        self.shape.len() == 2
    }

    /// Where frozen rows lie in the arena.
    fn frozen(&self) -> impl Iterator<Item = Range<usize>> {
        let rows = self.shape.first().copied().unwrap_or(1).max(1);
        let (first, width) = (self.range.start, self.range.len() / rows);
        let rows = self.frozen_rows.iter();
        rows.map(move |rows| first + rows.start * width..first + rows.end * width)
    }

    /// Where what moves lies in the arena: all but frozen rows.
    pub(crate) fn moving(&self) -> Vec<Range<usize>> {
        let mut start = self.range.start;
        let mut moving = Vec::new();
        for frozen in self.frozen() {
            moving.push(start..frozen.start);
            start = frozen.end;
        }
        moving.push(start..self.range.end);
        moving.retain(|range| !range.is_empty());
        moving
    }
}

/// A tensor of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateTensor {
    /// A parameter's values.
    Value,
    /// AdamW's mean of gradients.
    FirstMoment,
    /// AdamW's mean of their squares.
    SecondMoment,
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
            lr_scale: 1.0,
            frozen_rows: Vec::new(),
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
        self.set_tensor(name, StateTensor::Value, values)
    }

    /// Makes `values` those of a tensor of a state.
    ///
    /// # Errors
    /// As [`Arena::set`].
    pub(crate) fn set_tensor(
        &mut self,
        name: &str,
        of: StateTensor,
        values: &[f32],
    ) -> Result<(), Error> {
        let range = self.range(name, values.len())?;
        let tensor = match of {
            StateTensor::Value => &mut self.values,
            StateTensor::FirstMoment => &mut self.first_moments,
            StateTensor::SecondMoment => &mut self.second_moments,
        };
        tensor[range].copy_from_slice(values);
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

    /// The joint norm of all gradients, in float64, tensor after tensor; those of frozen rows
    /// become zero first.
    pub(crate) fn gradient_norm(&mut self, run: Run) -> Result<f64, Error> {
        for parameter in &self.parameters {
            for frozen in parameter.frozen() {
                self.gradients[frozen].fill(0.0);
            }
        }
        let of = self.parameters.iter();
        let gradients: Vec<_> = of.map(|of| &self.gradients[of.range.clone()]).collect();
        gradient_norm(&gradients, run)
    }

    /// All parameters, to say how they move.
    pub(crate) fn parameters_mut(&mut self) -> &mut [Parameter] {
        &mut self.parameters
    }

    /// One step of the optimizer over a stretch of the arena, all of one parameter.
    pub(crate) fn step(
        &mut self,
        range: Range<usize>,
        step: u64,
        (adamw, clip): (&AdamW, f64),
        run: Run,
    ) -> Result<(), Error> {
        let parts = Parameters {
            parameters: &mut self.values[range.clone()],
            gradients: &self.gradients[range.clone()],
            first_moments: &mut self.first_moments[range.clone()],
            second_moments: &mut self.second_moments[range],
        };
        adamw.step(step, parts, clip, run)
    }
}
