//! The two differential attention layers and the plain one in float64, from hidden states to hidden
//! states. No cache: a decoded row is the same row of a whole forward pass, so that is what it is
//! compared with.

use std::collections::BTreeMap;

use crate::{
    AttentionMaps, AttentionSpec, Head, Norm, Pairing, Real, Rope, SequenceFusion, Tensor,
    apply_rope, attention, attention_maps, lambda_from_scalars, lambda_full, lambda_init, plan,
    positions_from, rms_norm, sequence_difference, shape4, sigmoid,
};

/// y = x·weightᵀ + bias over the last axis; `weight` is [out × in], `bias` out long.
pub fn linear<R: Real>(x: &Tensor<R>, weight: &Tensor<R>, bias: Option<&Tensor<R>>) -> Tensor<R> {
    let [outputs, inputs] = weight.shape[..] else {
        panic!("weight of shape {:?}", weight.shape)
    };
    assert_eq!(x.shape.last(), Some(&inputs), "inputs of a linear layer");
    let rows = x.data.len() / inputs.max(1);
    let mut data = Vec::with_capacity(rows * outputs);
    for row in x.data.chunks(inputs.max(1)) {
        for o in 0..outputs {
            let dot: R = row.iter().zip(weight.row(&[o])).map(|(&x, &w)| x * w).sum();
            data.push(dot + bias.map_or(R::ZERO, |bias| bias.data[o]));
        }
    }
    let mut shape = x.shape.clone();
    shape[x.shape.len() - 1] = outputs;
    Tensor::new(&shape, data)
}

/// The named weights of a layer.
type Weights = BTreeMap<String, Tensor<f64>>;

fn weight<'a>(weights: &'a Weights, name: &str) -> &'a Tensor<f64> {
    weights
        .get(name)
        .unwrap_or_else(|| panic!("no weight {name} among {:?}", weights.keys()))
}

/// x through `{name}.weight` and, where there is one, `{name}.bias`.
fn project(weights: &Weights, name: &str, x: &Tensor<f64>) -> Tensor<f64> {
    linear(
        x,
        weight(weights, &format!("{name}.weight")),
        weights.get(&format!("{name}.bias")),
    )
}

/// The output projection, which the sources call `out_proj` (first version) or `o_proj`.
fn project_out(weights: &Weights, x: &Tensor<f64>) -> Tensor<f64> {
    project(
        weights,
        if weights.contains_key("out_proj.weight") {
            "out_proj"
        } else {
            "o_proj"
        },
        x,
    )
}

/// [B, L, n·width] → [B, n, L, width].
fn split_heads(x: &Tensor<f64>, width: usize) -> Tensor<f64> {
    let [b, l, channels] = x.shape[..] else {
        panic!("expected [B, L, channels], got {:?}", x.shape)
    };
    assert_eq!(
        channels % width,
        0,
        "{channels} channels in heads of {width}"
    );
    Tensor::new(&[b, l, channels / width, width], x.data.clone()).swap_middle_axes()
}

/// [B, n, L, width] → [B, L, n·width].
fn join_heads(x: &Tensor<f64>) -> Tensor<f64> {
    let [b, n, l, width] = shape4(x);
    Tensor::new(&[b, l, n * width], x.swap_middle_axes().data)
}

fn rotate(x: &Tensor<f64>, rope: Option<&Rope>, first_position: i64) -> Tensor<f64> {
    rope.map_or_else(
        || x.clone(),
        |rope| apply_rope(x, rope, &positions_from(first_position, shape4(x)[2])),
    )
}

/// Where a first-version layer's λ comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LambdaForm {
    /// exp(λq1·λk1) − exp(λq2·λk2) + λ_init, weights `lambda_q1`, `lambda_k1`, `lambda_q2`,
    /// `lambda_k2`.
    Vectors,
    /// exp(a) − exp(b) + λ_init, weights `lambda_a`, `lambda_b`.
    Scalars,
}

/// The first version's layer (arXiv 2410.05258): projections, rotary embedding, differential
/// attention, per-head RMS norm, 1 − λ_init, output projection.
#[derive(Clone, Debug)]
pub struct MultiheadDiffAttn {
    /// The layer's index from 0, for λ_init.
    pub depth: usize,
    /// λ_init itself, where it does not follow from `depth`.
    pub lambda_init: Option<f64>,
    /// d: q and k channels per head; `q_proj`, `k_proj` and `v_proj` make as many heads as fit
    /// their rows.
    pub head_dim: usize,
    /// v channels per head as `v_proj` makes them: 2d interleaved, d in halves.
    pub value_dim: usize,
    /// None turns nothing.
    pub rope: Option<Rope>,
    /// Which heads are partners.
    pub pairing: Pairing,
    /// Query i sees no later key.
    pub causal: bool,
    /// eps of the norm; its weight is `subln.weight`, where there is one.
    pub norm_eps: f64,
    /// Where λ comes from.
    pub lambda_form: LambdaForm,
    /// Heads that mix in attention over differences, taken before the rotary embedding; the norm
    /// acts on the mixture.
    pub sequence: Option<SequenceFusion>,
    /// `q_proj.weight`, `k_proj.weight`, `v_proj.weight`, `out_proj.weight` or `o_proj.weight`,
    /// their `.bias` likewise, λ.
    pub weights: BTreeMap<String, Tensor<f64>>,
}

impl MultiheadDiffAttn {
    /// A causal layer of the usual widths: eps 1e-5, interleaved pairs, v 2d wide, no rotary
    /// embedding.
    pub fn new(depth: usize, head_dim: usize, weights: BTreeMap<String, Tensor<f64>>) -> Self {
        Self {
            depth,
            lambda_init: None,
            head_dim,
            value_dim: 2 * head_dim,
            rope: None,
            pairing: Pairing::default(),
            causal: true,
            norm_eps: 1e-5,
            lambda_form: LambdaForm::Vectors,
            sequence: None,
            weights,
        }
    }

    fn lambda_init(&self) -> f64 {
        self.lambda_init.unwrap_or_else(|| lambda_init(self.depth))
    }

    /// The layer's λ.
    pub fn lambda(&self) -> f64 {
        let values = |name| weight(&self.weights, name).data.as_slice();
        let init = self.lambda_init();
        match self.lambda_form {
            LambdaForm::Vectors => {
                let [q1, k1, q2, k2] =
                    ["lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"].map(values);
                lambda_full(q1, k1, q2, k2, init)
            }
            LambdaForm::Scalars => {
                let ([a], [b]) = (values("lambda_a"), values("lambda_b")) else {
                    panic!("lambda_a and lambda_b are numbers")
                };
                lambda_from_scalars(*a, *b, init)
            }
        }
    }

    /// The attention inside the layer, of q, k and v as projected or of their differences along the
    /// sequence.
    fn attention_spec(
        &self,
        x: &Tensor<f64>,
        mask: Option<&Tensor<bool>>,
        first: i64,
        order: usize,
    ) -> AttentionSpec {
        let heads = |name, width| {
            sequence_difference(&split_heads(&project(&self.weights, name, x), width), order)
        };
        let [q, k] = ["q_proj", "k_proj"]
            .map(|name| rotate(&heads(name, self.head_dim), self.rope.as_ref(), first));
        let v = heads("v_proj", self.value_dim);
        let plan = plan(
            self.pairing,
            [q.shape[1], k.shape[1], v.shape[1]],
            &[1.0, -1.0],
        );
        AttentionSpec {
            lambda: Some(Tensor::scalar(self.lambda())),
            causal: self.causal,
            mask: mask.cloned(),
            ..AttentionSpec::new(q, k, v, plan)
        }
    }

    /// x [B, L, embed_dim], its first token at `first_position`; `mask` broadcasts to [B, H, L, L],
    /// true takes part.
    pub fn forward(
        &self,
        x: &Tensor<f64>,
        mask: Option<&Tensor<bool>>,
        first_position: i64,
    ) -> Tensor<f64> {
        let attend =
            |order| attention::<f64>(&self.attention_spec(x, mask, first_position, order)).out;
        let mut out = attend(0);
        if let Some(sequence) = &self.sequence {
            out = sequence.mix(&out, &attend(sequence.order));
        }
        let norm = Norm {
            eps: self.norm_eps,
            weight: self
                .weights
                .get("subln.weight")
                .map(|weight| weight.data.clone()),
            scale: 1.0 - self.lambda_init(),
        };
        project_out(&self.weights, &join_heads(&rms_norm(&out, &norm)))
    }

    /// The maps behind [`Self::forward`], of the plain attention.
    pub fn maps(
        &self,
        x: &Tensor<f64>,
        mask: Option<&Tensor<bool>>,
        first_position: i64,
    ) -> AttentionMaps<f64> {
        attention_maps(&self.attention_spec(x, mask, first_position, 0))
    }
}

/// q, k and v of x by heads of one width, q and k turned from `first_position` on.
fn heads(
    weights: &BTreeMap<String, Tensor<f64>>,
    head_dim: usize,
    rope: Option<&Rope>,
    x: &Tensor<f64>,
    first_position: i64,
) -> [Tensor<f64>; 3] {
    let heads = |name| split_heads(&project(weights, name, x), head_dim);
    let turned = |name| rotate(&heads(name), rope, first_position);
    [turned("q_proj"), turned("k_proj"), heads("v_proj")]
}

/// The second version's layer (microsoft/unilm, Diff-Transformer, 2026-01): grouped queries, λ =
/// σ(`lambda_proj` x) per token and head, no norm.
#[derive(Clone, Debug)]
pub struct MultiheadDiffAttnV2 {
    /// d: channels of every q, k and v head; `q_proj`, `k_proj` and `v_proj` make as many heads as
    /// fit their rows.
    pub head_dim: usize,
    /// Signal heads per noise head.
    pub ratio: usize,
    /// None turns nothing.
    pub rope: Option<Rope>,
    /// Query i sees no later key.
    pub causal: bool,
    /// The output heads that are differential, where the others are plain: a noise head for each
    /// lies behind the q heads of all, and λ has a row for each.
    pub differential: Option<Vec<usize>>,
    /// A factor of λ.
    pub mix: f64,
    /// `q_proj.weight`, `k_proj.weight`, `v_proj.weight`, `lambda_proj.weight`, `o_proj.weight` or
    /// `out_proj.weight`, their `.bias` likewise.
    pub weights: BTreeMap<String, Tensor<f64>>,
}

impl MultiheadDiffAttnV2 {
    /// The plan of heads some of which are differential, and λ of all (0 where there is none).
    fn mixed(
        differential: &[usize],
        [q, k]: [usize; 2],
        lambda: &Tensor<f64>,
    ) -> (Vec<Head>, Tensor<f64>) {
        let heads = q - differential.len();
        let noise = |head: usize| differential.iter().position(|&one| one == head);
        let plan = (0..heads).map(|head| {
            let group = head / (heads / k);
            let (q, coefficients) = match noise(head) {
                Some(index) => (vec![head, heads + index], vec![1.0, -1.0]),
                None => (vec![head], vec![1.0]),
            };
            Head {
                k: vec![group; q.len()],
                q,
                v: vec![group],
                coefficients,
            }
        });
        let rows = lambda.data.chunks(differential.len());
        let rows = rows.flat_map(|row| {
            (0..heads).map(move |head| noise(head).map_or(0.0, |index| row[index]))
        });
        let shape = [lambda.shape[0], lambda.shape[1], heads];
        (plan.collect(), Tensor::new(&shape, rows.collect()))
    }

    /// A causal layer with one noise head per signal head, no rotary embedding.
    pub fn new(head_dim: usize, weights: BTreeMap<String, Tensor<f64>>) -> Self {
        Self {
            head_dim,
            ratio: 1,
            rope: None,
            causal: true,
            differential: None,
            mix: 1.0,
            weights,
        }
    }

    fn attention_spec(
        &self,
        x: &Tensor<f64>,
        mask: Option<&Tensor<bool>>,
        first_position: i64,
    ) -> AttentionSpec {
        let rope = self.rope.as_ref();
        let [q, k, v] = heads(&self.weights, self.head_dim, rope, x, first_position);
        let mut lambda = project(&self.weights, "lambda_proj", x);
        lambda
            .data
            .iter_mut()
            .for_each(|x| *x = self.mix * sigmoid(*x));
        let counts = [q.shape[1], k.shape[1], v.shape[1]];
        let (plan, lambda) = match &self.differential {
            None => {
                let pairing = Pairing::Shared { ratio: self.ratio };
                (plan(pairing, counts, &[1.0, -1.0]), lambda)
            }
            Some(differential) => Self::mixed(differential, [counts[0], counts[1]], &lambda),
        };
        assert_eq!(lambda.shape[2], plan.len(), "one λ per output head");
        let mask = mask.cloned();
        AttentionSpec {
            lambda: Some(lambda),
            causal: self.causal,
            mask,
            ..AttentionSpec::new(q, k, v, plan)
        }
    }

    /// x [B, L, embed_dim], its first token at `first_position`; `mask` broadcasts to [B, H, L, L],
    /// true takes part.
    pub fn forward(
        &self,
        x: &Tensor<f64>,
        mask: Option<&Tensor<bool>>,
        first_position: i64,
    ) -> Tensor<f64> {
        let out = attention::<f64>(&self.attention_spec(x, mask, first_position)).out;
        project_out(&self.weights, &join_heads(&out))
    }

    /// The maps behind [`Self::forward`].
    pub fn maps(
        &self,
        x: &Tensor<f64>,
        mask: Option<&Tensor<bool>>,
        first_position: i64,
    ) -> AttentionMaps<f64> {
        attention_maps(&self.attention_spec(x, mask, first_position))
    }
}

/// Plain attention, one softmax per head: projections, rotary embedding, attention, output
/// projection.
#[derive(Clone, Debug)]
pub struct MultiheadAttn {
    /// d: channels of every q, k and v head; projections make as many heads as fit their rows.
    pub head_dim: usize,
    /// None turns nothing.
    pub rope: Option<Rope>,
    /// Query i sees no later key.
    pub causal: bool,
    /// `q_proj.weight`, `k_proj.weight`, `v_proj.weight`, `out_proj.weight` or `o_proj.weight`,
    /// their `.bias` likewise.
    pub weights: BTreeMap<String, Tensor<f64>>,
}

impl MultiheadAttn {
    /// A causal layer without rotary embedding.
    pub fn new(head_dim: usize, weights: BTreeMap<String, Tensor<f64>>) -> Self {
        Self {
            head_dim,
            rope: None,
            causal: true,
            weights,
        }
    }

    fn attention_spec(
        &self,
        x: &Tensor<f64>,
        mask: Option<&Tensor<bool>>,
        first_position: i64,
    ) -> AttentionSpec {
        let rope = self.rope.as_ref();
        let [q, k, v] = heads(&self.weights, self.head_dim, rope, x, first_position);
        let counts = [q.shape[1], k.shape[1], v.shape[1]];
        AttentionSpec {
            causal: self.causal,
            mask: mask.cloned(),
            ..AttentionSpec::new(q, k, v, plan(Pairing::default(), counts, &[1.0]))
        }
    }

    /// x [B, L, embed_dim], its first token at `first_position`; `mask` broadcasts to [B, H, L, L],
    /// true takes part.
    pub fn forward(
        &self,
        x: &Tensor<f64>,
        mask: Option<&Tensor<bool>>,
        first_position: i64,
    ) -> Tensor<f64> {
        let out = attention::<f64>(&self.attention_spec(x, mask, first_position)).out;
        project_out(&self.weights, &join_heads(&out))
    }

    /// The maps behind [`Self::forward`]: one term.
    pub fn maps(
        &self,
        x: &Tensor<f64>,
        mask: Option<&Tensor<bool>>,
        first_position: i64,
    ) -> AttentionMaps<f64> {
        attention_maps(&self.attention_spec(x, mask, first_position))
    }
}
