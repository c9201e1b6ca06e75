//! Checkpoint files of models with differential attention: safetensors read and written, one file
//! or shards, and GGUF read; what they hold; layers converted between layouts. Runs no model.
//!
//! - [`Header::parse`] checks a file from its first bytes and its length: for whoever fetches
//!   tensors by range.
//! - [`kind_of`] says what a file is that is no checkpoint.
//! - [`Checkpoint`] and [`Shards`] read tensors out of memory, a map ([`FileMap`]) or a file read
//!   by range ([`FileRanges`]).
//! - [`Gguf`] and [`GgufFiles`] read llama.cpp's format as the same: a configuration, a tokenizer
//!   and tensors in Hugging Face's words.
//! - [`write()`], [`write_to`] and [`FileLayout`] write.
//! - [`inspect`] says what a checkpoint is and where its layers are; [`Layer::read`] takes one out.
//! - [`convert_layer`] moves a layer's weights to another head pairing, rope convention or element
//!   type.
//! - [`ModelConversion`] makes heads of a Llama differential, or plain again, tensor by tensor.
//!
//! Which weights a layer has stands once, as a list of names, shapes and needs ([`Declare`]):
//! attention ([`AttentionSizes`], [`five_way`]), decoders ([`decoder`]), vision transformers
//! ([`vision`]), an audio codec ([`same_s`]).
//! [`Entries`] checks a checkpoint against the lists of a model, part by part; inspection and
//! conversion read the same ones.
//!
//! A file is not trusted: nothing is allocated because a file claims it, and what does not fit is
//! [`ErrorKind::File`](diffattn::ErrorKind::File) with the file and the tensor in it.
//!
//! Without the feature `checkpoints` there are only the names and shapes of layers' weights.

#[cfg(feature = "checkpoints")]
mod adapter;
#[cfg(feature = "checkpoints")]
mod affine;
mod attention;
#[cfg(feature = "checkpoints")]
mod blocks;
#[cfg(feature = "checkpoints")]
mod check;
#[cfg(feature = "checkpoints")]
mod coded;
#[cfg(feature = "checkpoints")]
mod convert;
mod declare;
#[cfg(feature = "checkpoints")]
pub mod decoder;
#[cfg(feature = "checkpoints")]
mod describe;
#[cfg(feature = "checkpoints")]
mod dtype;
#[cfg(feature = "checkpoints")]
mod elements;
#[cfg(feature = "checkpoints")]
mod entries;
#[cfg(feature = "checkpoints")]
mod entry;
#[cfg(feature = "checkpoints")]
pub mod five_way;
#[cfg(feature = "checkpoints")]
mod floats;
#[cfg(feature = "checkpoints")]
mod found;
#[cfg(feature = "checkpoints")]
mod gguf;
#[cfg(feature = "checkpoints")]
mod header;
#[cfg(feature = "checkpoints")]
mod inspect;
#[cfg(feature = "checkpoints")]
mod json;
#[cfg(feature = "checkpoints")]
mod kind;
#[cfg(feature = "checkpoints")]
mod layer;
#[cfg(feature = "checkpoints")]
mod layout;
#[cfg(feature = "checkpoints")]
mod mlx;
#[cfg(feature = "checkpoints")]
mod names;
#[cfg(feature = "checkpoints")]
mod notices;
#[cfg(feature = "checkpoints")]
pub mod phi4flash;
#[cfg(feature = "checkpoints")]
mod plain;
#[cfg(feature = "checkpoints")]
mod raw_weights;
#[cfg(feature = "checkpoints")]
mod reader;
#[cfg(feature = "checkpoints")]
pub mod same_s;
#[cfg(feature = "checkpoints")]
mod shards;
#[cfg(feature = "checkpoints")]
mod source;
#[cfg(feature = "checkpoints")]
mod tensor;
#[cfg(feature = "checkpoints")]
mod text;
#[cfg(feature = "checkpoints")]
mod tokens;
#[cfg(feature = "checkpoints")]
pub mod vision;
#[cfg(feature = "checkpoints")]
mod weight_info;
mod weights;
#[cfg(feature = "checkpoints")]
mod write;

#[cfg(feature = "checkpoints")]
pub use adapter::{
    ADAPTER_PREFIX, Adapter, AdapterConversion, AdapterOptions, AdapterWeight, WrittenAdapter,
};
#[cfg(feature = "checkpoints")]
pub use affine::AffineRows;
pub use attention::{AttentionSizes, LambdaForm, LambdaIds, Projections, RopeConfig, V1Ids, V2Ids};
#[cfg(feature = "checkpoints")]
pub use blocks::Block;
#[cfg(feature = "checkpoints")]
pub use check::{CheckedParts, Entries, low_rank_names};
#[cfg(feature = "checkpoints")]
pub use coded::CodedTensor;
#[cfg(feature = "checkpoints")]
pub use convert::{
    ConversionForm, ConversionStart, ConversionTarget, Converted, LayerForm, LayerTarget,
    ModelConversion, NormWeight, TargetHeads, convert_layer, fold_norm,
};
pub use declare::{Declare, Declared, DeclaredTensor, Id, Kind, Need, Precision};
#[cfg(feature = "checkpoints")]
pub use dtype::Dtype;
#[cfg(feature = "checkpoints")]
pub use entry::Entry;
#[cfg(feature = "checkpoints")]
pub use floats::{FloatTensor, Floats};
#[cfg(feature = "checkpoints")]
pub use gguf::{
    GGUF_MAGIC, Gguf, GgufEntry, GgufFiles, GgufHeader, GgufParsed, GgufTokenizer, split_names,
};
#[cfg(feature = "checkpoints")]
pub use header::{Header, MAX_TENSORS, Parsed};
#[cfg(feature = "checkpoints")]
pub use inspect::{Architecture, DtypeCount, Inspection, QuantizedCount, inspect};
#[cfg(feature = "checkpoints")]
pub use json::{json_object, json_text};
#[cfg(feature = "checkpoints")]
pub use kind::kind_of;
#[cfg(feature = "checkpoints")]
pub use layer::{Layer, LayerVersion, Piece};
#[cfg(feature = "checkpoints")]
pub use layout::HeadLayout;
#[cfg(feature = "checkpoints")]
pub use mlx::{MlxPacking, MlxQuantization, MlxWeight};
#[cfg(feature = "checkpoints")]
pub use plain::{ConvertedLayer, HeadChoice, PlainHeads, PlainLayer};
#[cfg(feature = "checkpoints")]
pub use raw_weights::{RawWeights, borrow_weights, float_weights};
#[cfg(feature = "checkpoints")]
pub use reader::Checkpoint;
#[cfg(feature = "checkpoints")]
pub use shards::{INDEX_FILE, MODEL_FILE, ShardIndex, Shards};
#[cfg(feature = "checkpoints")]
pub use source::ByteSource;
#[cfg(all(feature = "checkpoints", not(target_arch = "wasm32")))]
pub use source::{FileMap, FileRanges};
#[cfg(feature = "checkpoints")]
pub use tensor::{Cast, RawTensor};
#[cfg(feature = "checkpoints")]
pub use tokens::{TOKENS_MAGIC, TokenFile, token_starts, write_tokens};
#[cfg(feature = "checkpoints")]
pub use weight_info::WeightInfo;
pub use weights::Weights;
#[cfg(feature = "checkpoints")]
pub use write::{FileLayout, TensorSpec, write, write_to};
