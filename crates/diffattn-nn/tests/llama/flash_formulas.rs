//! A Phi-4-mini-flash as its formulas read, in float64 and in plain float32: what the accuracy of
//! the model is judged by, and texts that the sources' cases leave out. Slow, one text at a time.

use crate::common::{Stored, Tensors};
use diffattn_nn::Phi4FlashConfig;
use diffattn_reference::recurrent::{Scan, causal_convolution, silu, softplus};
use diffattn_reference::{
    AttentionSpec, Norm, Pairing, Real, Tensor, attention, lambda_full, lambda_init, plan,
};
use half::bf16;
use std::collections::BTreeMap;

/// The model.
pub(crate) struct Formulas<'c> {
    config: &'c Phi4FlashConfig,
    /// Whether the sums of linear maps go from the last channel to the first: in float32 another
    /// rounding, as plain as the first.
    pub(crate) backward: bool,
    weights: BTreeMap<String, (Vec<usize>, Vec<f64>)>,
}

/// What it gives of one text.
pub(crate) struct Given<R> {
    pub(crate) logits: Vec<R>,
    /// The embeddings, then what each layer gives, the last one's after the final norm.
    pub(crate) hidden_states: Vec<Vec<R>>,
}

/// What later layers read of earlier ones.
struct Kept<R> {
    /// Keys and values.
    keys: Option<[Tensor<f64>; 2]>,
    memory: Vec<R>,
}

impl<'c> Formulas<'c> {
    pub(crate) fn new(config: &'c Phi4FlashConfig, tensors: &Tensors) -> Self {
        let wide = |stored: &Stored| match stored {
            Stored::F32(data) => data.iter().map(|&x| f64::from(x)).collect(),
            Stored::Bf16(data) => data.iter().map(|&x| bf16::from_bits(x).to_f64()).collect(),
            other => panic!("a weight of {other:?}"),
        };
        let tensors = tensors.iter();
        Self {
            config,
            backward: false,
            weights: tensors
                .map(|(name, (shape, stored))| (name.clone(), (shape.clone(), wide(stored))))
                .collect(),
        }
    }

    /// One text, all layers, all rows.
    pub(crate) fn run<R: Real>(&self, ids: &[u32]) -> Given<R> {
        let (layers, width) = (self.config.num_hidden_layers, self.config.hidden_size);
        let table: Vec<R> = self.vector("model.embed_tokens.weight");
        let rows = ids
            .iter()
            .flat_map(|&id| &table[id as usize * width..][..width]);
        let mut x: Vec<R> = rows.copied().collect();
        let mut hidden_states = vec![x.clone()];
        let mut kept = Kept {
            keys: None,
            memory: Vec::new(),
        };
        for index in 0..layers {
            let layer = format!("model.layers.{index}");
            let normed = self.norm(&format!("{layer}.input_layernorm"), &x);
            let added = match (index % 2 == 0, index >= layers / 2 + 2) {
                (true, false) => self.mamba(&format!("{layer}.attn."), &normed, &mut kept),
                (true, true) => self.gate(&format!("{layer}.attn."), &normed, &kept),
                (false, _) => self.attention(index, &normed, &mut kept),
            };
            add(&mut x, &added);
            let normed = self.norm(&format!("{layer}.post_attention_layernorm"), &x);
            let both = self.map(&format!("{layer}.mlp.fc1"), &normed);
            let inner = self.config.intermediate_size;
            let [gate, up] = columns(&both, [inner, inner]);
            let inner: Vec<R> = gate.into_iter().zip(up).map(|(g, u)| silu(g) * u).collect();
            add(&mut x, &self.map(&format!("{layer}.mlp.fc2"), &inner));
            hidden_states.push(x.clone());
        }
        let last = self.norm("model.final_layernorm", &x);
        let logits = self.map("model.embed_tokens", &last);
        hidden_states[layers] = last;
        Given {
            logits,
            hidden_states,
        }
    }

    fn wide(&self, name: &str) -> &(Vec<usize>, Vec<f64>) {
        let weight = self.weights.get(name);
        weight.unwrap_or_else(|| panic!("no weight {name}"))
    }

    fn vector<R: Real>(&self, name: &str) -> Vec<R> {
        self.wide(name).1.iter().map(|&x| R::from_f64(x)).collect()
    }

    /// x Wᵀ + b, each sum in order, or in that of [`Formulas::backward`].
    fn map<R: Real>(&self, name: &str, x: &[R]) -> Vec<R> {
        let weight: Vec<R> = self.vector(&format!("{name}.weight"));
        let inputs = self.wide(&format!("{name}.weight")).0[1];
        let bias = format!("{name}.bias");
        let bias: Option<Vec<R>> = self.weights.contains_key(&bias).then(|| self.vector(&bias));
        let mut y = Vec::new();
        for row in x.chunks_exact(inputs) {
            for (output, weight) in weight.chunks_exact(inputs).enumerate() {
                let mut sum = R::from_f64(0.0);
                for at in 0..inputs {
                    let at = if self.backward { inputs - 1 - at } else { at };
                    sum += row[at] * weight[at];
                }
                if let Some(bias) = &bias {
                    sum += bias[output];
                }
                y.push(sum);
            }
        }
        y
    }

    /// Layer norm, the mean first.
    fn norm<R: Real>(&self, name: &str, x: &[R]) -> Vec<R> {
        let weight: Vec<R> = self.vector(&format!("{name}.weight"));
        let bias: Vec<R> = self.vector(&format!("{name}.bias"));
        let count = R::from_f64(weight.len() as f64);
        let eps = R::from_f64(self.config.layer_norm_eps);
        let mean = |values: &[R]| {
            let mut sum = R::from_f64(0.0);
            for &value in values {
                sum += value;
            }
            sum / count
        };
        let mut y = Vec::new();
        for row in x.chunks_exact(weight.len()) {
            let middle = mean(row);
            let centred: Vec<R> = row.iter().map(|&x| x - middle).collect();
            let squares: Vec<R> = centred.iter().map(|&x| x * x).collect();
            let spread = (mean(&squares) + eps).sqrt();
            let scaled = centred.iter().zip(&weight).zip(&bias);
            y.extend(scaled.map(|((&x, &w), &b)| x / spread * w + b));
        }
        y
    }

    fn mamba<R: Real>(&self, name: &str, x: &[R], kept: &mut Kept<R>) -> Vec<R> {
        let named = |part: &str| format!("{name}{part}");
        let inner = self.config.mamba_expand * self.config.hidden_size;
        let (states, taps) = (self.config.mamba_d_state, self.config.mamba_d_conv);
        let rank = self.wide(&named("dt_proj.weight")).0[1];
        let [u, z] = columns(&self.map(&named("in_proj"), x), [inner, inner]);
        let before = vec![R::from_f64(0.0); (taps - 1) * inner];
        let weight: Vec<R> = self.vector(&named("conv1d.weight"));
        let (u, _) = causal_convolution(&u, &weight, &self.vector(&named("conv1d.bias")), &before);
        let chosen = self.map(&named("x_proj"), &u);
        let [steps, b, c] = columns(&chosen, [rank, states, states]);
        let steps = self.map(&named("dt_proj"), &steps);
        let scan = Scan {
            u,
            delta: steps
                .into_iter()
                .map(|step| R::from_f64(softplus(step.to_f64())))
                .collect(),
            a_log: self.vector(&named("A_log")),
            b,
            c,
            d: self.vector(&named("D")),
            state: vec![R::from_f64(0.0); inner * states],
        };
        let (y, _) = scan.run();
        let gated: Vec<R> = y.iter().zip(z).map(|(&y, z)| y * silu(z)).collect();
        kept.memory = y;
        self.map(&named("out_proj"), &gated)
    }

    /// The gate on the memory.
    fn gate<R: Real>(&self, name: &str, x: &[R], kept: &Kept<R>) -> Vec<R> {
        let gates = self.map(&format!("{name}in_proj"), x).into_iter();
        let gated: Vec<R> = gates.zip(&kept.memory).map(|(g, &m)| silu(g) * m).collect();
        self.map(&format!("{name}out_proj"), &gated)
    }

    fn attention<R: Real>(&self, index: usize, x: &[R], kept: &mut Kept<R>) -> Vec<R> {
        let config = self.config;
        let name = format!("model.layers.{index}.attn.");
        let (heads, groups) = (config.num_attention_heads, config.num_key_value_heads);
        let (width, half) = (config.head_dim(), config.num_hidden_layers / 2);
        let made = self.map(&format!("{name}Wqkv"), x);
        let q = if index >= half + 2 {
            by_head(&made, [heads, width])
        } else {
            let [q, k, v] = columns(&made, [heads * width, groups * width, groups * width]);
            kept.keys = Some([
                by_head(&k, [groups, width]),
                by_head(&v, [groups / 2, 2 * width]),
            ]);
            by_head(&q, [heads, width])
        };
        let Some([k, v]) = kept.keys.clone() else {
            panic!("no keys for layer {index}");
        };
        let vector = |part: &str| &self.wide(&format!("{name}inner_cross_attn.{part}")).1;
        let [q1, k1, q2, k2] =
            ["q1", "k1", "q2", "k2"].map(|part| vector(&format!("lambda_{part}")));
        let init = lambda_init(index);
        let window = config.sliding_window.of(index).filter(|_| index < half);
        let counts = [heads, groups, groups / 2];
        let spec = AttentionSpec {
            lambda: Some(Tensor::scalar(lambda_full(q1, k1, q2, k2, init))),
            causal: true,
            window: [window.map(|window| window - 1), None],
            norm: Some(Norm {
                eps: 1e-5,
                weight: Some(vector("subln.weight").clone()),
                scale: 1.0 - init,
            }),
            ..AttentionSpec::new(q, k, v, plan(Pairing::default(), counts, &[1.0, -1.0]))
        };
        let rows = attention::<R>(&spec).out.swap_middle_axes();
        self.map(&format!("{name}out_proj"), &rows.data)
    }
}

fn add<R: Real>(x: &mut [R], added: &[R]) {
    for (x, &added) in x.iter_mut().zip(added) {
        *x += added;
    }
}

/// Rows cut into neighbouring columns.
fn columns<R: Copy, const N: usize>(rows: &[R], widths: [usize; N]) -> [Vec<R>; N] {
    let all: usize = widths.iter().sum();
    let mut first = 0;
    widths.map(|width| {
        let of = first..first + width;
        first += width;
        let rows = rows.chunks_exact(all);
        rows.flat_map(|row| &row[of.clone()]).copied().collect()
    })
}

/// Rows of heads as `[1, heads, L, width]`.
fn by_head<R: Real>(rows: &[R], [heads, width]: [usize; 2]) -> Tensor<f64> {
    let values: Vec<f64> = rows.iter().map(|x| x.to_f64()).collect();
    let length = values.len() / (heads * width);
    Tensor::new(&[1, length, heads, width], values).swap_middle_axes()
}
