//! The gradients of one call: checks, shapes, outputs.

use super::options::{
    AttentionGradients, AttentionGradientsMut, AttentionNeeds, GradientOptions, GradientShapes,
    WholeRows, lambda_shape,
};
use super::sums::Sums;
use super::waves::PlannedGradients;
use crate::attention::call::Call;
use crate::attention::gradients::{BiasOut, GradientCall, GradientsOut, Heads};
use crate::attention::inputs::{KeysValues, Source};
use crate::attention::options::AttentionOptions;
use crate::attention::partial::check_key_range;
use crate::error::Error;
use crate::run::buffer::try_zeroed;
use crate::run::threads::Disjoint;
use crate::run::work::{Pace, Work};
use crate::tensor::Tensor;
use crate::tensor::axis::{HeadAxis, Layout};
use crate::tensor::shape::{check_len, checked_len, format_shape};

/// A checked and planned call of gradients: made by [`DiffAttentionBackward::new`], worked off by
/// what [`DiffAttentionBackward::into_work`] makes of it.
///
/// Of `y = norm(Σ_t c_t P_t v)`, P_t = softmax(scale · q_t k_tᵀ): dP = dO vᵀ, δ_t = Σ_j P_t dP,
/// dS_t = c_t P_t (dP − δ_t), dq_t = scale · dS_t k_t, dk_t = scale · dS_tᵀ q_t, dv = (Σ_t c_t
/// P_t)ᵀ dO, and δ_t is the gradient of a row's c_t. Memory is O(L).
#[derive(Debug)]
pub struct DiffAttentionBackward<'a> {
    planned: PlannedGradients<'a>,
    shapes: GradientShapes,
    sums: Sums,
}

impl<'a> DiffAttentionBackward<'a> {
    /// Checks everything and allocates no scratch yet. `options` are those of the call whose
    /// gradients are wanted, dy is of its result's shape and of any float type; q, k and v are as
    /// they were for it.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape), [`ErrorKind::Dtype`](crate::ErrorKind::Dtype)
    /// or [`ErrorKind::Option`](crate::ErrorKind::Option), naming the argument.
    pub fn new(
        dy: Tensor<'a>,
        [q, k, v]: [Tensor<'a>; 3],
        options: &AttentionOptions<'a>,
        gradients: &GradientOptions<'a>,
    ) -> Result<Self, Error> {
        if options.return_lse {
            return Err(Error::option("return_lse", "none for gradients", "one"));
        }
        let shapes = [&q, &k, &v].map(|tensor| tensor.shape.clone());
        let call = Call::new(&q, KeysValues::Tensors { k, v }.into(), options)?;
        let (k, v) = match call.source {
            Source::Tensors { k, v: Some(v) } => (k, v),
            _ => return Err(Error::internal("gradients of a call without k and v")),
        };
        let result = call.axis.shape();
        let dy = heads("dy", &dy, options.layout, &result)?;
        let pre_norm = match &gradients.pre_norm {
            Some(_) if call.norm().is_none() => {
                return Err(Error::option("pre_norm", "none without a norm", "one"));
            }
            Some(kept) => Some(heads("pre_norm", kept, options.layout, &result)?),
            None => None,
        };
        if let Some(rows) = &gradients.whole_rows {
            check_range(&call, rows, options, pre_norm.is_some())?;
        }
        let needs = gradients.needs.unwrap_or(AttentionNeeds::given(options));
        let shapes = gradient_shapes(shapes, &call, needs, options)?;
        let sums = Sums::new(options, &shapes);
        let q_axis = call.query_axis();
        let of = GradientCall {
            call,
            dy,
            pre_norm,
            k,
            v,
            q_axis,
            whole_rows: gradients.whole_rows,
        };
        Ok(Self {
            planned: PlannedGradients::new(of, shapes.dattn_bias.is_some()),
            shapes,
            sums,
        })
    }

    /// The shapes of the gradients that are wanted: which outputs
    /// [`DiffAttentionBackward::into_work`] takes.
    #[must_use]
    pub fn shapes(&self) -> &GradientShapes {
        &self.shapes
    }

    /// δ_t of the rows as far as a range of keys gives it, `[B, H, T, Lq]`: the first of the two
    /// calls over [`WholeRows`].
    ///
    /// # Errors
    /// [`ErrorKind::Option`](crate::ErrorKind::Option) naming `whole_rows` where there are none, or
    /// δ is given; [`Error::out_of_memory`] when memory is refused.
    pub fn deltas(self) -> Result<Vec<f64>, Error> {
        let planned = &self.planned;
        if !planned.of.wants_deltas() {
            return Err(Error::option(
                "whole_rows",
                "statistics without delta",
                "other",
            ));
        }
        let mut delta = try_zeroed(checked_len("q", &planned.of.call.lse_shape())?)?;
        let out = GradientsOut {
            dq: None,
            dk: None,
            dv: None,
            delta: Disjoint::new(&mut delta),
            sinks: None,
            norm_weight: None,
            bias: None,
        };
        Work::new(planned.total(), |pace| async move {
            planned.run(&out, &pace).await
        })
        .finish()?;
        Ok(delta)
    }

    /// The work of the call into its outputs, which need not be zeros.
    ///
    /// # Errors
    /// [`ErrorKind::Option`](crate::ErrorKind::Option) naming `whole_rows` where δ is not given of
    /// a range of keys;
    /// [`ErrorKind::Shape`](crate::ErrorKind::Shape) or
    /// [`ErrorKind::Option`](crate::ErrorKind::Option) when an output does not fit, is missing or
    /// was not wanted.
    pub fn into_work<'o>(self, outputs: AttentionGradientsMut<'o>) -> Result<Work<'o>, Error>
    where
        'a: 'o,
    {
        if self.planned.of.wants_deltas() {
            return Err(Error::option(
                "whole_rows",
                "statistics and delta",
                "none of delta",
            ));
        }
        let wanted = self.shapes.as_ref().named().into_iter();
        for ((name, shape), (_, out)) in wanted.zip(outputs.as_ref().named()) {
            match (shape, out) {
                (Some(shape), Some(out)) => {
                    check_len(name, shape, out.len())?;
                }
                (None, None) => {}
                (Some(_), None) => return Err(Error::option(name, "an output", "none")),
                (None, Some(_)) => {
                    return Err(Error::option(name, "none, as it is not wanted", "one"));
                }
            }
        }
        let total = self.planned.total() + 1;
        Ok(Work::new(total, |pace| async move {
            self.run(outputs, &pace).await
        }))
    }

    async fn run(self, outputs: AttentionGradientsMut<'_>, pace: &Pace) -> Result<(), Error> {
        let Self {
            planned,
            shapes,
            sums,
        } = &self;
        let call = &planned.of.call;
        let rows = checked_len("q", &call.lse_shape())?;
        let partial = shapes.dnorm_weight.as_ref().map_or(0, |_| {
            planned.row_blocks() * call.axis.heads * call.axis.width
        });
        let bias_len = shapes
            .dattn_bias
            .as_ref()
            .map_or(0, |shape| shape.iter().product());
        let has_sinks = shapes.dsinks.is_some();
        let mut delta = try_zeroed(rows)?;
        let mut sinks = try_zeroed(if has_sinks { rows } else { 0 })?;
        let mut norm_weight = try_zeroed(partial)?;
        let mut bias = try_zeroed(bias_len)?;
        let AttentionGradientsMut {
            dq,
            dk,
            dv,
            dlambda,
            dcoefficients,
            dnorm_weight,
            dattn_bias,
            dsinks,
        } = outputs;
        let bias_of = call.elements.bias.filter(|_| shapes.dattn_bias.is_some());
        let out = GradientsOut {
            dq: dq.map(zero),
            dk: dk.map(zero),
            dv: dv.map(zero),
            delta: Disjoint::new(&mut delta),
            sinks: has_sinks.then(|| Disjoint::new(&mut sinks)),
            norm_weight: (partial > 0).then(|| Disjoint::new(&mut norm_weight)),
            bias: bias_of.map(|of| BiasOut::new(&mut bias, &of, call.keys)),
        };
        planned.run(&out, pace).await?;
        if let Some(to) = dlambda {
            sums.lambda(call, &delta, to)?;
        }
        if let Some(to) = dcoefficients {
            sums.coefficients(call, &delta, to);
        }
        if let Some(to) = dsinks {
            sums.sinks(call, &sinks, to);
        }
        if let Some(to) = dnorm_weight {
            sums.norm_weight(call, &norm_weight, to)?;
        }
        if let Some(to) = dattn_bias {
            for (to, &sum) in to.iter_mut().zip(&bias) {
                *to = sum as f32;
            }
        }
        pace.worked(1);
        Ok(())
    }
}

/// Whether a range of keys, and what is given of whole rows, fit.
fn check_range(
    call: &Call<'_>,
    rows: &WholeRows<'_>,
    options: &AttentionOptions<'_>,
    has_pre_norm: bool,
) -> Result<(), Error> {
    check_key_range(options)?;
    if call.norm().is_some() && !has_pre_norm {
        return Err(Error::option(
            "pre_norm",
            "the whole result before its norm",
            "none",
        ));
    }
    let shape = call.lse_shape();
    check_len("whole_rows", &shape, rows.statistics.row_max.len())?;
    check_len("whole_rows", &shape, rows.statistics.row_sum.len())?;
    if let Some(delta) = rows.delta {
        check_len("whole_rows", &shape, delta.len())?;
    }
    Ok(())
}

fn zero(out: &mut [f32]) -> Disjoint<'_, f32> {
    out.fill(0.0);
    Disjoint::new(out)
}

/// A tensor of the result's shape.
fn heads<'a>(
    argument: &str,
    tensor: &Tensor<'a>,
    layout: Layout,
    result: &[usize; 4],
) -> Result<Heads<'a>, Error> {
    if tensor.shape != result {
        return Err(Error::shape(
            argument,
            format_args!("the result's shape {}", format_shape(result)),
            format_shape(&tensor.shape),
        ));
    }
    let axis = HeadAxis::new(argument, tensor, layout)?;
    Ok((tensor.data, axis))
}

/// The shapes of what is wanted.
fn gradient_shapes(
    [q, k, v]: [Vec<usize>; 3],
    call: &Call<'_>,
    needs: AttentionNeeds,
    options: &AttentionOptions<'_>,
) -> Result<GradientShapes, Error> {
    let wanted = |needed: bool, name: &str, shape: Option<Vec<usize>>| match (needed, shape) {
        (false, _) => Ok(None),
        (true, Some(shape)) => Ok(Some(shape)),
        (true, None) => Err(Error::option(
            "needs",
            format_args!("nothing of what the call has not ({name})"),
            name,
        )),
    };
    let weight = options.norm.as_ref().and_then(|norm| norm.weight);
    Ok(GradientShapes {
        dq: needs.q.then_some(q),
        dk: needs.k.then_some(k),
        dv: needs.v.then_some(v),
        dlambda: wanted(
            needs.lambda,
            "lambda",
            options.lambda.as_ref().map(lambda_shape),
        )?,
        dcoefficients: wanted(
            needs.coefficients,
            "coefficients",
            options.coefficients.map(|values| vec![values.len()]),
        )?,
        dnorm_weight: wanted(
            needs.norm_weight,
            "norm_weight",
            weight.map(|_| vec![call.axis.width]),
        )?,
        dattn_bias: wanted(
            needs.attn_bias,
            "attn_bias",
            options.attn_bias.as_ref().map(|bias| bias.shape.clone()),
        )?,
        dsinks: wanted(
            needs.sinks,
            "sinks",
            options.sinks.as_ref().map(|sinks| sinks.shape.clone()),
        )?,
    })
}

/// Gradients of a call in one call; see [`DiffAttentionBackward`].
///
/// # Errors
/// Those of [`DiffAttentionBackward::new`]; [`Error::out_of_memory`] when memory is refused.
pub fn diff_attention_backward(
    dy: Tensor<'_>,
    qkv: [Tensor<'_>; 3],
    options: &AttentionOptions<'_>,
    gradients: &GradientOptions<'_>,
) -> Result<AttentionGradients, Error> {
    let call = DiffAttentionBackward::new(dy, qkv, options, gradients)?;
    let mut out = call.shapes().zeros()?;
    call.into_work(out.as_outputs())?.finish()?;
    Ok(out)
}
