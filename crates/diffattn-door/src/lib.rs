//! What the doors of diffattn share: it reads requests, makes jobs of them, keeps objects and words
//! errors for JavaScript. Knows neither Node nor WASM; `PROTOCOL.md` is the format.
//!
//! A door does this, and nothing more:
//!
//! ```
//! use diffattn_door::Door;
//!
//! // rmsNorm (4) of x float32 [1, 2], no weight, default eps and scale.
//! let door = Door::new();
//! let call = door.call(4, &[1.0, 2.0, 1.0, 2.0, 0.0, 0.0, 0.0])?;
//! let x = [3.0f32, 4.0];
//! let mut y = [0.0f32; 2];
//! let mut job = call.prepare(&[bytemuck::bytes_of(&x)])?;
//! job.bind(vec![bytemuck::bytes_of_mut(&mut y)])?;
//! while !job.is_complete() {
//!     job.step(1)?;
//! }
//! drop(job);
//! assert!((y[1] / y[0] - 4.0 / 3.0).abs() < 1e-6);
//! # Ok::<(), diffattn_door::Failure>(())
//! ```

mod call;
mod encoding;
mod failure;
mod job;
mod kind;
mod memory;
mod objects;
mod operation;
mod pace;
mod reader;
mod recent;
mod registry;
mod requests;
pub mod schema;
mod settings;

pub use call::Call;
pub use diffattn::{Error, Isa, available_threads, release_threads};
pub use failure::{Failure, contain};
pub use job::{Job, OutputSpec};
pub use kind::Kind;
pub use memory::{Block, release_idle_memory};
pub use objects::{Door, Turn};
pub use pace::Pacer;
pub use registry::requests;
pub use settings::{configure, isa, threads};
