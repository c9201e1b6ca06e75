//! The learning rate of a step. Knows no optimiser.

use diffattn::Error;

/// How the learning rate falls behind the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ScheduleShape {
    /// By half a cosine.
    #[default]
    Cosine,
    /// By a line.
    Linear,
    /// It does not.
    Constant,
}

/// From `lr / warmup` up to `lr` over the warm-up's steps, then down to `final_share · lr` at the
/// last step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// The largest learning rate.
    pub lr: f64,
    /// Steps in all.
    pub steps: u64,
    /// Steps of the warm-up.
    pub warmup: u64,
    /// The share of the learning rate that is left at the last step. 0.1 by default.
    pub final_share: f64,
    /// How it gets there.
    pub shape: ScheduleShape,
}

impl Schedule {
    /// A cosine over `steps`, a fiftieth of them warm-up, down to a tenth.
    #[must_use]
    pub fn new(lr: f64, steps: u64) -> Self {
        Self {
            lr,
            steps,
            warmup: steps / 50,
            final_share: 0.1,
            shape: ScheduleShape::default(),
        }
    }

    /// Whether it says of every step what its learning rate is.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](diffattn::ErrorKind::Option) naming `lr`, `steps`, `warmup` or
    /// `final`.
    pub fn check(&self) -> Result<(), Error> {
        if !(self.lr >= 0.0 && self.lr.is_finite()) {
            return Err(Error::option("lr", "0 or a positive number", self.lr));
        }
        if self.steps == 0 {
            return Err(Error::option("steps", "1 or more", 0));
        }
        if self.warmup > self.steps {
            return Err(Error::option(
                "warmup",
                format_args!("at most the {} steps", self.steps),
                self.warmup,
            ));
        }
        if !(0.0..=1.0).contains(&self.final_share) {
            return Err(Error::option(
                "final",
                "a share from 0 to 1",
                self.final_share,
            ));
        }
        Ok(())
    }

    /// The learning rate of a step, counted from 1; behind the last one it stays.
    #[must_use]
    pub fn at(&self, step: u64) -> f64 {
        if step <= self.warmup {
            return self.lr * step as f64 / self.warmup.max(1) as f64;
        }
        let falling = self.steps.saturating_sub(self.warmup).max(1) as f64;
        let share = ((step - self.warmup) as f64 / falling).min(1.0);
        let left = match self.shape {
            ScheduleShape::Cosine => 0.5 * (1.0 + libm::cos(std::f64::consts::PI * share)),
            ScheduleShape::Linear => 1.0 - share,
            ScheduleShape::Constant => return self.lr,
        };
        self.lr * (self.final_share + (1.0 - self.final_share) * left)
    }
}
