//! Group norm, layer norm and RMS norm. Statistics are float64 over a fixed number of lanes and nothing fuses, so every
//! instruction set and every number of threads gives one set of bits.

mod group_norm;
mod lanes;
mod layer_norm;
mod rms_norm;
mod write;

pub use group_norm::{Activation, ChannelLayout, GroupNorm, GroupNormOptions, group_norm};
pub use layer_norm::{LayerNormOptions, layer_norm};
pub use rms_norm::{RmsNorm, RmsNormOptions, rms_norm};

pub(crate) use rms_norm::rms_norm_row;

use crate::error::Error;
use crate::tensor::shape::check_len;

/// A spread (standard deviation or root mean square) as two float32 factors whose product is its inverse: a
/// power of two that brings values near 1, and the rest, so that neither over- nor underflows.
#[derive(Debug, Clone, Copy)]
struct InverseSpread {
    power: f32,
    rest: f64,
}

impl InverseSpread {
    /// A spread of zero gives zeros: so a row or group without any spread stays finite when eps is 0.
    #[inline(always)]
    fn of(spread: f64) -> Self {
        if spread == 0.0 {
            return Self {
                power: 1.0,
                rest: 0.0,
            };
        }
        // 2^−e for a spread of m · 2^e, 1 ≤ m < 2, as far as float32 holds it. NaN and infinity have e = 1024.
        let exponent = ((spread.to_bits() >> 52) & 0x7ff) as i32 - 1023;
        let power = f32::from_bits((((-exponent).clamp(-126, 127) + 127) as u32) << 23);
        Self {
            power,
            rest: 1.0 / spread / f64::from(power),
        }
    }
}

/// Checks what the norms take: `eps`, and one value per channel.
fn check_norm(eps: f32, channels: usize, values: [(&str, Option<&[f32]>); 2]) -> Result<(), Error> {
    if eps.is_nan() || eps < 0.0 {
        return Err(Error::option("eps", "a number of at least 0", eps));
    }
    for (name, values) in values {
        if let Some(values) = values {
            check_len(name, &[channels], values.len())?;
        }
    }
    Ok(())
}
