//! Checkpoint files: safetensors read and written, one file or shards; what they hold; layers converted between layouts.
//! Runs no model.
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

mod convert;
mod describe;
mod header;
mod inspect;
pub(crate) mod json;
mod kind;
mod layer;
mod layout;
pub(crate) mod names;
pub(crate) mod notices;
mod reader;
mod shards;
mod source;
mod tensor;
mod write;

pub use convert::{
    Converted, LayerForm, LayerTarget, NormWeight, RawWeights, borrow_weights, convert_layer,
    float_weights, fold_norm,
};
pub use header::{Entry, Header, MAX_TENSORS, Parsed};
pub(crate) use inspect::VIT_MODULES;
pub use inspect::{Architecture, DtypeCount, Inspection, inspect};
pub use json::json_text;
pub use kind::kind_of;
pub use layer::{Layer, LayerVersion, Piece};
pub use layout::HeadLayout;
pub use reader::Checkpoint;
pub use safetensors::Dtype;
pub use shards::{INDEX_FILE, MODEL_FILE, ShardIndex, Shards};
pub use source::ByteSource;
#[cfg(not(target_arch = "wasm32"))]
pub use source::{FileMap, FileRanges};
pub use tensor::{Cast, FloatTensor, Floats, RawTensor};
pub use write::{FileLayout, TensorSpec, write, write_to};
