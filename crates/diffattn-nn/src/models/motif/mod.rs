//! Motif (`motif`): a DIFF Llama whose flat heads lie in groups of signal heads and a noise head
//! (as many of both in 2.6B, four to one in 2-12.7B), with a weight in the norm per head, and
//! PolyNorm in the MLP. Here is the reader of its config alone; what it is made of, and how it
//! takes its weights, is [`super::diff_llama`]'s.

mod config;

use super::diff_llama::{DiffLlamaConfig, of_config};
use crate::models::{ModelFiles, ModelLoader};
use diffattn::Error;

/// A loader of a Motif.
pub(crate) fn open(files: &ModelFiles<'_>) -> Result<Box<dyn ModelLoader>, Error> {
    of_config(DiffLlamaConfig::from_motif_json(files.config)?, files)
}
