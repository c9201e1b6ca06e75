//! What the tests of layers share: layers from reference cases, their oracles, and comparisons.

use diffattn::{Error, Isa, KvCache, KvRepeat, Pairing, RopeFrequencies, Run, Tensor, Work};
use diffattn_nn::{
    DiffAttnLayer, ForwardOptions, LambdaForm, MultiheadDiffAttn, MultiheadDiffAttnOptions,
    MultiheadDiffAttnV2, MultiheadDiffAttnV2Options, NormConfig, RopeConfig, SequenceFusion,
    Weights,
};
use diffattn_reference::{self as reference, testing};
use std::collections::BTreeMap;

pub(crate) use diffattn_reference::testing::{assert_near, bits_with_one_nan as bits, ok, values};

/// The code and sentence of what must fail.
pub(crate) fn refusal<T>(result: Result<T, Error>) -> (&'static str, String) {
    testing::refusal(result, |error| (error.code(), error.to_string()))
}

/// The largest magnitude.
pub(crate) fn magnitude(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |max, value| max.max(value.abs()))
}

/// Weights by name, owned.
pub(crate) type Stored = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

pub(crate) fn borrowed(stored: &Stored) -> Weights<'_> {
    stored
        .iter()
        .map(|(name, (shape, data))| (name.clone(), Tensor::f32(data, shape)))
        .collect()
}

/// A layer in float32 beside its oracle, made of the same weights.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) layer: DiffAttnLayer,
    pub(crate) oracle: Oracle,
    pub(crate) embed_dim: usize,
}

pub(crate) enum Oracle {
    V1(reference::MultiheadDiffAttn),
    V2(reference::MultiheadDiffAttnV2),
}

fn rope_config(rope: &reference::Rope) -> RopeConfig {
    assert_eq!(
        rope.scaling,
        reference::RopeScaling::Default,
        "scalings are tested where the frequencies are"
    );
    let frequencies = RopeFrequencies {
        theta: Some(rope.theta),
        ..RopeFrequencies::default()
    };
    RopeConfig {
        interleaved: rope.interleaved,
        frequencies,
    }
}

pub(crate) fn rope(interleaved: bool) -> Option<reference::Rope> {
    Some(reference::Rope {
        interleaved,
        ..reference::Rope::default()
    })
}

fn pairing(of: reference::Pairing) -> (Pairing, Option<KvRepeat>, Option<usize>) {
    match of {
        reference::Pairing::Interleaved { flat: true } => {
            (Pairing::Interleaved, Some(KvRepeat::Flat), None)
        }
        reference::Pairing::Interleaved { flat: false } => (Pairing::Interleaved, None, None),
        reference::Pairing::Halves => (Pairing::Halves, None, None),
        reference::Pairing::Grouped { ratio } => (Pairing::Grouped, None, Some(ratio)),
        reference::Pairing::Shared { ratio } => (Pairing::Shared, None, Some(ratio)),
    }
}

fn narrow(weights: &BTreeMap<String, reference::Tensor<f64>>) -> Stored {
    let narrow = |tensor: &reference::Tensor<f64>| tensor.data.iter().map(|&x| x as f32).collect();
    weights
        .iter()
        .map(|(name, tensor)| (name.clone(), (tensor.shape.clone(), narrow(tensor))))
        .collect()
}

impl Case {
    /// The float32 layer of an oracle; `groups` is `num_kv_heads`.
    pub(crate) fn v1(
        name: &str,
        heads: usize,
        groups: Option<usize>,
        oracle: reference::MultiheadDiffAttn,
    ) -> Self {
        let q = &oracle.weights["q_proj.weight"].shape;
        let (embed_dim, head_dim) = (q[1], oracle.head_dim);
        let (pairing, kv_repeat, ratio) = pairing(oracle.pairing);
        let options = MultiheadDiffAttnOptions {
            lambda_init: oracle.lambda_init,
            num_kv_heads: groups,
            head_dim: (head_dim * heads * 2 != embed_dim).then_some(head_dim),
            rope: oracle.rope.as_ref().map(rope_config),
            pairing,
            kv_repeat,
            ratio,
            is_causal: oracle.causal,
            norm: Some(NormConfig {
                eps: oracle.norm_eps as f32,
                affine: None,
            }),
            lambda_form: match oracle.lambda_form {
                reference::LambdaForm::Vectors => LambdaForm::Vectors,
                reference::LambdaForm::Scalars => LambdaForm::Scalars,
            },
            sequence: oracle.sequence.map(|of| SequenceFusion {
                order: of.order,
                share: of.share,
                fusion: of.fusion,
            }),
            ..MultiheadDiffAttnOptions::new(embed_dim, oracle.depth, heads)
        };
        let layer = ok(MultiheadDiffAttn::new(
            &options,
            &borrowed(&narrow(&oracle.weights)),
        ))
        .into();
        Self {
            name: name.to_owned(),
            layer,
            oracle: Oracle::V1(oracle),
            embed_dim,
        }
    }

    pub(crate) fn v2(
        name: &str,
        heads: usize,
        groups: Option<usize>,
        oracle: reference::MultiheadDiffAttnV2,
    ) -> Self {
        let embed_dim = oracle.weights["q_proj.weight"].shape[1];
        let options = MultiheadDiffAttnV2Options {
            num_kv_heads: groups,
            ratio: (oracle.ratio != 1).then_some(oracle.ratio),
            rope: oracle.rope.as_ref().map(rope_config),
            is_causal: oracle.causal,
            ..MultiheadDiffAttnV2Options::new(embed_dim, heads, oracle.head_dim)
        };
        let layer = ok(MultiheadDiffAttnV2::new(
            &options,
            &borrowed(&narrow(&oracle.weights)),
        ))
        .into();
        Self {
            name: name.to_owned(),
            layer,
            oracle: Oracle::V2(oracle),
            embed_dim,
        }
    }

    /// x `[batch, length, embed_dim]`.
    pub(crate) fn input(&self, seed: u64, batch: usize, length: usize) -> reference::Tensor<f64> {
        reference::Tensor::from_f32(
            &[batch, length, self.embed_dim],
            &values(seed, batch * length * self.embed_dim, 1.0),
        )
    }

    pub(crate) fn expected(
        &self,
        x: &reference::Tensor<f64>,
        mask: Option<&reference::Tensor<bool>>,
    ) -> Vec<f64> {
        match &self.oracle {
            Oracle::V1(oracle) => oracle.forward(x, mask, 0).data,
            Oracle::V2(oracle) => oracle.forward(x, mask, 0).data,
        }
    }

    pub(crate) fn expected_maps(
        &self,
        x: &reference::Tensor<f64>,
    ) -> reference::AttentionMaps<f64> {
        match &self.oracle {
            Oracle::V1(oracle) => oracle.maps(x, None, 0),
            Oracle::V2(oracle) => oracle.maps(x, None, 0),
        }
    }

    pub(crate) fn run(&self, x: &reference::Tensor<f64>, options: &ForwardOptions<'_>) -> Vec<f32> {
        let data: Vec<f32> = x.data.iter().map(|&x| x as f32).collect();
        ok(self
            .layer
            .forward(Tensor::f32(&data, &x.shape), None, options))
    }

    /// x in stretches of tokens, one call each, through one cache.
    pub(crate) fn run_cached(
        &self,
        x: &reference::Tensor<f64>,
        stretches: &[usize],
        options: &ForwardOptions<'_>,
    ) -> Vec<f32> {
        let [batch, length, width] = x.shape[..] else {
            panic!("x has 3 axes")
        };
        let mut cache = ok(KvCache::new(self.layer.cache_options(batch, 0)));
        let mut y = vec![f32::NAN; x.data.len()];
        let mut first = 0;
        for &tokens in stretches {
            let rows =
                |b: usize| (b * length + first) * width..(b * length + first + tokens) * width;
            let part: Vec<f32> = (0..batch)
                .flat_map(|b| x.data[rows(b)].iter().map(|&x| x as f32))
                .collect();
            let part = ok(self.layer.forward(
                Tensor::f32(&part, &[batch, tokens, width]),
                Some(&mut cache),
                options,
            ));
            for b in 0..batch {
                y[rows(b)].copy_from_slice(&part[b * tokens * width..(b + 1) * tokens * width]);
            }
            first += tokens;
            assert_eq!(cache.len(), first, "{}: tokens in the cache", self.name);
        }
        assert_eq!(first, length, "stretches cover x");
        y
    }
}

pub(crate) fn on(isa: Isa, threads: usize, deterministic: bool) -> ForwardOptions<'static> {
    ForwardOptions {
        run: Run::new(Some(isa), Some(threads), deterministic)
            .unwrap_or_else(|error| panic!("{error}")),
        ..ForwardOptions::default()
    }
}

/// Works a job off in steps of `count` units, checking that its progress is sound.
pub(crate) fn step_through(job: &mut Work<'_>, count: usize) {
    let (total, mut done) = (job.total(), job.done());
    assert_eq!(done, 0);
    let mut steps = 0;
    while job.done() < total {
        ok(job.step(count));
        assert!(
            job.done() >= done,
            "progress goes back from {done} to {}",
            job.done()
        );
        assert!(job.total() == total, "the total changes");
        done = job.done();
        steps += 1;
        assert!(steps <= 1_000_000, "the job does not end");
    }
    ok(job.step(count));
    assert_eq!(job.done(), total);
}

/// Random weights of a layer for the oracle.
pub(crate) struct Random {
    pub(crate) seed: u64,
    pub(crate) weights: BTreeMap<String, reference::Tensor<f64>>,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            weights: BTreeMap::new(),
        }
    }

    pub(crate) fn tensor(mut self, name: &str, shape: &[usize], scale: f32) -> Self {
        self.seed += 1;
        let data = values(self.seed, shape.iter().product(), scale);
        self.weights
            .insert(name.to_owned(), reference::Tensor::from_f32(shape, &data));
        self
    }

    /// `{name}.weight` and, with `bias`, `{name}.bias`, scaled as layers are initialised.
    pub(crate) fn linear(self, name: &str, outputs: usize, inputs: usize, bias: bool) -> Self {
        let scale = (3.0 / inputs as f32).sqrt();
        let this = self.tensor(&format!("{name}.weight"), &[outputs, inputs], scale);
        if bias {
            this.tensor(&format!("{name}.bias"), &[outputs], 0.5)
        } else {
            this
        }
    }

    /// Projections of flat heads, and the λ vectors.
    pub(crate) fn projections(self, shape: &Projections<'_>) -> Self {
        let &Projections {
            embed_dim,
            head_dim,
            counts: [q, k, v],
            value_dim,
            out_width,
            bias,
            out,
        } = shape;
        self.linear("q_proj", q * head_dim, embed_dim, bias)
            .linear("k_proj", k * head_dim, embed_dim, bias)
            .linear("v_proj", v * value_dim, embed_dim, bias)
            .linear(out, embed_dim, out_width, bias)
    }

    pub(crate) fn lambda_vectors(self, head_dim: usize) -> Self {
        ["lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"]
            .into_iter()
            .fold(self, |this, name| this.tensor(name, &[head_dim], 0.3))
    }
}

pub(crate) struct Projections<'n> {
    pub(crate) embed_dim: usize,
    pub(crate) head_dim: usize,
    pub(crate) counts: [usize; 3],
    pub(crate) value_dim: usize,
    pub(crate) out_width: usize,
    pub(crate) bias: bool,
    pub(crate) out: &'n str,
}

/// One layer of every kind: pairings, forms, shapes and sources that the layers promise.
pub(crate) fn zoo() -> Vec<Case> {
    use reference::Pairing as P;
    let v1 = |name: &str,
              heads: usize,
              groups: Option<usize>,
              counts: [usize; 3],
              pairing: P,
              seed: u64| {
        let (embed_dim, head_dim) = (heads * 2 * 6, 6);
        let halves = pairing == P::Halves;
        let shape = Projections {
            embed_dim,
            head_dim,
            counts,
            value_dim: if halves { head_dim } else { 2 * head_dim },
            out_width: heads * 2 * head_dim,
            bias: seed.is_multiple_of(2),
            out: if halves { "o_proj" } else { "out_proj" },
        };
        let mut random = Random::new(seed * 100)
            .projections(&shape)
            .lambda_vectors(head_dim);
        if !halves {
            random = random.tensor("subln.weight", &[2 * head_dim], 1.0);
        }
        let oracle = reference::MultiheadDiffAttn {
            pairing,
            rope: rope(!halves),
            value_dim: shape.value_dim,
            ..reference::MultiheadDiffAttn::new(seed as usize % 7, head_dim, random.weights)
        };
        (name.to_owned(), heads, groups, oracle)
    };
    let paired = P::Interleaved { flat: false };
    let mut all = vec![
        v1("interleaved", 2, None, [4, 4, 2], paired, 1),
        v1("gqa paired, biases", 4, Some(2), [8, 4, 2], paired, 2),
        v1(
            "gqa flat",
            4,
            Some(2),
            [8, 4, 2],
            P::Interleaved { flat: true },
            3,
        ),
        v1("halves", 3, None, [6, 6, 6], P::Halves, 4),
        v1(
            "halves, three flat kv heads",
            3,
            Some(3),
            [6, 3, 3],
            P::Halves,
            5,
        ),
        v1("halves, one kv head", 2, Some(1), [4, 1, 1], P::Halves, 6),
        v1(
            "grouped 3 to 1",
            6,
            Some(1),
            [8, 2, 1],
            P::Grouped { ratio: 3 },
            7,
        ),
        v1(
            "shared 2 to 1 in V1",
            4,
            None,
            [6, 2, 2],
            P::Shared { ratio: 2 },
            8,
        ),
    ];
    // timm's: not causal, no rope, biases everywhere, λ of two numbers.
    let mut timm = v1("timm", 2, None, [4, 4, 2], paired, 10);
    for name in ["lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"] {
        timm.3.weights.remove(name);
    }
    for (name, value) in [("lambda_a", -0.25f32), ("lambda_b", 0.125)] {
        timm.3
            .weights
            .insert(name.to_owned(), reference::Tensor::from_f32(&[], &[value]));
    }
    timm.3 = reference::MultiheadDiffAttn {
        rope: None,
        causal: false,
        norm_eps: 1e-4,
        lambda_form: reference::LambdaForm::Scalars,
        ..timm.3
    };
    all.push(timm);
    // Differences along the sequence, in several pairings.
    for (name, order, share, fusion, base) in [
        (
            "differences",
            1,
            0.5,
            0.4,
            v1("", 4, Some(2), [8, 4, 2], paired, 12),
        ),
        (
            "second differences, all heads",
            2,
            1.0,
            1.0,
            v1("", 2, None, [4, 4, 2], paired, 13),
        ),
        (
            "third differences, halves",
            3,
            0.34,
            0.25,
            v1("", 3, Some(3), [6, 3, 3], P::Halves, 14),
        ),
        (
            "differences, flat",
            1,
            0.7,
            0.5,
            v1("", 4, Some(2), [8, 4, 2], P::Interleaved { flat: true }, 16),
        ),
        (
            "differences, grouped",
            2,
            0.5,
            0.3,
            v1("", 6, Some(1), [8, 2, 1], P::Grouped { ratio: 3 }, 18),
        ),
        (
            "differences of no head",
            1,
            0.1,
            0.5,
            v1("", 4, Some(2), [8, 4, 2], paired, 12),
        ),
    ] {
        let mut case = base;
        case.0 = name.to_owned();
        case.3.sequence = Some(reference::SequenceFusion {
            order,
            share,
            fusion,
        });
        all.push(case);
    }
    let mut cases: Vec<Case> = all
        .into_iter()
        .map(|(name, heads, groups, oracle)| Case::v1(&name, heads, groups, oracle))
        .collect();
    // An embedding that is no multiple of the heads' width, and an odd one.
    let shape = Projections {
        embed_dim: 23,
        head_dim: 4,
        counts: [4, 2, 1],
        value_dim: 8,
        out_width: 16,
        bias: true,
        out: "out_proj",
    };
    let odd = Random::new(2000).projections(&shape).lambda_vectors(4);
    let oracle = reference::MultiheadDiffAttn {
        rope: rope(false),
        sequence: Some(reference::SequenceFusion {
            order: 2,
            share: 0.5,
            fusion: 0.6,
        }),
        ..reference::MultiheadDiffAttn::new(1, 4, odd.weights)
    };
    cases.push(Case::v1("odd embedding, differences", 2, Some(1), oracle));
    for (name, heads, groups, ratio, seed) in [
        ("V2", 3, None, 1, 30u64),
        ("V2 gqa", 4, Some(2), 1, 31),
        ("V2 4 to 1, biases", 4, Some(1), 4, 32),
        ("V2 2 to 1", 4, None, 2, 33),
    ] {
        let (embed_dim, head_dim) = (40, 8);
        let kv = groups.unwrap_or(heads / ratio);
        let shape = Projections {
            embed_dim,
            head_dim,
            counts: [heads + heads / ratio, kv, kv],
            value_dim: head_dim,
            out_width: heads * head_dim,
            bias: seed.is_multiple_of(2),
            out: "o_proj",
        };
        let weights = Random::new(seed * 100)
            .projections(&shape)
            .linear("lambda_proj", heads, embed_dim, seed % 2 == 0)
            .weights;
        let causal = seed != 33;
        let oracle = reference::MultiheadDiffAttnV2 {
            ratio,
            rope: rope(true),
            causal,
            ..reference::MultiheadDiffAttnV2::new(head_dim, weights)
        };
        cases.push(Case::v2(name, heads, groups, oracle));
    }
    cases
}
