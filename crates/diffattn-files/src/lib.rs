//! Checkpoint files of models with differential attention: safetensors read and written, one file or
//! shards; what they hold; layers converted between layouts. Runs no model.
//!
//! - [`Header::parse`] checks a file from its first bytes and its length: for whoever fetches tensors by range.
//! - [`kind_of`] says what a file is that is no checkpoint.
//! - [`Checkpoint`] and [`Shards`] read tensors out of memory, a map ([`FileMap`]) or a file read by range
//!   ([`FileRanges`]).
//! - [`write()`], [`write_to`] and [`FileLayout`] write.
//! - [`inspect`] says what a checkpoint is and where its layers are; [`Layer::read`] takes one out.
//! - [`convert_layer`] moves a layer's weights to another head pairing, rope convention or element type.
//!
//! A file is not trusted: nothing is allocated because a file claims it, and what does not fit is
//! [`ErrorKind::File`](diffattn::ErrorKind::File) with the file and the tensor in it.
//!
//! Without the feature `checkpoints` there are only the names and shapes of layers' weights.

mod attention;
#[cfg(feature = "checkpoints")]
mod convert;
#[cfg(feature = "checkpoints")]
mod describe;
#[cfg(feature = "checkpoints")]
mod dtype;
#[cfg(feature = "checkpoints")]
mod header;
#[cfg(feature = "checkpoints")]
mod inspect;
#[cfg(feature = "checkpoints")]
pub mod json;
#[cfg(feature = "checkpoints")]
mod kind;
#[cfg(feature = "checkpoints")]
mod layer;
#[cfg(feature = "checkpoints")]
mod layout;
#[cfg(feature = "checkpoints")]
pub mod names;
#[cfg(feature = "checkpoints")]
pub mod notices;
#[cfg(feature = "checkpoints")]
mod reader;
#[cfg(feature = "checkpoints")]
mod shards;
#[cfg(feature = "checkpoints")]
mod source;
#[cfg(feature = "checkpoints")]
mod tensor;
#[cfg(feature = "checkpoints")]
mod text;
mod weights;
#[cfg(feature = "checkpoints")]
mod write;

pub use attention::{LambdaForm, RopeConfig};
#[cfg(feature = "checkpoints")]
pub use convert::{
    Converted, LayerForm, LayerTarget, NormWeight, RawWeights, borrow_weights, convert_layer,
    float_weights, fold_norm,
};
#[cfg(feature = "checkpoints")]
pub use dtype::Dtype;
#[cfg(feature = "checkpoints")]
pub use header::{Entry, Header, MAX_TENSORS, Parsed};
#[cfg(feature = "checkpoints")]
pub use inspect::{Architecture, DtypeCount, Inspection, VIT_MODULES, inspect};
#[cfg(feature = "checkpoints")]
pub use json::json_text;
#[cfg(feature = "checkpoints")]
pub use kind::kind_of;
#[cfg(feature = "checkpoints")]
pub use layer::{Layer, LayerVersion, Piece};
#[cfg(feature = "checkpoints")]
pub use layout::HeadLayout;
#[cfg(feature = "checkpoints")]
pub use reader::Checkpoint;
#[cfg(feature = "checkpoints")]
pub use shards::{INDEX_FILE, MODEL_FILE, ShardIndex, Shards};
#[cfg(feature = "checkpoints")]
pub use source::ByteSource;
#[cfg(all(feature = "checkpoints", not(target_arch = "wasm32")))]
pub use source::{FileMap, FileRanges};
#[cfg(feature = "checkpoints")]
pub use tensor::{Cast, FloatTensor, Floats, RawTensor};
pub use weights::{PROJECTIONS, Weights};
#[cfg(feature = "checkpoints")]
pub use write::{FileLayout, TensorSpec, write, write_to};
