//! As what a model's weights are held: what may be asked for, and what a weight becomes. Packs
//! nothing.

use diffattn::Quantisation;
use diffattn_files::{DeclaredTensor, Dtype, Precision, WeightInfo};

/// As what a weight is held in memory, whatever its file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightFormat {
    /// float32; of quantised weights what they stand for.
    F32,
    /// float16, rounded once.
    F16,
    /// bfloat16, rounded once.
    Bf16,
    /// Codes of eight bits and a scale for each 32 ([`Quantisation::Q8_0`]).
    Q8,
    /// Codes of four bits and a scale for each 32 ([`Quantisation::Q4_0`]).
    Q4,
}

/// As what the weights of a model are held. Those that are codes of as many bits, or fewer, already
/// stay as they are; vectors, norms and small maps whose values matter stay floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WeightFormats {
    /// The linear maps; as they are stored by default.
    pub maps: Option<WeightFormat>,
    /// The embeddings and the head; by default as the linear maps, but of eight bits where those
    /// have four.
    pub ends: Option<WeightFormat>,
}

impl WeightFormat {
    /// Its name where it is asked for.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
            Self::Q8 => "q8",
            Self::Q4 => "q4",
        }
    }

    /// As what a checkpoint has a weight: F64 counts as float32, which a model takes of it.
    fn stored(info: &WeightInfo, tensor: &DeclaredTensor) -> Self {
        match (stored_bits(info, tensor), info.dtype) {
            (Some(8), _) => Self::Q8,
            (Some(_), _) => Self::Q4,
            (None, Dtype::F16) => Self::F16,
            (None, Dtype::BF16) => Self::Bf16,
            (None, _) => Self::F32,
        }
    }

    /// The rule by which floats become its codes.
    #[must_use]
    pub fn quantisation(self) -> Option<Quantisation> {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => None,
            Self::Q8 => Some(Quantisation::Q8_0),
            Self::Q4 => Some(Quantisation::Q4_0),
        }
    }
}

impl WeightFormats {
    /// That of a weight; none for one that stays as it is stored.
    #[must_use]
    pub fn of(self, precision: Precision) -> Option<WeightFormat> {
        match precision {
            Precision::Exact => None,
            Precision::Map => self.maps,
            Precision::End => self.ends.or(match self.maps {
                Some(WeightFormat::Q4) => Some(WeightFormat::Q8),
                other => other,
            }),
        }
    }

    /// As what a weight is held: as it is stored where nothing else is asked for, where it is codes
    /// of as many bits already, or fewer, and where it cannot be quantised.
    pub(crate) fn held(self, info: &WeightInfo, tensor: &DeclaredTensor) -> WeightFormat {
        let stored = WeightFormat::stored(info, tensor);
        let bits = |format: WeightFormat| format.quantisation().map(Quantisation::bits);
        match self.of(tensor.precision) {
            None => stored,
            Some(_) if self.misses(tensor) => stored,
            Some(wanted)
                if bits(wanted)
                    .zip(bits(stored))
                    .is_some_and(|(to, is)| to >= is) =>
            {
                stored
            }
            Some(wanted) => wanted,
        }
    }

    /// Whether a weight should be quantised and cannot, as its rows are no whole blocks of 32.
    #[must_use]
    pub(crate) fn misses(self, tensor: &DeclaredTensor) -> bool {
        let is_quantised = |format: WeightFormat| format.quantisation().is_some();
        let width = tensor.shape.last().copied().unwrap_or(0);
        self.of(tensor.precision).is_some_and(is_quantised) && !width.is_multiple_of(32)
    }
}

/// Bits of the codes that a checkpoint has a weight in: GGUF's, or MLX's, whose words hold several.
pub(crate) fn stored_bits(info: &WeightInfo, tensor: &DeclaredTensor) -> Option<usize> {
    match info.dtype {
        Dtype::Q8_0 => Some(8),
        Dtype::Q4_0 | Dtype::Q4_1 => Some(4),
        Dtype::U32 => {
            let bits = info.shape.last()?.checked_mul(32)?;
            bits.checked_div(*tensor.shape.last()?)
        }
        _ => None,
    }
}
