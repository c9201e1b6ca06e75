//! Values left to chance, the same on every machine: each tensor has numbers of its own, so none
//! depends on which others are made, or when. Knows no layer.

use diffattn::{Error, try_zeroed};
use rand_pcg::Pcg32;
use rand_pcg::rand_core::Rng;

/// What values are drawn from: a normal distribution around 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Noise {
    /// Where the random numbers begin.
    pub(super) seed: u64,
    /// The standard deviation; values are 0 where it is 0.
    pub(super) deviation: f64,
}

impl Noise {
    /// So many values, of the tensor of that name.
    pub(super) fn values(self, name: &str, len: usize) -> Result<Vec<f32>, Error> {
        let mut values = try_zeroed(len)?;
        if self.deviation == 0.0 {
            return Ok(values);
        }
        let mut random = Pcg32::new(self.seed, stream_of(name));
        let mut next = || f64::from(random.next_u32());
        // (Box and Muller: two numbers make two values.)
        for pair in values.chunks_mut(2) {
            let radius = libm::sqrt(-2.0 * libm::log((next() + 1.0) / 4_294_967_296.0));
            let (sine, cosine) = libm::sincos(next() / 4_294_967_296.0 * std::f64::consts::TAU);
            for (value, turn) in pair.iter_mut().zip([cosine, sine]) {
                *value = (self.deviation * radius * turn) as f32;
            }
        }
        Ok(values)
    }
}

/// The stream of a tensor's numbers (FNV-1a of its name).
fn stream_of(name: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    name.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}
