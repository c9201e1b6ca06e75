//! The weights of an attention layer: which there are in each version, by name and shape, and what
//! they do not say of themselves. Plain data; runs nothing.

use crate::declare::{Declare, Id, Need, Precision};
use diffattn::RopeFrequencies;

/// Rotary embedding of q and k, over the whole head; positions start at the cache's length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeConfig {
    /// Pairs (2i, 2i + 1), as unilm has them; else (i, i + d/2), as Hugging Face has them. True by
    /// default.
    pub interleaved: bool,
    /// How fast the pairs turn.
    pub frequencies: RopeFrequencies,
}

impl Default for RopeConfig {
    fn default() -> Self {
        Self {
            interleaved: true,
            frequencies: RopeFrequencies::default(),
        }
    }
}

/// Where λ of the first version of differential attention comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LambdaForm {
    /// `exp(lambda_q1 · lambda_k1) − exp(lambda_q2 · lambda_k2) + λ_init`, four vectors of
    /// `head_dim`.
    #[default]
    Vectors,
    /// `exp(lambda_a) − exp(lambda_b) + λ_init`, two numbers (timm's `dual_lambda`).
    Scalars,
}

pub(crate) const Q: &str = "q_proj";
pub(crate) const K: &str = "k_proj";
pub(crate) const V: &str = "v_proj";
pub(crate) const OUT: &str = "out_proj";
/// The output projection's other name.
pub(crate) const O: &str = "o_proj";
pub(crate) const LAMBDA: &str = "lambda_proj";
pub(crate) const VECTORS: [&str; 4] = ["lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"];
pub(crate) const SCALARS: [&str; 2] = ["lambda_a", "lambda_b"];
pub(crate) const NORM: &str = "subln.weight";

/// The weights of λ in the first version.
#[cfg(feature = "checkpoints")]
pub(crate) fn lambda_names(form: LambdaForm) -> &'static [&'static str] {
    match form {
        LambdaForm::Vectors => &VECTORS,
        LambdaForm::Scalars => &SCALARS,
    }
}

/// A list of all that a layer of any version may have: names alone.
#[cfg(feature = "checkpoints")]
pub(crate) fn any_version() -> Declare {
    let (mut list, sizes) = (Declare::new(), AttentionSizes::default());
    sizes.v1(&mut list, LambdaForm::Vectors, Need::Optional);
    sizes.v2(&mut list);
    list
}

/// Sizes of an attention layer's weights. The default is for whoever wants names alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttentionSizes {
    /// Channels of x and y.
    pub embed_dim: usize,
    /// Rows of the projection of q.
    pub q: usize,
    /// Rows of the projection of k.
    pub k: usize,
    /// Rows of the projection of v.
    pub v: usize,
    /// Columns of the output projection.
    pub out: usize,
    /// Values of each vector of λ.
    pub head_dim: usize,
    /// Values of the norm's weight.
    pub head_width: usize,
    /// Output heads: rows of the projection of λ.
    pub heads: usize,
}

/// The four projections of a layer, as whatever they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Projections<T> {
    /// That of q.
    pub q: T,
    /// That of k.
    pub k: T,
    /// That of v.
    pub v: T,
    /// That of the output.
    pub out: T,
}

impl<T> Projections<T> {
    /// All four, in this order.
    pub fn into_array(self) -> [T; 4] {
        [self.q, self.k, self.v, self.out]
    }
}

/// Where λ's weights are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LambdaIds {
    /// Four vectors.
    Vectors([Id; 4]),
    /// Two numbers.
    Scalars([Id; 2]),
}

impl LambdaIds {
    /// All of them.
    #[must_use]
    pub fn as_slice(&self) -> &[Id] {
        match self {
            Self::Vectors(ids) => ids,
            Self::Scalars(ids) => ids,
        }
    }
}

/// The weights of a layer of the first version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct V1Ids {
    /// The projections.
    pub projections: Projections<Id>,
    /// λ.
    pub lambda: LambdaIds,
    /// The weights of the form that λ has not: they are refused.
    pub other_lambda: LambdaIds,
    /// The weight of the norm per head.
    pub norm: Id,
}

/// The weights of a layer of the second version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct V2Ids {
    /// The projections.
    pub projections: Projections<Id>,
    /// The projection of λ.
    pub lambda: Id,
}

impl AttentionSizes {
    /// The projections: that of the output by the name `out`, where a name is given.
    pub(crate) fn projections(
        &self,
        d: &mut Declare,
        out: Option<&str>,
        bias: Option<Need>,
    ) -> Projections<Id> {
        let projections = Projections {
            q: d.linear(Q, [self.q, self.embed_dim], bias),
            k: d.linear(K, [self.k, self.embed_dim], bias),
            v: d.linear(V, [self.v, self.embed_dim], bias),
            out: d.linear(out.unwrap_or(OUT), [self.embed_dim, self.out], bias),
        };
        if out.is_none() {
            d.also(projections.out, O);
        }
        projections
    }

    /// The vectors of λ.
    pub(crate) fn vectors(&self, d: &mut Declare, need: Need) -> [Id; 4] {
        VECTORS.map(|name| d.tensor(name, &[self.head_dim], need))
    }

    /// The numbers that λ is made of.
    pub(crate) fn scalars(d: &mut Declare, need: Need) -> [Id; 2] {
        SCALARS.map(|name| d.number(name, need))
    }

    /// Lists a layer of the first version, as unilm names its weights; biases as there are.
    pub fn v1(&self, d: &mut Declare, form: LambdaForm, norm: Need) -> V1Ids {
        let projections = self.projections(d, None, Some(Need::Optional));
        let (vectors, scalars) = match form {
            LambdaForm::Vectors => (
                Need::Required,
                Need::Refused("unless lambda_form is scalars"),
            ),
            LambdaForm::Scalars => (
                Need::Refused("unless lambda_form is vectors"),
                Need::Required,
            ),
        };
        let vectors = LambdaIds::Vectors(self.vectors(d, vectors));
        let scalars = LambdaIds::Scalars(Self::scalars(d, scalars));
        let (lambda, other_lambda) = match form {
            LambdaForm::Vectors => (vectors, scalars),
            LambdaForm::Scalars => (scalars, vectors),
        };
        V1Ids {
            projections,
            lambda,
            other_lambda,
            norm: d.tensor(NORM, &[self.head_width], norm),
        }
    }

    /// Lists a layer of the second version, as unilm names its weights; biases as there are.
    pub fn v2(&self, d: &mut Declare) -> V2Ids {
        let bias = Some(Need::Optional);
        let projections = self.projections(d, None, bias);
        let lambda = d.linear(LAMBDA, [self.heads, self.embed_dim], bias);
        d.precision(lambda, Precision::Exact);
        V2Ids {
            projections,
            lambda,
        }
    }
}
