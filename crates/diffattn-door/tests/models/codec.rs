//! The audio codec.

use crate::common::{Folder, Request, bits, ok, refusal};
use diffattn::{Run, Tensor};
use diffattn_door::Door;
use diffattn_nn::{SameS, SameSConfig, SameSOptions};

const PCM: [usize; 3] = [2, 2, 163];
const LATENTS: [usize; 3] = [2, 12, 6];

fn samples(shape: [usize; 3]) -> Vec<f32> {
    let count = shape.iter().product::<usize>();
    let sample = |at: usize| (at * 7919 % 251) as f32 / 125.5 - 1.0;
    (0..count).map(sample).collect()
}

fn request(model: f64, shape: &[usize], data: &[f32]) -> Request {
    Request::default().n(&[model]).f32(shape, data)
}

#[test]
fn audio_and_latents_give_the_bits_of_a_direct_call() {
    let folder = Folder::fixture("same_s");
    let door = Door::new();
    let model = folder.load(&door);
    let config = ok(SameSConfig::from_json(&folder.text("config.json")));
    let direct = folder.with_weights(|weights| ok(SameS::new(&config, weights)));
    let (pcm, latents) = (samples(PCM), samples(LATENTS));
    for is_deterministic in [false, true] {
        let flag = f64::from(u8::from(is_deterministic));
        let options = SameSOptions {
            run: Run::default().with_deterministic(is_deterministic),
        };
        let expected = ok(direct.encode(Tensor::f32(&pcm, &PCM), &options));
        let got = ok(request(model, &PCM, &pcm).n(&[flag]).run(&door, 91));
        assert_eq!(got[0].spec.name, "latents");
        assert_eq!(got[0].spec.shape, LATENTS);
        assert_eq!(bits(got[0].f32()), bits(&expected));
        let expected = ok(direct.decode(Tensor::f32(&latents, &LATENTS), &options));
        let got = ok(request(model, &LATENTS, &latents).n(&[flag]).run(&door, 92));
        assert_eq!(got[0].spec.name, "pcm");
        assert_eq!(got[0].spec.shape, [2, 2, 240]);
        assert_eq!(bits(got[0].f32()), bits(&expected));
    }
}

#[test]
fn wrong_requests_are_refused() {
    let door = Door::new();
    let model = Folder::fixture("same_s").load(&door);
    let told = |request: Request, op: u32| refusal(request.n(&[0.0]).run(&door, op));
    assert_eq!(
        told(request(model, &[1, 3, 4], &[0.0; 12]), 91),
        (
            "SHAPE",
            "pcm: expected shape [B, 2, samples], got [1, 3, 4]".into()
        )
    );
    assert_eq!(
        told(request(model, &[1, 12, 1], &[0.0; 12]), 92),
        (
            "SHAPE",
            "latents: expected shape [B, 12, T], T a multiple of 2, got [1, 12, 1]".into()
        )
    );
    let vit = Folder::fixture("diff_vit").load(&door);
    assert_eq!(
        told(request(vit, &[1, 12, 2], &[0.0; 24]), 92),
        (
            "DTYPE",
            "model: expected an AudioCodec, got a DiffViT".into()
        )
    );
    let pixels = Request::default().n(&[model, 0.0]);
    assert_eq!(
        told(pixels.f32(&[0, 3, 64, 64], &[]), 88),
        (
            "DTYPE",
            "model: expected a DiffViT, got an AudioCodec".into()
        )
    );
}

/// However far it came.
#[test]
fn cancelled_jobs_are_dropped() {
    let door = Door::new();
    let model = Folder::fixture("same_s").load(&door);
    let request = request(model, &LATENTS, &samples(LATENTS)).n(&[0.0]);
    let mut steps = 0;
    while ok(request.run_for(&door, 92, steps)).is_none() {
        steps += 1;
    }
    assert!(steps > 5, "{steps}");
}
