//! Mamba (arXiv 2312.00752) and the gated memory unit that reads what it gave (arXiv 2507.06607),
//! over rows. Knows no texts: whoever calls it hands it rows of one text with the state before
//! them.

use super::attention::Widths;
use diffattn::{
    CausalConvolution, Error, Linear, Run, ScanRows, SelectiveScan, silu_gate, softplus,
};
use std::ops::Range;

/// `u = silu(conv(input(x)))`, `[δ ‖ B ‖ C] = x_proj(u)`, `Δ = softplus(step(δ))`, `y = scan(u, Δ,
/// B, C)`, then `output(y · silu(gate(x)))`.
#[derive(Debug, Clone)]
pub(crate) struct Mamba {
    /// To the channels that are convolved.
    pub(crate) input: Linear,
    pub(crate) gate: Linear,
    pub(crate) convolution: CausalConvolution,
    /// To δ, of few channels.
    pub(crate) rank: Linear,
    /// To B and C.
    pub(crate) b_c: Linear,
    /// From δ to one step size per channel, before the softplus.
    pub(crate) step: Linear,
    pub(crate) scan: SelectiveScan,
    pub(crate) output: Linear,
    /// Whether its result before the gate is the memory that later layers read.
    pub(crate) is_memory: bool,
}

/// Where the elements of some rows lie.
fn elements(rows: &Range<usize>, width: usize) -> Range<usize> {
    rows.start * width..rows.end * width
}

/// Rows of what is made on the way.
#[derive(Debug)]
pub(crate) struct MambaRows<'b> {
    /// Before the convolution; at the end the scan's results.
    pub(crate) inputs: &'b mut [f32],
    /// Behind it.
    pub(crate) u: &'b mut [f32],
    pub(crate) delta: &'b mut [f32],
    pub(crate) rank: &'b mut [f32],
    pub(crate) b_c: &'b mut [f32],
    /// Results, gated.
    pub(crate) gated: &'b mut [f32],
}

impl Mamba {
    /// Channels between the projections.
    pub(crate) fn channels(&self) -> usize {
        self.scan.channels()
    }

    /// Values of a state: of the convolution, and of the scan.
    pub(crate) fn state_lens(&self) -> [usize; 2] {
        [self.convolution.state_len(), self.scan.state_len()]
    }

    /// Rows of its operands: those of attention serve as [`MambaRows`].
    pub(crate) fn widths(&self) -> Widths {
        let channels = self.channels();
        Widths {
            q: channels,
            k: channels,
            v: channels,
            lambda: self.rank.outputs(),
            attended: channels,
        }
    }

    /// Multiply-adds of a row before the output projection.
    pub(crate) fn row_work(&self) -> usize {
        let maps = [&self.input, &self.gate, &self.rank, &self.b_c, &self.step];
        let maps = maps.map(|map| map.inputs().saturating_mul(map.outputs()));
        let along = [self.convolution.row_work(), self.scan.row_work()];
        let work = maps.into_iter().chain(along);
        work.fold(0, usize::saturating_add)
    }

    /// What is made of rows alone, before the convolution.
    pub(crate) fn enter(&self, x: &[f32], rows: &mut MambaRows<'_>, run: Run) -> Result<(), Error> {
        self.input.forward(x, rows.inputs, run)
    }

    /// Step sizes, B and C, behind the convolution.
    pub(crate) fn choose(&self, rows: &mut MambaRows<'_>, run: Run) -> Result<(), Error> {
        self.rank.forward(rows.u, rows.rank, run)?;
        self.b_c.forward(rows.u, rows.b_c, run)?;
        self.step.forward(rows.rank, rows.delta, run)?;
        softplus(rows.delta, run);
        Ok(())
    }

    /// The convolution of some of the rows, all of one text, behind those that `state` is of.
    pub(crate) fn convolve(
        &self,
        rows: &mut MambaRows<'_>,
        some: &Range<usize>,
        state: &mut [f32],
        run: Run,
    ) -> Result<(), Error> {
        let of = elements(some, self.channels());
        let (inputs, u) = (&rows.inputs[of.clone()], &mut rows.u[of]);
        self.convolution.forward(inputs, state, u, run)
    }

    /// The scan of some of the rows, as [`Mamba::convolve`].
    pub(crate) fn scan(
        &self,
        rows: &mut MambaRows<'_>,
        some: &Range<usize>,
        state: &mut [f32],
        run: Run,
    ) -> Result<(), Error> {
        let of = elements(some, self.channels());
        let inputs = ScanRows {
            u: &rows.u[of.clone()],
            delta: &rows.delta[of.clone()],
            b_c: &rows.b_c[elements(some, self.b_c.outputs())],
        };
        self.scan.forward(&inputs, state, &mut rows.inputs[of], run)
    }

    /// The scan's results through the gate.
    pub(crate) fn leave(&self, x: &[f32], rows: &mut MambaRows<'_>, run: Run) -> Result<(), Error> {
        self.gate.forward(x, rows.gated, run)?;
        silu_gate(rows.gated, rows.inputs, run)
    }
}

/// `output(silu(gate(x)) · m)`, m the memory of the same token.
#[derive(Debug, Clone)]
pub(crate) struct MemoryGate {
    pub(crate) gate: Linear,
    pub(crate) output: Linear,
}

impl MemoryGate {
    /// Memory of rows of x through their gates.
    pub(crate) fn rows(
        &self,
        x: &[f32],
        memory: &[f32],
        gated: &mut [f32],
        run: Run,
    ) -> Result<(), Error> {
        self.gate.forward(x, gated, run)?;
        silu_gate(gated, memory, run)
    }
}
