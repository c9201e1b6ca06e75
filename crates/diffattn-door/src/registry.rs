//! Every request that there is: the only file that names them. Computes nothing.

use diffattn::Error;

use crate::encoding::Request;
use crate::objects::Door;
use crate::operation::{Asked, Operation, Query};
use crate::reader::{Named, Reader};
use crate::requests::*;
use crate::schema;

type Read = fn(&Door, &mut Reader<'_>) -> Box<dyn Operation>;
type Answer = for<'a> fn(Reader<'a>, Asked<'a>) -> Result<f64, Error>;

fn read<T: Request + Operation + 'static>(door: &Door, r: &mut Reader<'_>) -> Box<dyn Operation> {
    Box::new(T::read(door, r))
}

fn answer<T: Request + Query>(mut r: Reader<'_>, asked: Asked<'_>) -> Result<f64, Error> {
    let query = T::read(asked.door, &mut r);
    asked.check(r.finish())?;
    query.answer(asked)
}

macro_rules! registry {
    (operations { $($(#[$feature:meta])* $operation:ty,)* } queries { $($(#[$qfeature:meta])* $query:ty,)* }) => {
        /// Requests of jobs, by their numbers.
        const OPERATIONS: &[(u32, Read)] = &[
            $($(#[$feature])* (<$operation>::NUMBER, read::<$operation>),)*
        ];

        /// Requests that are answered at once, by their numbers.
        const QUERIES: &[(u32, Answer)] = &[
            $($(#[$qfeature])* (<$query>::NUMBER, answer::<$query>),)*
        ];

        /// All requests of this build, in the order of `PROTOCOL.md`.
        #[must_use]
        pub fn requests() -> &'static [&'static schema::Request] {
            &[
                $($(#[$feature])* <$operation>::SCHEMA,)*
                $($(#[$qfeature])* <$query>::SCHEMA,)*
            ]
        }
    };
}

registry! {
    operations {
        AttentionRequest,
        MapsRequest,
        GroupNormRequest,
        RmsNormRequest,
        RopeRequest,
        DifferenceRequest,
        ExportCacheRequest,
        LayerForwardRequest,
        LayerMapsRequest,
        #[cfg(feature = "models")] CheckpointRequest,
        #[cfg(feature = "models")] ShardFilesRequest,
        #[cfg(feature = "models")] HeaderRequest,
        #[cfg(feature = "models")] InspectRequest,
        #[cfg(feature = "models")] CastRequest,
        #[cfg(feature = "models")] ConvertRequest,
        #[cfg(feature = "models")] FileKindRequest,
        #[cfg(feature = "models")] ConversionInfoRequest,
        #[cfg(feature = "models")] ConvertTensorRequest,
        #[cfg(feature = "models")] MapEntropyRequest,
        #[cfg(feature = "models")] CompareLogitsRequest,
        #[cfg(feature = "models")] GgufRequest,
        #[cfg(feature = "models")] InfoRequest,
        #[cfg(feature = "models")] LoadRequest,
        #[cfg(feature = "models")] GgufTokenizerRequest,
        #[cfg(feature = "models")] GgufFilesRequest,
        #[cfg(feature = "models")] RecodePlanRequest,
        #[cfg(feature = "models")] RecodeRequest,
        #[cfg(feature = "models")] TextForwardRequest,
        #[cfg(feature = "models")] EmbedTextsRequest,
        #[cfg(feature = "models")] StepRequest,
        #[cfg(feature = "models")] ExportModelCacheRequest,
        #[cfg(feature = "models")] EndRequest,
        #[cfg(feature = "models")] AddTextRequest,
        #[cfg(feature = "models")] RemoveTextRequest,
        #[cfg(feature = "models")] VitForwardRequest,
        #[cfg(feature = "models")] VitMapsRequest,
        #[cfg(feature = "models")] VitClassifyRequest,
        #[cfg(feature = "models")] AudioEncodeRequest,
        #[cfg(feature = "models")] AudioDecodeRequest,
        #[cfg(feature = "models")] AdapterFilesRequest,
        #[cfg(feature = "training")] AttentionBackwardRequest,
        #[cfg(feature = "training")] RmsNormBackwardRequest,
        #[cfg(feature = "training")] GroupNormBackwardRequest,
        #[cfg(feature = "training")] RopeBackwardRequest,
        #[cfg(feature = "training")] DifferenceBackwardRequest,
        #[cfg(feature = "training")] LambdaFullBackwardRequest,
        #[cfg(feature = "training")] LayerVjpRequest,
        #[cfg(feature = "training")] LayerBackwardRequest,
        #[cfg(feature = "training")] StartTrainerRequest,
        #[cfg(feature = "training")] TrainerInfoRequest,
        #[cfg(feature = "training")] TrainerStateRequest,
        #[cfg(feature = "training")] TrainerPlanRequest,
        #[cfg(feature = "training")] TrainerAddRequest,
        #[cfg(feature = "training")] TrainerUpdateRequest,
        #[cfg(feature = "training")] TrainerEvalPlanRequest,
        #[cfg(feature = "training")] TrainerEvaluateRequest,
        #[cfg(feature = "training")] TrainerTensorRequest,
        #[cfg(feature = "training")] SetTrainerTensorRequest,
        #[cfg(feature = "training")] ResumeTrainerRequest,
        #[cfg(feature = "training")] TrainedModelRequest,
        #[cfg(feature = "training")] FreshTensorsRequest,
        #[cfg(feature = "training")] FreshTensorRequest,
        #[cfg(feature = "training")] TokenFileRequest,
        #[cfg(feature = "training")] WriteTokensRequest,
        PanicEarly,
        PanicInStep,
    }
    queries {
        LambdaInitRequest,
        LambdaFullRequest,
        CreateCacheRequest,
        AppendRequest,
        RewindRequest,
        LengthRequest,
        CreateLayerRequest,
        CreateLayerV2Request,
        DropRequest,
        SetWeightsRequest,
        #[cfg(feature = "models")] CreateModelRequest,
        #[cfg(feature = "models")] CreateModelCacheRequest,
        #[cfg(feature = "models")] ImportModelCacheRequest,
        #[cfg(feature = "models")] RewindModelCacheRequest,
        #[cfg(feature = "models")] ModelCacheLengthRequest,
        #[cfg(feature = "models")] CreateGeneratorRequest,
        #[cfg(feature = "models")] CreateConversionRequest,
        #[cfg(feature = "training")] CreateLayerVjpRequest,
        #[cfg(feature = "training")] CreateTrainerRequest,
        PanicInQuery,
    }
}

/// Reads the request of a job; what it names.
pub(crate) fn operation(
    op: u32,
    door: &Door,
    params: &[f64],
) -> Result<(Box<dyn Operation>, Named), Error> {
    let found = OPERATIONS.iter().find(|(number, _)| *number == op);
    let (_, read) = found.ok_or_else(|| Error::internal(format!("there is no job number {op}")))?;
    let mut r = Reader::new(params);
    let operation = read(door, &mut r);
    let named = r.finish()?;
    operation.check()?;
    Ok((operation, named))
}

/// Reads and answers a query.
pub(crate) fn query(op: u32, params: &[f64], asked: Asked<'_>) -> Result<f64, Error> {
    let found = QUERIES.iter().find(|(number, _)| *number == op);
    let (_, answer) =
        found.ok_or_else(|| Error::internal(format!("there is no query number {op}")))?;
    answer(Reader::new(params), asked)
}
