//! diff-mlx: the first version as its authors have it, in a decoder of Llama's kind, under names of
//! its own: flat heads in pairs, neighbouring channels turned together, a weight in the norm per
//! head. Here is the reader of its config alone; what it is made of, and how it takes its weights,
//! is [`super::diff_llama`]'s.

mod config;

use super::diff_llama::{DiffLlamaConfig, of_config};
use crate::models::{ModelFiles, ModelLoader};
use diffattn::Error;

/// A loader of a model of diff-mlx.
pub(crate) fn open(files: &ModelFiles<'_>) -> Result<Box<dyn ModelLoader>, Error> {
    of_config(DiffLlamaConfig::from_diff_mlx_json(files.config)?, files)
}
