//! Training: the loss of a micro-batch and the gradients of what moves, steps of AdamW. A model in
//! training is the model itself, whose maps are packed anew after each step, and an arena of
//! masters, gradients and moments. Knows no files.

mod arena;
mod attention;
mod batch;
mod data;
mod fresh;
mod layer;
mod maps;
mod model;
mod parameters;
mod ranks;
mod rows;
mod rules;
mod schedule;
mod scratch;
mod step;
mod tape;
mod trainer;
mod vjp;

pub use arena::{Arena, Parameter, StateTensor};
pub use batch::{IGNORED, TrainingBatch};
pub use data::{Cursor, DataOptions, Documents, TrainingData};
pub use fresh::{FreshTensor, FreshWeights};
pub use layer::Recompute;
pub use model::{LossOptions, TrainingModel, TrainingOptions};
pub use parameters::AdapterOptions;
pub use ranks::{Alone, Message, Ranks};
pub use rules::{NamePattern, ParameterRules};
pub use schedule::{Schedule, ScheduleShape};
pub use trainer::{StepPlan, StepReport, Trainer, TrainerOptions, TrainerState};
pub use vjp::{KeptForward, LayerBackward, LayerGradients, LayerTape, LayerVjp};
