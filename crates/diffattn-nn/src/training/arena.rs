//! Parameters in training: values, gradients and moments of all of them in flat arrays, by names.
//! Knows no layers.

use diffattn::{
    AdamW, Error, NORM_CHUNK, Parameters, Run, check_len, checked_len, gradient_squares, try_zeroed,
};
use std::ops::Range;

/// Where a parameter, or some of its rows, lie in an [`Arena`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ParameterId {
    start: usize,
    len: usize,
}

impl ParameterId {
    /// Some of its values, rows of it: of several maps that lie in one tensor, one.
    pub(crate) fn part(self, values: Range<usize>) -> Self {
        debug_assert!(values.end <= self.len, "within the parameter");
        Self {
            start: self.start + values.start,
            len: values.len(),
        }
    }

    fn range(self) -> Range<usize> {
        self.start..self.start + self.len
    }
}

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
    /// Whether weight decay is for it: tensors of two axes, embeddings too, and of four, as the map
    /// of patches has them; never vectors, positions and registers.
    #[must_use]
    pub fn decays(&self) -> bool {
        matches!(self.shape.len(), 2 | 4)
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
    /// Stretches whose moments are here, ascending, one behind the other in their arrays: all there
    /// is, but where several ranks train.
    owned: Vec<Range<usize>>,
    first_moments: Vec<f32>,
    second_moments: Vec<f32>,
    /// Of what is owned the gradients of the step's units so far, where it is made of such.
    sums: Vec<f32>,
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
        Ok(ParameterId { start: first, len })
    }

    /// Makes room for gradients alone.
    pub(crate) fn allocate_gradients(&mut self) -> Result<(), Error> {
        self.gradients = try_zeroed(self.values.len())?;
        Ok(())
    }

    /// Makes room for gradients and moments.
    pub(crate) fn allocate(&mut self) -> Result<(), Error> {
        self.allocate_gradients()?;
        self.own(std::iter::once(0..self.values.len()))
    }

    /// Makes room for the moments of these stretches, ascending, alone; they begin as zeros.
    pub(crate) fn own(&mut self, owned: impl Iterator<Item = Range<usize>>) -> Result<(), Error> {
        let owned: Vec<_> = owned.filter(|range| !range.is_empty()).collect();
        let len = owned.iter().map(Range::len).sum();
        self.owned = owned;
        self.first_moments = try_zeroed(len)?;
        self.second_moments = try_zeroed(len)?;
        self.sums = Vec::new();
        Ok(())
    }

    /// Makes room for sums of gradients of units.
    pub(crate) fn allocate_sums(&mut self) -> Result<(), Error> {
        if self.sums.len() < self.first_moments.len() {
            self.sums = try_zeroed(self.first_moments.len())?;
        }
        Ok(())
    }

    /// What is owned of a stretch, and where it lies in arrays of what is owned.
    fn owned_of(
        &self,
        stretch: Range<usize>,
    ) -> impl Iterator<Item = (Range<usize>, Range<usize>)> + use<> {
        let mut first = 0;
        let mut found = Vec::new();
        for owned in &self.owned {
            let range = owned.start.max(stretch.start)..owned.end.min(stretch.end);
            if range.start < range.end {
                let at = first + range.start - owned.start;
                found.push((range.clone(), at..at + range.len()));
            }
            first += owned.len();
        }
        found.into_iter()
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

    /// The first and the second moments of a parameter; `None` where another rank has some of them,
    /// too.
    #[must_use]
    pub fn moments(&self, name: &str) -> Option<[&[f32]; 2]> {
        let of = self.find(name)?;
        let (_, at) = self
            .owned_of(of.range.clone())
            .find(|(range, _)| *range == of.range)?;
        Some([&self.first_moments[at.clone()], &self.second_moments[at]])
    }

    /// Writes the values of a parameter, or what is owned of its moments, where they belong.
    pub(crate) fn read(&self, name: &str, of: StateTensor, to: &mut [f32]) -> Result<(), Error> {
        let whole = self.range(name, to.len())?;
        let moments = match of {
            StateTensor::Value => {
                to.copy_from_slice(&self.values[whole]);
                return Ok(());
            }
            StateTensor::FirstMoment => &self.first_moments,
            StateTensor::SecondMoment => &self.second_moments,
        };
        for (range, at) in self.owned_of(whole.clone()) {
            to[range.start - whole.start..range.end - whole.start].copy_from_slice(&moments[at]);
        }
        Ok(())
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
        let whole = self.range(name, values.len())?;
        let owned = self.owned_of(whole.clone());
        let moments = match of {
            StateTensor::Value => {
                self.values[whole].copy_from_slice(values);
                return Ok(());
            }
            StateTensor::FirstMoment => &mut self.first_moments,
            StateTensor::SecondMoment => &mut self.second_moments,
        };
        for (range, at) in owned {
            let from = &values[range.start - whole.start..range.end - whole.start];
            moments[at].copy_from_slice(from);
        }
        Ok(())
    }

    fn range(&self, name: &str, len: usize) -> Result<Range<usize>, Error> {
        let found = self.wanted(name)?;
        check_len(name, &found.shape, len)?;
        Ok(found.range.clone())
    }

    /// Where a parameter lies in the arena.
    pub(crate) fn range_of(&self, name: &str) -> Result<Range<usize>, Error> {
        Ok(self.wanted(name)?.range.clone())
    }

    fn wanted(&self, name: &str) -> Result<&Parameter, Error> {
        self.find(name).ok_or_else(|| {
            Error::option("name", "a parameter that moves", format_args!("{name:?}"))
        })
    }

    /// Chunks of [`NORM_CHUNK`] values, counted from the beginnings of tensors, in a stretch that
    /// is cut between such.
    pub(crate) fn chunks_of(&self, stretch: Range<usize>) -> usize {
        let within = |of: &Parameter| {
            let end = of.range.end.min(stretch.end);
            end.saturating_sub(of.range.start.max(stretch.start))
        };
        let chunks = |of| within(of).div_ceil(NORM_CHUNK);
        self.parameters.iter().map(chunks).sum()
    }

    /// Where each parameter of some lies.
    pub(crate) fn ranges_of(&self, parameters: Range<usize>) -> Vec<Range<usize>> {
        let parameters = self.parameters[parameters].iter();
        parameters.map(|of| of.range.clone()).collect()
    }

    pub(crate) fn value(&self, id: ParameterId) -> &[f32] {
        &self.values[id.range()]
    }

    pub(crate) fn gradient(&mut self, id: ParameterId) -> &mut [f32] {
        &mut self.gradients[id.range()]
    }

    /// The gradients of two parameters of which either may be frozen.
    pub(crate) fn gradient_pair(
        &mut self,
        [one, other]: [Option<ParameterId>; 2],
    ) -> Result<[Option<&mut [f32]>; 2], Error> {
        Ok(match (one, other) {
            (Some(one), Some(other)) => {
                let ranges = [one, other].map(ParameterId::range);
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

    /// Begins the sums of a step's units, or adds the gradients of one to them: `values` of a
    /// stretch that is owned.
    pub(crate) fn add_to_sums(&mut self, stretch: Range<usize>, values: Option<&[f32]>) {
        for (range, at) in self.owned_of(stretch.clone()) {
            let own = &self.gradients[range.clone()];
            let from = values.map_or(own, |values| {
                &values[range.start - stretch.start..range.end - stretch.start]
            });
            let sums = self.sums[at].iter_mut();
            sums.zip(from).for_each(|(sum, value)| *sum += value);
        }
    }

    /// Zeros the sums of a step's units.
    pub(crate) fn clear_sums(&mut self) {
        self.sums.fill(0.0);
    }

    /// Makes the sums of a step's units its gradients, as far as they are owned.
    pub(crate) fn take_sums(&mut self) {
        for (range, at) in self.owned_of(0..self.values.len()) {
            self.gradients[range].copy_from_slice(&self.sums[at]);
        }
    }

    /// Σ g² of what is owned, in float64, chunk after chunk; gradients of frozen rows become zero
    /// first.
    pub(crate) fn gradient_squares(&mut self, run: Run) -> Result<Vec<f64>, Error> {
        let mut sums = Vec::new();
        for parameter in &self.parameters {
            for frozen in parameter.frozen() {
                self.gradients[frozen].fill(0.0);
            }
            for (range, _) in self.owned_of(parameter.range.clone()) {
                sums.extend(gradient_squares(&self.gradients[range], run)?);
            }
        }
        Ok(sums)
    }

    /// All gradients.
    pub(crate) fn all_gradients(&self) -> &[f32] {
        &self.gradients
    }

    /// All values, to be set by who moves the others.
    pub(crate) fn all_values(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// All parameters, to say how they move.
    pub(crate) fn parameters_mut(&mut self) -> &mut [Parameter] {
        &mut self.parameters
    }

    /// One step of the optimizer over what is owned of a stretch of the arena, all of one
    /// parameter.
    pub(crate) fn step(
        &mut self,
        range: Range<usize>,
        step: u64,
        (adamw, clip): (&AdamW, f64),
        run: Run,
    ) -> Result<(), Error> {
        for (range, at) in self.owned_of(range) {
            let parts = Parameters {
                parameters: &mut self.values[range.clone()],
                gradients: &self.gradients[range],
                first_moments: &mut self.first_moments[at.clone()],
                second_moments: &mut self.second_moments[at],
            };
            adamw.step(step, parts, clip, run)?;
        }
        Ok(())
    }
}
