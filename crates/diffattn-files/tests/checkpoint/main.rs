//! Checkpoint files: hostile ones, round trips, and what real ones are found to be.

mod codes;
mod common;
mod files;
mod gguf;
mod hostile;
mod inspect;
mod lists;
mod llama;
mod names;
mod quantised;
mod round_trip;
mod shards;

/// Counts what the tests of hostile files allocate.
#[global_allocator]
static ALLOCATED: common::Counting = common::Counting;
