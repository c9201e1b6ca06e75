//! A checked call: everything that its blocks share. All lengths of attention are checked in
//! `Call::new`; below it, indices are trusted. Where results go is in `outputs.rs`.

use super::check::{self, Coefficients, LambdaAt, Norm, Sinks};
use super::inputs::{Keys, Source};
use super::kept::KeptPlan;
use super::mask::{Band, Elements, RowAt, Sequence, Sequences};
use super::options::AttentionOptions;
use super::packed::ValueShape;
use super::scale::ScoreScale;
use super::visible::{Blocks, Visible};
use crate::error::Error;
use crate::norm::rms_norm_row;
use crate::run::Run;
use crate::simd::Vector;
use crate::tensor::axis::HeadAxis;
use crate::tensor::axis::Rows;
use crate::tensor::{DType, Data, Tensor};
use std::sync::Arc;

/// What all blocks share.
#[derive(Debug)]
pub(super) struct Call<'a> {
    q: Data<'a>,
    q_axis: HeadAxis,
    pub(super) source: Source<'a>,
    pub(super) plan: Arc<KeptPlan>,
    pub(super) sequences: Sequences,
    pub(super) band: Band,
    pub(super) elements: Elements<'a>,
    pub(super) blocks: Blocks<'a>,
    lambda: Option<LambdaAt<'a>>,
    sinks: Option<Sinks<'a>>,
    pub(super) scores: ScoreScale,
    pub(super) softcap: Option<f32>,
    norm: Option<Norm<'a>>,
    /// d.
    pub(super) width: usize,
    pub(super) value_shape: ValueShape,
    /// Lk, with padding.
    pub(super) keys: usize,
    /// The result's.
    pub(super) axis: HeadAxis,
    pub(super) return_lse: bool,
    pub(super) run: Run,
}

impl<'a> Call<'a> {
    /// Checks everything; allocates nothing of the size of the work. No v and no norm for maps.
    pub(super) fn new(
        q: &Tensor<'a>,
        keys: Keys<'a>,
        options: &AttentionOptions<'a>,
    ) -> Result<Self, Error> {
        let operands = check::operands(q, keys, options)?;
        let plan = KeptPlan::of(operands.counts, options)?;
        let axis = check::out_axis(&operands, &plan)?;
        let lambda = check::lambda(options.lambda.as_ref(), &axis)?;
        let elements = check::elements(options, &axis, operands.keys)?;
        let sequences = check::sequences(options, &operands)?;
        let blocks = check::blocks(options, &axis, operands.keys)?;
        let width = operands.q_axis.width;
        let scale = check::scale(options.scale, width)?;
        let softcap = check::softcap(options.softcap)?;
        let sinks = check::sinks(options.sinks.as_ref(), &axis, plan.terms)?;
        let norm = check::norm(options.norm.as_ref(), axis.width)?;
        Ok(Self {
            q: operands.q,
            q_axis: operands.q_axis,
            source: operands.source,
            plan,
            sequences,
            band: Band::new(options.window, options.is_causal),
            elements,
            blocks,
            lambda,
            sinks,
            scores: ScoreScale::new(scale, softcap.is_some() || !elements.is_empty()),
            softcap,
            norm,
            width,
            value_shape: operands.value_shape,
            keys: operands.keys,
            axis,
            return_lse: options.return_lse,
            run: options.run,
        })
    }

    /// The norm of finished rows.
    pub(super) fn norm(&self) -> Option<&Norm<'a>> {
        self.norm.as_ref()
    }

    pub(super) fn dtype(&self) -> DType {
        self.q.dtype()
    }

    /// `[B, H, T, Lq]`.
    pub(super) fn lse_shape(&self) -> [usize; 4] {
        let HeadAxis {
            batch,
            heads,
            length,
            ..
        } = self.axis;
        [batch, heads, self.plan.terms, length]
    }

    /// G that the pairing implies: the v heads that its plan names.
    pub(super) fn value_heads(&self) -> usize {
        let heads = self.plan.heads.iter().flat_map(|head| &head.v);
        heads.max().map_or(0, |head| head + 1)
    }

    /// Whether what hides keys differs between heads, so that heads cannot share a map.
    pub(super) fn masks_depend_on_head(&self) -> bool {
        self.elements.depend_on_head() || self.blocks.depend_on_head()
    }

    /// What the block mask leaves to a query.
    pub(super) fn visible(&self, at: RowAt) -> Visible<'a> {
        self.blocks.row(at)
    }

    pub(super) fn query_rows(&self, sequence: &Sequence, head: usize) -> Rows<'a> {
        self.q_axis
            .rows(self.q, sequence.batch, head, sequence.first_query)
    }

    /// q's axis.
    pub(super) fn query_axis(&self) -> HeadAxis {
        self.q_axis
    }

    /// c_t of a head, from a token on: λ scales the second term.
    pub(super) fn coefficients(&self, term: usize, at: RowAt) -> Coefficients<'a> {
        let coefficient = self.plan.heads[at.1].coefficients[term];
        match &self.lambda {
            Some(lambda) if term == 1 => lambda.times(coefficient, at),
            _ => Coefficients::One(coefficient),
        }
    }

    /// c_t of a head at a token.
    pub(super) fn coefficient(&self, term: usize, at: RowAt) -> f32 {
        self.coefficients(term, at).at(0)
    }

    /// The logit that joins a term's softmax, a true score; none where there is none, or one of −∞.
    pub(super) fn sink(&self, head: usize, term: usize) -> Option<f32> {
        let sink = self.sinks?.of(head, term);
        (sink > f32::NEG_INFINITY).then_some(sink)
    }

    /// The norm of one finished row, if there is one.
    #[inline(always)]
    pub(super) fn norm_row<V: Vector>(&self, y: &mut [f32]) {
        if let Some(Norm { eps, weight, scale }) = self.norm {
            rms_norm_row::<V>(y, weight, eps, scale);
        }
    }
}
