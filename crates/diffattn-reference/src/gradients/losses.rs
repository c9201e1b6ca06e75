//! Losses over a vocabulary and their gradients: cross entropy, distillation from a teacher's
//! logits, and both through the output head. Each loss is a mean over the rows that count; where
//! none counts it is 0, and so are its gradients. The upstream gradient is 1.

use super::linear::linear_backward;
use crate::{Real, Tensor, linear, softmax};

/// A label that takes no part.
pub const IGNORED: i64 = -100;

/// How [`cross_entropy`] treats a row: (1 − smoothing)·(lse − x_label) + smoothing·(lse − mean x) +
/// z·lse², lse being ln Σ exp x.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CrossEntropy {
    /// Weight of the mean over all labels.
    pub label_smoothing: f64,
    /// Weight of the square of lse.
    pub z_loss: f64,
}

/// What [`cross_entropy`] returns.
#[derive(Clone, Debug)]
pub struct Loss<R> {
    /// The mean over the rows that count.
    pub loss: R,
    /// Each row's own, 0 where it takes no part.
    pub rows: Tensor<R>,
}

/// The mean of the rows that count; 0 where none does.
fn mean<R: Real>(rows: &[R], labels: &[i64]) -> R {
    match counted(labels) {
        0 => R::ZERO,
        count => rows.iter().copied().sum::<R>() / R::from_f64(count as f64),
    }
}

fn counted(labels: &[i64]) -> usize {
    labels.iter().filter(|&&label| label != IGNORED).count()
}

/// `of(row, its logits, its label)` of each row that counts, zeros of the same length elsewhere.
fn each_row<R: Real>(
    logits: &Tensor<R>,
    labels: &[i64],
    width: usize,
    of: impl Fn(usize, &[R], usize) -> Vec<R>,
) -> Vec<R> {
    let [rows, vocabulary] = logits.shape[..] else {
        panic!("logits of shape {:?}", logits.shape)
    };
    assert_eq!(rows, labels.len(), "a label per row");
    let mut values = Vec::with_capacity(rows * width);
    for (r, &label) in labels.iter().enumerate() {
        if label == IGNORED {
            values.resize(values.len() + width, R::ZERO);
            continue;
        }
        let label = usize::try_from(label).ok().filter(|&at| at < vocabulary);
        let label = label.unwrap_or_else(|| panic!("label {} of {vocabulary}", labels[r]));
        values.extend(of(r, logits.row(&[r]), label));
    }
    values
}

/// Softmax and lse of a row.
fn shares<R: Real>(logits: &[R]) -> (Vec<R>, R) {
    let (shares, lse, _) = softmax(logits, R::from_f64(f64::NEG_INFINITY));
    (shares, lse)
}

/// Cross entropy of logits [rows, V] with a label for each row.
pub fn cross_entropy<R: Real>(
    logits: &Tensor<R>,
    labels: &[i64],
    options: &CrossEntropy,
) -> Loss<R> {
    let [smoothing, z] = [options.label_smoothing, options.z_loss].map(R::from_f64);
    let rows = each_row(logits, labels, 1, |_, x, label| {
        let (_, lse) = shares(x);
        let mean = x.iter().copied().sum::<R>() / R::from_f64(x.len() as f64);
        let own = (R::ONE - smoothing) * (lse - x[label]);
        vec![own + smoothing * (lse - mean) + z * lse * lse]
    });
    Loss {
        loss: mean(&rows, labels),
        rows: Tensor::new(&[labels.len()], rows),
    }
}

/// The gradient of the logits of [`cross_entropy`].
pub fn cross_entropy_backward<R: Real>(
    logits: &Tensor<R>,
    labels: &[i64],
    options: &CrossEntropy,
) -> Tensor<R> {
    let [smoothing, z] = [options.label_smoothing, options.z_loss].map(R::from_f64);
    let count = R::from_f64(counted(labels) as f64);
    let vocabulary = logits.shape[1];
    let everywhere = smoothing / R::from_f64(vocabulary as f64);
    let two = R::from_f64(2.0);
    let d = each_row(logits, labels, vocabulary, |_, x, label| {
        let (shares, lse) = shares(x);
        let factor = R::ONE + two * z * lse;
        let d = shares.into_iter().enumerate().map(|(at, share)| {
            let own = if at == label {
                R::ONE - smoothing
            } else {
                R::ZERO
            };
            (share * factor - own - everywhere) / count
        });
        d.collect()
    });
    Tensor::new(&logits.shape, d)
}

/// What a loss of hidden·weightᵀ gives back.
#[derive(Clone, Debug)]
pub struct HeadGradients<R> {
    /// [rows, E].
    pub dhidden: Tensor<R>,
    /// [V, E].
    pub dweight: Tensor<R>,
}

fn head_backward<R: Real>(
    hidden: &Tensor<R>,
    weight: &Tensor<R>,
    dlogits: &Tensor<R>,
) -> HeadGradients<R> {
    let gradients = linear_backward(hidden, weight, dlogits);
    HeadGradients {
        dhidden: gradients.dx,
        dweight: gradients.dweight,
    }
}

/// [`cross_entropy`] of hidden [rows, E]·weightᵀ, weight [V, E].
pub fn linear_cross_entropy<R: Real>(
    hidden: &Tensor<R>,
    weight: &Tensor<R>,
    labels: &[i64],
    options: &CrossEntropy,
) -> Loss<R> {
    cross_entropy(&linear(hidden, weight, None), labels, options)
}

/// The gradients of [`linear_cross_entropy`].
pub fn linear_cross_entropy_backward<R: Real>(
    hidden: &Tensor<R>,
    weight: &Tensor<R>,
    labels: &[i64],
    options: &CrossEntropy,
) -> HeadGradients<R> {
    let logits = linear(hidden, weight, None);
    head_backward(
        hidden,
        weight,
        &cross_entropy_backward(&logits, labels, options),
    )
}

/// What [`distillation`] returns.
#[derive(Clone, Debug)]
pub struct DistillationLoss<R> {
    /// alpha·ce + (1 − alpha)·kl.
    pub loss: R,
    /// Mean cross entropy with the labels.
    pub ce: R,
    /// Mean Kullback–Leibler divergence of the student from the teacher.
    pub kl: R,
    /// Each row's loss, 0 where it takes no part.
    pub rows: Tensor<R>,
}

/// alpha·CE(labels) + (1 − alpha)·KL(teacher ‖ student) of logits [rows, V], natural logarithms,
/// temperature 1; the teacher's logits are shaped as the student's.
pub fn distillation<R: Real>(
    logits: &Tensor<R>,
    teacher: &Tensor<R>,
    labels: &[i64],
    alpha: f64,
) -> DistillationLoss<R> {
    assert_eq!(logits.shape, teacher.shape, "logits of the teacher");
    let alpha = R::from_f64(alpha);
    let parts = each_row(logits, labels, 2, |r, x, label| {
        let t = teacher.row(&[r]);
        let ((_, lse), (shares_of_teacher, lse_of_teacher)) = (shares(x), shares(t));
        let mut kl = R::ZERO;
        for ((&x, &t), share) in x.iter().zip(t).zip(shares_of_teacher) {
            kl += share * ((t - lse_of_teacher) - (x - lse));
        }
        vec![lse - x[label], kl]
    });
    let every_second = |from: usize| parts.iter().skip(from).step_by(2).copied().collect();
    let [ce, kl]: [Vec<R>; 2] = [0, 1].map(every_second);
    let rows = ce.iter().zip(&kl);
    let rows: Vec<R> = rows
        .map(|(&ce, &kl)| alpha * ce + (R::ONE - alpha) * kl)
        .collect();
    DistillationLoss {
        loss: mean(&rows, labels),
        ce: mean(&ce, labels),
        kl: mean(&kl, labels),
        rows: Tensor::new(&[labels.len()], rows),
    }
}

/// The gradient of the student's logits of [`distillation`].
pub fn distillation_backward<R: Real>(
    logits: &Tensor<R>,
    teacher: &Tensor<R>,
    labels: &[i64],
    alpha: f64,
) -> Tensor<R> {
    assert_eq!(logits.shape, teacher.shape, "logits of the teacher");
    let alpha = R::from_f64(alpha);
    let count = R::from_f64(counted(labels) as f64);
    let d = each_row(logits, labels, logits.shape[1], |r, x, label| {
        let ((student, _), (teacher, _)) = (shares(x), shares(teacher.row(&[r])));
        let d = student.into_iter().zip(teacher).enumerate();
        let d = d.map(|(at, (student, teacher))| {
            let own = if at == label { R::ONE } else { R::ZERO };
            (alpha * (student - own) + (R::ONE - alpha) * (student - teacher)) / count
        });
        d.collect()
    });
    Tensor::new(&logits.shape, d)
}

/// [`distillation`] of hidden [rows, E]·weightᵀ, weight [V, E].
pub fn linear_distillation<R: Real>(
    hidden: &Tensor<R>,
    weight: &Tensor<R>,
    teacher: &Tensor<R>,
    labels: &[i64],
    alpha: f64,
) -> DistillationLoss<R> {
    distillation(&linear(hidden, weight, None), teacher, labels, alpha)
}

/// The gradients of [`linear_distillation`].
pub fn linear_distillation_backward<R: Real>(
    hidden: &Tensor<R>,
    weight: &Tensor<R>,
    teacher: &Tensor<R>,
    labels: &[i64],
    alpha: f64,
) -> HeadGradients<R> {
    let logits = linear(hidden, weight, None);
    let dlogits = distillation_backward(&logits, teacher, labels, alpha);
    head_backward(hidden, weight, &dlogits)
}
