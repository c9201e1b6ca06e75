//! Configurations of models, as their sources write them: what the readers of each model share.

mod entries;
mod family;
mod rope;

pub(crate) use entries::{Entries, described, file_error, ids_json};
pub(crate) use family::wrong_family;
pub(crate) use rope::check_rope;
