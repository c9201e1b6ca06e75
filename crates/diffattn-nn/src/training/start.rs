//! What a weight of a model that knows nothing yet begins with. Knows no model.

use rand_pcg::Pcg64;
use rand_pcg::rand_core::{Rng, SeedableRng};

/// A weight of a model that knows nothing yet.
#[derive(Debug, Clone, PartialEq)]
pub struct FreshTensor {
    /// Its name in a checkpoint.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    pub(super) start: Start,
}

/// What a weight begins with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Start {
    /// Normal values of that spread.
    Normal(f64),
    /// Uniform values from minus that to that.
    Uniform(f64),
    /// That.
    Constant(f32),
}

impl FreshTensor {
    /// Writes its values: the same for the same `seed` and name.
    pub(super) fn fill(&self, seed: u64, values: &mut [f32]) {
        match self.start {
            Start::Normal(spread) => normal(values, spread, seed, &self.name),
            Start::Uniform(bound) => uniform(values, bound, seed, &self.name),
            Start::Constant(value) => values.fill(value),
        }
    }
}

/// Uniform values.
fn uniform(values: &mut [f32], bound: f64, seed: u64, name: &str) {
    let mut random = Pcg64::seed_from_u64(seed ^ hash(name));
    for value in values {
        let unit = (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        *value = ((2.0 * unit - 1.0) * bound) as f32;
    }
}

/// Normal values, by Box and Muller's transform of pairs of uniform ones.
fn normal(values: &mut [f32], spread: f64, seed: u64, name: &str) {
    let mut random = Pcg64::seed_from_u64(seed ^ hash(name));
    let mut uniform = || ((random.next_u64() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    for pair in values.chunks_mut(2) {
        let (radius, angle) = (
            (-2.0 * libm::log(uniform())).sqrt() * spread,
            std::f64::consts::TAU * uniform(),
        );
        for (value, turn) in pair.iter_mut().zip([libm::cos(angle), libm::sin(angle)]) {
            *value = (radius * turn) as f32;
        }
    }
}

/// FNV-1a of a name: what makes random values of one weight differ from those of another.
pub(super) fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
