//! What the gradients promise beyond their formulas: rows that see nothing, hidden keys, empty
//! shapes, and that the float32 computation rounds to float32.

use diffattn_reference::gradients::{
    AdamW, CrossEntropy, IGNORED, Named, attention_backward, clip_factor, cross_entropy,
    cross_entropy_backward, rms_norm_backward,
};
use diffattn_reference::testing::values;
use diffattn_reference::{AttentionSpec, Norm, Pairing, Tensor, plan};

const NAN: f64 = f64::NAN;

fn noise(shape: &[usize], seed: u64) -> Tensor<f64> {
    Tensor::from_f32(shape, &values(seed, shape.iter().product(), 1.0))
}

/// B = 1, two output heads of two terms, causal: with more queries than keys the first see nothing.
fn causal(lq: usize, lk: usize) -> AttentionSpec {
    let (q, k) = (noise(&[1, 4, lq, 3], 1), noise(&[1, 4, lk, 3], 2));
    let heads = plan(Pairing::default(), [4, 4, 2], &[1.0, -1.0]);
    AttentionSpec {
        lambda: Some(Tensor::full(&[1, lq, 2], 0.5)),
        causal: true,
        ..AttentionSpec::new(q, k, noise(&[1, 2, lk, 2], 3), heads)
    }
}

#[test]
fn a_row_that_sees_nothing_gives_nothing_whatever_its_dy_and_its_lambda() {
    let mut spec = causal(3, 2);
    spec.sinks = Some(noise(&[2], 4));
    spec.norm = Some(Norm {
        eps: 0.0,
        weight: Some(vec![1.0, 2.0]),
        scale: 1.0,
    });
    let mut dy = noise(&[1, 2, 3, 2], 5);
    let usual = attention_backward::<f64>(&spec, &dy);
    for h in 0..2 {
        dy.data[h * 6..h * 6 + 2].fill(NAN);
    }
    spec.lambda = Some(Tensor::new(&[1, 3, 2], vec![NAN, NAN, 0.5, 0.5, 0.5, 0.5]));
    let odd = attention_backward::<f64>(&spec, &dy);
    assert_eq!(
        (&usual.dq, &usual.dk, &usual.dv),
        (&odd.dq, &odd.dk, &odd.dv)
    );
    assert_eq!(usual.dlambda, odd.dlambda);
    assert_eq!(usual.dsinks, odd.dsinks);
    assert_eq!(usual.dnorm_weight, odd.dnorm_weight);
    assert!(usual.dq.data.iter().all(|x| x.is_finite()));
    assert_eq!(usual.dq.row(&[0, 0, 0]), [0.0; 3]);
    assert_eq!(
        usual.dlambda.map(|d| d.data[..2].to_vec()),
        Some(vec![0.0; 2])
    );
}

#[test]
fn hidden_keys_are_not_read_and_get_nothing() {
    let mut spec = causal(4, 4);
    spec.key_lengths = Some(vec![3]);
    let dy = noise(&[1, 2, 4, 2], 5);
    let usual = attention_backward::<f64>(&spec, &dy);
    for (x, width) in [(&mut spec.k, 3), (&mut spec.v, 2)] {
        for head in x.data.chunks_mut(4 * width) {
            head[3 * width..].fill(NAN);
        }
    }
    let odd = attention_backward::<f64>(&spec, &dy);
    assert_eq!(
        (&usual.dq, &usual.dk, &usual.dv),
        (&odd.dq, &odd.dk, &odd.dv)
    );
    assert_eq!(odd.dk.row(&[0, 1, 3]), [0.0; 3]);
    assert_eq!(odd.dv.row(&[0, 1, 3]), [0.0; 2]);
}

#[test]
fn a_bias_that_hides_has_gradient_0_and_makes_a_term_see_nothing() {
    let mut spec = causal(4, 4);
    let mut bias = noise(&[4, 4], 6);
    bias.data[0] = f64::NEG_INFINITY;
    spec.bias = Some(bias);
    let gradients = attention_backward::<f64>(&spec, &noise(&[1, 2, 4, 2], 5));
    let Some(dbias) = gradients.dbias else {
        panic!("a bias has a gradient")
    };
    // Query 0 sees key 0 alone, which is hidden; the keys behind are by the causal mask.
    assert_eq!(dbias.row(&[0]), [0.0; 4]);
    assert!(dbias.row(&[1])[0] != 0.0);
    assert_eq!(gradients.dq.row(&[0, 0, 0]), [0.0; 3]);
}

#[test]
fn empty_inputs_are_no_error() {
    for (lq, lk) in [(0, 3), (3, 0), (0, 0)] {
        let spec = causal(lq, lk);
        let gradients = attention_backward::<f64>(&spec, &noise(&[1, 2, lq, 2], 5));
        assert_eq!(gradients.dq, Tensor::full(&[1, 4, lq, 3], 0.0));
        assert_eq!(gradients.dk, Tensor::full(&[1, 4, lk, 3], 0.0));
        assert_eq!(gradients.dlambda, Some(Tensor::full(&[1, lq, 2], 0.0)));
    }
    let empty = Tensor::new(&[0, 4], Vec::<f64>::new());
    let gradients = rms_norm_backward(&empty, &Norm::default(), &empty);
    assert_eq!(gradients.dx, empty);
}

#[test]
fn a_row_of_zeros_through_a_norm_without_eps_gives_nothing() {
    let norm = Norm {
        eps: 0.0,
        weight: Some(vec![2.0; 3]),
        scale: 1.0,
    };
    let x = Tensor::full(&[1, 3], 0.0);
    let gradients = rms_norm_backward(&x, &norm, &Tensor::full(&[1, 3], 1.0));
    assert_eq!(gradients.dx, x);
    assert_eq!(gradients.dweight.map(|d| d.data), Some(vec![0.0; 3]));
}

#[test]
fn rows_that_take_no_part_give_zeros() {
    let logits = Tensor::new(&[2, 3], vec![NAN, 1.0, 2.0, 3.0, 4.0, 5.0]);
    let options = CrossEntropy::default();
    let d = cross_entropy_backward(&logits, &[IGNORED, 1], &options);
    assert_eq!(d.row(&[0]), [0.0; 3]);
    assert!(d.row(&[1])[1] < 0.0);
    let none = [IGNORED; 2];
    assert_eq!(cross_entropy(&logits, &none, &options).loss, 0.0);
    assert_eq!(
        cross_entropy_backward(&logits, &none, &options).data,
        [0.0; 6]
    );
}

#[test]
fn clipping_never_makes_gradients_longer() {
    assert_eq!(clip_factor(0.5, 1.0), 1.0);
    assert_eq!(clip_factor(0.0, 1.0), 1.0);
    let quarter: f64 = clip_factor(4.0, 1.0);
    assert!((quarter - 0.25).abs() < 1e-6);
}

/// The first step of Adam goes lr far, against the gradient, whatever its size.
#[test]
fn the_first_step_is_lr_long() {
    let named = |data: Vec<f64>| Named::from([("a".to_owned(), Tensor::new(&[2], data))]);
    let mut parameters = named(vec![1.0, 1.0]);
    let mut optimizer = AdamW::new([0.9, 0.999], 0.0, [("a".to_owned(), 0.5)].into());
    let norm = optimizer.step(&mut parameters, &named(vec![3.0, -4e-3]), 0.1, None);
    assert!((norm - 3.0).abs() < 1e-5);
    // (Decay takes 0.1·0.5 of each.)
    for (x, expected) in parameters["a"].data.iter().zip([0.85, 1.05]) {
        assert!((x - expected).abs() < 1e-12, "{x}");
    }
}

#[test]
fn the_float32_computation_rounds_to_float32() {
    let (spec, dy) = (causal(5, 6), noise(&[1, 2, 5, 2], 5));
    let (wide, narrow) = (
        attention_backward::<f64>(&spec, &dy).dq,
        attention_backward::<f32>(&spec, &dy).dq,
    );
    let differences = wide.data.iter().zip(&narrow.data);
    let worst = differences.fold(0.0, |max: f64, (x, &y)| max.max((x - f64::from(y)).abs()));
    assert!(worst > 1e-10 && worst < 1e-6, "{worst:e}");
}
