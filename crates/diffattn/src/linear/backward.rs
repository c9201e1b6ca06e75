//! Gradients of a linear map `y = x Wᵀ + b`: `dx = dy W`, `dW = dyᵀ x`, `db = Σ dy`; at once or in
//! slices. W is read out of the panels that the forward product has, whatever their format, so
//! there is no second copy of it. Not the gradients of a low-rank difference: its A and B are maps
//! of their own.

use super::Linear;
use super::product::{Product, Turned};
use super::weight_gradient::{Strips, Sums};
use crate::blocks::linear::{LEAST_GRADIENT_BLOCK, LEAST_UNIT_ROWS, TOKENS, UNIT_WORK};
use crate::error::Error;
use crate::run::Run;
use crate::run::buffer::try_zeroed;
use crate::run::work::{Pace, Work, at_once};
use crate::tensor::shape::check_len;

/// Where the gradients of a call go; what is `None` is not computed.
#[derive(Debug, Default)]
pub struct LinearGradients<'g> {
    /// `[rows, inputs]`: written.
    pub dx: Option<&'g mut [f32]>,
    /// Whether dx is added to what is there instead: that of an x which several maps share. Strips
    /// of 128 outputs are added in order, as they are to zero.
    pub adds_dx: bool,
    /// `[outputs, inputs]`: added to what is there.
    pub dweight: Option<&'g mut [f32]>,
    /// `[outputs]`: added to what is there.
    pub dbias: Option<&'g mut [f32]>,
}

/// A checked call of [`linear_backward`], which runs at once or in slices.
#[derive(Debug, Clone, Copy)]
pub struct LinearBackward<'a> {
    linear: &'a Linear,
    dy: &'a [f32],
    x: &'a [f32],
    run: Run,
}

/// The gradients of `y = x Wᵀ + b` for those of y: of the rows `[rows, outputs]` in `dy` and `x`
/// `[rows, inputs]`, which is read for dW alone, and may else be empty. W may be of any format;
/// dx is that of its float32 values, with its low-rank difference where it has one.
///
/// dx has a row's bits whatever stands beside it: its sums run over the outputs in strips of 128
/// from zero, added in order, as those of a forward product with Wᵀ do
/// ([`Linear::pack_transposed`]). dW is summed over rows in strips of 256 counted from the first,
/// each from zero, added in order to what is there; db likewise, each strip in float64 and rounded
/// once. So calls on whole strips give the bits of one call on all, and no bit depends on threads.
///
/// # Errors
/// [`ErrorKind::Shape`](crate::ErrorKind::Shape) naming `dy`, `x`, `dx`, `dweight` or `dbias`;
/// [`Error::out_of_memory`].
pub fn linear_backward(
    linear: &Linear,
    dy: &[f32],
    x: &[f32],
    gradients: LinearGradients<'_>,
    run: Run,
) -> Result<(), Error> {
    LinearBackward::new(linear, dy, x, run).finish_into(gradients)
}

/// What a call does, checked.
#[derive(Debug, Clone, Copy)]
struct Plan {
    rows: usize,
    /// Rows of a unit of dx.
    unit_rows: usize,
    /// Rows whose strips are packed together.
    group: usize,
    /// Output channels of a unit of dW.
    unit_channels: usize,
    /// Units of dx, and of all.
    dx_units: usize,
    units: usize,
}

impl<'a> LinearBackward<'a> {
    /// A call of [`linear_backward`]; nothing is checked yet.
    #[must_use]
    pub fn new(linear: &'a Linear, dy: &'a [f32], x: &'a [f32], run: Run) -> Self {
        Self { linear, dy, x, run }
    }

    /// The work of the call into `gradients`.
    ///
    /// # Errors
    /// As [`linear_backward`].
    pub fn into_work(self, gradients: LinearGradients<'a>) -> Result<Work<'a>, Error> {
        let plan = self.plan(&gradients)?;
        Ok(Work::new(plan.units, move |pace| async move {
            self.work(&pace, plan, gradients).await
        }))
    }

    /// Works the whole call off at once, into `gradients`.
    ///
    /// # Errors
    /// As [`linear_backward`].
    pub fn finish_into(self, gradients: LinearGradients<'_>) -> Result<(), Error> {
        let plan = self.plan(&gradients)?;
        at_once(async |pace| self.work(pace, plan, gradients).await)
    }

    /// Checks the call.
    fn plan(&self, gradients: &LinearGradients<'_>) -> Result<Plan, Error> {
        let (inputs, outputs) = (self.linear.inputs, self.linear.outputs);
        let dx_len = gradients.dx.as_ref().map(|dx| dx.len());
        let rows = self.dy.len().checked_div(outputs).unwrap_or_else(|| {
            let len = dx_len.unwrap_or(self.x.len());
            len.checked_div(inputs).unwrap_or(0)
        });
        check_len("dy", &[rows, outputs], self.dy.len())?;
        if let Some(len) = dx_len {
            check_len("dx", &[rows, inputs], len)?;
        }
        if let Some(dweight) = &gradients.dweight {
            check_len("x", &[rows, inputs], self.x.len())?;
            check_len("dweight", &[outputs, inputs], dweight.len())?;
        }
        if let Some(dbias) = &gradients.dbias {
            check_len("dbias", &[outputs], dbias.len())?;
        }
        let unit_rows = UNIT_WORK / (inputs.saturating_mul(outputs)).max(1);
        let unit_rows = unit_rows.max(LEAST_UNIT_ROWS);
        let dx_units = dx_len.map_or(0, |_| rows.div_ceil(unit_rows));
        let group = Strips::at_once(inputs).saturating_mul(TOKENS);
        let row_work = group.min(rows).saturating_mul(inputs).max(1);
        let unit_channels = (UNIT_WORK / row_work).max(1);
        let unit_channels = unit_channels.next_multiple_of(LEAST_GRADIENT_BLOCK);
        let has_sums = gradients.dweight.is_some() || gradients.dbias.is_some();
        let sum_units = if has_sums {
            rows.div_ceil(group) * outputs.div_ceil(unit_channels)
        } else {
            0
        };
        Ok(Plan {
            rows,
            unit_rows,
            group,
            unit_channels,
            dx_units,
            units: dx_units + sum_units,
        })
    }

    async fn work(
        &self,
        pace: &Pace,
        plan: Plan,
        gradients: LinearGradients<'_>,
    ) -> Result<(), Error> {
        let (inputs, outputs) = (self.linear.inputs, self.linear.outputs);
        if let Some(dx) = gradients.dx {
            let adds = gradients.adds_dx;
            pace.rows(0..plan.rows, plan.unit_rows, |rows| {
                let dy = &self.dy[rows.start * outputs..rows.end * outputs];
                let dx = &mut dx[rows.start * inputs..rows.end * inputs];
                self.linear.turned(dy, (dx, adds), rows.len(), self.run)
            })
            .await?;
        }
        if plan.units == plan.dx_units {
            return Ok(());
        }
        // (Without dW there is nothing of x to pack.)
        let (x, inputs) = match gradients.dweight {
            Some(_) => (self.x, inputs),
            None => (&[][..], 0),
        };
        let mut sums = Sums {
            weight: gradients.dweight,
            bias: gradients.dbias,
        };
        let mut strips = Strips::new(x, inputs, self.run)?;
        for first in (0..plan.rows).step_by(plan.group) {
            strips.pack(first..(first + plan.group).min(plan.rows));
            pace.rows(0..outputs, plan.unit_channels, |channels| {
                strips.add(self.dy, outputs, channels, &mut sums)
            })
            .await?;
        }
        Ok(())
    }
}

impl Linear {
    /// `dx = dy W`, or added to dx, which has `rows` rows as dy does.
    fn turned(
        &self,
        dy: &[f32],
        (dx, adds): (&mut [f32], bool),
        rows: usize,
        run: Run,
    ) -> Result<(), Error> {
        let product = |adds| Product {
            weight: &self.weight,
            way: Turned,
            shape: [self.inputs, self.outputs],
            bias: None,
            adds,
        };
        product(adds).run(rows, dy, dx, run)?;
        let Some(low_rank) = &self.low_rank else {
            return Ok(());
        };
        let [lora_a, lora_b] = &**low_rank;
        let mut thin = try_zeroed(rows * lora_a.outputs)?;
        lora_b.turned(dy, (&mut thin, false), rows, run)?;
        lora_a.turned(&thin, (dx, true), rows, run)
    }
}
