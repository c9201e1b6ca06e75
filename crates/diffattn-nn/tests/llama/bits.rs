//! What must not change a row's bits: batch, threads, how many tokens are computed at once, what
//! else is asked for.

use crate::common::{ALL, Checkpoint, bits, forward, ok, random_ids};
use diffattn::{Isa, MapOutputs, Run};
use diffattn_nn::{
    DiffLlama, DiffLlamaOptions, DiffLlamaOutputs, Logits, ModelCache, ModelCacheOptions, TokenIds,
};

/// Every way to run: instruction sets, unfused or not, threads.
fn ways() -> Vec<DiffLlamaOptions> {
    let mut ways = Vec::new();
    for isa in Isa::available() {
        for deterministic in [false, true] {
            for threads in [1, 2] {
                ways.push(DiffLlamaOptions {
                    run: on(isa, threads).with_deterministic(deterministic),
                    ..DiffLlamaOptions::default()
                });
            }
        }
    }
    ways
}

/// Logits of `ids` in stretches of these lengths, the last one repeated, in one cache.
fn in_stretches(
    model: &DiffLlama,
    ids: &[u32],
    stretches: &[usize],
    cache: &mut ModelCache,
    options: &DiffLlamaOptions,
) -> Vec<f32> {
    let (mut logits, mut at, mut index) = (Vec::new(), 0, 0);
    while at < ids.len() {
        let stretch = stretches[index.min(stretches.len() - 1)].min(ids.len() - at);
        let part = &ids[at..at + stretch];
        let caches = std::slice::from_mut(cache);
        let ids = TokenIds::u32(part, &[1, stretch]);
        logits.extend(ok(model.forward(ids, Some(caches), options)).logits);
        (at, index) = (at + stretch, index + 1);
    }
    logits
}

#[test]
fn tokens_at_once_batch_and_threads() {
    for name in ALL {
        let checkpoint = Checkpoint::fixture(name);
        let model = checkpoint.model();
        let vocab = checkpoint.config.vocab_size;
        // Longer than a strip of keys and than a block of rows.
        let (batch, length) = (2, 300);
        let ids = random_ids(1, batch * length, vocab);
        let mut first: Vec<(bool, Vec<u32>)> = Vec::new();
        for options in ways() {
            let whole = bits(&forward(&model, &ids, &[batch, length], &options).logits);
            // Threads change nothing, nor does the instruction set of those that fuse alike.
            let unfused = options.run.is_deterministic() || options.run.isa().name() == "scalar";
            match first.iter().find(|(kind, _)| *kind == unfused) {
                Some((_, expected)) => assert_eq!(expected, &whole, "{name} {options:?}"),
                None => first.push((unfused, whole.clone())),
            }
            for (text, whole) in ids
                .chunks_exact(length)
                .zip(whole.chunks_exact(length * vocab))
            {
                for stretches in [&[length][..], &[1], &[7, 255, 1], &[270, 3, 1]] {
                    if stretches == [1] && options.run.threads() == 2 {
                        continue;
                    }
                    let mut cache = ok(model.cache(&ModelCacheOptions::default()));
                    let parts = in_stretches(&model, text, stretches, &mut cache, &options);
                    assert_eq!(bits(&parts), whole, "{name} {options:?} {stretches:?}");
                    assert_eq!(cache.ids(), text);
                }
            }
        }
    }
}

/// In steps of one unit, and with everything else asked for.
#[test]
fn slices_and_other_outputs() {
    let checkpoint = Checkpoint::fixture("diffllama_gqa");
    let model = checkpoint.model();
    let ids = random_ids(2, 2 * 290, checkpoint.config.vocab_size);
    let shape = [2, 290];
    let plain = forward(&model, &ids, &shape, &DiffLlamaOptions::default());
    let options = DiffLlamaOptions {
        hidden_states: true,
        map_layers: vec![2, 0, 2],
        ..DiffLlamaOptions::default()
    };
    let all = forward(&model, &ids, &shape, &options);
    assert_eq!(bits(&plain.logits), bits(&all.logits));

    let mut logits = vec![0.0; all.logits.len()];
    let mut hidden_states = vec![0.0; all.hidden_states.len()];
    let mut maps = all.maps.clone();
    for maps in &mut maps {
        maps.terms.iter_mut().for_each(|map| map.fill(7.0));
        maps.diff.fill(7.0);
    }
    let job = ok(model.forward_job(TokenIds::u32(&ids, &shape), None, &options));
    let mut job = ok(job.into_work(DiffLlamaOutputs {
        logits: &mut logits,
        hidden_states: &mut hidden_states,
        maps: maps
            .iter_mut()
            .map(|maps| MapOutputs {
                terms: maps.terms.iter_mut().map(Vec::as_mut_slice).collect(),
                diff: &mut maps.diff,
            })
            .collect(),
    }));
    let (mut done, mut steps) = (0, 0);
    while job.done() < job.total() {
        ok(job.step(1));
        assert_eq!(job.done(), done + 1);
        (done, steps) = (done + 1, steps + 1);
    }
    assert_eq!(steps, job.total());
    drop(job);
    assert_eq!(bits(&logits), bits(&all.logits));
    assert_eq!(bits(&hidden_states), bits(&all.hidden_states));
    assert_eq!(maps, all.maps);

    // The same maps alone, layer by layer; and the last one's logits alone.
    for (layer, maps) in [2, 0, 2].into_iter().zip(&all.maps) {
        let ids = TokenIds::u32(&ids, &shape);
        assert_eq!(
            &ok(model.maps(ids, layer, &DiffLlamaOptions::default())),
            maps
        );
    }
    let last = DiffLlamaOptions {
        logits: Logits::Last,
        ..DiffLlamaOptions::default()
    };
    let vocab = checkpoint.config.vocab_size;
    for hidden_states in [false, true] {
        let last = DiffLlamaOptions {
            hidden_states,
            ..last.clone()
        };
        let last = forward(&model, &ids, &shape, &last);
        assert_eq!(last.logits_shape, [2, 1, vocab]);
        for (got, text) in last
            .logits
            .chunks(vocab)
            .zip(plain.logits.chunks(290 * vocab))
        {
            assert_eq!(bits(got), bits(&text[289 * vocab..]));
        }
    }
}

/// The maps of a layer are those of its attention over the normalised hidden state before it.
#[test]
fn maps_are_those_of_the_layer() {
    let checkpoint = Checkpoint::fixture("diffllama_mha");
    let model = checkpoint.model();
    let ids = random_ids(3, 2 * 270, checkpoint.config.vocab_size);
    let shape = [2, 270];
    let options = DiffLlamaOptions {
        hidden_states: true,
        map_layers: vec![0, 1, 2],
        ..DiffLlamaOptions::default()
    };
    let output = forward(&model, &ids, &shape, &options);
    let hidden = checkpoint.config.hidden_size;
    for layer in 0..3 {
        let x = &output.hidden_states[layer * ids.len() * hidden..][..ids.len() * hidden];
        let name = format!("model.layers.{layer}.input_layernorm.weight");
        let weight = checkpoint.wide(&name).unwrap_or_else(|| panic!("{name}"));
        let weight: Vec<f32> = weight.data.iter().map(|&x| x as f32).collect();
        let norm = diffattn::RmsNormOptions {
            eps: checkpoint.config.rms_norm_eps as f32,
            weight: Some(&weight),
            ..diffattn::RmsNormOptions::default()
        };
        let x = ok(diffattn::rms_norm(
            diffattn::Tensor::f32(x, &[ids.len(), hidden]),
            &norm,
        ));
        let Some(attention) = model.attention(layer) else {
            panic!("no layer {layer}")
        };
        let x = diffattn::Tensor::f32(&x, &[2, 270, hidden]);
        let maps = ok(attention.maps(x, &diffattn_nn::ForwardOptions::default()));
        assert_eq!(maps, output.maps[layer]);
    }
}

/// Over caches, of several lengths, too, maps have the rows of the new tokens over all of a text;
/// what a window let go of is zeros, as it is without a cache.
#[test]
fn maps_over_caches_are_rows_of_whole_ones() {
    let checkpoint = Checkpoint::fixture("diffllama_mha");
    let model = checkpoint.model();
    let vocab = checkpoint.config.vocab_size;
    let layers = vec![2, 0];
    for window in [None, Some(40)] {
        let options = DiffLlamaOptions {
            map_layers: layers.clone(),
            ..DiffLlamaOptions::default()
        };
        let windowed = DiffLlamaOptions {
            window,
            ..options.clone()
        };
        let texts = [random_ids(5, 150, vocab), random_ids(6, 110, vocab)];
        let whole: Vec<_> = texts
            .iter()
            .map(|ids| forward(&model, ids, &[1, ids.len()], &windowed))
            .collect();
        let mut caches = texts.each_ref().map(|_| {
            ok(model.cache(&ModelCacheOptions {
                window,
                ..ModelCacheOptions::default()
            }))
        });
        let before = [120, 80];
        for ((ids, cache), before) in texts.iter().zip(&mut caches).zip(before) {
            let some = TokenIds::u32(&ids[..before], &[1, before]);
            let plain = DiffLlamaOptions::default();
            ok(model.forward(some, Some(std::slice::from_mut(cache)), &plain));
        }
        let rest = [&texts[0][120..], &texts[1][80..]].concat();
        let got = ok(model.forward(TokenIds::u32(&rest, &[2, 30]), Some(&mut caches), &options));
        for (place, layer) in layers.iter().enumerate() {
            let maps = &got.maps[place];
            let [_, heads, ..] = maps.shape;
            assert_eq!(maps.shape, [2, heads, 30, 150], "layer {layer}");
            for (text, before) in before.into_iter().enumerate() {
                let length = before + 30;
                let expected = &whole[text].maps[place];
                let pairs = maps.terms.iter().zip(&expected.terms);
                for (got, expected) in pairs.chain([(&maps.diff, &expected.diff)]) {
                    for (head, query) in (0..heads).flat_map(|h| (0..30).map(move |q| (h, q))) {
                        let row = &got[((text * heads + head) * 30 + query) * 150..][..150];
                        let whole = (head * length + before + query) * length;
                        let whole = &expected[whole..][..length];
                        assert_eq!(bits(&row[..length]), bits(whole), "{window:?} {layer}");
                        assert!(row[length..].iter().all(|&x| x == 0.0));
                    }
                }
            }
        }
    }
}

/// float16 and bfloat16 weights, and a source that reads one at a time, give what their values in
/// float32 give.
#[test]
fn element_types_of_weights() {
    use crate::common::Stored;
    use diffattn::Error;
    use diffattn_nn::{Weight, WeightData, WeightInfo, WeightSource};
    use half::{bf16, f16};
    use std::borrow::Cow;

    struct OneByOne<'c>(&'c Checkpoint);
    impl WeightSource<'static> for OneByOne<'_> {
        fn entries(&self) -> Result<Vec<WeightInfo>, Error> {
            let weights = self.0.weights();
            let entries = weights.iter();
            Ok(entries
                .map(|(name, tensor)| WeightInfo::of(name, tensor))
                .collect())
        }
        fn read(&mut self, name: &str) -> Result<Option<Weight<'static>>, Error> {
            Ok(self.0.tensors.get(name).map(|(shape, stored)| Weight {
                data: match stored {
                    Stored::F32(x) => WeightData::F32(Cow::Owned(x.clone())),
                    Stored::F16(x) => WeightData::F16(Cow::Owned(x.clone())),
                    Stored::Bf16(x) => WeightData::Bf16(Cow::Owned(x.clone())),
                    other => panic!("a weight of {other:?}"),
                },
                shape: shape.clone(),
            }))
        }
    }

    for name in ["diffllama_bias", "diffllama_mha"] {
        let mut checkpoint = Checkpoint::fixture(name);
        let ids = random_ids(4, 20, checkpoint.config.vocab_size);
        for is_bf16 in [false, true] {
            let mut halves = Checkpoint::fixture(name);
            for (name, (_, stored)) in &mut halves.tensors {
                let Stored::F32(values) = stored else {
                    panic!("{name} is not float32")
                };
                let (narrow, wide): (Vec<u16>, Vec<f32>) = values
                    .iter()
                    .map(|&x| {
                        if is_bf16 {
                            let x = bf16::from_f32(x);
                            (x.to_bits(), x.to_f32())
                        } else {
                            let x = f16::from_f32(x);
                            (x.to_bits(), x.to_f32())
                        }
                    })
                    .unzip();
                if let Some((_, stored)) = checkpoint.tensors.get_mut(name) {
                    *stored = Stored::F32(wide);
                }
                *stored = if is_bf16 {
                    Stored::Bf16(narrow)
                } else {
                    Stored::F16(narrow)
                };
            }
            let options = DiffLlamaOptions::default();
            let expected = forward(&checkpoint.model(), &ids, &[1, 20], &options);
            assert_eq!(expected, forward(&halves.model(), &ids, &[1, 20], &options));
            let model = ok(DiffLlama::load(&halves.config, &mut OneByOne(&halves)));
            assert_eq!(expected, forward(&model, &ids, &[1, 20], &options));
        }
    }
}

fn on(isa: Isa, threads: usize) -> Run {
    Run::new(Some(isa), Some(threads), false).unwrap_or_else(|error| panic!("{error}"))
}
