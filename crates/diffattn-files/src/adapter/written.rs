//! A low-rank adapter to be written: its configuration, and what its tensors are called, of the
//! weights that it changes. What it makes, [`Adapter::new`] reads. Holds no elements.

use super::{ADAPTER_PREFIX, Adapter, LORA_A, LORA_B};
use crate::convert::{ConversionForm, ConversionStart, ConversionTarget, TargetHeads};
use crate::dtype::Dtype;
use crate::entry::Entry;
use crate::write::TensorSpec;
use diffattn::{Error, ErrorKind, format_shape};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The element type and the shape of a tensor.
type Elements<'s> = (Dtype, &'s [usize]);

/// What an adapter has of a weight: floats.
#[derive(Debug, Clone, Copy)]
pub enum AdapterWeight<'s> {
    /// `W + alpha / r · B A`.
    LowRank {
        /// `[r, inputs]`.
        a: (Dtype, &'s [usize]),
        /// `[outputs, r]`.
        b: (Dtype, &'s [usize]),
    },
    /// The weight is this one.
    Whole((Dtype, &'s [usize])),
}

/// What the configuration of an adapter says besides.
#[derive(Debug, Clone, Default)]
pub struct AdapterOptions {
    /// `lora_alpha`; by default the rank, so that B A is added as it is.
    pub alpha: Option<f64>,
    /// The conversion of a plain Llama that it was trained over: the second version, mirrored, of
    /// all heads or of listed ones.
    pub conversion: Option<ConversionTarget>,
    /// Where the model is that it is for: PEFT's `base_model_name_or_path`.
    pub base_model: Option<String>,
}

/// The two files of an adapter, all but the elements.
#[derive(Debug, Clone)]
pub struct WrittenAdapter {
    config: Value,
    tensors: Vec<Entry>,
}

impl WrittenAdapter {
    /// Names the tensors of weights, each by its own name (`….q_proj.weight`).
    ///
    /// # Errors
    /// [`ErrorKind::Option`] naming `weights` or one of them (`weights.NAME`) for a name that is no
    /// parameter's, a module both whole and low-rank, nothing low-rank, or naming the option;
    /// [`ErrorKind::Shape`] naming A or B (`weights.NAME.a`) of other axes or another rank than
    /// the first; [`ErrorKind::Dtype`] for elements other than F32, F16 and BF16.
    pub fn new(
        weights: &[(&str, AdapterWeight<'_>)],
        options: &AdapterOptions,
    ) -> Result<Self, Error> {
        let mut planned = Planned::default();
        for (name, weight) in weights {
            planned.weight(name, *weight)?;
        }
        if let Some(both) = planned.low_rank.intersection(&planned.whole).next() {
            let expected = "low-rank differences or whole weights of a module, not both";
            return Err(Error::option("weights", expected, format_args!("{both:?}")));
        }
        let Some(rank) = planned.rank else {
            let expected = "a low-rank difference or more";
            return Err(Error::option("weights", expected, "none"));
        };
        let alpha = options.alpha.unwrap_or(rank as f64);
        if !alpha.is_finite() {
            return Err(Error::option("alpha", "a finite number", alpha));
        }
        // (Other readers want a whole number, where it is one.)
        let is_whole = alpha.fract() == 0.0 && alpha.abs() < 2f64.powi(53);
        let mut config = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": options.base_model,
            "r": rank,
            "lora_alpha": if is_whole { json!(alpha as i64) } else { json!(alpha) },
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "target_modules": planned.low_rank,
            "modules_to_save": planned.whole,
        });
        if let Some(conversion) = &options.conversion {
            config["diff_attention"] = described(conversion)?;
        }
        let Planned { tensors, .. } = planned;
        let made = Self { config, tensors };
        // What is written is read again.
        let read = Adapter::new(&made.config(), &made.tensors);
        read.map_err(|error| error.of(ErrorKind::Option))?;
        Ok(made)
    }

    /// The text of `adapter_config.json`.
    #[must_use]
    pub fn config(&self) -> String {
        format!("{:#}\n", self.config)
    }

    /// The tensors of `adapter_model.safetensors`: of each weight in turn A and B, or the whole.
    #[must_use]
    pub fn tensors(&self) -> Vec<TensorSpec<'_>> {
        let specs = self.tensors.iter().map(|tensor| TensorSpec {
            name: &tensor.name,
            dtype: tensor.dtype,
            shape: &tensor.shape,
        });
        specs.collect()
    }
}

/// An adapter on its way.
#[derive(Default)]
struct Planned<'w> {
    tensors: Vec<Entry>,
    rank: Option<usize>,
    /// The last parts of modules' names, of low-rank differences and of whole weights.
    low_rank: BTreeSet<&'w str>,
    whole: BTreeSet<&'w str>,
}

impl<'w> Planned<'w> {
    fn weight(&mut self, name: &'w str, weight: AdapterWeight<'_>) -> Result<(), Error> {
        let argument = format!("weights.{name}");
        // (Whole modules have biases, and parameters of other names.)
        let module = match weight {
            AdapterWeight::LowRank { .. } => name.strip_suffix(".weight"),
            AdapterWeight::Whole(_) => name.rsplit_once('.').map(|(module, _)| module),
        };
        let is_own =
            |module: &&str| !module.starts_with(ADAPTER_PREFIX) && !name.contains(".lora_");
        let module = module.filter(is_own);
        let last = module.and_then(|module| module.rsplit('.').next());
        let (Some(module), Some(last)) = (module, last.filter(|last| !last.is_empty())) else {
            let expected = match weight {
                AdapterWeight::LowRank { .. } => {
                    "the name of a module's weight, as the model has it: NAME.weight"
                }
                AdapterWeight::Whole(_) => {
                    "the name of a module's parameter, as the model has it: NAME.weight"
                }
            };
            return Err(Error::option(argument, expected, format_args!("{name:?}")));
        };
        match weight {
            AdapterWeight::Whole(whole) => {
                check_floats(&argument, whole)?;
                self.whole.insert(last);
                self.push(format!("{ADAPTER_PREFIX}{name}"), whole);
            }
            AdapterWeight::LowRank { a, b } => {
                self.check_rank(&format!("{argument}.a"), a, 0)?;
                self.check_rank(&format!("{argument}.b"), b, 1)?;
                self.low_rank.insert(last);
                self.push(format!("{ADAPTER_PREFIX}{module}{LORA_A}"), a);
                self.push(format!("{ADAPTER_PREFIX}{module}{LORA_B}"), b);
            }
        }
        Ok(())
    }

    fn push(&mut self, name: String, (dtype, shape): Elements<'_>) {
        self.tensors.push(Entry {
            name,
            dtype,
            shape: shape.to_vec(),
            range: 0..0,
        });
    }

    /// Checks that a matrix of floats has the rank of all on that axis.
    fn check_rank(
        &mut self,
        argument: &str,
        matrix: Elements<'_>,
        axis: usize,
    ) -> Result<(), Error> {
        check_floats(argument, matrix)?;
        let (_, shape) = matrix;
        let &[_, _] = shape else {
            let expected = ["2 axes, [rank, inputs]", "2 axes, [outputs, rank]"][axis];
            return Err(Error::shape(argument, expected, format_shape(shape)));
        };
        let rank = *self.rank.get_or_insert(shape[axis]);
        if rank != shape[axis] || rank == 0 {
            let expected = match rank {
                0 => "a rank of 1 or more".to_owned(),
                rank => format!("{rank} on axis {axis}, the rank of the first"),
            };
            return Err(Error::shape(argument, expected, format_shape(shape)));
        }
        Ok(())
    }
}

fn check_floats(argument: &str, (dtype, _): Elements<'_>) -> Result<(), Error> {
    match dtype.is_float() {
        true => Ok(()),
        false => Err(Error::dtype(argument, "F32, F16 or BF16", dtype)),
    }
}

/// A conversion as `adapter_config.json` has it.
fn described(target: &ConversionTarget) -> Result<Value, Error> {
    let wrong = |key: &str, expected: &str| {
        let argument = format_args!("conversion.{key}");
        Err(Error::option(argument, expected, "another"))
    };
    if target.form != ConversionForm::V2 {
        return wrong("to", "\"v2\", which adapters are of");
    }
    if !matches!(target.start, None | Some(ConversionStart::Mirror)) {
        return wrong("start", "\"mirror\", which adapters are of");
    }
    let heads = match &target.heads {
        TargetHeads::All => json!("all"),
        TargetHeads::Listed(lists) => {
            for (layer, list) in lists.iter().enumerate() {
                if !list.is_sorted_by(|a, b| a < b) {
                    let argument = format_args!("conversion.heads[{layer}]");
                    let got = format_args!("{list:?}");
                    return Err(Error::option(argument, "ascending numbers of heads", got));
                }
            }
            json!(lists)
        }
        _ => return wrong("heads", "\"all\" or lists of numbers for each layer"),
    };
    Ok(json!({ "kind": "v2", "heads": heads, "lambda": "sigmoid", "start": "mirror" }))
}
