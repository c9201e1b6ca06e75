//! The requests: from the stream to an operator, a layer, a model. They check no shapes and decide
//! nothing; what they ask does.

mod attention;
mod cache;
mod lambda;
mod layer;
mod maps;
mod norm;
mod panics;
mod sequence;

#[cfg(feature = "models")]
mod adapter;
#[cfg(feature = "models")]
mod codec;
#[cfg(feature = "models")]
mod conversion;
#[cfg(feature = "models")]
mod convert;
#[cfg(feature = "models")]
mod files;
#[cfg(feature = "models")]
mod generate;
#[cfg(feature = "models")]
mod gguf;
#[cfg(feature = "models")]
mod measure;
#[cfg(feature = "models")]
mod model;
#[cfg(feature = "models")]
mod model_cache;
#[cfg(feature = "models")]
mod ready;
#[cfg(feature = "models")]
mod recode;
#[cfg(feature = "models")]
mod stored;
#[cfg(feature = "models")]
mod text;
#[cfg(feature = "models")]
mod vit;

#[cfg(feature = "training")]
mod gradients;
#[cfg(feature = "training")]
mod token_file;
#[cfg(feature = "training")]
mod trainer;
#[cfg(feature = "training")]
mod vjp;

pub(crate) use attention::{AttentionRequest, MapsRequest};
pub(crate) use cache::{
    AppendRequest, CreateCacheRequest, DropRequest, ExportCacheRequest, LengthRequest,
    RewindRequest,
};
pub(crate) use lambda::{LambdaFullRequest, LambdaInitRequest};
pub(crate) use layer::{
    CreateLayerRequest, CreateLayerV2Request, LayerForwardRequest, LayerMapsRequest,
    SetWeightsRequest,
};
pub(crate) use norm::{GroupNormRequest, RmsNormRequest};
pub(crate) use panics::{PanicEarly, PanicInQuery, PanicInStep};
pub(crate) use sequence::{DifferenceRequest, RopeRequest};

#[cfg(feature = "models")]
pub(crate) use adapter::AdapterFilesRequest;
#[cfg(feature = "models")]
pub(crate) use codec::{AudioDecodeRequest, AudioEncodeRequest};
#[cfg(feature = "models")]
pub(crate) use conversion::{ConversionInfoRequest, ConvertTensorRequest, CreateConversionRequest};
#[cfg(feature = "models")]
pub(crate) use convert::ConvertRequest;
#[cfg(feature = "models")]
pub(crate) use files::{
    CastRequest, CheckpointRequest, FileKindRequest, HeaderRequest, InspectRequest,
    ShardFilesRequest,
};
#[cfg(feature = "models")]
pub(crate) use generate::{
    AddTextRequest, CreateGeneratorRequest, EndRequest, RemoveTextRequest, StepRequest,
};
#[cfg(feature = "models")]
pub(crate) use gguf::{GgufFilesRequest, GgufRequest, GgufTokenizerRequest};
#[cfg(feature = "models")]
pub(crate) use measure::{CompareLogitsRequest, MapEntropyRequest};
#[cfg(feature = "models")]
pub(crate) use model::{CreateModelRequest, InfoRequest, LoadRequest};
#[cfg(feature = "models")]
pub(crate) use model_cache::{
    CreateModelCacheRequest, ExportModelCacheRequest, ImportModelCacheRequest,
    ModelCacheLengthRequest, RewindModelCacheRequest,
};
#[cfg(feature = "models")]
pub(crate) use recode::{RecodePlanRequest, RecodeRequest};
#[cfg(feature = "models")]
pub(crate) use text::{EmbedTextsRequest, TextForwardRequest};
#[cfg(feature = "models")]
pub(crate) use vit::{VitClassifyRequest, VitForwardRequest, VitMapsRequest};

#[cfg(feature = "training")]
pub(crate) use gradients::{
    AttentionBackwardRequest, DifferenceBackwardRequest, GroupNormBackwardRequest,
    LambdaFullBackwardRequest, RmsNormBackwardRequest, RopeBackwardRequest,
};
#[cfg(feature = "training")]
pub(crate) use token_file::{TokenFileRequest, WriteTokensRequest};
#[cfg(feature = "training")]
pub(crate) use trainer::{
    CreateTrainerRequest, FreshTensorRequest, FreshTensorsRequest, ResumeTrainerRequest,
    SetTrainerTensorRequest, StartTrainerRequest, TrainedModelRequest, TrainerAddRequest,
    TrainerEvalPlanRequest, TrainerEvaluateRequest, TrainerInfoRequest, TrainerPlanRequest,
    TrainerStateRequest, TrainerTensorRequest, TrainerUpdateRequest,
};
#[cfg(feature = "training")]
pub(crate) use vjp::{CreateLayerVjpRequest, LayerBackwardRequest, LayerVjpRequest};
