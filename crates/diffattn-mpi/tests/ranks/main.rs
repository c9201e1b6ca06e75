//! The tests of ranks without MPI, one binary: the program alone, threads that train together, and
//! attention over contexts that they share.

#![expect(clippy::unwrap_used, reason = "tests")]

mod alone;
mod common;
mod sequence;
mod training;
