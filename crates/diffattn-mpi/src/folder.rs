//! Checkpoints in folders, as `diffattn train` writes them: one appears whole or not at all. Knows
//! no loop.

use crate::failure::Failure;
use diffattn_nn::checkpoint::{
    Checkpoint, Dtype, FileLayout, FileRanges, MODEL_FILE, Shards, TensorSpec,
};
use diffattn_nn::training::{FreshWeights, Ranks, StateTensor, Trainer, TrainingData};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

type Training = Trainer<TrainingData<FileRanges>>;

const MOMENTS: &str = "optimizer.safetensors";
const STATE: &str = "training.json";
const CONFIG: &str = "config.json";
const LATEST: &str = "latest";
/// What lies beside weights and stays right for them, as the package has it (companions.ts).
const COMPANIONS: [&str; 9] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
];
/// Bytes of a JSON file at most.
const MOST_TEXT: u64 = 64 << 20;

/// What a model began as: what stays of it is written into each checkpoint.
pub(crate) enum Origin {
    /// A folder.
    Folder(PathBuf, Shards<FileRanges>),
    /// Random weights of a seed.
    Fresh(FreshWeights, u64),
}

/// A run's folder.
pub(crate) struct Run<'r> {
    /// Where checkpoints are.
    pub(crate) out: &'r Path,
    pub(crate) origin: &'r Origin,
    /// The text of the model's `config.json`.
    pub(crate) config: &'r str,
    /// Checkpoints that stay.
    pub(crate) keep: usize,
    /// What of a run must agree for it to be gone on from, as JSON.
    pub(crate) run: &'r str,
}

/// A text of bounded length.
pub(crate) fn read_text(path: &Path) -> Result<String, Failure> {
    let len = fs::metadata(path).map_err(Failure::at(path))?.len();
    if len > MOST_TEXT {
        return Err(Failure::new(format_args!(
            "{}: expected {MOST_TEXT} bytes at most, got {len}",
            path.display()
        )));
    }
    fs::read_to_string(path).map_err(Failure::at(path))
}

/// The bytes of float32 values.
fn bytes_of(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

/// Writes a file beside its place, makes sure of it, and renames it.
fn write_file(
    path: &Path,
    body: impl FnOnce(&mut File) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let part = path.with_extension("tmp");
    let mut file = File::create(&part).map_err(Failure::at(&part))?;
    body(&mut file)?;
    file.sync_all().map_err(Failure::at(&part))?;
    fs::rename(&part, path).map_err(Failure::at(path))
}

fn write_text(path: &Path, text: &str) -> Result<(), Failure> {
    write_file(path, |file| {
        file.write_all(text.as_bytes()).map_err(Failure::at(path))
    })
}

/// The name of a checkpoint.
fn name_of(step: u64) -> String {
    format!("step-{step:06}")
}

/// The step of a checkpoint's name.
fn step_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("step-")?;
    let is_name = digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_name.then(|| digits.parse().ok())?
}

/// A tensor of a file, and where its bytes come from.
struct Piece {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    source: Source,
}

enum Source {
    /// Of the trainer's state, under the name of its parameter.
    State(String, StateTensor),
    /// Of what the model began as.
    Origin,
}

impl Run<'_> {
    /// Writes a checkpoint; all ranks call it, the first writes. Gives its name.
    pub(crate) fn save(
        &self,
        trainer: &Training,
        ranks: &mut dyn Ranks,
        history: &[Value],
    ) -> Result<String, Failure> {
        let name = name_of(trainer.step());
        let (path, part) = (self.out.join(&name), self.out.join(format!("{name}.part")));
        let writes = ranks.rank() == 0;
        if writes {
            if part.exists() {
                fs::remove_dir_all(&part).map_err(Failure::at(&part))?;
            }
            fs::create_dir_all(&part).map_err(Failure::at(&part))?;
            write_text(&part.join(CONFIG), &self.config_of_floats()?)?;
            if let Origin::Folder(folder, _) = self.origin {
                for companion in COMPANIONS {
                    let from = folder.join(companion);
                    if from.is_file() {
                        fs::copy(&from, part.join(companion)).map_err(Failure::at(&from))?;
                    }
                }
            }
        }
        let to = |file: &str| writes.then(|| part.join(file));
        self.write_tensors(
            trainer,
            ranks,
            (MODEL_FILE, to(MODEL_FILE)),
            &self.weights(trainer)?,
        )?;
        self.write_tensors(trainer, ranks, (MOMENTS, to(MOMENTS)), &moments(trainer))?;
        if !writes {
            return Ok(name);
        }
        write_text(&part.join(STATE), &self.state(trainer, history)?)?;
        if path.exists() {
            fs::remove_dir_all(&path).map_err(Failure::at(&path))?;
        }
        fs::rename(&part, &path).map_err(Failure::at(&path))?;
        write_text(&self.out.join(LATEST), &format!("{name}\n"))?;
        self.forget(&name)?;
        Ok(name)
    }

    /// Removes checkpoints that are older than those that stay.
    fn forget(&self, last: &str) -> Result<(), Failure> {
        let mut steps = BTreeMap::new();
        for entry in fs::read_dir(self.out).map_err(Failure::at(self.out))? {
            let entry = entry.map_err(Failure::at(self.out))?;
            if let Some(name) = entry.file_name().to_str()
                && let Some(step) = step_of(name)
            {
                steps.insert(step, entry.path());
            }
        }
        let old = steps.len().saturating_sub(self.keep);
        for path in steps.into_values().take(old) {
            if path.file_name().is_some_and(|name| name != last) {
                fs::remove_dir_all(&path).map_err(Failure::at(&path))?;
            }
        }
        Ok(())
    }

    /// The configuration of weights that are float32 now.
    fn config_of_floats(&self) -> Result<String, Failure> {
        let mut config: Value = serde_json::from_str(self.config).map_err(Failure::new)?;
        for key in ["torch_dtype", "dtype"] {
            if let Some(dtype) = config.get_mut(key) {
                *dtype = "float32".into();
            }
        }
        Ok(format!("{config:#}\n"))
    }

    fn state(&self, trainer: &Training, history: &[Value]) -> Result<String, Failure> {
        let mut state: Value = serde_json::from_str(&trainer.state_json()).map_err(Failure::new)?;
        state["run"] = serde_json::from_str(self.run).map_err(Failure::new)?;
        state["history"] = history.into();
        Ok(format!("{state:#}\n"))
    }

    /// All weights: what moves as float32, what stays as it is stored.
    fn weights(&self, trainer: &Training) -> Result<Vec<Piece>, Failure> {
        let mut pieces: Vec<Piece> = state_pieces(trainer, "", StateTensor::Value).collect();
        let moving: BTreeSet<String> = pieces.iter().map(|piece| piece.name.clone()).collect();
        let stays = |name: &str| !moving.contains(name);
        match self.origin {
            Origin::Folder(_, shards) => {
                for entry in shards.entries().filter(|entry| stays(&entry.name)) {
                    pieces.push(Piece {
                        name: entry.name.clone(),
                        dtype: entry.dtype,
                        shape: entry.shape.clone(),
                        source: Source::Origin,
                    });
                }
            }
            Origin::Fresh(weights, _) => {
                let tensors = weights.tensors().iter();
                pieces.extend(tensors.filter(|of| stays(&of.name)).map(|of| Piece {
                    name: of.name.clone(),
                    dtype: Dtype::F32,
                    shape: of.shape.clone(),
                    source: Source::Origin,
                }));
            }
        }
        pieces.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(pieces)
    }

    fn origin_bytes(&self, name: &str) -> Result<Vec<u8>, diffattn::Error> {
        match self.origin {
            Origin::Folder(_, shards) => Ok(shards.raw(name)?.into_bytes()),
            Origin::Fresh(weights, seed) => {
                let tensors = weights.tensors();
                let Some(index) = tensors.iter().position(|of| of.name == name) else {
                    return Err(diffattn::Error::internal("a weight that is none"));
                };
                let len = diffattn::checked_len(name, &tensors[index].shape)?;
                let mut values = diffattn::try_zeroed(len)?;
                weights.fill(index, *seed, &mut values);
                Ok(bytes_of(&values))
            }
        }
    }

    /// Writes a file of tensors; ranks that do not write take part in what is gathered for it.
    fn write_tensors(
        &self,
        trainer: &Training,
        ranks: &mut dyn Ranks,
        (file, path): (&str, Option<PathBuf>),
        pieces: &[Piece],
    ) -> Result<(), Failure> {
        let specs: Vec<TensorSpec<'_>> = pieces
            .iter()
            .map(|piece| TensorSpec {
                name: &piece.name,
                dtype: piece.dtype,
                shape: &piece.shape,
            })
            .collect();
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        let layout = FileLayout::new(&specs, &metadata)?;
        let writes = path.is_some();
        let mut bytes = |index: usize| -> Result<Cow<'_, [u8]>, diffattn::Error> {
            let Piece { name, source, .. } = &pieces[index];
            Ok(Cow::Owned(match source {
                Source::State(parameter, of) => {
                    bytes_of(&trainer.tensor_among(ranks, parameter, *of)?)
                }
                Source::Origin if writes => self.origin_bytes(name)?,
                Source::Origin => Vec::new(),
            }))
        };
        match path {
            Some(path) => write_file(&path, |out| Ok(layout.write(file, out, bytes)?)),
            None => {
                for &index in layout.order() {
                    bytes(index)?;
                }
                Ok(())
            }
        }
    }

    /// The folder of the last checkpoint, where there is one.
    pub(crate) fn latest(&self) -> Result<Option<PathBuf>, Failure> {
        let path = self.out.join(LATEST);
        match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::at(&path)(error)),
            Ok(name) if step_of(name.trim()).is_some() => Ok(Some(self.out.join(name.trim()))),
            Ok(name) => Err(Failure::new(format_args!(
                "{}: expected the name of a checkpoint, got {:?}",
                path.display(),
                name.chars().take(40).collect::<String>()
            ))),
        }
    }

    /// Goes on from a checkpoint; gives what was told of its steps.
    pub(crate) fn resume(
        &self,
        trainer: &mut Training,
        folder: &Path,
    ) -> Result<Vec<Value>, Failure> {
        let path = folder.join(STATE);
        let json = read_text(&path)?;
        let refuse = |what: &str, expected: &Value, got: &Value| {
            Failure::new(format_args!(
                "{}: {what}: expected {expected}, got {got}",
                path.display()
            ))
        };
        let state: Value = serde_json::from_str(&json)
            .map_err(|error| Failure::new(format_args!("{}: {error}", path.display())))?;
        let own: Value = serde_json::from_str(self.run).map_err(Failure::new)?;
        for (key, value) in own.as_object().into_iter().flatten() {
            if state["run"][key] != *value {
                return Err(refuse(key, value, &state["run"][key]));
            }
        }
        let Value::Array(history) = &state["history"] else {
            return Err(refuse(
                "history",
                &"a list of steps".into(),
                &state["history"],
            ));
        };
        let open = |file: &str| -> Result<_, Failure> {
            Ok(Checkpoint::open(
                file,
                FileRanges::open(folder.join(file))?,
            )?)
        };
        let (masters, moments) = (open(MODEL_FILE)?, open(MOMENTS)?);
        let parameters = trainer.model().arena().parameters().to_vec();
        for parameter in parameters {
            for (file, prefix, of) in [
                (&masters, "", StateTensor::Value),
                (&moments, "m.", StateTensor::FirstMoment),
                (&moments, "v.", StateTensor::SecondMoment),
            ] {
                let values = file.read_f32(&format!("{prefix}{}", parameter.name))?;
                trainer.set_tensor(&parameter.name, of, &values)?;
            }
        }
        trainer.resume(&json)?;
        Ok(history.clone())
    }
}

fn state_pieces(
    trainer: &Training,
    prefix: &'static str,
    of: StateTensor,
) -> impl Iterator<Item = Piece> {
    let parameters = trainer.model().arena().parameters().iter();
    parameters.map(move |parameter| Piece {
        name: format!("{prefix}{}", parameter.name),
        dtype: Dtype::F32,
        shape: parameter.shape.clone(),
        source: Source::State(parameter.name.clone(), of),
    })
}

fn moments(trainer: &Training) -> Vec<Piece> {
    let first = state_pieces(trainer, "m.", StateTensor::FirstMoment);
    first
        .chain(state_pieces(trainer, "v.", StateTensor::SecondMoment))
        .collect()
}
