//! Training: the loss of a micro-batch and the gradients of what moves, steps of AdamW. A model in
//! training is the model itself, whose maps are packed anew after each step, and an arena of
//! masters, gradients and moments. Knows no files.

mod arena;
mod attention;
mod batch;
mod between;
mod data;
mod dataset;
mod fresh;
mod gate;
mod grads;
mod ids;
mod images;
mod layer;
mod maps;
mod model;
mod parameters;
mod ranks;
mod rows;
mod rules;
mod schedule;
mod scratch;
mod start;
mod step;
mod sums;
mod tape;
mod text;
mod trainable;
mod trainer;
mod vision;
mod vjp;

pub use arena::{Arena, Parameter, StateTensor};
pub use batch::{IGNORED, TrainingBatch};
pub use data::{DataOptions, Documents, TrainingData};
pub use dataset::{BatchOf, Cursor, Dataset};
pub use fresh::FreshWeights;
pub use images::{HeldOut, ImageBatch, ImageData, ImageOptions};
pub use layer::Recompute;
pub use model::{TrainingModel, TrainingOptions};
pub use parameters::AdapterOptions;
pub use ranks::{Alone, Message, Ranks};
pub use rules::{NamePattern, ParameterRules};
pub use schedule::{Schedule, ScheduleShape};
pub use start::FreshTensor;
pub use trainable::{LossOptions, Measured, MeasuredSums, Parts, Trainable, Whole};
pub use trainer::{StepPlan, StepReport, Trainer, TrainerOptions, TrainerState};
pub use vision::DiffViTStart;
pub use vjp::{KeptForward, LayerBackward, LayerGradients, LayerTape, LayerVjp};
