//! Requests of a layer's backward pass and of new weights against the layer itself: bits, which
//! weights a call sees, refusals in the words of the package.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod stream;

use diffattn::Tensor;
use diffattn_door::{Door, Failure, OutputSpec};
use diffattn_nn::{
    DiffAttnLayer, ForwardOptions, MultiheadDiffAttnV2, MultiheadDiffAttnV2Options, Weights,
};
use diffattn_reference::testing::bits;
use stream::{Request, finish};

const FORWARD: u32 = 8;
const CREATE: u32 = 45;
const DROP: u32 = 46;
const SET_WEIGHTS: u32 = 47;
const CREATE_VJP: u32 = 134;
const VJP: u32 = 135;
const BACKWARD: u32 = 136;

impl Request {
    fn query(&self, door: &Door, op: u32) -> Result<f64, Failure> {
        Ok(door.query(op, &self.0, &self.operands())?)
    }

    /// The name and the floats of each output that is there.
    fn run(&self, door: &Door, op: u32) -> Result<Vec<(String, Vec<f32>)>, Failure> {
        let call = door.call(op, &self.0)?;
        let operands = self.operands();
        let mut memory = Vec::new();
        let specs = finish(call.prepare(&operands)?, &mut memory)?;
        Ok(read(specs, &memory))
    }
}

/// Outputs by their names, those that are there.
fn read(specs: Vec<OutputSpec>, memory: &[Vec<u32>]) -> Vec<(String, Vec<f32>)> {
    let outputs = specs.into_iter().zip(memory);
    let outputs = outputs
        .filter(|(spec, _)| !spec.is_absent())
        .map(|(spec, words)| {
            let bytes: &[u8] = &bytemuck::cast_slice(words)[..spec.bytes];
            (spec.name.into_owned(), bytemuck::cast_slice(bytes).to_vec())
        });
    outputs.collect()
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

/// Names and shapes of the weights: width 8, two heads of 4 over two groups; λ with a bias.
const WEIGHTS: [(&str, &[usize]); 6] = [
    ("q_proj.weight", &[16, 8]),
    ("k_proj.weight", &[8, 8]),
    ("v_proj.weight", &[8, 8]),
    ("out_proj.weight", &[8, 8]),
    ("lambda_proj.weight", &[2, 8]),
    ("lambda_proj.bias", &[2]),
];

fn weights(seed: u32) -> Vec<Vec<f32>> {
    let of = WEIGHTS.iter().zip(seed..);
    of.map(|((_, shape), seed)| values(shape.iter().product(), seed))
        .collect()
}

/// The stream of `weights` where the protocol lists `names`.
fn listed(mut request: Request, names: &[&str], weights: &[Vec<f32>]) -> Request {
    for name in names {
        let place = WEIGHTS.iter().position(|(of, _)| of == name);
        request = match place {
            Some(place) => request.t(WEIGHTS[place].1, &weights[place]),
            None => request.n(&[0.0]),
        };
    }
    request
}

const V2: [&str; 10] = [
    "q_proj.weight",
    "q_proj.bias",
    "k_proj.weight",
    "k_proj.bias",
    "v_proj.weight",
    "v_proj.bias",
    "out_proj.weight",
    "out_proj.bias",
    "lambda_proj.weight",
    "lambda_proj.bias",
];

/// A layer of the door.
fn made(door: &Door, weights: &[Vec<f32>]) -> f64 {
    // embedDim, numHeads, numKvHeads, headDim, ratio, rope, isCausal.
    let create = Request::default().n(&[8.0, 2.0, 0.0, 4.0, 0.0, 0.0, 0.0]);
    listed(create, &V2, weights).query(door, CREATE).unwrap()
}

/// The same layer.
fn layer(weights: &[Vec<f32>]) -> DiffAttnLayer {
    let named = WEIGHTS.iter().zip(weights);
    let weights: Weights<'_> = named
        .map(|((name, shape), data)| ((*name).to_owned(), Tensor::f32(data, shape)))
        .collect();
    let options = MultiheadDiffAttnV2Options::new(8, 2, 4);
    MultiheadDiffAttnV2::new(&options, &weights).unwrap().into()
}

/// New weights; those of `without` are left out.
fn set(layer: f64, weights: &[Vec<f32>], without: &[&str]) -> Request {
    let vectors = ["lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"];
    let others = ["lambda_a", "lambda_b", "subln.weight"];
    let names = [&V2[..8], &vectors, &others, &V2[8..]].concat();
    let names: Vec<&str> = names
        .into_iter()
        .map(|name| if without.contains(&name) { "" } else { name })
        .collect();
    listed(Request::default().n(&[layer]), &names, weights)
}

const X: [usize; 3] = [2, 5, 8];

fn forward(layer: f64, x: &[f32]) -> Request {
    Request::default().n(&[layer]).t(&X, x).n(&[0.0, 0.0])
}

fn expected_y(weights: &[Vec<f32>], x: &[f32]) -> Vec<f32> {
    let layer = layer(weights);
    layer
        .forward(Tensor::f32(x, &X), None, &ForwardOptions::default())
        .unwrap()
}

#[test]
fn a_kept_pass_gives_the_bits_of_a_direct_one() {
    let door = Door::new();
    let own = weights(1);
    let id = made(&door, &own);
    let (x, dy) = (values(80, 40), values(80, 41));
    let vjp = Request::default().query(&door, CREATE_VJP).unwrap();
    let pass = Request::default().n(&[vjp, id]).t(&X, &x).n(&[0.0]);
    let backward = Request::default().n(&[vjp]).t(&X, &dy);
    let early = backward.run(&door, BACKWARD).unwrap_err();
    assert_eq!(early.code, "INTERNAL");
    let y = pass.run(&door, VJP).unwrap().remove(0);
    let layer = layer(&own);
    let (expected, direct) = layer
        .vjp(Tensor::f32(&x, &X), &ForwardOptions::default())
        .unwrap();
    assert_eq!(y.0, "out");
    assert_eq!(bits(&y.1), bits(&expected));
    let gradients = direct.backward(&dy).unwrap();
    // Twice, and after the layer is gone.
    for gone in [false, true] {
        if gone {
            Request::default().n(&[id]).query(&door, DROP).unwrap();
        }
        let outputs = backward.run(&door, BACKWARD).unwrap();
        let [(dx, to), rest @ ..] = &outputs[..] else {
            panic!("{} outputs", outputs.len());
        };
        assert_eq!(dx, "dx");
        let call = door.call(BACKWARD, &backward.0).unwrap();
        let outputs = call.prepare(&backward.operands()).unwrap();
        assert_eq!(outputs.outputs().len(), 1 + 17);
        assert_eq!(bits(to), bits(&gradients.dx));
        let names: Vec<&str> = rest.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, WEIGHTS.map(|(name, _)| name));
        for (name, values) in rest {
            let expected = gradients.weights.gradients(name).unwrap();
            assert_eq!(bits(values), bits(expected), "{name}");
        }
    }
    Request::default().n(&[vjp]).query(&door, DROP).unwrap();
    assert_eq!(
        backward.run(&door, BACKWARD).unwrap_err().to_string(),
        "DISPOSED: vjp: expected a live object, got one that was disposed of"
    );
}

#[test]
fn calls_see_the_weights_that_a_layer_had_when_they_were_made() {
    let door = Door::new();
    let (first, second) = (weights(1), weights(11));
    let id = made(&door, &first);
    let (x, dy) = (values(80, 40), values(80, 41));
    let vjp = Request::default().query(&door, CREATE_VJP).unwrap();
    let pass = Request::default().n(&[vjp, id]).t(&X, &x).n(&[0.0]);
    pass.run(&door, VJP).unwrap();
    let backward = Request::default().n(&[vjp]).t(&X, &dy);
    let before = backward.run(&door, BACKWARD).unwrap();
    let request = forward(id, &x);
    let open = door.call(FORWARD, &request.0).unwrap();
    assert!(open.is_due());
    let operands = request.operands();
    let mut memory = [Vec::new(), Vec::new()];
    let [of_first, of_second] = &mut memory;
    let begun = open.prepare(&operands).unwrap();
    assert_eq!(set(id, &second, &[]).query(&door, SET_WEIGHTS), Ok(0.0));
    let old = expected_y(&first, &x);
    finish(begun, of_first).unwrap();
    finish(open.prepare(&operands).unwrap(), of_second).unwrap();
    for memory in memory {
        assert_eq!(memory[0], bits(&old));
    }
    let new = request.run(&door, FORWARD).unwrap();
    assert_eq!(bits(&new[0].1), bits(&expected_y(&second, &x)));
    assert_eq!(backward.run(&door, BACKWARD).unwrap(), before);
    // A part of them.
    let without = ["q_proj.weight", "lambda_proj.weight", "lambda_proj.bias"];
    set(id, &first, &without).query(&door, SET_WEIGHTS).unwrap();
    let mut both = first.clone();
    for place in [0, 4, 5] {
        both[place].clone_from(&second[place]);
    }
    let mixed = request.run(&door, FORWARD).unwrap();
    assert_eq!(bits(&mixed[0].1), bits(&expected_y(&both, &x)));
}

#[test]
fn what_is_refused_changes_nothing() {
    let door = Door::new();
    let own = weights(1);
    let id = made(&door, &own);
    let x = values(80, 40);
    let refused = |request: Request, op: u32| request.query(&door, op).unwrap_err().to_string();
    let mut wrong = set(id, &weights(11), &[]);
    // The last, the bias of λ: its only extent.
    *wrong.0.last_mut().unwrap() = 3.0;
    wrong.1.last_mut().unwrap().push(0.0);
    assert_eq!(
        refused(wrong, SET_WEIGHTS),
        "SHAPE: weights.lambda_proj.bias: expected shape [2], got [3]"
    );
    // A bias of q, of which there is none: `kind 0` after q's weight.
    let mut more = set(id, &weights(11), &[]);
    more.0.splice(5..6, [1.0, 1.0, 16.0]);
    more.1.insert(1, values(16, 3));
    assert_eq!(
        refused(more, SET_WEIGHTS),
        "OPTION: weights.q_proj.bias: expected none, as the layer has, got one"
    );
    assert_eq!(
        refused(set(id + 9.0, &own, &[]), SET_WEIGHTS),
        "DISPOSED: layer: expected a live object, got one that was disposed of"
    );
    let vjp = Request::default().query(&door, CREATE_VJP).unwrap();
    assert!(refused(set(vjp, &own, &[]), SET_WEIGHTS).starts_with("DTYPE: layer: "));
    let y = forward(id, &x).run(&door, FORWARD).unwrap();
    assert_eq!(bits(&y[0].1), bits(&expected_y(&own, &x)));

    let run = |request: &Request, op: u32| request.run(&door, op).unwrap_err().to_string();
    let pass = |shape: &[usize]| {
        let len = shape.iter().product();
        Request::default()
            .n(&[vjp, id])
            .t(shape, &x[..len])
            .n(&[0.0])
    };
    assert_eq!(
        run(&pass(&[10, 8]), VJP),
        "SHAPE: x: expected 3 axes, got 2"
    );
    assert_eq!(
        run(&pass(&[1, 5, 4]), VJP),
        "SHAPE: x: expected 8 channels, got 4"
    );
    pass(&X).run(&door, VJP).unwrap();
    let backward = |shape: &[usize]| {
        let len = shape.iter().product();
        Request::default().n(&[vjp]).t(shape, &x[..len])
    };
    assert_eq!(
        run(&backward(&[2, 4, 8]), BACKWARD),
        "SHAPE: dy: expected y's shape [2, 5, 8], got [2, 4, 8]"
    );
    assert!(backward(&X).run(&door, BACKWARD).is_ok());
    assert!(run(&Request::default().n(&[id]).t(&X, &x), BACKWARD).starts_with("DTYPE: vjp: "));
    // A pass that fails leaves none; one that is made again is another.
    let mut other = pass(&X);
    other.0[1] = id + 9.0;
    assert!(run(&other, VJP).starts_with("DISPOSED: layer: "));
    assert!(backward(&X).run(&door, BACKWARD).is_ok());
}
