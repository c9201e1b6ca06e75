//! Training on several machines: the trainer of `diffattn-nn` over MPI, which carries the messages.
//!
//! - [`train`]: what the program `diffattn-train` does, over any
//!   [`Ranks`](diffattn_nn::training::Ranks) (one process alone, or MPI with the feature `mpi`);
//! - [`sequence`]: attention over a context that no one machine holds;
//! - `wire` (feature `mpi`): ranks over a communicator of MPI; [`ThreadRanks`]: over channels.
//!
//! No scheduler, transport or rendezvous of its own: `mpirun` starts the ranks. What N ranks train
//! is what one trains, bit for bit (`docs/scale.md`).

mod failure;
mod folder;
mod program;
pub mod sequence;
mod threads;
#[cfg(feature = "mpi")]
pub mod wire;

pub use failure::Failure;
pub use program::{Arguments, Ending, train};
pub use threads::ThreadRanks;
