//! Operators along the sequence: the rotary embedding and backward differences. Nothing fuses, so
//! every instruction set gives one set of bits.

mod axes;
mod difference;
mod frequencies;
mod places;
mod rope;
mod table;

pub use difference::{
    SequenceDifference, SequenceDifferenceBackward, SequenceDifferenceOptions, sequence_difference,
    sequence_difference_backward,
};
pub use frequencies::{RopeFrequencies, RopeScaling, RopeType};
pub use places::Positions;
pub use rope::{Rope, RopeBackward, RopeOptions, apply_rope, apply_rope_backward};
pub use table::RopeTable;
