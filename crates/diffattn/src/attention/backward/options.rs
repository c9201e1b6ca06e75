//! What a caller of gradients may ask for and gets. Checks and computes nothing.

use crate::attention::options::{AttentionOptions, Lambda};
use crate::attention::partial::RowStatistics;
use crate::error::Error;
use crate::run::buffer::try_zeroed;
use crate::tensor::Tensor;
use crate::tensor::shape::checked_len;

/// Which gradients are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AttentionNeeds {
    /// dq, of q's shape.
    pub q: bool,
    /// dk, of k's shape.
    pub k: bool,
    /// dv, of v's shape.
    pub v: bool,
    /// The gradient of λ, of λ's shape.
    pub lambda: bool,
    /// The gradient of the coefficients, `[T]`.
    pub coefficients: bool,
    /// The gradient of the norm's weight, `[dv of the result]`.
    pub norm_weight: bool,
    /// The gradient of the additive bias, of its shape.
    pub attn_bias: bool,
    /// The gradient of the sinks, of their shape.
    pub sinks: bool,
}

impl AttentionNeeds {
    /// Those of everything that a call is given, but for an additive bias.
    #[must_use]
    pub fn given(options: &AttentionOptions<'_>) -> Self {
        Self {
            q: true,
            k: true,
            v: true,
            lambda: options.lambda.is_some(),
            coefficients: options.coefficients.is_some(),
            norm_weight: options
                .norm
                .as_ref()
                .is_some_and(|norm| norm.weight.is_some()),
            attn_bias: false,
            sinks: options.sinks.is_some(),
        }
    }
}

/// Options of gradients beside those of the call whose gradients they are.
#[derive(Debug, Clone, Default)]
pub struct GradientOptions<'a> {
    /// Which gradients are wanted; by default [`AttentionNeeds::given`].
    pub needs: Option<AttentionNeeds>,
    /// The call's result before its norm, of the result's shape, where it was kept; computed anew
    /// by default. Only with a norm.
    pub pre_norm: Option<Tensor<'a>>,
    /// The whole rows, where k and v are a range of their keys; by default they are all keys.
    pub whole_rows: Option<WholeRows<'a>>,
}

/// Whole rows of a call of which k and v are a range of keys alone: what all ranges together give
/// of them. The range is as [`PartialAttention::new`](crate::PartialAttention::new) has it; a norm
/// wants [`GradientOptions::pre_norm`] of the whole result.
///
/// dq of a range is its part of a sum over all ranges; dk, dv and the bias's gradient are of its
/// keys; the gradients of λ, coefficients, sinks and the norm's weight are whole, the same from
/// each range.
#[derive(Debug, Clone, Copy)]
pub struct WholeRows<'a> {
    /// The merged statistics of all ranges.
    pub statistics: &'a RowStatistics,
    /// `[B, H, T, Lq]`: δ_t of whole rows, the sum of what
    /// [`DiffAttentionBackward::deltas`](crate::DiffAttentionBackward::deltas) gives of all ranges;
    /// none for that call.
    pub delta: Option<&'a [f64]>,
}

/// Something for each gradient of a call, none where that is not wanted: by default the gradients
/// themselves, each of the shape of what it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AttentionGradients<T = Vec<f32>> {
    /// Of q, in the call's layout.
    pub dq: Option<T>,
    /// Of k, in the call's layout.
    pub dk: Option<T>,
    /// Of v, in the call's layout.
    pub dv: Option<T>,
    /// Of λ: one value, `[H]` or `[B|1, Lq|1, H]`.
    pub dlambda: Option<T>,
    /// Of the coefficients, `[T]`.
    pub dcoefficients: Option<T>,
    /// Of the norm's weight, `[dv of the result]`.
    pub dnorm_weight: Option<T>,
    /// Of the additive bias, `[B|1, H|1, Lq|1, Lk]`.
    pub dattn_bias: Option<T>,
    /// Of the sinks, `[H]` or `[H, T]`.
    pub dsinks: Option<T>,
}

/// Where the gradients of a call go: there exactly where they are wanted.
pub type AttentionGradientsMut<'a> = AttentionGradients<&'a mut [f32]>;

/// The shapes of the gradients that are wanted; λ's has no axes for a single number.
pub type GradientShapes = AttentionGradients<Vec<usize>>;

impl<T> AttentionGradients<T> {
    /// All of them, by their names, in the order of the fields.
    #[must_use]
    pub fn named(self) -> [(&'static str, Option<T>); 8] {
        [
            ("dq", self.dq),
            ("dk", self.dk),
            ("dv", self.dv),
            ("dlambda", self.dlambda),
            ("dcoefficients", self.dcoefficients),
            ("dnorm_weight", self.dnorm_weight),
            ("dattn_bias", self.dattn_bias),
            ("dsinks", self.dsinks),
        ]
    }

    /// Something for each, in the order of [`AttentionGradients::named`].
    #[must_use]
    pub fn of(each: [Option<T>; 8]) -> Self {
        let [
            dq,
            dk,
            dv,
            dlambda,
            dcoefficients,
            dnorm_weight,
            dattn_bias,
            dsinks,
        ] = each;
        Self {
            dq,
            dk,
            dv,
            dlambda,
            dcoefficients,
            dnorm_weight,
            dattn_bias,
            dsinks,
        }
    }

    /// Each where it lies.
    #[must_use]
    pub fn as_ref(&self) -> AttentionGradients<&T> {
        AttentionGradients {
            dq: self.dq.as_ref(),
            dk: self.dk.as_ref(),
            dv: self.dv.as_ref(),
            dlambda: self.dlambda.as_ref(),
            dcoefficients: self.dcoefficients.as_ref(),
            dnorm_weight: self.dnorm_weight.as_ref(),
            dattn_bias: self.dattn_bias.as_ref(),
            dsinks: self.dsinks.as_ref(),
        }
    }
}

impl GradientShapes {
    /// Zeros of these shapes.
    ///
    /// # Errors
    /// [`Error::out_of_memory`].
    pub fn zeros(&self) -> Result<AttentionGradients, Error> {
        let mut each = [const { None }; 8];
        for (to, (name, shape)) in each.iter_mut().zip(self.as_ref().named()) {
            *to = shape
                .map(|shape| try_zeroed(checked_len(name, shape)?))
                .transpose()?;
        }
        Ok(AttentionGradients::of(each))
    }
}

impl AttentionGradients {
    /// Each as what a call writes to.
    pub fn as_outputs(&mut self) -> AttentionGradientsMut<'_> {
        AttentionGradients {
            dq: self.dq.as_deref_mut(),
            dk: self.dk.as_deref_mut(),
            dv: self.dv.as_deref_mut(),
            dlambda: self.dlambda.as_deref_mut(),
            dcoefficients: self.dcoefficients.as_deref_mut(),
            dnorm_weight: self.dnorm_weight.as_deref_mut(),
            dattn_bias: self.dattn_bias.as_deref_mut(),
            dsinks: self.dsinks.as_deref_mut(),
        }
    }
}

/// λ's shape: no axes for a single number.
pub(super) fn lambda_shape(lambda: &Lambda<'_>) -> Vec<usize> {
    match lambda {
        Lambda::Value(_) => Vec::new(),
        Lambda::PerHead(values) => vec![values.len()],
        Lambda::PerToken { shape, .. } => shape.clone(),
    }
}
