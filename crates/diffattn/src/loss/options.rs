//! What a loss is asked for and what it gives: plain data.

use crate::linear::Linear;
use crate::run::Run;

/// Options of [`cross_entropy`](crate::cross_entropy) and
/// [`linear_cross_entropy`](crate::linear_cross_entropy).
#[derive(Debug, Clone, Copy)]
pub struct CrossEntropyOptions<'a> {
    /// The label of rows that take no part. Default −100.
    pub ignore_index: i32,
    /// The share of the uniform distribution in what a label says (arXiv 1512.00567, section 7): ε
    /// of `(1 − ε)(lse − x_label) + ε (lse − mean x)`. Default 0.
    pub label_smoothing: f64,
    /// The factor of lse², which keeps it near zero (arXiv 2204.02311, section 5). Default 0.
    pub z_loss: f64,
    /// What sums of rows are divided by: the labels that count in all calls which share one mean.
    /// `None`, the default: those of this call.
    pub count: Option<usize>,
    /// A teacher, whose distribution takes part. Default none.
    pub distillation: Option<Distillation<'a>>,
    /// How the call runs.
    pub run: Run,
}

impl Default for CrossEntropyOptions<'_> {
    fn default() -> Self {
        Self {
            ignore_index: -100,
            label_smoothing: 0.0,
            z_loss: 0.0,
            count: None,
            distillation: None,
            run: Run::default(),
        }
    }
}

/// Makes the loss of a row `alpha · CE + (1 − alpha) · KL(teacher ‖ student)`, with natural
/// logarithms and temperature 1 (arXiv 1503.02531).
#[derive(Debug, Clone, Copy)]
pub struct Distillation<'a> {
    /// The teacher's logits, a row for each label.
    pub teacher: Logits<'a>,
    /// The share of cross entropy, from 0 to 1.
    pub alpha: f64,
}

/// Rows of logits, one for each label.
#[derive(Debug, Clone, Copy)]
pub enum Logits<'a> {
    /// `[rows, vocabulary]`, as they are.
    Rows(&'a [f32]),
    /// Those that a head makes of hidden states, some rows at a time.
    Head {
        /// `[rows, inputs]`.
        hidden: &'a [f32],
        /// `[vocabulary, inputs]`.
        head: &'a Linear,
    },
}

/// What a loss came to. Where no label counts, everything is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Loss {
    /// The rows' losses, summed and divided by the count.
    pub loss: f64,
    /// The part of cross entropy, with what smoothing and the z-loss add, as a mean of its own.
    pub cross_entropy: f64,
    /// KL(teacher ‖ student), as a mean of its own; 0 without a teacher.
    pub divergence: f64,
    /// Labels that counted in this call.
    pub counted: usize,
}
