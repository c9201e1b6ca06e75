//! Configurations of models, as their sources write them: what the readers of each model share.

mod entries;
mod rope;

pub(crate) use entries::{Entries, described, file_error};
pub(crate) use rope::check_rope;
