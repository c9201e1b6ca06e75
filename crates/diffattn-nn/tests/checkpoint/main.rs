//! Checkpoint files: hostile ones, round trips, what real ones are found to be, and converted
//! layers that run.

mod common;
mod convert;
mod files;
mod hostile;
mod inspect;
mod round_trip;
mod shards;

/// Counts what the tests of hostile files allocate.
#[global_allocator]
static ALLOCATED: common::Counting = common::Counting;
