//! Latents and audio against Stability-AI's own in float64.

use crate::common::{Case, assert_near, ok, on, spread};
use diffattn::{Isa, Tensor};
use diffattn_nn::SameSOptions;

/// How far a value may be off, as a part of the values' spread.
const BOUND: f64 = 2e-5;

fn near(name: &str, expected: &[f64], got: &[f32]) {
    assert_near(name, expected, got, BOUND * spread(expected));
}

#[test]
fn latents_of_audio_are_the_originals() {
    let case = Case::read();
    for (input, expected) in [("pcm", "latents"), ("pcm_ragged", "latents_ragged")] {
        for isa in Isa::available() {
            for deterministic in [false, true] {
                let options = on(isa, 1, deterministic);
                let latents = ok(case.model.encode(case.input(input), &options));
                let name = format!("{expected} on {}", isa.name());
                near(&name, case.expected(expected), &latents);
            }
        }
        let job = ok(case
            .model
            .encode_job(case.input(input), &SameSOptions::default()));
        assert_eq!(job.output_shape(), [2, 12, 6]);
    }
}

#[test]
fn audio_of_latents_is_the_originals() {
    let case = Case::read();
    for isa in Isa::available() {
        for deterministic in [false, true] {
            let options = on(isa, 1, deterministic);
            let pcm = ok(case.model.decode(case.input("latents"), &options));
            near(isa.name(), case.expected("pcm"), &pcm);
        }
    }
    let options = SameSOptions::default();
    let job = ok(case.model.decode_job(case.input("latents"), &options));
    assert_eq!(job.output_shape(), [2, 2, 240]);
}

/// `[B, 2, samples]` of `[B, 2 · 10, samples / 10]`: the original's `b (c h) l -> b c (l h)`.
fn unpatched<T: Copy>(patches: &[T]) -> Vec<T> {
    let value = |at: usize| {
        let (plane, sample) = (at / 240, at % 240);
        patches[(plane * 10 + sample % 10) * 24 + sample / 10]
    };
    (0..2 * 2 * 240).map(value).collect()
}

#[test]
fn patches_are_the_originals() {
    let case = Case::read();
    let options = SameSOptions::default();
    let Tensor { data, shape } = case.input("audio");
    assert_eq!(shape, [2, 20, 24]);
    let pcm = unpatched(&ok(data.to_f32()));
    let latents = ok(case.model.encode(Tensor::f32(&pcm, &[2, 2, 240]), &options));
    near("latents", case.expected("latents"), &latents);
    let pcm = ok(case.model.decode(case.input("latents"), &options));
    near("audio", &unpatched(case.expected("audio")), &pcm);
}
