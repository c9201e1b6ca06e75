//! Whole models: each is a config, a list of [`crate::layers`] over its weights, and what stands at
//! both ends of it. What runs them is [`crate::pass`]. Here is the list of their families, by which
//! a checkpoint finds its loader.

mod decoder;
pub(crate) mod diff_llama;
pub(crate) mod diff_mlx;
pub(crate) mod diff_vit;
mod embed;
mod ends;
mod ids;
mod loader;
mod measure;
pub(crate) mod motif;
mod outputs;
mod pasts;
pub(crate) mod phi4flash;
mod recode;
pub(crate) mod same_s;
pub(crate) mod tables;
mod texts;

pub use decoder::{Decoder, TextModel};
pub use embed::{EmbedOptions, Pooling, TextEmbed};
pub use ids::{Logits, TokenIds};
pub use loader::{Builder, Loader, Model, ModelFiles, ModelLoader, Task};
pub use measure::{LogitsDistance, compare_logits, map_entropy};
pub use outputs::{TextOptions, TextOutput, TextOutputs};
pub use recode::{RecodePlan, Recoded, RecodedAs};
pub use texts::TextForward;
pub(crate) use texts::check_length;

use crate::checkpoint::Architecture;
use crate::config::{Entries, wrong_family};
use diffattn::Error;
use diffattn_files::MlxQuantization;

/// A family of models.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// What its checkpoints are.
    pub architecture: Architecture,
    /// What its models do.
    pub task: Task,
    open: fn(&ModelFiles<'_>) -> Result<Box<dyn ModelLoader>, Error>,
}

/// Every family: how its configuration is read, and how its models are loaded.
pub const FAMILIES: [Family; 8] = [
    Family {
        architecture: Architecture::DiffLlama,
        task: Task::Text,
        open: diff_llama::open,
    },
    Family {
        architecture: Architecture::Llama,
        task: Task::Text,
        open: diff_llama::open_llama,
    },
    Family {
        architecture: Architecture::DiffAttnLlama,
        task: Task::Text,
        open: diff_llama::open_converted,
    },
    Family {
        architecture: Architecture::Motif,
        task: Task::Text,
        open: motif::open,
    },
    Family {
        architecture: Architecture::DiffMlx,
        task: Task::Text,
        open: diff_mlx::open,
    },
    Family {
        architecture: Architecture::Phi4Flash,
        task: Task::Text,
        open: phi4flash::open,
    },
    Family {
        architecture: Architecture::TimmDiffVit,
        task: Task::Image,
        open: diff_vit::open,
    },
    Family {
        architecture: Architecture::SameS,
        task: Task::Audio,
        open: same_s::open,
    },
];

impl Family {
    /// The family of a checkpoint, by its configuration, and a loader of its model, which must do
    /// `task`.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the entry of the config as
    /// `config.KEY`, or the weight as `weights.NAME`: no JSON, no family that does this, codes
    /// other than the configuration says, or what the family's own loader refuses.
    pub fn open(
        task: Task,
        files: &ModelFiles<'_>,
    ) -> Result<(&'static Self, Box<dyn ModelLoader>), Error> {
        let entries = Entries::read("config", files.config)?;
        let said = Architecture::of_config(&entries.map);
        let able: Vec<&Self> = FAMILIES.iter().filter(|one| one.task == task).collect();
        let found = able.iter().find(|one| Some(one.architecture) == said);
        let family = match (found, able.as_slice()) {
            (Some(&family), _) => family,
            // (Its own reader says what is wrong.)
            (None, &[only]) => only,
            (None, _) => {
                let names = able
                    .iter()
                    .filter_map(|one| one.architecture.model_type())
                    .map(|name| format!("{name:?}"));
                let names = names.collect::<Vec<_>>().join(", ");
                return Err(wrong_family(
                    &entries.map,
                    "model_type",
                    format!("one of {names}"),
                ));
            }
        };
        if let Some(quantization) = MlxQuantization::of_config(&entries.map)? {
            quantization.check(files.entries)?;
        }
        let mut loader = (family.open)(files)?;
        loader.hold_as(files.formats);
        Ok((family, loader))
    }
}
