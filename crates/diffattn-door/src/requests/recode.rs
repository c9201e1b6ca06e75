//! Requests that write checkpoints of other floats or of MLX's codes: which tensors become what,
//! and a tensor that becomes it. Knows no format; diffattn-nn does.

use diffattn::{Error, Work};
use diffattn_nn::checkpoint::{RawTensor, json_text};
use diffattn_nn::{ModelFiles, RecodePlan, Recoding, Weight, WeightFormat, WeightFormats};

use super::files;
use super::ready::{Made, in_file, ready};
use super::stored::StoredTensorAt;
use crate::encoding::{List, Size, Text, request};
use crate::job::{OutputSpec, Prepared};
use crate::kind::Kind;
use crate::operation::{Inputs, Operation};

request! {
    /// A request of `recodePlan`.
    84 recodePlan RecodePlanRequest {
        config: Text,
        entries("tensors"): Text,
        dtype: Option<WeightFormat>,
        head: Option<WeightFormat>,
        group_size: Option<Size>,
    }
}

impl Operation for RecodePlanRequest {
    fn prepares_at_length(&self) -> bool {
        true
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let operands = inputs.operands;
        let entries = files::weights(self.entries.text(operands)?)?;
        let files = ModelFiles {
            config: json_text("config", self.config.u8(operands)?)?,
            generation_config: None,
            entries: &entries,
            formats: WeightFormats {
                maps: self.dtype,
                ends: self.head,
            },
        };
        let plan = RecodePlan::new(&files, self.group_size)?;
        ready(vec![("plan", Made::json(&plan.to_json())?)])
    }
}

request! {
    /// A request of `recodeTensor`: the tensor, and where it is MLX's codes their scales and
    /// biases.
    85 recodeTensor RecodeRequest {
        shape: List<Size>,
        to("dtype"): Option<WeightFormat>,
        group_size: Size,
        tensors: List<StoredTensorAt>,
    }
}

/// Weights per unit of work: some milliseconds.
const UNIT: usize = 1 << 18;

impl Operation for RecodeRequest {
    fn prepares_at_length(&self) -> bool {
        true
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let tensors = self.tensors.iter().map(|at| at.tensor(inputs.operands));
        let tensors = tensors.collect::<Result<Vec<_>, Error>>()?;
        let mut names = tensors.iter().map(|(name, _)| *name);
        let argument = format!("weights.{}", names.next().unwrap_or_default());
        let mut weights = tensors.into_iter().map(|(_, tensor)| Weight::from(tensor));
        let (weight, beside) = match (weights.next(), weights.next(), weights.next()) {
            (Some(weight), None, None) => (weight, None),
            (Some(weight), Some(scales), Some(biases)) => (weight, Some([scales, biases])),
            _ => return Err(Error::option("tensors", "1 or 3", self.tensors.len())),
        };
        let recoding = Recoding::new(
            &argument,
            (weight, beside),
            &self.shape,
            (self.to, self.group_size),
        );
        let recoding = recoding.map_err(in_file)?;
        let (Some(bits), &[outputs, inputs]) = (recoding.bits(), self.shape.as_slice()) else {
            let floats = RawTensor::of(&argument, &recoding.floats()?)?;
            return ready(vec![("tensor", Made::Bytes(floats.into_bytes()))]);
        };
        let numbers = inputs / recoding.group_size().max(1) * 2;
        let widths = [inputs / 8 * bits, numbers, numbers];
        let [codes, scales, biases] = widths.map(|width| outputs.saturating_mul(width));
        let specs = vec![
            OutputSpec::new("codes", Kind::U8, &[codes])?,
            OutputSpec::new("scales", Kind::U8, &[scales])?,
            OutputSpec::new("biases", Kind::U8, &[biases])?,
        ];
        let unit = (UNIT / inputs.max(1)).max(1);
        Ok(Prepared::new(specs, move |made| {
            let mut to = [made.u8()?, made.u8()?, made.u8()?];
            Ok(Work::new(outputs.div_ceil(unit), |pace| async move {
                pace.rows(0..outputs, unit, |range| {
                    for first in range.clone().step_by(unit) {
                        let rows = first..(first + unit).min(range.end);
                        let packed = recoding.rows(rows.clone());
                        let packed = packed.map_err(|error| in_weight(&argument, error))?;
                        let made = [packed.codes, packed.scales, packed.biases];
                        for ((to, made), width) in to.iter_mut().zip(made).zip(widths) {
                            to[rows.start * width..rows.end * width].copy_from_slice(&made);
                        }
                    }
                    Ok(())
                })
                .await
            }))
        }))
    }
}

/// What is wrong with a weight, by its name.
fn in_weight(argument: &str, error: Error) -> Error {
    match error.kind() {
        Some(kind) => in_file(error.renamed(kind, |_| argument.to_owned())),
        None => error,
    }
}
