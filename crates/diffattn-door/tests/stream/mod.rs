//! Requests as streams of numbers, as the package writes them, and jobs of them worked off.

use diffattn_door::{Failure, Job, OutputSpec};

/// A request: its numbers and its operands, all float32.
#[derive(Clone, Default)]
pub(crate) struct Request(pub(crate) Vec<f64>, pub(crate) Vec<Vec<f32>>);

impl Request {
    pub(crate) fn n(mut self, numbers: &[f64]) -> Self {
        self.0.extend(numbers);
        self
    }

    pub(crate) fn t(mut self, shape: &[usize], data: &[f32]) -> Self {
        self.0.extend([1.0, shape.len() as f64]);
        self.0.extend(shape.iter().map(|&extent| extent as f64));
        self.1.push(data.to_vec());
        self
    }

    pub(crate) fn operands(&self) -> Vec<&[u8]> {
        self.1.iter().map(|x| bytemuck::cast_slice(x)).collect()
    }
}

/// Works a job off in steps of one unit, its outputs in `memory`, which was there before it.
pub(crate) fn finish<'m>(
    mut job: Job<'m>,
    memory: &'m mut Vec<Vec<u32>>,
) -> Result<Vec<OutputSpec>, Failure> {
    let specs = job.outputs().to_vec();
    let words = specs.iter().map(|spec| spec.bytes.div_ceil(4));
    *memory = words.map(|words| vec![u32::MAX; words]).collect();
    let places = memory.iter_mut().zip(&specs);
    job.bind(places.map(|(words, spec)| &mut bytemuck::cast_slice_mut(words)[..spec.bytes]))?;
    while !job.is_complete() {
        job.step(1)?;
    }
    Ok(specs)
}
