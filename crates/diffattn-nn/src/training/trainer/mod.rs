//! Training from step to step: micro-batches, the learning rate, what is told of each step. Opens
//! no file, and knows no state to go on from.

mod among;
mod open;
mod state;

pub use state::TrainerState;

use open::{OpenStep, told_of};

use super::dataset::{BatchOf, Cursor, Dataset};
use super::model::TrainingModel;
use super::ranks::{Alone, Shards};
use super::rows::STRETCH;
use super::schedule::Schedule;
use super::trainable::{LossOptions, Measured, MeasuredSums, Trainable, Whole};
use diffattn::{Error, Work};

/// How a [`Trainer`] trains.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainerOptions {
    /// The learning rate of every step, and how many there are.
    pub schedule: Schedule,
    /// Rows of a micro-batch. 8 by default.
    pub batch: usize,
    /// Micro-batches of a step. 1 by default. Where a micro-batch is a multiple of 256 tokens, its
    /// bits are those of one batch of all rows.
    pub accumulate: usize,
    /// Tokens of a unit: gradients of a step are summed in units, each from zero, added in order,
    /// so that no bit depends on batch, accumulate and the number of ranks. A multiple of 256, of
    /// a window, and a whole part of a micro-batch. By default there are none, and gradients are
    /// summed over the micro-batches.
    pub unit: Option<usize>,
    /// β₁ and β₂ of AdamW. 0.9 and 0.95 by default.
    pub betas: [f64; 2],
    /// Added to AdamW's root. 10⁻⁸ by default.
    pub eps: f64,
    /// Of tensors of two axes. 0.1 by default.
    pub weight_decay: f64,
    /// What the joint norm of the gradients is clipped to; 1 by default.
    pub max_grad_norm: Option<f64>,
    /// With a teacher the share of cross entropy; the rest is the divergence from its distribution.
    /// 0.5 by default.
    pub alpha: f64,
    /// T, steps over which the λ of DEX is annealed ([`TrainingModel::anneal`], α = step / T); 0:
    /// not at all. By default a tenth of the steps, 2 at least, where nothing would be learned
    /// otherwise ([`TrainingModel::needs_annealing`]), else 0. Other models have none.
    pub lambda_anneal: Option<u64>,
}

impl TrainerOptions {
    /// The defaults.
    #[must_use]
    pub fn new(schedule: Schedule) -> Self {
        Self {
            schedule,
            batch: 8,
            accumulate: 1,
            unit: None,
            betas: [0.9, 0.95],
            eps: 1e-8,
            weight_decay: 0.1,
            max_grad_norm: Some(1.0),
            alpha: 0.5,
            lambda_anneal: None,
        }
    }

    fn check(&self) -> Result<(), Error> {
        self.schedule.check()?;
        for (name, value) in [("batch", self.batch), ("accumulate", self.accumulate)] {
            if value == 0 {
                return Err(Error::option(name, "1 or more", 0));
            }
        }
        if !(0.0..=1.0).contains(&self.alpha) {
            return Err(Error::option("alpha", "a share from 0 to 1", self.alpha));
        }
        Ok(())
    }

    /// Whether units are whole windows, and micro-batches whole units.
    fn check_unit(&self, context: usize) -> Result<(), Error> {
        let Some(unit) = self.unit else {
            return Ok(());
        };
        let micro = self.batch.saturating_mul(context);
        let is_whole = |of: usize, part: usize| of.is_multiple_of(part);
        if unit > 0 && is_whole(unit, STRETCH) && is_whole(unit, context) && is_whole(micro, unit) {
            return Ok(());
        }
        Err(Error::option(
            "unit",
            format_args!(
                "tokens in whole windows of {context}, a multiple of {STRETCH} that divides a \
                 micro-batch of {micro}"
            ),
            unit,
        ))
    }

    /// How a micro-batch of a step is measured of which so many labels count.
    fn loss<'t, M>(&self, counted: usize, teacher: Option<&'t M>) -> LossOptions<'t, M> {
        LossOptions {
            count: Some(counted),
            teacher: teacher.map(|teacher| (teacher, self.alpha)),
        }
    }

    /// Rows that are computed at a time: those of a unit, or of a micro-batch.
    fn rows_at_a_time(&self, context: usize) -> usize {
        self.unit.map_or(self.batch, |unit| unit / context.max(1))
    }
}

/// What is told of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// Counted from 1.
    pub step: u64,
    /// The mean over the labels of the step, before it moved anything.
    pub loss: f64,
    /// Of the loss with a teacher, cross entropy and the divergence from its distribution.
    pub parts: [f64; 2],
    /// The learning rate.
    pub lr: f64,
    /// The joint norm of the gradients, before clipping.
    pub grad_norm: f64,
    /// Tokens that were read so far.
    pub tokens: u64,
    /// λ of each layer: of one that is projected the mean over the step's tokens and heads.
    pub lambda: Vec<Option<f32>>,
    /// Whether the loss or the norm is no number: nothing moved then, and training ends.
    pub has_diverged: bool,
}

/// What a step reads: windows of the data, and the labels that count in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepPlan {
    /// The windows of each micro-batch; of each unit, where a step is made of such.
    pub windows: Vec<Vec<u64>>,
    /// Labels that count in the whole step.
    pub counted: usize,
    /// Where the step behind it begins.
    cursor: Cursor,
}

/// A model, its data, and how far training has come.
#[derive(Debug)]
pub struct Trainer<D: Dataset> {
    model: TrainingModel<D::Model>,
    data: D,
    options: TrainerOptions,
    cursor: Cursor,
    step: u64,
    tokens: u64,
    has_diverged: bool,
    open: OpenStep,
    /// Whether parameters are on their way: where that was broken off, some have moved.
    is_moving: bool,
    /// Who has which part of the arena, where several ranks train.
    shards: Option<Shards>,
}

impl<D: Dataset> Trainer<D> {
    /// Before its first step.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming the option; as
    /// [`Dataset::check`].
    pub fn new(
        mut model: TrainingModel<D::Model>,
        data: D,
        mut options: TrainerOptions,
    ) -> Result<Self, Error> {
        options.check()?;
        let is_annealed = model.anneal(1.0)?;
        match options.lambda_anneal {
            Some(steps) if !is_annealed => {
                let expected = "none for a model without DEX";
                return Err(Error::option("lambdaAnneal", expected, steps));
            }
            None if model.needs_annealing() => {
                options.lambda_anneal = Some((options.schedule.steps / 10).max(2));
            }
            _ => {}
        }
        data.check(model.model())?;
        options.check_unit(data.row_tokens(model.model()))?;
        let mut made = Self {
            model,
            data,
            options,
            cursor: Cursor::default(),
            step: 0,
            tokens: 0,
            has_diverged: false,
            open: OpenStep::default(),
            is_moving: false,
            shards: None,
        };
        made.anneal(0)?;
        Ok(made)
    }

    /// The model in training.
    #[must_use]
    pub fn model(&self) -> &TrainingModel<D::Model> {
        &self.model
    }

    /// The model, out of training.
    #[must_use]
    pub fn into_model(self) -> D::Model {
        self.model.into_model()
    }

    /// The data.
    #[must_use]
    pub fn data(&self) -> &D {
        &self.data
    }

    /// How it trains.
    #[must_use]
    pub fn options(&self) -> &TrainerOptions {
        &self.options
    }

    /// Tokens that were read.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Steps that were made.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.step
    }

    /// One step; `None` behind the last, and behind one that diverged. A `teacher` takes part in
    /// the loss.
    ///
    /// # Errors
    /// What the data's file says; as [`TrainingModel::add`] and [`TrainingModel::step`].
    pub fn advance(&mut self, teacher: Option<&D::Model>) -> Result<Option<StepReport>, Error> {
        let Some(plan) = self.plan()? else {
            return Ok(None);
        };
        for index in 0..plan.windows.len() {
            let batch = self.data.batch(&plan.windows[index])?;
            self.add_work(&plan, index, batch, teacher)?.finish()?;
        }
        let mut report = None;
        self.update_work(&plan, &mut report)?.finish()?;
        Ok(report)
    }

    /// What the next step reads; `None` behind the last, and behind one that diverged.
    ///
    /// # Errors
    /// What the data's file says of its documents;
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `trainer` where the step before
    /// was broken off while parameters moved.
    pub fn plan(&self) -> Result<Option<StepPlan>, Error> {
        self.check_whole()?;
        if self.has_diverged || self.step >= self.options.schedule.steps {
            return Ok(None);
        }
        let (mut cursor, mut windows, mut counted) = (self.cursor, Vec::new(), 0);
        let rows = self.options.rows_at_a_time(self.row_tokens());
        for _ in 0..self.options.batch * self.options.accumulate / rows {
            let of = self.data.next_windows(&mut cursor, rows);
            counted += self.data.counted(&of)?;
            windows.push(of);
        }
        Ok(Some(StepPlan {
            windows,
            counted,
            cursor,
        }))
    }

    /// Anneals the λ of DEX as it is in a step, the first of which is 1; before it there is none.
    fn anneal(&mut self, step: u64) -> Result<(), Error> {
        if let Some(steps) = self.options.lambda_anneal {
            let alpha = if step < steps {
                step as f64 / steps as f64
            } else {
                1.0
            };
            self.model.anneal(alpha)?;
        }
        Ok(())
    }

    /// Tokens of a row.
    fn row_tokens(&self) -> usize {
        self.data.row_tokens(self.model.model())
    }

    /// Whether no parameters were left on their way.
    fn check_whole(&self) -> Result<(), Error> {
        if !self.is_moving {
            return Ok(());
        }
        Err(Error::option(
            "trainer",
            "one whose last step ended, or that went on from a checkpoint",
            "one whose parameters moved in part",
        ))
    }

    /// A micro-batch of a step, in slices: its first begins the step anew, whatever was added
    /// before.
    ///
    /// # Errors
    /// As [`TrainingModel::add`]; [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming
    /// `micro` for one out of turn.
    pub fn add_work<'w>(
        &'w mut self,
        plan: &StepPlan,
        index: usize,
        batch: BatchOf<D>,
        teacher: Option<&'w D::Model>,
    ) -> Result<Work<'w>, Error> {
        self.check_whole()?;
        if index != 0 && index != self.open.added {
            return Err(Error::option(
                "micro",
                format_args!("0 or {}, the next one", self.open.added),
                index,
            ));
        }
        self.model.check_batch(&batch)?;
        let (total, count) = (self.model.units(&batch), plan.counted);
        Ok(Work::new(total, |pace| async move {
            if index == 0 {
                self.anneal(self.step + 1)?;
            }
            let Self {
                model,
                options,
                open,
                ..
            } = self;
            let has_units = options.unit.is_some();
            if index == 0 {
                *open = OpenStep::default();
                model.begin_step(has_units)?;
            }
            if index == 0 || has_units {
                model.begin();
            }
            // (Where it ends before its end, gradients are of nothing: only a first one follows.)
            let mut open_step = std::mem::take(open);
            let options = options.loss(count, teacher);
            let mut unheard = |_: usize, _: &[f32]| Ok(());
            let whole: Option<Whole<'_>> = has_units.then_some(&mut unheard);
            let of = model.add_paced(&pace, &batch, &options, whole).await?;
            if has_units {
                model.arena.add_to_sums(0..model.arena.len(), None);
            }
            open_step.add(model.model.tokens(&batch), &told_of(&of, model));
            *open = open_step;
            Ok(())
        }))
    }

    /// Ends a step all of whose micro-batches were added, in slices: it must not be dropped before
    /// its end, or only a checkpoint goes on.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `micro` where one is missing.
    pub fn update_work<'w>(
        &'w mut self,
        plan: &StepPlan,
        report: &'w mut Option<StepReport>,
    ) -> Result<Work<'w>, Error> {
        self.check_whole()?;
        if self.open.added != plan.windows.len() {
            return Err(Error::option(
                "micro",
                format_args!("all {} of a step", plan.windows.len()),
                self.open.added,
            ));
        }
        let cursor = plan.cursor;
        Ok(Work::new(self.model.step_units(), |pace| async move {
            *report = Some(self.update_among(&pace, cursor, &mut Alone).await?);
            Ok(())
        }))
    }

    /// What one micro-batch of those to measure comes to, in slices.
    ///
    /// # Errors
    /// As [`TrainingModel::add`].
    pub fn evaluate_work<'w>(
        &'w mut self,
        batch: BatchOf<D>,
        to: &'w mut MeasuredSums,
    ) -> Result<Work<'w>, Error> {
        self.check_whole()?;
        self.model.check_batch(&batch)?;
        Ok(Work::new(self.model.units(&batch), |pace| async move {
            // (A step that was broken off has annealed further.)
            self.anneal(self.step)?;
            *to = self.model.evaluate_paced(&pace, &batch).await?;
            Ok(())
        }))
    }

    /// The mean loss over the rows that are measured, and of images the accuracy; `batches`
    /// micro-batches of them at most. `None` where there are none.
    ///
    /// # Errors
    /// As [`Trainer::advance`].
    pub fn evaluate(&mut self, batches: Option<usize>) -> Result<Option<Measured>, Error> {
        self.evaluate_among(&mut Alone, batches)
    }
}
