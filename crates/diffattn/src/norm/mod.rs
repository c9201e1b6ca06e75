//! Group norm, layer norm, RMS norm and PolyNorm, with their backward passes, and dynamic tanh,
//! which stands where they do. Statistics are float64 over a fixed number of lanes and nothing
//! fuses, so every instruction set and every number of threads gives one set of bits.

mod backward;
mod dynamic_tanh;
mod group;
mod lanes;
mod layer;
mod poly;
mod products;
mod rms;
mod rows;
mod spread;
mod write;

pub use backward::{
    LayerNormBackward, NormBackward, NormGradients, PolyNormBackward, PolyNormGradients,
    RmsNormBackward, layer_norm_backward, poly_norm_backward, rms_norm_backward,
};
pub use dynamic_tanh::{DynamicTanhOptions, dynamic_tanh};
pub use group::{
    Activation, ChannelLayout, GroupNorm, GroupNormBackward, GroupNormOptions, group_norm,
    group_norm_backward,
};
pub use layer::{LayerNormOptions, layer_norm};
pub use poly::{PolyNormOptions, poly_norm};
pub use rms::{RmsNorm, RmsNormOptions, rms_norm};

pub(crate) use backward::rms_norm_row_backward;
pub(crate) use lanes::sum_squares;
pub(crate) use rms::rms_norm_row;

use crate::error::Error;
use crate::tensor::shape::check_len;

/// Checks what the norms take: `eps`, and one value per channel.
fn check_norm(eps: f32, channels: usize, values: [(&str, Option<&[f32]>); 2]) -> Result<(), Error> {
    check_eps(eps)?;
    check_channels(channels, values)
}

/// Checks what is added to a mean square.
fn check_eps(eps: f32) -> Result<(), Error> {
    if eps.is_nan() || eps < 0.0 {
        return Err(Error::option("eps", "a number of at least 0", eps));
    }
    Ok(())
}

/// Checks that there is a value for each channel, where there are any.
fn check_channels(channels: usize, values: [(&str, Option<&[f32]>); 2]) -> Result<(), Error> {
    for (name, values) in values {
        if let Some(values) = values {
            check_len(name, &[channels], values.len())?;
        }
    }
    Ok(())
}
