//! Requests of gradients against the operators themselves: the bits of a direct call, which
//! gradients come, and refusals in the words of the package.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod stream;

use diffattn::{
    Activation, AttentionGradients, AttentionOptions, GradientOptions, GroupNormOptions, Lambda,
    NormOptions, RmsNormOptions, RopeOptions, SequenceDifferenceOptions, Tensor,
    apply_rope_backward, diff_attention_backward, group_norm_backward, lambda_full_backward,
    rms_norm_backward, sequence_difference_backward,
};
use diffattn_door::{Door, Failure};
use diffattn_reference::testing::bits;
use stream::{Request, finish};

/// An output: its name, its shape, what is in it.
type Output<T> = (String, Vec<usize>, Vec<T>);

impl Request {
    /// Each output's name, shape and bytes, in steps of one unit.
    fn run(&self, op: u32) -> Result<Vec<Output<u8>>, Failure> {
        let door = Door::new();
        let mut memory = Vec::new();
        let call = door.call(op, &self.0)?;
        let specs = finish(call.prepare(&self.operands())?, &mut memory)?;
        let outputs = specs.into_iter().zip(memory).map(|(spec, words)| {
            let bytes = bytemuck::cast_slice(&words)[..spec.bytes].to_vec();
            (spec.name.into_owned(), spec.shape, bytes)
        });
        Ok(outputs.collect())
    }

    fn fails(&self, op: u32) -> String {
        self.run(op).unwrap_err().to_string()
    }

    /// Which gradients came, and they by their names.
    fn gradients(&self, op: u32) -> (Vec<u8>, Vec<Output<f32>>) {
        let outputs = self.run(op).unwrap();
        let is_there = |(_, shape, bytes): &Output<u8>| !(shape.is_empty() && bytes.is_empty());
        let given = outputs
            .iter()
            .map(|output| is_there(output).into())
            .collect();
        let floats = |bytes: Vec<u8>| {
            let numbers = bytes.chunks_exact(4).map(bytemuck::pod_read_unaligned);
            numbers.collect()
        };
        let named = outputs.into_iter().filter(is_there);
        let named = named.map(|(name, shape, bytes)| (name, shape, floats(bytes)));
        (given, named.collect())
    }
}

/// Numbers that look random, the same each time.
fn values(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

const Q: [usize; 4] = [1, 4, 5, 3];
const K: [usize; 4] = [1, 4, 6, 3];
const V: [usize; 4] = [1, 2, 6, 4];
const Y: [usize; 4] = [1, 2, 5, 4];

fn tensors() -> [(Vec<f32>, [usize; 4]); 4] {
    let mut seed = 0;
    [Y, Q, K, V].map(|shape| {
        seed += 1;
        (values(shape.iter().product(), seed), shape)
    })
}

/// dy, q, k and v; the options of attention that follow say λ = 0.25 and what `norm` says.
fn attention(norm: &[f64], weight: Option<&[f32]>) -> Request {
    let given = tensors();
    let request = given
        .iter()
        .fold(Request::default(), |r, (data, shape)| r.t(shape, data));
    // λ; coefficients … cuSeqlensK; norm; returnLse, deterministic, sinks, blockMask.
    let request = request.n(&[1.0, 0.25]).n(&[0.0; 16]).n(norm);
    let request = match weight {
        Some(weight) => request.t(&[4], weight).n(&[0.0]),
        None => request,
    };
    request.n(&[0.0; 4])
}

fn direct(options: &AttentionOptions<'_>, gradients: &GradientOptions<'_>) -> AttentionGradients {
    let given = tensors();
    let [dy, q, k, v] = given
        .each_ref()
        .map(|(data, shape)| Tensor::f32(data, shape));
    diff_attention_backward(dy, [q, k, v], options, gradients).unwrap()
}

fn named(gradients: AttentionGradients) -> Vec<(&'static str, Vec<u32>)> {
    let all = [
        ("dq", gradients.dq),
        ("dk", gradients.dk),
        ("dv", gradients.dv),
        ("dlambda", gradients.dlambda),
        ("dnorm_weight", gradients.dnorm_weight),
    ];
    let there = all.into_iter();
    there
        .filter_map(|(name, x)| Some((name, bits(&x?))))
        .collect()
}

fn as_bits(named: &[(String, Vec<usize>, Vec<f32>)]) -> Vec<(&str, Vec<u32>)> {
    named
        .iter()
        .map(|(name, _, x)| (name.as_str(), bits(x)))
        .collect()
}

#[test]
fn gradients_of_attention_are_those_of_a_direct_call() {
    let weight = [1.0, 0.5, -0.5, 2.0];
    let options = AttentionOptions {
        lambda: Some(Lambda::Value(0.25)),
        norm: Some(NormOptions {
            eps: 0.125,
            weight: Some(&weight),
            ..NormOptions::default()
        }),
        ..AttentionOptions::default()
    };
    let request = attention(&[1.0, 1.0, 0.125], Some(&weight));
    // All that was given.
    let (given, got) = request.clone().n(&[0.0, 0.0]).gradients(128);
    assert_eq!(given, [1, 1, 1, 1, 0, 1, 0, 0]);
    let expected = named(direct(&options, &GradientOptions::default()));
    assert_eq!(as_bits(&got), expected);
    let shapes: Vec<&[usize]> = got.iter().map(|(_, shape, _)| shape.as_slice()).collect();
    assert_eq!(shapes, [&Q[..], &K, &V, &[], &[4]]);

    // What is wanted: k, and λ; nothing at all.
    let (given, got) = request.clone().n(&[0.0, 1.0, 2.0, 1.0, 3.0]).gradients(128);
    assert_eq!(given, [0, 1, 0, 1, 0, 0, 0, 0]);
    assert_eq!(
        as_bits(&got),
        [expected[1].clone(), expected[3].clone()],
        "the bits do not depend on what else is wanted"
    );
    let (given, got) = request.clone().n(&[0.0, 1.0, 0.0]).gradients(128);
    assert_eq!((given, got.len()), (vec![0; 8], 0));

    // The value before the norm, where it was kept.
    let kept = values(40, 9);
    let (_, got) = request.t(&Y, &kept).n(&[0.0]).gradients(128);
    let with_kept = GradientOptions {
        pre_norm: Some(Tensor::f32(&kept, &Y)),
        needs: None,
        ..GradientOptions::default()
    };
    assert_eq!(as_bits(&got), named(direct(&options, &with_kept)));
}

#[test]
fn refusals_of_attention_are_in_the_words_of_the_package() {
    let plain = attention(&[0.0], None);
    let kept = values(40, 9);
    assert_eq!(
        plain.clone().t(&Y, &kept).n(&[0.0]).fails(128),
        "OPTION: result: expected none without a norm, got one"
    );
    let normed = attention(&[1.0, 0.0, 0.0, 0.0], None);
    assert_eq!(
        normed.t(&[1, 2, 4, 5], &kept).n(&[0.0]).fails(128),
        "SHAPE: result: expected the result's shape [1, 2, 5, 4], got [1, 2, 4, 5]"
    );
    assert_eq!(
        plain.clone().n(&[0.0, 1.0, 1.0, 5.0]).fails(128),
        "OPTION: needs: expected nothing of what the call has not (normWeight), got normWeight"
    );
    let unknown = plain.clone().n(&[0.0, 1.0, 1.0, 8.0]).fails(128);
    assert!(
        unknown.ends_with("needs: no choice has the number 8"),
        "{unknown}"
    );
    let mut lse = plain.n(&[0.0, 0.0]);
    let at = lse.0.len() - 6;
    lse.0[at] = 1.0;
    assert_eq!(
        lse.fails(128),
        "OPTION: returnLse: expected none for gradients, got one"
    );
}

#[test]
fn gradients_of_norms_are_those_of_direct_calls() {
    let (dy, x, weight) = (values(12, 1), values(12, 2), values(4, 3));
    let options = RmsNormOptions {
        weight: Some(&weight),
        eps: 0.25,
        scale: 0.5,
        ..RmsNormOptions::default()
    };
    let shape = [3, 4];
    let (x_of, dy_of) = (Tensor::f32(&x, &shape), Tensor::f32(&dy, &shape));
    let expected = rms_norm_backward(dy_of.clone(), x_of.clone(), &options).unwrap();
    let request = Request::default().t(&shape, &dy).t(&shape, &x);
    let weighted = request.clone().t(&[4], &weight);
    let (given, got) = weighted.n(&[1.0, 0.25, 1.0, 0.5]).gradients(129);
    assert_eq!(given, [1, 1, 0]);
    let dweight = expected.dweight.unwrap();
    assert_eq!(
        as_bits(&got),
        [("dx", bits(&expected.dx)), ("dweight", bits(&dweight))]
    );
    let (given, got) = request.clone().n(&[0.0; 3]).gradients(129);
    assert_eq!((given, got.len()), (vec![1, 0, 0], 1));
    assert!(
        Request::default()
            .t(&[4, 3], &dy)
            .t(&shape, &x)
            .n(&[0.0; 3])
            .fails(129)
            .starts_with("SHAPE: dy: expected")
    );

    let options = GroupNormOptions {
        num_groups: 2,
        weight: Some(&weight),
        bias: Some(&weight),
        activation: Some(Activation::Silu),
        ..GroupNormOptions::default()
    };
    let (dy_of, x_of) = (Tensor::f32(&dy, &[1, 4, 3]), Tensor::f32(&x, &[1, 4, 3]));
    let expected = group_norm_backward(dy_of, x_of, &options).unwrap();
    let request = Request::default()
        .t(&[1, 4, 3], &dy)
        .t(&[1, 4, 3], &x)
        .n(&[2.0]);
    let all = request.clone().t(&[4], &weight).t(&[4], &weight);
    let (given, got) = all.n(&[0.0, 0.0, 1.0, 0.0]).gradients(130);
    assert_eq!(given, [1, 1, 1]);
    let (dweight, dbias) = (expected.dweight.unwrap(), expected.dbias.unwrap());
    assert_eq!(
        as_bits(&got),
        [
            ("dx", bits(&expected.dx)),
            ("dweight", bits(&dweight)),
            ("dbias", bits(&dbias))
        ]
    );
    let biased = request.n(&[0.0]).t(&[4], &weight);
    let (given, got) = biased.n(&[0.0, 0.0, 0.0]).gradients(130);
    assert_eq!((given, got.len()), (vec![1, 0, 1], 2));
}

/// The only output of a job.
fn only(request: &Request, op: u32) -> (Vec<usize>, Vec<f32>) {
    let mut outputs = request.run(op).unwrap();
    assert_eq!(outputs.len(), 1);
    let (_, shape, bytes) = outputs.remove(0);
    let numbers = bytes.chunks_exact(4).map(bytemuck::pod_read_unaligned);
    (shape, numbers.collect())
}

#[test]
fn gradients_along_the_sequence_are_those_of_direct_calls() {
    let (dy, shape) = (values(24, 1), [1, 2, 3, 4]);
    let request = Request::default().t(&shape, &dy);
    let options = RopeOptions {
        interleaved: false,
        rotary_dim: Some(2),
        first_position: Some(vec![5]),
        ..RopeOptions::default()
    };
    let expected = apply_rope_backward(Tensor::f32(&dy, &shape), &options).unwrap();
    // interleaved, theta, scaling; layout, firstPosition, positions, rotaryDim.
    let rope = request.clone().n(&[1.0, 0.0, 0.0, 0.0]);
    let (shape_of, got) = only(&rope.n(&[0.0, 1.0, 1.0, 5.0, 0.0, 1.0, 2.0]), 131);
    assert_eq!((shape_of, bits(&got)), (shape.to_vec(), bits(&expected)));

    let options = SequenceDifferenceOptions {
        order: 2,
        ..SequenceDifferenceOptions::default()
    };
    let expected = sequence_difference_backward(Tensor::f32(&dy, &shape), &options).unwrap();
    let (shape_of, got) = only(&request.n(&[1.0, 2.0, 0.0]), 132);
    assert_eq!((shape_of, bits(&got)), (shape.to_vec(), bits(&expected)));
}

#[test]
fn gradients_of_lambda_are_those_of_a_direct_call() {
    let [q1, k1, q2, k2] = [1, 2, 3, 4].map(|seed| values(3, seed));
    let expected = lambda_full_backward(0.5, &q1, &k1, &q2, &k2).unwrap();
    let vectors = |request: Request| {
        let all = [&q1, &k1, &q2, &k2];
        all.iter().fold(request, |r, x| r.t(&[3], x))
    };
    for request in [
        Request::default().n(&[1.0, 0.5]),
        Request::default().n(&[2.0]).t(&[], &[0.5]),
        Request::default().n(&[2.0]).t(&[1, 1], &[0.5]),
    ] {
        let got = vectors(request).run(133).unwrap();
        let expected = [&expected.dq1, &expected.dk1, &expected.dq2, &expected.dk2];
        for ((name, shape, bytes), expected) in got.iter().zip(expected) {
            assert_eq!(shape, &[3], "{name}");
            assert_eq!(bytes, bytemuck::cast_slice::<f32, u8>(expected), "{name}");
        }
    }
    let one = "a number, or a tensor of one element";
    assert_eq!(
        vectors(Request::default().n(&[0.0])).fails(133),
        format!("OPTION: dlambda: expected {one}, got none")
    );
    assert_eq!(
        vectors(Request::default().n(&[2.0]).t(&[2], &[0.5, 1.0])).fails(133),
        format!("SHAPE: dlambda: expected {one}, got [2]")
    );
}
