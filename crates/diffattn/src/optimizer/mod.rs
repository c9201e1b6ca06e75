//! What moves parameters by their gradients: the joint norm of gradients, clipping, and AdamW over
//! flat arrays. Knows neither names of parameters nor schedules.

mod adamw;
mod norm;

pub use self::adamw::{AdamW, Parameters};
pub use self::norm::{NORM_CHUNK, clip_coefficient, gradient_norm, gradient_squares};
