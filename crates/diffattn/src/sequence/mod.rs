//! Operators along the sequence: the rotary embedding and backward differences. Nothing fuses, so
//! every instruction set gives one set of bits.

mod axes;
mod difference;
mod frequencies;
mod places;
mod rope;
mod table;

pub use difference::{SequenceDifference, SequenceDifferenceOptions, sequence_difference};
pub use frequencies::{RopeFrequencies, RopeScaling, RopeType};
pub use places::Positions;
pub use rope::{Rope, RopeOptions, apply_rope};
pub use table::RopeTable;
