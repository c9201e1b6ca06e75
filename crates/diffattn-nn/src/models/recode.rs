//! What becomes of a checkpoint's tensors where its weights are written as other floats or as MLX's
//! codes: which ones, by the lists of the family that its configuration says. Packs nothing and
//! reads no file.

use super::{Family, ModelFiles, ModelLoader, Task};
use crate::parts::{GROUP, WeightFormat, WeightInfo, stored_bits};
use diffattn::Error;
use diffattn_files::{DeclaredTensor, Dtype, MlxPacking, MlxQuantization, Precision};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// How many input channels may be said to share a scale in what is written.
const GROUPS: [usize; 2] = [GROUP, 64];

/// How a checkpoint is written anew.
#[derive(Debug, Clone, PartialEq)]
pub struct RecodePlan {
    /// Every tensor that is written, in the order of the file that is read.
    pub tensors: Vec<Recoded>,
    /// What `config.json` then says of quantised weights: null where there are none.
    pub quantization: Value,
    /// What could not be as it was asked for, each a sentence.
    pub notes: Vec<String>,
}

/// What becomes of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recoded {
    /// Its name; codes have scales and biases beside it.
    pub from: Vec<String>,
    /// The extent of each axis, of codes that of the weight.
    pub shape: Vec<usize>,
    /// What it becomes.
    pub to: RecodedAs,
    /// Input channels that share a scale in what it becomes, where that is codes.
    pub group_size: usize,
    /// The tensors that it becomes.
    pub outputs: Vec<WeightInfo>,
}

/// What a tensor becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecodedAs {
    /// It stays, byte for byte.
    Kept,
    /// The same codes in MLX's layout.
    Codes,
    /// Floats or codes of another kind.
    Format(WeightFormat),
}

/// The floats of a format of floats, as files have them.
fn dtype_of(format: WeightFormat) -> Dtype {
    match format {
        WeightFormat::F16 => Dtype::F16,
        WeightFormat::Bf16 => Dtype::BF16,
        WeightFormat::F32 | WeightFormat::Q8 | WeightFormat::Q4 => Dtype::F32,
    }
}

impl RecodePlan {
    /// The plan for a checkpoint of texts, its weights as `files.formats` says. `group_size`: how
    /// many inputs share a scale in floats that become codes, 32 by default (scales and biases of
    /// F16, by GGUF's rules), or 64 (of BF16, by MLX's), where rows are whole groups of so many.
    ///
    /// # Errors
    /// As [`Family::open`]; [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `groupSize`
    /// for other sizes.
    pub fn new(files: &ModelFiles<'_>, group_size: Option<usize>) -> Result<Self, Error> {
        let group_size = group_size.unwrap_or(GROUP);
        if !GROUPS.contains(&group_size) {
            return Err(Error::option("groupSize", "32 or 64", group_size));
        }
        let (_, loader) = Family::open(Task::Text, files)?;
        let taken = loader.weights();
        let taken: BTreeMap<&str, (&WeightInfo, &DeclaredTensor)> = taken
            .into_iter()
            .map(|(info, tensor)| (info.name.as_str(), (info, tensor)))
            .collect();
        let mut planning = Planning {
            files,
            entries: files
                .entries
                .iter()
                .map(|info| (info.name.as_str(), info))
                .collect(),
            packings: BTreeMap::new(),
            tensors: Vec::new(),
            group_size,
        };
        let beside: BTreeSet<String> = taken
            .values()
            .filter(|(info, _)| info.dtype == Dtype::U32)
            .flat_map(|(info, _)| MlxQuantization::beside(&info.name))
            .collect();
        for info in files.entries {
            if beside.contains(&info.name) {
                continue;
            }
            match taken.get(info.name.as_str()) {
                Some((_, tensor)) if tensor.precision != Precision::Exact => {
                    planning.weight(info, tensor);
                }
                _ => planning.other(info),
            }
        }
        Ok(Self {
            quantization: planning.quantization(&taken),
            tensors: planning.tensors,
            notes: not_quantised(&*loader),
        })
    }

    /// As JSON, for whoever asks for what is planned.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let tensors = self.tensors.iter().map(|tensor| {
            let outputs = tensor
                .outputs
                .iter()
                .map(|info| json!({ "name": info.name, "dtype": info.dtype, "shape": info.shape }));
            let to = match tensor.to {
                RecodedAs::Kept => "kept",
                RecodedAs::Codes => "codes",
                RecodedAs::Format(format) => format.name(),
            };
            json!({
                "from": tensor.from,
                "shape": tensor.shape,
                "to": to,
                "groupSize": tensor.group_size,
                "outputs": outputs.collect::<Vec<_>>(),
            })
        });
        json!({
            "tensors": tensors.collect::<Vec<_>>(),
            "quantization": self.quantization,
            "notes": self.notes,
        })
    }
}

/// What the loader says could not be quantised.
fn not_quantised(loader: &dyn ModelLoader) -> Vec<String> {
    let notices = loader.notices().iter();
    let is_it = |notice: &&String| notice.contains("no multiple of 32");
    notices.filter(is_it).cloned().collect()
}

/// A plan on its way.
struct Planning<'f> {
    files: &'f ModelFiles<'f>,
    entries: BTreeMap<&'f str, &'f WeightInfo>,
    /// How each weight of codes is packed.
    packings: BTreeMap<String, MlxPacking>,
    tensors: Vec<Recoded>,
    /// Input channels that share a scale in floats that become codes.
    group_size: usize,
}

impl Planning<'_> {
    /// Plans the weight of a map or of a table.
    fn weight(&mut self, info: &WeightInfo, tensor: &DeclaredTensor) {
        let format = self.files.formats.of(tensor.precision);
        let wanted = format.and_then(WeightFormat::quantisation);
        let stays = |bits: usize| match (format, wanted) {
            (None, _) => true,
            (_, Some(rule)) => rule.bits() >= bits,
            (_, None) => false,
        };
        match (stored_bits(info, tensor), format) {
            (Some(_), _) if info.dtype == Dtype::U32 && self.keeps(info, tensor, stays) => {}
            (Some(bits), _) if info.dtype != Dtype::U32 && stays(bits) => {
                self.pack(info, tensor, bits, RecodedAs::Codes);
            }
            (_, Some(format)) if !self.files.formats.misses(tensor) => match wanted {
                Some(rule) => self.pack(info, tensor, rule.bits(), RecodedAs::Format(format)),
                None => self.floats(info, &tensor.shape, format),
            },
            _ => self.keep(info),
        }
    }

    /// Keeps MLX's codes with what lies beside them, where they stay.
    fn keeps(
        &mut self,
        info: &WeightInfo,
        tensor: &DeclaredTensor,
        stays: impl Fn(usize) -> bool,
    ) -> bool {
        let Some(bits) = stored_bits(info, tensor).filter(|&bits| stays(bits)) else {
            return false;
        };
        let [scales, biases] = MlxQuantization::beside(&info.name);
        let beside = [scales, biases].map(|name| self.entries.get(name.as_str()).copied());
        let [Some(scales), Some(biases)] = beside else {
            return false;
        };
        let inputs = tensor.shape.last().copied().unwrap_or(0);
        let groups = scales.shape.last().copied().unwrap_or(0);
        let group_size = inputs.checked_div(groups).unwrap_or(GROUP);
        let packing = MlxPacking { bits, group_size };
        self.packings.insert(info.name.clone(), packing);
        for info in [info, scales, biases] {
            self.keep(info);
        }
        true
    }

    fn keep(&mut self, info: &WeightInfo) {
        self.tensors.push(Recoded {
            from: vec![info.name.clone()],
            shape: info.shape.clone(),
            to: RecodedAs::Kept,
            group_size: GROUP,
            outputs: vec![info.clone()],
        });
    }

    /// What a tensor is read with: codes of MLX's with scales and biases.
    fn from(&self, info: &WeightInfo) -> Vec<String> {
        let name = std::iter::once(info.name.clone());
        let beside = MlxQuantization::beside(&info.name).into_iter();
        let is_packed = info.dtype == Dtype::U32;
        name.chain(beside.filter(|_| is_packed)).collect()
    }

    fn floats(&mut self, info: &WeightInfo, shape: &[usize], format: WeightFormat) {
        let dtype = dtype_of(format);
        if info.dtype == dtype {
            return self.keep(info);
        }
        self.tensors.push(Recoded {
            from: self.from(info),
            shape: shape.to_vec(),
            to: RecodedAs::Format(format),
            group_size: GROUP,
            outputs: vec![WeightInfo {
                name: info.name.clone(),
                dtype,
                shape: shape.to_vec(),
            }],
        });
    }

    fn pack(&mut self, info: &WeightInfo, tensor: &DeclaredTensor, bits: usize, to: RecodedAs) {
        let &[outputs, inputs] = tensor.shape.as_slice() else {
            return self.keep(info);
        };
        // (Codes stay in the groups that they have.)
        let group_size = match to {
            RecodedAs::Format(_) if inputs.is_multiple_of(self.group_size) => self.group_size,
            _ => GROUP,
        };
        let packing = MlxPacking { bits, group_size };
        self.packings.insert(info.name.clone(), packing);
        let [scales, biases] = MlxQuantization::beside(&info.name);
        let groups = [outputs, inputs / group_size];
        let half = match group_size {
            GROUP => Dtype::F16,
            _ => Dtype::BF16,
        };
        let made = [
            (info.name.clone(), Dtype::U32, [outputs, inputs / 32 * bits]),
            (scales, half, groups),
            (biases, half, groups),
        ];
        self.tensors.push(Recoded {
            from: self.from(info),
            shape: tensor.shape.clone(),
            to,
            group_size,
            outputs: made
                .into_iter()
                .map(|(name, dtype, shape)| WeightInfo {
                    name,
                    dtype,
                    shape: shape.to_vec(),
                })
                .collect(),
        });
    }

    /// Plans a tensor that is never quantised: floats stay, unless all become other floats.
    fn other(&mut self, info: &WeightInfo) {
        const FLOATS: [Dtype; 4] = [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16];
        let is_coded = info.dtype.block_bytes().is_some();
        let format = self.files.formats.maps;
        let format = format.filter(|format| format.quantisation().is_none());
        match format {
            Some(format) if is_coded || FLOATS.contains(&info.dtype) => {
                self.floats(info, &info.shape, format);
            }
            None if is_coded => self.floats(info, &info.shape, WeightFormat::F32),
            _ => self.keep(info),
        }
    }

    /// As `config.json` says it: one packing for all, that of the first map, and the others by
    /// name.
    fn quantization(&self, taken: &BTreeMap<&str, (&WeightInfo, &DeclaredTensor)>) -> Value {
        let is_map = |name: &&String| {
            let declared = taken.get(name.as_str());
            declared.is_some_and(|(_, tensor)| tensor.precision == Precision::Map)
        };
        let first = self.packings.keys().find(is_map);
        let first = first.or_else(|| self.packings.keys().next());
        let Some(&all) = first.and_then(|name| self.packings.get(name)) else {
            return Value::Null;
        };
        let mut quantization = MlxQuantization::of(all);
        for (name, &packing) in &self.packings {
            quantization.insert(name, packing);
        }
        quantization.to_json()
    }
}
