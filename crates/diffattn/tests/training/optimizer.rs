//! AdamW, the joint norm of gradients, and clipping: fixtures, bits, and what is refused.

use diffattn::{AdamW, Error, Parameters, Run, clip_coefficient, gradient_norm};
use diffattn_reference::testing::{assert_near, bits, noise, ok};

use super::support::{cases, check_bits, runs};

/// A tensor of a case on its way.
struct Tensor {
    name: String,
    p: Vec<f32>,
    m: Vec<f32>,
    v: Vec<f32>,
}

#[test]
fn fixtures() {
    for case in cases("adamw") {
        let names = case
            .tensors
            .keys()
            .filter_map(|name| name.strip_prefix("p."));
        let names: Vec<String> = names.map(str::to_owned).collect();
        let numbers = |name: &str| -> Vec<f64> {
            let list = case.case[name].as_array();
            list.map_or_else(Vec::new, |list| {
                list.iter().filter_map(|x| x.as_f64()).collect()
            })
        };
        let (lr, betas) = (numbers("lr"), numbers("betas"));
        for run in runs() {
            let mut tensors: Vec<Tensor> = names
                .iter()
                .map(|name| {
                    let p = case.f32(&format!("p.{name}")).data;
                    let zeros = vec![0.0; p.len()];
                    Tensor {
                        name: name.clone(),
                        p,
                        m: zeros.clone(),
                        v: zeros,
                    }
                })
                .collect();
            for (at, &lr) in lr.iter().enumerate() {
                let gradients: Vec<Vec<f32>> = tensors
                    .iter()
                    .map(|tensor| {
                        let g = case.f32(&format!("g.{}", tensor.name)).data;
                        g[at * tensor.p.len()..(at + 1) * tensor.p.len()].to_vec()
                    })
                    .collect();
                let all: Vec<&[f32]> = gradients.iter().map(Vec::as_slice).collect();
                let norm = ok(gradient_norm(&all, run));
                if let Some(expected) = case.expected("gradient_norms") {
                    assert!(
                        (norm - expected.data[at]).abs() <= 1e-12 * norm,
                        "{}",
                        case.name
                    );
                }
                let max_norm = case.number("max_norm");
                let clip = max_norm.map_or(1.0, |max_norm| clip_coefficient(norm, max_norm));
                for (tensor, gradients) in tensors.iter_mut().zip(&gradients) {
                    let options = AdamW {
                        lr,
                        betas: [betas[0], betas[1]],
                        eps: case.number("eps").unwrap_or(1e-8),
                        weight_decay: case.case["weight_decay"][&tensor.name]
                            .as_f64()
                            .unwrap_or(0.0),
                    };
                    let of = Parameters {
                        parameters: &mut tensor.p,
                        gradients,
                        first_moments: &mut tensor.m,
                        second_moments: &mut tensor.v,
                    };
                    ok(options.step(at as u64 + 1, of, clip, run));
                    let name = format!("step_{}.{}", at + 1, tensor.name);
                    if let Some(expected) = case.expected(&name) {
                        assert_near(&name, &expected.data, &tensor.p, 1e-6);
                    }
                }
            }
            for tensor in &tensors {
                for (kind, got) in [("m", &tensor.m), ("v", &tensor.v)] {
                    let name = format!("{kind}.{}", tensor.name);
                    if let Some(expected) = case.expected(&name) {
                        assert_near(&name, &expected.data, got, 1e-6);
                    }
                }
            }
        }
    }
}

/// Parameters and moments after some steps, with gradients of noise.
fn moved(len: usize, cuts: &[usize], run: Run) -> Vec<u32> {
    let (mut p, mut m, mut v) = (noise(len, 1), vec![0.0; len], vec![0.0; len]);
    for step in 1..4 {
        let g = noise(len, step + 1);
        let mut first = 0;
        for &end in cuts.iter().chain([&len]) {
            let of = Parameters {
                parameters: &mut p[first..end],
                gradients: &g[first..end],
                first_moments: &mut m[first..end],
                second_moments: &mut v[first..end],
            };
            ok(AdamW::default().step(step, of, 0.7, run));
            first = end;
        }
    }
    [p, m, v].iter().flat_map(|values| bits(values)).collect()
}

#[test]
fn bits_are_the_same_everywhere() {
    for len in [0, 1, 5, 33, 100, 16_385, 100_003] {
        let expected = moved(len, &[], Run::default());
        check_bits(|run| {
            let bits = moved(len, &[], run);
            assert!(bits == expected, "{len}, {run:?}");
            bits
        });
        let cuts = [len / 5, len / 5 + len / 3];
        assert!(
            moved(len, &cuts, Run::default()) == expected,
            "{len} in parts"
        );
    }
}

#[test]
fn a_norm_has_the_same_bits_everywhere() {
    let gradients = [noise(70_001, 1), noise(5, 2), Vec::new(), noise(16_384, 3)];
    let all: Vec<&[f32]> = gradients.iter().map(Vec::as_slice).collect();
    let squares = gradients
        .iter()
        .flatten()
        .map(|&g| f64::from(g) * f64::from(g));
    let expected = squares.sum::<f64>().sqrt();
    let norm = ok(gradient_norm(&all, Run::default()));
    assert!((norm - expected).abs() < 1e-12 * expected);
    check_bits(|run| {
        let bits = ok(gradient_norm(&all, run)).to_bits();
        assert_eq!(bits, norm.to_bits());
        vec![bits as u32, (bits >> 32) as u32]
    });
    assert_eq!(ok(gradient_norm(&[], Run::default())), 0.0);
    assert!(ok(gradient_norm(&[&[1.0, f32::NAN]], Run::default())).is_nan());
    // (Squares of the largest numbers have room in float64.)
    assert!(ok(gradient_norm(&[&[f32::MAX; 4]], Run::default())).is_finite());
}

#[test]
fn clipping() {
    assert_eq!(clip_coefficient(0.0, 1.0), 1.0);
    assert_eq!(clip_coefficient(2.0, 1.0), 1.0 / (2.0 + 1e-6));
    assert!(clip_coefficient(f64::NAN, 1.0).is_nan());
    assert_eq!(clip_coefficient(f64::INFINITY, 1.0), 0.0);
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let refused = |options: AdamW, step: u64, lens: [usize; 3]| {
        let [g, m, v] = lens.map(|len| vec![0.0; len]);
        let (mut p, mut m, mut v) = (vec![0.0; 4], m, v);
        let of = Parameters {
            parameters: &mut p,
            gradients: &g,
            first_moments: &mut m,
            second_moments: &mut v,
        };
        let result: Result<(), Error> = options.step(step, of, 1.0, Run::default());
        result
            .err()
            .map_or_else(String::new, |error| error.to_string())
    };
    let right = AdamW::default();
    assert_eq!(refused(right, 1, [4; 3]), "");
    assert_eq!(refused(right, 0, [4; 3]), "step: expected 1 or more, got 0");
    assert!(refused(right, 1, [3, 4, 4]).starts_with("gradients: "));
    assert!(refused(right, 1, [4, 5, 4]).starts_with("first_moments: "));
    assert!(refused(right, 1, [4, 4, 3]).starts_with("second_moments: "));
    let lr = AdamW { lr: -1.0, ..right };
    assert!(refused(lr, 1, [4; 3]).starts_with("lr: "));
    let betas = AdamW {
        betas: [0.9, 1.0],
        ..right
    };
    assert!(refused(betas, 1, [4; 3]).starts_with("betas: "));
    let eps = AdamW {
        eps: f64::NAN,
        ..right
    };
    assert!(refused(eps, 1, [4; 3]).starts_with("eps: "));
    let decay = AdamW {
        weight_decay: f64::INFINITY,
        ..right
    };
    assert!(refused(decay, 1, [4; 3]).starts_with("weight_decay: "));
}
