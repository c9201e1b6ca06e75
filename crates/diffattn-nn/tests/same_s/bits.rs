//! What may not change a bit: threads, batch, slices, more audio behind; and what the jobs promise.

use crate::common::{Case, bits, borrowed, ok, on, random, refusal, small, values};
use diffattn::{DataMut, Isa, Tensor, Work};
use diffattn_nn::{SameS, SameSConfig, SameSOptions};

/// A small codec, and audio and latents of so many pieces for it: enough for more than one group of
/// spans.
struct Random {
    model: SameS,
    config: SameSConfig,
    pcm: Vec<f32>,
    latents: Vec<f32>,
}

const BATCH: usize = 3;
const SPANS: usize = 13;

impl Random {
    fn new() -> Self {
        let config = small();
        let [pcm, latents] = Self::shapes(&config, BATCH);
        Self {
            model: ok(SameS::new(&config, &borrowed(&random(&config)))),
            config,
            pcm: values(100, pcm.iter().product(), 1.0),
            latents: values(101, latents.iter().product(), 1.0),
        }
    }

    /// Of audio and of latents.
    fn shapes(config: &SameSConfig, batch: usize) -> [[usize; 3]; 2] {
        let latents = SPANS * config.chunk_latents();
        let samples = latents * config.latent_samples();
        [
            [batch, config.audio_channels, samples],
            [batch, config.latent_dim, latents],
        ]
    }

    /// Bits of the latents and the audio of some of the pieces.
    fn run(&self, pieces: std::ops::Range<usize>, options: &SameSOptions) -> [Vec<u32>; 2] {
        let [pcm, latents] = Self::shapes(&self.config, pieces.len());
        let of = |data: &'_ [f32]| {
            let one = data.len() / BATCH;
            one * pieces.start..one * pieces.end
        };
        let encoded = self
            .model
            .encode(Tensor::f32(&self.pcm[of(&self.pcm)], &pcm), options);
        let decoded = self.model.decode(
            Tensor::f32(&self.latents[of(&self.latents)], &latents),
            options,
        );
        [bits(&ok(encoded)), bits(&ok(decoded))]
    }
}

#[test]
fn threads_and_batch_change_no_bit() {
    let random = Random::new();
    for isa in Isa::available() {
        for deterministic in [false, true] {
            let on = |threads| on(isa, threads, deterministic);
            let together = random.run(0..BATCH, &on(1));
            assert_eq!(together, random.run(0..BATCH, &on(2)), "{}", isa.name());
            for piece in 0..BATCH {
                let alone = random.run(piece..piece + 1, &on(1));
                for (alone, together) in alone.iter().zip(&together) {
                    let one = alone.len();
                    assert_eq!(*alone, together[piece * one..(piece + 1) * one]);
                }
            }
        }
    }
}

#[test]
fn instruction_sets_that_fuse_agree_and_so_does_what_is_deterministic() {
    let random = Random::new();
    let all = Isa::available();
    let plain = random.run(0..1, &on(all[0], 1, true));
    for &isa in &all {
        assert_eq!(random.run(0..1, &on(isa, 1, true)), plain, "{}", isa.name());
    }
    let fused: Vec<_> = all.iter().filter(|isa| isa.name() != "scalar").collect();
    for pair in fused.windows(2) {
        let [first, second] = [pair[0], pair[1]].map(|&isa| random.run(0..1, &on(isa, 1, false)));
        assert_eq!(first, second);
    }
}

/// Works a job off in steps of `count` units, checking that its progress is sound.
fn step_through(job: &mut Work<'_>, count: usize) {
    let (total, mut done, mut steps) = (job.total(), job.done(), 0);
    assert_eq!(done, 0);
    while job.done() < total {
        ok(job.step(count));
        assert!(job.done() >= done, "progress goes back from {done}");
        done = job.done();
        steps += 1;
        assert!(steps <= total, "more steps than units");
    }
    assert!(
        steps * count + count >= total,
        "{steps} steps of {count} are not {total} units"
    );
}

#[test]
fn slices_change_no_bit() {
    let random = Random::new();
    let options = SameSOptions::default();
    let whole = random.run(0..BATCH, &options);
    let [pcm, latents] = Random::shapes(&random.config, BATCH);
    for count in [1, 2, 7] {
        let mut encoded = vec![f32::NAN; whole[0].len()];
        let job = ok(random
            .model
            .encode_job(Tensor::f32(&random.pcm, &pcm), &options));
        let mut job = ok(job.into_work(DataMut::F32(&mut encoded)));
        step_through(&mut job, count);
        drop(job);
        assert_eq!(bits(&encoded), whole[0]);
        let mut decoded = vec![f32::NAN; whole[1].len()];
        let job = ok(random
            .model
            .decode_job(Tensor::f32(&random.latents, &latents), &options));
        let mut job = ok(job.into_work(DataMut::F32(&mut decoded)));
        step_through(&mut job, count);
        drop(job);
        assert_eq!(bits(&decoded), whole[1]);
    }
}

#[test]
fn zeros_behind_the_end_are_what_fills_it() {
    let case = Case::read();
    let options = SameSOptions::default();
    let ragged = case.input("pcm_ragged");
    let samples = ragged.shape[2];
    let data = ok(ragged.data.to_f32());
    let mut padded = Vec::new();
    for plane in data.chunks(samples) {
        padded.extend_from_slice(plane);
        padded.resize(padded.len() + 240 - samples, 0.0);
    }
    let filled = ok(case
        .model
        .encode(Tensor::f32(&padded, &[2, 2, 240]), &options));
    let latents = ok(case.model.encode(ragged, &options));
    assert_eq!(bits(&latents), bits(&filled));
}

#[test]
fn a_sample_that_is_no_number_stays_near() {
    let random = Random::new();
    let options = SameSOptions::default();
    let [pcm, latents] = Random::shapes(&random.config, BATCH);
    let whole = ok(random
        .model
        .encode(Tensor::f32(&random.pcm, &pcm), &options));
    let mut other = random.pcm.clone();
    other[0] = f32::NAN;
    let got = ok(random.model.encode(Tensor::f32(&other, &pcm), &options));
    // Its own span, and what half a span moves it beside.
    let reach = random.config.chunk_latents() + random.config.chunk_latents() / 2;
    for (at, (got, whole)) in got.iter().zip(&whole).enumerate() {
        let (piece, latent) = (at / (latents[1] * latents[2]), at % latents[2]);
        if piece == 0 && latent < random.config.chunk_latents() {
            assert!(got.is_nan());
        } else if piece > 0 || latent >= reach {
            assert_eq!(got.to_bits(), whole.to_bits(), "{at}");
        }
    }
}

#[test]
fn nothing_is_no_work() {
    let case = Case::read();
    let options = SameSOptions::default();
    for shape in [[0, 2, 240], [2, 2, 0], [0, 2, 0]] {
        let job = ok(case.model.encode_job(Tensor::f32(&[], &shape), &options));
        let latents = shape[2].div_ceil(40);
        assert_eq!(job.output_shape(), [shape[0], 12, latents]);
        assert_eq!(job.units(), 0);
        assert!(ok(case.model.encode(Tensor::f32(&[], &shape), &options)).is_empty());
    }
    for shape in [[0, 12, 6], [2, 12, 0]] {
        let job = ok(case.model.decode_job(Tensor::f32(&[], &shape), &options));
        assert_eq!(job.output_shape(), [shape[0], 2, shape[2] * 40]);
        assert!(ok(case.model.decode(Tensor::f32(&[], &shape), &options)).is_empty());
    }
}

#[test]
fn a_job_needs_its_output() {
    let case = Case::read();
    let options = SameSOptions::default();
    let (mut short, mut halves) = (vec![0.0; 143], vec![0; 960]);
    let job = ok(case.model.encode_job(case.input("pcm"), &options));
    assert_eq!(
        refusal(job.into_work(DataMut::F32(&mut short))).1,
        "out: expected 144 elements for shape [2, 12, 6], got 143"
    );
    let job = ok(case.model.decode_job(case.input("latents"), &options));
    assert_eq!(
        refusal(job.into_work(DataMut::F16(&mut halves))),
        ("DTYPE", "out: expected float32, got float16".to_owned())
    );
}
