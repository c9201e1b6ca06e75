//! Attention over a context that ranks share: forward is one rank's bit for bit, gradients are
//! within the backstop of gradients' accuracy; what is refused.

use diffattn::{
    AttentionOptions, GradientOptions, Lambda, NormOptions, Tensor, diff_attention,
    diff_attention_backward,
};
use diffattn_mpi::ThreadRanks;
use diffattn_mpi::sequence::{Heads, SequenceAttention, SequenceForward, SequenceGradients};
use diffattn_nn::training::{Alone, Ranks};
use std::ops::Range;

const BATCH: usize = 2;
const HEADS: usize = 4;
const KV: usize = 2;
const DIM: usize = 8;
/// What gradients may be off by, of the largest.
const BACKSTOP: f64 = 2e-6;
/// What that of λ, which sums over all rows, may be.
const OF_LAMBDA: f64 = 2e-5;

/// Numbers between −1 and 1.
fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// What a call over all tokens is made of: two queries per head and key head, [B, heads, L, width].
struct Whole {
    tokens: usize,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    dy: Vec<f32>,
    lambda: Vec<f32>,
    weight: Vec<f32>,
}

impl Whole {
    fn new(tokens: usize) -> Self {
        let of = |heads: usize, width: usize, seed| values(BATCH * heads * tokens * width, seed);
        Self {
            tokens,
            q: of(2 * HEADS, DIM, 1),
            k: of(2 * KV, DIM, 2),
            v: of(KV, 2 * DIM, 3),
            dy: of(HEADS, 2 * DIM, 4),
            lambda: of(HEADS, 1, 5),
            weight: values(2 * DIM, 6),
        }
    }

    fn shapes(&self) -> [[usize; 4]; 3] {
        [
            [BATCH, 2 * HEADS, self.tokens, DIM],
            [BATCH, 2 * KV, self.tokens, DIM],
            [BATCH, KV, self.tokens, 2 * DIM],
        ]
    }

    fn tensors(&self) -> [Tensor<'_>; 3] {
        let [q, k, v] = self.shapes();
        [
            Tensor::f32(&self.q, &q),
            Tensor::f32(&self.k, &k),
            Tensor::f32(&self.v, &v),
        ]
    }
}

/// Tokens of `[groups, tokens, width]`.
fn some(data: &[f32], tokens: usize, width: usize, rows: &Range<usize>) -> Vec<f32> {
    let groups = data.chunks_exact(tokens * width);
    groups
        .flat_map(|group| &group[rows.start * width..rows.end * width])
        .copied()
        .collect()
}

/// The stretch of one rank alone.
fn one(stretch: Range<usize>) -> Vec<Range<usize>> {
    std::iter::once(stretch).collect()
}

/// Which λ a call has.
#[derive(Debug, Clone, Copy)]
enum Form {
    None,
    Number,
    PerHead,
    PerToken,
}

#[derive(Debug, Clone, Copy)]
struct Case {
    causal: bool,
    window: Option<[Option<usize>; 2]>,
    lambda: Form,
    has_norm: bool,
}

impl Case {
    /// The options over tokens whose λ, `[B, tokens, H]`, this is.
    fn options<'a>(&self, of: &'a Whole, lambda: &'a [f32]) -> AttentionOptions<'a> {
        AttentionOptions {
            is_causal: self.causal,
            window: self.window,
            lambda: match self.lambda {
                Form::None => None,
                Form::Number => Some(Lambda::Value(0.4)),
                Form::PerHead => Some(Lambda::PerHead(&of.lambda[..HEADS])),
                Form::PerToken => Some(Lambda::PerToken {
                    data: lambda,
                    shape: vec![BATCH, lambda.len() / (BATCH * HEADS), HEADS],
                }),
            },
            coefficients: matches!(self.lambda, Form::None).then_some(&[1.0, -0.3]),
            norm: self.has_norm.then(|| NormOptions {
                eps: 1e-5,
                weight: Some(&of.weight),
                scale: 0.8,
            }),
            ..AttentionOptions::default()
        }
    }
}

/// One rank's forward and backward.
fn as_rank(
    ranks: &mut dyn Ranks,
    of: &Whole,
    case: Case,
    stretches: &[Range<usize>],
    block: usize,
) -> (SequenceForward, SequenceGradients) {
    let rows = stretches[ranks.rank()].clone();
    let own = |data: &[f32], width: usize| some(data, of.tokens, width, &rows);
    let (q, k, v) = (own(&of.q, DIM), own(&of.k, DIM), own(&of.v, 2 * DIM));
    let (dy, lambda) = (own(&of.dy, 2 * DIM), own(&of.lambda, HEADS));
    let call = SequenceAttention {
        batch: BATCH,
        stretches: stretches.to_vec(),
        block,
        options: case.options(of, &lambda),
    };
    let heads = |data, heads, width| Heads { data, heads, width };
    let q = heads(q.as_slice(), 2 * HEADS, DIM);
    let k = heads(k.as_slice(), 2 * KV, DIM);
    let v = heads(v.as_slice(), KV, 2 * DIM);
    let kept = call.forward(ranks, q, k, v).unwrap();
    let gradients = call.backward(ranks, &dy, [q, k, v], &kept).unwrap();
    (kept, gradients)
}

/// Puts the tokens of ranks one behind the other.
fn joined(parts: &[&[f32]], stretches: &[Range<usize>], width: usize) -> Vec<f32> {
    let groups = parts[0].len() / (stretches[0].len() * width);
    let mut all = Vec::new();
    for group in 0..groups {
        for (part, stretch) in parts.iter().zip(stretches) {
            let len = stretch.len() * width;
            all.extend(&part[group * len..][..len]);
        }
    }
    all
}

fn off(got: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().fold(0.0, |max: f32, x| max.max(x.abs()));
    let differences = got.iter().zip(expected);
    let most = differences.fold(0.0, |max: f32, (x, y)| max.max((x - y).abs()));
    f64::from(most) / f64::from(largest.max(f32::MIN_POSITIVE))
}

fn check(case: Case, tokens: usize, stretches: &[Range<usize>], block: usize) {
    let of = Whole::new(tokens);
    let options = case.options(&of, &of.lambda);
    let [q, k, v] = of.tensors();
    let expected = diff_attention(q.clone(), k.clone(), v.clone(), &options).unwrap();
    let shape = [BATCH, HEADS, tokens, 2 * DIM];
    let dy = Tensor::f32(&of.dy, &shape);
    let whole =
        diff_attention_backward(dy, [q, k, v], &options, &GradientOptions::default()).unwrap();
    let of_ranks: Vec<_> = std::thread::scope(|scope| {
        let ranks: Vec<_> = ThreadRanks::all(stretches.len())
            .into_iter()
            .map(|mut ranks| {
                let of = &of;
                scope.spawn(move || as_rank(&mut ranks, of, case, stretches, block))
            })
            .collect();
        ranks.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let join = |part: &dyn Fn(&(SequenceForward, SequenceGradients)) -> Vec<f32>, width| {
        let parts: Vec<Vec<f32>> = of_ranks.iter().map(part).collect();
        let parts: Vec<&[f32]> = parts.iter().map(Vec::as_slice).collect();
        joined(&parts, stretches, width)
    };
    let y = join(&|(kept, _)| kept.y.clone(), 2 * DIM);
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert!(bits(&y) == bits(&expected), "{case:?} {stretches:?}");
    let dq = join(&|(_, gradients)| gradients.dq.clone(), DIM);
    let dk = join(&|(_, gradients)| gradients.dk.clone(), DIM);
    let dv = join(&|(_, gradients)| gradients.dv.clone(), 2 * DIM);
    for (name, got, expected) in [
        ("dq", dq, whole.dq),
        ("dk", dk, whole.dk),
        ("dv", dv, whole.dv),
    ] {
        let off = off(&got, &expected.unwrap());
        assert!(
            off <= BACKSTOP,
            "{case:?} {stretches:?}: {name} is off by {off}"
        );
    }
    if let Some(expected) = whole.dlambda {
        let got = match case.lambda {
            Form::PerToken => join(&|(_, of)| of.dlambda.clone().unwrap(), HEADS),
            _ => of_ranks[0].1.dlambda.clone().unwrap(),
        };
        let off = off(&got, &expected);
        assert!(off <= OF_LAMBDA, "{case:?}: dlambda is off by {off}");
    }
    if let Some(expected) = whole.dnorm_weight {
        for (_, gradients) in &of_ranks {
            let off = off(gradients.dnorm_weight.as_ref().unwrap(), &expected);
            assert!(off <= BACKSTOP, "{case:?}: dnorm_weight is off by {off}");
        }
    }
}

/// Two ranks and four, even stretches and others, blocks that fit and that do not.
#[test]
fn ranks_share_a_context() {
    let cases = [
        (true, None, Form::PerToken, false),
        (true, None, Form::Number, true),
        (true, Some([Some(300), None]), Form::PerHead, false),
        (false, Some([Some(100), Some(600)]), Form::PerToken, true),
        (false, None, Form::None, false),
    ];
    for (causal, window, lambda, has_norm) in cases {
        let case = Case {
            causal,
            window,
            lambda,
            has_norm,
        };
        check(case, 700, &[0..512, 512..700], 100);
        check(case, 1100, &[0..256, 256..512, 512..768, 768..1100], 64);
    }
    let case = Case {
        causal: true,
        window: None,
        lambda: Form::PerToken,
        has_norm: true,
    };
    check(case, 300, &one(0..300), 1000);
    // A rank without tokens, among others and behind them.
    check(case, 700, &[0..512, 512..512, 512..700], 100);
    check(case, 300, &[0..300, 300..300], 64);
    check(case, 1000, &[0..768, 768..1000], 33);
}

/// What cannot be said over several ranks is named.
#[test]
fn what_is_refused() {
    let of = Whole::new(300);
    let call = |stretches: Vec<Range<usize>>, block, options| SequenceAttention {
        batch: BATCH,
        stretches,
        block,
        options,
    };
    let q = |tokens: usize| Heads {
        data: &of.q[..BATCH * 2 * HEADS * tokens * DIM],
        heads: 2 * HEADS,
        width: DIM,
    };
    let k = Heads {
        data: &of.k,
        heads: 2 * KV,
        width: DIM,
    };
    let v = Heads {
        data: &of.v,
        heads: KV,
        width: 2 * DIM,
    };
    let refused = |call: &SequenceAttention<'_>, q: Heads<'_>, word: &str| {
        let error = call.forward(&mut Alone, q, k, v).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    let options = AttentionOptions {
        lambda: Some(Lambda::Value(0.5)),
        ..AttentionOptions::default()
    };
    refused(&call(one(0..300), 0, options.clone()), q(300), "block");
    refused(&call(one(5..300), 64, options.clone()), q(300), "stretches");
    refused(
        &call(vec![0..100, 100..300], 64, options.clone()),
        q(300),
        "stretches",
    );
    refused(&call(one(0..300), 64, options.clone()), q(200), "q");
    let lengths = [300, 300];
    let packed = AttentionOptions {
        key_lengths: Some(&lengths),
        ..options.clone()
    };
    refused(&call(one(0..300), 64, packed), q(300), "key_lengths");
    let lambda = AttentionOptions {
        lambda: Some(Lambda::PerToken {
            data: &of.lambda[..HEADS],
            shape: vec![1, 1, HEADS],
        }),
        ..AttentionOptions::default()
    };
    refused(&call(one(0..300), 64, lambda), q(300), "lambda");
}
