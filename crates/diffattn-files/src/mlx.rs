//! Quantised weights as MLX has them in safetensors: beside the codes, packed in U32, a scale and a
//! bias for each group, `value = code · scale + bias`, and what `config.json` says of them. Packs
//! rows of codes so. Makes no codes and reads no file.

use crate::check::WeightInfo;
use crate::dtype::{BLOCK, Dtype};
use diffattn::{CodedRow, CodedRows, Error, checked_len, format_shape, try_zeroed};
use half::{bf16, f16};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What `config.json` calls it.
pub(crate) const KEY: &str = "quantization";

/// The one way of making values of codes that is read.
const MODE: &str = "affine";

/// How a module's weight is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MlxPacking {
    /// Bits of a code: 4 or 8.
    pub bits: usize,
    /// Input channels that share a scale and a bias: a multiple of 32.
    pub group_size: usize,
}

/// What a configuration says of quantised weights: `quantization`, one packing for all modules but
/// those that it names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MlxQuantization {
    all: Option<MlxPacking>,
    /// None for a module that is not quantised, or as all others.
    modules: BTreeMap<String, Option<MlxPacking>>,
}

/// The module that a weight is of.
fn module(weight: &str) -> &str {
    weight.strip_suffix(".weight").unwrap_or(weight)
}

/// How the codes of a weight `[outputs, inputs]` are packed, if its tensors fit it and each other.
pub(crate) fn packing(
    [codes, scales]: [&[usize]; 2],
    &[outputs, inputs]: &[usize; 2],
) -> Result<MlxPacking, Fault> {
    let bits = [4, 8].into_iter().find(|bits| {
        let words = inputs.checked_mul(*bits).map(|all| all / 32);
        inputs.is_multiple_of(BLOCK) && words.is_some_and(|words| codes == [outputs, words])
    });
    let bits = bits.ok_or(Fault::Codes)?;
    let &[rows, groups] = scales else {
        return Err(Fault::Scales);
    };
    let group_size = inputs.checked_div(groups).unwrap_or(0);
    let fits = rows == outputs && group_size * groups == inputs;
    if !fits || !group_size.is_multiple_of(BLOCK) || (group_size == 0 && inputs > 0) {
        return Err(Fault::Scales);
    }
    Ok(MlxPacking { bits, group_size })
}

/// Which of a weight's tensors does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The codes are not those of the matrix.
    Codes,
    /// The scales are none of its groups.
    Scales,
}

/// Checks codes, scales and biases against the shape of the weight that they are.
pub(crate) fn check(
    [codes, scales, biases]: [&WeightInfo; 3],
    shape: &[usize],
) -> Result<MlxPacking, Error> {
    let wrong = |info: &WeightInfo, expected: String| {
        let got = format!("{} of {}", format_shape(&info.shape), info.dtype);
        Error::file(format_args!("weights.{}", info.name), expected, got)
    };
    let shown = format_shape(shape);
    let of_codes = || {
        wrong(
            codes,
            format!("codes of 4 or 8 bits for {shown}, rows of whole blocks of 32"),
        )
    };
    let &[outputs, inputs] = shape else {
        return Err(of_codes());
    };
    let fitting = packing([&codes.shape, &scales.shape], &[outputs, inputs]);
    let packing = fitting.map_err(|fault| match fault {
        Fault::Codes => of_codes(),
        Fault::Scales => wrong(
            scales,
            format!("a scale for each group of 32, or of a multiple of it, of {shown}"),
        ),
    })?;
    if ![Dtype::F16, Dtype::BF16].contains(&scales.dtype) {
        return Err(wrong(scales, "scales of F16 or BF16".to_owned()));
    }
    if (&biases.shape, biases.dtype) != (&scales.shape, scales.dtype) {
        let shape = format_shape(&scales.shape);
        let expected = format!("{shape} of {}, as {} is", scales.dtype, scales.name);
        return Err(wrong(biases, expected));
    }
    Ok(packing)
}

impl MlxQuantization {
    /// The names of scales and biases, by that of the weight that they are of.
    #[must_use]
    pub fn beside(weight: &str) -> [String; 2] {
        let stem = module(weight);
        ["scales", "biases"].map(|kind| format!("{stem}.{kind}"))
    }

    /// What a configuration says, where it says anything.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the entry: a mode other than
    /// `"affine"`, codes of other than 4 or 8 bits, groups that are no multiple of 32.
    pub fn of_config(config: &Map<String, Value>) -> Result<Option<Self>, Error> {
        let entry = match config.get(KEY) {
            None | Some(Value::Null) => return Ok(None),
            Some(entry) => entry,
        };
        let argument = format!("config.{KEY}");
        let Value::Object(entry) = entry else {
            return Err(Error::file(argument, "an object or null", shown(entry)));
        };
        let mut modules = BTreeMap::new();
        for (key, value) in entry {
            match value {
                Value::Object(of_module) => {
                    let argument = format!("{argument}.{key}");
                    let packing = packing_of(&argument, of_module)?;
                    modules.insert(key.clone(), Some(packing));
                }
                Value::Bool(_) => _ = modules.insert(key.clone(), None),
                _ => {}
            }
        }
        let all = Some(packing_of(&argument, entry)?);
        Ok(Some(Self { all, modules }))
    }

    /// How the weight of that name is packed. A base model's names lack `model.`, which the
    /// configuration may have, and the other way round.
    #[must_use]
    pub fn packing(&self, weight: &str) -> Option<MlxPacking> {
        let name = module(weight);
        let other = match name.strip_prefix("model.") {
            Some(rest) => rest.to_owned(),
            None => format!("model.{name}"),
        };
        let own = self.modules.get(name).or_else(|| self.modules.get(&other));
        own.copied().flatten().or(self.all)
    }

    /// Whether codes and scales of a checkpoint are packed as it says.
    ///
    /// # Errors
    /// [`ErrorKind::File`](diffattn::ErrorKind::File) naming the first tensor of codes that is not.
    pub fn check(&self, entries: &[WeightInfo]) -> Result<(), Error> {
        let by_name: BTreeMap<&str, &WeightInfo> =
            (entries.iter().map(|info| (info.name.as_str(), info))).collect();
        for codes in entries.iter().filter(|info| info.dtype == Dtype::U32) {
            let [scales, _] = Self::beside(&codes.name);
            let (Some(scales), Some(packing)) =
                (by_name.get(scales.as_str()), self.packing(&codes.name))
            else {
                continue;
            };
            let width = |info: &WeightInfo, each: usize| {
                info.shape.last().and_then(|width| width.checked_mul(each))
            };
            let inputs = width(codes, 32 / packing.bits);
            if inputs != width(scales, packing.group_size) {
                let MlxPacking { bits, group_size } = packing;
                return Err(Error::file(
                    format_args!("weights.{}", codes.name),
                    format_args!("{bits} bits and groups of {group_size}, as config.{KEY} says"),
                    format_args!(
                        "{} of codes with {} of scales",
                        format_shape(&codes.shape),
                        format_shape(&scales.shape)
                    ),
                ));
            }
        }
        Ok(())
    }

    /// One packing for all modules.
    #[must_use]
    pub fn of(all: MlxPacking) -> Self {
        Self {
            all: Some(all),
            modules: BTreeMap::new(),
        }
    }

    /// Says how the weight of that name is packed, where that is not how all are.
    pub fn insert(&mut self, weight: &str, packing: MlxPacking) {
        if self.all != Some(packing) {
            self.modules
                .insert(module(weight).to_owned(), Some(packing));
        }
    }

    /// As `config.json` has it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let packed = |packing: MlxPacking| {
            let MlxPacking { bits, group_size } = packing;
            json!({ "group_size": group_size, "bits": bits })
        };
        let mut all = self.all.map_or_else(|| json!({}), packed);
        all["mode"] = MODE.into();
        for (module, packing) in &self.modules {
            all[module.as_str()] = packing.map_or(Value::Bool(false), packed);
        }
        all
    }
}

/// A value as a sentence has it.
fn shown(value: &Value) -> String {
    crate::text::excerpt(&value.to_string())
}

fn packing_of(argument: &str, entry: &Map<String, Value>) -> Result<MlxPacking, Error> {
    let wrong = |key: &str, expected: &str| {
        let got = entry.get(key).map_or("none".to_owned(), shown);
        Error::file(format_args!("{argument}.{key}"), expected, got)
    };
    match entry.get("mode") {
        None | Some(Value::Null) => {}
        Some(Value::String(mode)) if mode == MODE => {}
        Some(_) => return Err(wrong("mode", "\"affine\"")),
    }
    let size = |key: &str| usize::try_from(entry.get(key)?.as_u64()?).ok();
    let bits = size("bits").filter(|bits| [4, 8].contains(bits));
    let group_size = size("group_size").filter(|&size| size > 0 && size.is_multiple_of(BLOCK));
    Ok(MlxPacking {
        bits: bits.ok_or_else(|| wrong("bits", "4 or 8"))?,
        group_size: group_size.ok_or_else(|| wrong("group_size", "a multiple of 32"))?,
    })
}

/// A weight as MLX has it in a file, little-endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MlxWeight {
    /// U32 `[outputs, inputs · bits / 32]`: codes from the low bits on.
    pub codes: Vec<u8>,
    /// F16 or BF16 `[outputs, inputs / group_size]`.
    pub scales: Vec<u8>,
    /// As the scales.
    pub biases: Vec<u8>,
}

impl MlxWeight {
    /// Packs rows `rows` of a weight of so many inputs.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `weight` where float16 cannot hold
    /// a bias; what reading a row says; [`Error::out_of_memory`].
    pub fn pack(
        from: &mut impl CodedRows,
        inputs: usize,
        rows: std::ops::Range<usize>,
        packing: MlxPacking,
    ) -> Result<Self, Error> {
        let MlxPacking { bits, group_size } = packing;
        let (blocks, groups) = (inputs / BLOCK, inputs / group_size.max(1));
        let width = inputs / 8 * bits;
        let mut packed = Self {
            codes: try_zeroed(checked_len("weight", &[rows.len(), width])?)?,
            scales: try_zeroed(checked_len("weight", &[rows.len(), groups, 2])?)?,
            biases: try_zeroed(checked_len("weight", &[rows.len(), groups, 2])?)?,
        };
        let mut codes: Vec<u8> = try_zeroed(inputs)?;
        let (mut scales, mut biases) = (try_zeroed(blocks)?, try_zeroed(blocks)?);
        for (at, index) in rows.enumerate() {
            let row = CodedRow {
                codes: &mut codes,
                scales: &mut scales,
                biases: &mut biases,
            };
            from.read(index, row)?;
            let to = &mut packed.codes[at * width..][..width];
            if bits == 8 {
                to.copy_from_slice(&codes);
            } else {
                for (to, [low, high]) in to.iter_mut().zip(codes.as_chunks::<2>().0) {
                    *to = low | (high << 4);
                }
            }
            for (numbers, to) in [(&scales, &mut packed.scales), (&biases, &mut packed.biases)] {
                let to = to[at * groups * 2..][..groups * 2].as_chunks_mut::<2>().0;
                let each = numbers.iter().step_by(group_size / BLOCK);
                for (to, &number) in to.iter_mut().zip(each) {
                    *to = half(number, from.bf16(), index)?;
                }
            }
        }
        Ok(packed)
    }
}

/// The bytes of a scale or a bias, which the type must hold as it is.
fn half(number: f32, is_bf16: bool, row: usize) -> Result<[u8; 2], Error> {
    let (bytes, back) = if is_bf16 {
        let half = bf16::from_f32(number);
        (half.to_le_bytes(), half.to_f32())
    } else {
        let half = f16::from_f32(number);
        (half.to_le_bytes(), half.to_f32())
    };
    if back.to_bits() != number.to_bits() && !number.is_nan() {
        return Err(Error::option(
            "weight",
            "scales and biases that float16 holds",
            format_args!("{number} in row {row}"),
        ));
    }
    Ok(bytes)
}
