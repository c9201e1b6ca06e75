//! What `diffattn-train` does: a model or nothing, a file of tokens, steps that all ranks make
//! together, checkpoints. The first rank alone tells of it. Computes nothing itself.

use crate::failure::Failure;
use crate::folder::{Origin, Run, read_text};
use clap::{Parser, ValueEnum};
use diffattn::Run as Running;
use diffattn_nn::checkpoint::{FileRanges, Shards, TokenFile, borrow_weights, float_weights};
use diffattn_nn::training::{
    DataOptions, Documents, FreshWeights, NamePattern, ParameterRules, Ranks, Recompute, Schedule,
    ScheduleShape, StepReport, Trainer, TrainerOptions, TrainingData, TrainingModel,
    TrainingOptions,
};
use diffattn_nn::{DiffLlama, DiffLlamaConfig};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use signal_hook::consts;
use signal_hook::flag;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

/// Trains a DIFF Llama, a Llama, or one with differential heads, alone or on the ranks that mpirun
/// starts. Checkpoints load as any model, and --resume goes on to the same bits, on any number of
/// ranks. SIGINT, SIGTERM and SIGUSR1 end the step, save and stop.
#[derive(Debug, Clone, Parser)]
#[command(name = "diffattn-train", version, args_override_self = true)]
pub struct Arguments {
    /// A folder with config.json and model.safetensors; with --from-scratch a config.json
    pub model: PathBuf,
    /// A file of tokens, as `diffattn tokens` writes it
    #[arg(long)]
    pub data: PathBuf,
    /// Where checkpoints are written
    #[arg(short, long)]
    pub out: PathBuf,
    /// The model knows nothing yet
    #[arg(long)]
    pub from_scratch: bool,
    /// Steps in all
    #[arg(long, default_value_t = 1000)]
    pub steps: u64,
    /// Windows of a micro-batch
    #[arg(long, default_value_t = 8)]
    pub batch: usize,
    /// Micro-batches of a step
    #[arg(long, default_value_t = 1)]
    pub accumulate: usize,
    /// Tokens of a unit, by which gradients are summed and dealt to ranks; a micro-batch by default
    #[arg(long)]
    pub unit: Option<usize>,
    /// Tokens of a window
    #[arg(long, default_value_t = 256)]
    pub context: usize,
    /// With DEX: steps over which its λ comes on; a tenth of all where it begins at zero
    #[arg(long)]
    pub lambda_anneal: Option<u64>,
    /// Windows are one text each, whatever documents are in them
    #[arg(long)]
    pub join_documents: bool,
    /// The share of the windows, the last ones, that is measured
    #[arg(long, default_value_t = 0.05)]
    pub eval: f64,
    /// The largest learning rate
    #[arg(long, default_value_t = 3e-4)]
    pub lr: f64,
    /// Steps of its rise; a fiftieth by default
    #[arg(long)]
    pub warmup: Option<u64>,
    /// The share of it that is left at the last step
    #[arg(long = "final", default_value_t = 0.1)]
    pub final_share: f64,
    /// How it falls
    #[arg(long, value_enum, default_value_t = Shape::Cosine)]
    pub schedule: Shape,
    /// Of tensors of two axes
    #[arg(long, default_value_t = 0.1)]
    pub weight_decay: f64,
    /// What the gradients' norm is clipped to; 0: not at all
    #[arg(long, default_value_t = 1.0)]
    pub clip: f64,
    /// Of the data's order and of what begins at random
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Weights that stay, by a part of their names or a pattern with *; can be given several times
    #[arg(long)]
    pub freeze: Vec<String>,
    /// Keep less, and compute it anew
    #[arg(long, value_enum, default_value_t = Anew::Nothing)]
    pub recompute: Anew,
    /// A model's folder whose distribution is to be followed, too
    #[arg(long)]
    pub teacher: Option<PathBuf>,
    /// With a teacher: the share of the cross entropy
    #[arg(long, default_value_t = 0.5)]
    pub alpha: f64,
    /// Measure so often
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub eval_every: Option<u64>,
    /// So many micro-batches at most
    #[arg(long)]
    pub eval_batches: Option<usize>,
    /// Write a checkpoint so often; at the end by default
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub save_every: Option<u64>,
    /// Checkpoints that are kept
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    pub keep: u64,
    /// Go on from the last checkpoint in --out
    #[arg(long)]
    pub resume: bool,
    /// Threads of a rank; all cores by default, one each where there are several ranks
    #[arg(long)]
    pub threads: Option<usize>,
    /// One JSON object per step and line
    #[arg(long)]
    pub json: bool,
}

/// How the learning rate falls.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Shape {
    /// By half a cosine.
    Cosine,
    /// By a line.
    Linear,
    /// Not.
    Constant,
}

/// What is computed anew.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Anew {
    /// Nothing.
    Nothing,
    /// What stands within MLPs.
    Mlps,
    /// Layers.
    Layers,
}

/// How training ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// All steps were made.
    Done,
    /// A signal asked for the end; what was trained is saved.
    Stopped(i32),
    /// A loss, or the norm of gradients, is no number: a sentence.
    Diverged(String),
}

impl Arguments {
    fn trainer_options(&self) -> TrainerOptions {
        let schedule = Schedule {
            warmup: self.warmup.unwrap_or(self.steps / 50),
            final_share: self.final_share,
            shape: match self.schedule {
                Shape::Cosine => ScheduleShape::Cosine,
                Shape::Linear => ScheduleShape::Linear,
                Shape::Constant => ScheduleShape::Constant,
            },
            ..Schedule::new(self.lr, self.steps)
        };
        TrainerOptions {
            batch: self.batch,
            accumulate: self.accumulate,
            unit: self.unit.or(Some(self.batch.saturating_mul(self.context))),
            weight_decay: self.weight_decay,
            max_grad_norm: (self.clip > 0.0).then_some(self.clip),
            alpha: self.alpha,
            lambda_anneal: self.lambda_anneal,
            ..TrainerOptions::new(schedule)
        }
    }

    fn rules(&self) -> ParameterRules {
        let patterns = self.freeze.iter();
        ParameterRules {
            freeze: patterns.map(|pattern| NamePattern::new(pattern)).collect(),
            ..ParameterRules::default()
        }
    }

    fn training_options<'o>(&self, rules: &'o ParameterRules, run: Running) -> TrainingOptions<'o> {
        TrainingOptions {
            rules: Some(rules),
            recompute: match self.recompute {
                Anew::Nothing => Recompute::Nothing,
                Anew::Mlps => Recompute::Mlps,
                Anew::Layers => Recompute::Layers,
            },
            run,
            ..TrainingOptions::default()
        }
    }

    fn data_options(&self) -> DataOptions {
        DataOptions {
            context: self.context,
            documents: match self.join_documents {
                true => Documents::Join,
                false => Documents::Mask,
            },
            eval: self.eval,
            seed: self.seed,
        }
    }

    /// What of a run must agree, as `diffattn train` keeps it, in its order.
    fn run(&self, data: &TrainingData<FileRanges>) -> Result<String, Failure> {
        let file = fs::File::open(&self.data).map_err(Failure::at(&self.data))?;
        let len = file.metadata().map_err(Failure::at(&self.data))?.len();
        let mut first = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(file, 1 << 20), &mut first)
            .map_err(Failure::at(&self.data))?;
        let hash: String = Sha256::digest(&first)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let documents = if self.join_documents { "join" } else { "mask" };
        let patterns: Vec<String> = (self.freeze.iter())
            .map(|pattern| {
                format!(
                    r#"{{"pattern":{},"rows":[]}}"#,
                    Value::from(pattern.as_str())
                )
            })
            .collect();
        Ok(format!(
            r#"{{"data":{{"bytes":{len},"tokens":{},"hash":"{hash}"}},"windows":{{"context":{},"documents":"{documents}","eval":{},"seed":{}}},"adapter":null,"freeze":[{}],"lrScale":[]}}"#,
            data.tokens(),
            self.context,
            Value::from(self.eval),
            self.seed,
            patterns.join(","),
        ))
    }
}

fn load(folder: &Path) -> Result<(String, Shards<FileRanges>, DiffLlama), Failure> {
    let text = read_text(&folder.join("config.json"))?;
    let config = DiffLlamaConfig::of_config(&text)?;
    let shards = Shards::open(folder)?;
    let names: Vec<String> = shards.entries().map(|entry| entry.name.clone()).collect();
    let mut stored = std::collections::BTreeMap::new();
    for name in names {
        let raw = shards.raw(&name)?.into_owned()?;
        stored.insert(name, raw);
    }
    let floats = float_weights(&stored)?;
    let model = DiffLlama::new(&config, &borrow_weights(&floats))?;
    Ok((text, shards, model))
}

/// The line of a step, as `diffattn train` writes it.
fn told(report: &StepReport, steps: u64, measured: Option<f64>, speed: f64) -> String {
    let measured = measured.map_or(String::new(), |loss| format!(" (eval {loss:.3})"));
    format!(
        "step {}/{steps}  loss {:.3}{measured}  lr {:.1e}  |g| {:.2}  {speed:.0} tok/s",
        report.step, report.loss, report.lr, report.grad_norm
    )
}

/// What a checkpoint keeps of a step.
fn kept(report: &StepReport, has_teacher: bool, measured: Option<f64>, speed: f64) -> Value {
    let mut step = json!({
        "step": report.step,
        "loss": report.loss,
        "lr": report.lr,
        "gradNorm": report.grad_norm,
        "tokens": report.tokens,
        "tokensPerSecond": speed,
        "lambda": report.lambda,
    });
    if has_teacher {
        let [cross_entropy, divergence] = report.parts;
        step["crossEntropy"] = cross_entropy.into();
        step["divergence"] = divergence.into();
    }
    if let Some(loss) = measured {
        step["evalLoss"] = loss.into();
    }
    step
}

/// Trains as one of `ranks`; the first tells of it on `out`.
///
/// # Errors
/// A sentence: what was given does not fit, a file cannot be read or written, training diverged.
/// The other ranks do not hear of it: who calls this ends them.
pub fn train(
    arguments: &Arguments,
    ranks: &mut dyn Ranks,
    out: &mut dyn Write,
) -> Result<Ending, Failure> {
    let signals = Signals::listen()?;
    let threads = match (arguments.threads, ranks.size()) {
        (Some(threads), _) => Some(threads),
        (None, 1) => None,
        (None, _) => Some(1),
    };
    let run = Running::new(None, threads, false)?;
    let (config, origin, model) = if arguments.from_scratch {
        let text = read_text(&arguments.model)?;
        let config = DiffLlamaConfig::of_config(&text)?;
        let origin = Origin::Fresh(FreshWeights::new(&config)?, arguments.seed);
        (text, origin, DiffLlama::fresh(&config, arguments.seed)?)
    } else {
        let (text, shards, model) = load(&arguments.model)?;
        (text, Origin::Folder(arguments.model.clone(), shards), model)
    };
    let teacher = match &arguments.teacher {
        Some(folder) => Some(load(folder)?.2),
        None => None,
    };
    let rules = arguments.rules();
    let options = arguments.training_options(&rules, run);
    let model = TrainingModel::new(model, &options)?;
    let name = arguments.data.display().to_string();
    let data = TrainingData::new(
        TokenFile::open(&name, FileRanges::open(&arguments.data)?)?,
        arguments.data_options(),
    )?;
    let folder = Run {
        out: &arguments.out,
        origin: &origin,
        config: &config,
        keep: usize::try_from(arguments.keep).unwrap_or(usize::MAX),
        run: &arguments.run(&data)?,
    };
    let mut trainer = Trainer::new(model, data, arguments.trainer_options())?;
    trainer.join(ranks)?;
    if ranks.rank() == 0 {
        fs::create_dir_all(&arguments.out).map_err(Failure::at(&arguments.out))?;
    }
    let mut history = Vec::new();
    if arguments.resume
        && let Some(last) = folder.latest()?
    {
        history = folder.resume(&mut trainer, &last)?;
    }
    let steps = Steps {
        arguments,
        folder: &folder,
        teacher: teacher.as_ref(),
        signals: &signals,
    };
    steps.make(&mut trainer, ranks, history, out)
}

/// What asks for the end between two steps; SIGUSR1, which `mpirun` hands on, where there is one.
const ENDS: &[i32] = &[
    consts::SIGINT,
    consts::SIGTERM,
    #[cfg(unix)]
    consts::SIGUSR1,
];

/// Signals that ask for the end between two steps.
struct Signals(Arc<AtomicUsize>);

impl Signals {
    /// Listens to [`ENDS`]; a second one does not wait.
    fn listen() -> Result<Self, Failure> {
        let (last, asked) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        for &signal in ENDS {
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&asked))
                .map_err(Failure::new)?;
            flag::register(signal, Arc::clone(&asked)).map_err(Failure::new)?;
            flag::register_usize(signal, Arc::clone(&last), signal as usize)
                .map_err(Failure::new)?;
        }
        Ok(Self(last))
    }

    /// The largest that a rank has heard: all end at the same step.
    fn heard(&self, ranks: &mut dyn Ranks) -> Result<i32, Failure> {
        let own = self.0.load(Ordering::Relaxed) as f64;
        let all = ranks.gather_numbers(&[own], &vec![1; ranks.size()])?;
        Ok(all.into_iter().fold(0.0, f64::max) as i32)
    }
}

/// What the loop over steps needs beside the trainer.
struct Steps<'l> {
    arguments: &'l Arguments,
    folder: &'l Run<'l>,
    teacher: Option<&'l DiffLlama>,
    signals: &'l Signals,
}

impl Steps<'_> {
    fn make(
        &self,
        trainer: &mut Trainer<TrainingData<FileRanges>>,
        ranks: &mut dyn Ranks,
        mut history: Vec<Value>,
        out: &mut dyn Write,
    ) -> Result<Ending, Failure> {
        let Arguments { steps, .. } = *self.arguments;
        let is_first = ranks.rank() == 0;
        let mut tell = |line: String| -> Result<(), Failure> {
            if is_first {
                writeln!(out, "{line}").map_err(Failure::new)?;
                out.flush().map_err(Failure::new)?;
            }
            Ok(())
        };
        let is_due =
            |every: Option<u64>, step: u64| every.is_some_and(|every| step.is_multiple_of(every));
        let mut saved = trainer.step();
        loop {
            let (start, before) = (Instant::now(), trainer.tokens());
            let Some(report) = trainer.advance_among(ranks, self.teacher)? else {
                break;
            };
            let seconds = start.elapsed().as_secs_f64();
            let speed = (trainer.tokens() - before) as f64 / seconds;
            if report.has_diverged {
                return Ok(Ending::Diverged(format!(
                    "training diverged in step {}: the loss is {}; try a smaller --lr",
                    report.step, report.loss
                )));
            }
            let step = report.step;
            let mut measured = None;
            if is_due(self.arguments.eval_every, step) {
                let of = trainer.evaluate_among(ranks, self.arguments.eval_batches)?;
                measured = of.map(|of| of.loss);
            }
            let of_step = kept(&report, self.teacher.is_some(), measured, speed);
            let line = match self.arguments.json {
                true => of_step.to_string(),
                false => told(&report, steps, measured, speed),
            };
            history.push(of_step);
            let is_seldom = step.is_multiple_of(steps.div_ceil(100)) || step == steps;
            if self.arguments.json || is_seldom || measured.is_some() {
                tell(line)?;
            }
            let signal = self.signals.heard(ranks)?;
            if is_due(self.arguments.save_every, step) || signal != 0 {
                self.folder.save(trainer, ranks, &history)?;
                saved = step;
            }
            if signal != 0 {
                return Ok(Ending::Stopped(signal));
            }
        }
        if saved < trainer.step() {
            self.folder.save(trainer, ranks, &history)?;
        }
        Ok(Ending::Done)
    }
}
