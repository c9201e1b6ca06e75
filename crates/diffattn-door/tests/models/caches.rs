//! Caches of a model, and the calls that change them.

use crate::common::{Folder, Output, Request, bits, ok, refusal};
use crate::llama::{PLAIN, forward};
use diffattn_door::Door;

pub(crate) fn create(door: &Door, model: f64, window: Option<f64>) -> f64 {
    create_of(door, model, window, 0.0)
}

/// `dtype`: the number of float32, float16, bfloat16, int8.
fn create_of(door: &Door, model: f64, window: Option<f64>, dtype: f64) -> f64 {
    let request = Request::default().n(&[model, 1.0, 4.0]);
    let request = match window {
        None => request.n(&[0.0]),
        Some(window) => request.n(&[1.0, window]),
    };
    ok(request.n(&[dtype]).query(door, 97))
}

pub(crate) fn length(door: &Door, cache: f64) -> f64 {
    ok(Request::default().n(&[cache]).query(door, 100))
}

fn rewind(door: &Door, cache: f64, length: f64) -> Result<f64, diffattn::Error> {
    Request::default().n(&[cache, length]).query(door, 99)
}

fn cached(model: f64, ids: &[i32], shape: &[usize], caches: &[f64]) -> Request {
    Request::default()
        .n(&[model])
        .i32(shape, ids)
        .list(caches)
        .n(&PLAIN)
}

#[test]
fn a_text_in_pieces_gives_the_bits_of_the_whole() {
    in_pieces("diffllama_gqa");
    in_pieces("llama");
    in_pieces("diffattn_llama/share_half_moved");
    in_pieces("diffattn_llama/v1_mirror_half");
}

fn in_pieces(name: &str) {
    let folder = Folder::fixture(name);
    let door = Door::new();
    let model = folder.load(&door);
    let (shape, ids) = folder.ids("input_ids");
    let &[2, len] = shape.as_slice() else {
        panic!("{shape:?}")
    };
    let whole = ok(forward(model, &ids, &shape, &PLAIN).run(&door, 80));
    let (first, second) = ids.split_at(len);
    let caches = [create(&door, model, None), create(&door, model, None)];
    // A batch over both, in pieces.
    let mut rows: [Vec<f32>; 2] = [Vec::new(), Vec::new()];
    let vocab = whole[0].f32().len() / (2 * len);
    for tokens in [0..1, 1..8, 8..9, 9..len] {
        let of = |ids: &[i32]| ids[tokens.clone()].to_vec();
        let piece = [of(first), of(second)].concat();
        let shape = [2, tokens.len()];
        let got = ok(cached(model, &piece, &shape, &caches).run(&door, 80));
        for (rows, got) in rows
            .iter_mut()
            .zip(got[0].f32().chunks_exact(tokens.len() * vocab))
        {
            rows.extend(got);
        }
    }
    assert_eq!(bits(&rows.concat()), bits(whole[0].f32()));
    for cache in caches {
        assert_eq!(length(&door, cache), len as f64);
        assert_eq!(ok(rewind(&door, cache, 5.0)), 5.0);
    }
    // Texts of different lengths, the other way round, after the rewind.
    let piece = [&second[5..7], &first[5..7]].concat();
    let got = ok(cached(model, &piece, &[2, 2], &[caches[1], caches[0]]).run(&door, 80));
    let of = |text: usize| &whole[0].f32()[(text * len + 5) * vocab..(text * len + 7) * vocab];
    assert_eq!(bits(got[0].f32()), bits(&[of(1), of(0)].concat()));
}

#[test]
fn what_is_exported_comes_back() {
    let folder = Folder::fixture("diffllama_bias");
    let door = Door::new();
    let model = folder.load(&door);
    let ids: Vec<i32> = (0..600).map(|at| (at * 31 + 7) % 90).collect();
    for window in [None, Some(20.0)] {
        let cache = create(&door, model, window);
        ok(cached(model, &ids, &[1, 600], &[cache]).run(&door, 80));
        let out = ok(Request::default().n(&[cache]).run(&door, 82));
        assert_eq!(out[0].i32(), ids);
        let state = out[1].json();
        assert_eq!(state["window"].as_f64(), window);
        let discarded = state["discarded"].as_f64().unwrap_or(-1.0);
        assert_eq!(discarded, if window.is_some() { 512.0 } else { 0.0 });
        let layers = &out[2..];
        assert_eq!(layers[0].spec.shape[1], 600 - discarded as usize);
        let import = |ids: &[i32], discarded: f64, layers: &[Output]| {
            let mut request = Request::default().n(&[model]).i32(&[ids.len()], ids);
            request = request.n(&[discarded]);
            request = match window {
                None => request.n(&[0.0]),
                Some(window) => request.n(&[1.0, window]),
            };
            for first in 0..2 {
                let of_kind = layers.iter().skip(first).step_by(2);
                request = request.n(&[layers.len().div_ceil(2) as f64]);
                for tensor in of_kind {
                    request = request.f32(&tensor.spec.shape, tensor.f32());
                }
            }
            request.n(&[0.0]).query(&door, 98)
        };
        let again = ok(import(&ids, discarded, layers));
        assert_eq!(length(&door, again), 600.0);
        let next = |cache| ok(cached(model, &[3, 4], &[1, 2], &[cache]).run(&door, 80));
        assert_eq!(bits(next(cache)[0].f32()), bits(next(again)[0].f32()));
        // What does not fit is refused.
        assert_eq!(refusal(import(&ids[1..], discarded, layers)).0, "SHAPE");
        assert_eq!(refusal(import(&ids, discarded + 1.0, layers)).0, "SHAPE");
        assert_eq!(refusal(import(&ids, discarded, &layers[2..])).0, "SHAPE");
        let mut wrong = ids.clone();
        wrong[3] = -1;
        assert_eq!(
            refusal(import(&wrong, discarded, layers)),
            ("OPTION", "state.ids: expected ids from 0, got -1".into())
        );
        if window.is_some() {
            let (code, sentence) = refusal(rewind(&door, cache, 300.0));
            assert_eq!(code, "SHAPE");
            assert!(sentence.contains("were discarded"), "{sentence}");
        }
        assert_eq!(ok(rewind(&door, cache, 0.0)), 0.0);
    }
}

/// What a cache of any type holds goes out by layers, in its own type, and comes back to the bit.
#[test]
fn layers_of_every_type_come_back() {
    let folder = Folder::fixture("diffllama_gqa");
    let door = Door::new();
    let model = folder.load(&door);
    let ids: Vec<i32> = (0..40).map(|at| (at * 31 + 7) % 90).collect();
    for dtype in 0..4 {
        let cache = create_of(&door, model, None, f64::from(dtype));
        ok(cached(model, &ids, &[1, 40], &[cache]).run(&door, 80));
        let export = |cache| ok(Request::default().n(&[cache]).run(&door, 82));
        let out = export(cache);
        let state = out[1].json();
        let layers = state["layers"].as_array().map_or(0, Vec::len);
        let names: &[&str] = match dtype {
            3 => &["keys", "key_scales", "values", "value_scales"],
            _ => &["keys", "values"],
        };
        let parts = &out[2..];
        assert_eq!(parts.len(), layers * names.len());
        assert_eq!(state["layers"][0]["kind"], "kv");
        assert_eq!(state["layers"][0]["parts"], serde_json::json!(names));
        let width = parts[0].spec.bytes / parts[0].spec.shape.iter().product::<usize>();
        assert_eq!(width, [4, 2, 2, 1][dtype as usize]);
        // `scales`: whether those of the keys are there.
        let import = |parts: &[Output], scales: bool| {
            let mut request = Request::default().n(&[model]).i32(&[40], &ids);
            request = request.n(&[0.0, 0.0, 0.0, 0.0, 1.0, (parts.len() / names.len()) as f64]);
            for layer in parts.chunks(names.len()) {
                request = request.n(&[0.0]);
                let mut at = 0;
                for name in ["keys", "key_scales", "values", "value_scales"] {
                    let part = layer.get(at).filter(|_| names.contains(&name));
                    at += usize::from(part.is_some());
                    request = match part.filter(|_| scales || name != "key_scales") {
                        None => request.n(&[0.0]),
                        Some(part) => {
                            let kind = part.spec.kind.number();
                            request.raw(kind, &part.spec.shape, part.bytes())
                        }
                    };
                }
                // Neither window nor scan.
                request = request.n(&[0.0, 0.0]);
            }
            request.query(&door, 98)
        };
        let again = ok(import(parts, true));
        let bytes = |out: &[Output]| {
            out.iter()
                .map(|out| out.bytes().to_vec())
                .collect::<Vec<_>>()
        };
        assert_eq!(bytes(&export(again)), bytes(&out));
        let next = |cache| ok(cached(model, &[3, 4], &[1, 2], &[cache]).run(&door, 80));
        assert_eq!(bits(next(cache)[0].f32()), bits(next(again)[0].f32()));
        if dtype == 3 {
            assert_eq!(
                refusal(import(parts, false)),
                (
                    "DTYPE",
                    "state.layers.keys: expected scales beside int8, got none".into()
                )
            );
        }
        assert_eq!(refusal(import(&parts[names.len()..], true)).0, "SHAPE");
    }
}

/// However far a job came, its caches are as they were when it is dropped before its end.
#[test]
fn cancelled_jobs_leave_caches_as_they_were() {
    let folder = Folder::fixture("diffllama_gqa");
    let door = Door::new();
    let model = folder.load(&door);
    let (_, ids) = folder.ids("input_ids");
    let cache = create(&door, model, None);
    ok(cached(model, &ids[..5], &[1, 5], &[cache]).run(&door, 80));
    let request = cached(model, &ids[5..19], &[1, 14], &[cache]);
    let mut steps = 0;
    let expected = loop {
        match ok(request.run_for(&door, 80, steps)) {
            None => assert_eq!(length(&door, cache), 5.0, "after {steps} steps"),
            Some(outputs) => break outputs,
        }
        steps += 1;
    };
    assert!(steps > 10);
    assert_eq!(length(&door, cache), 19.0);
    let whole = ok(forward(model, &ids[..19], &[1, 19], &PLAIN).run(&door, 80));
    let tail = &whole[0].f32()[whole[0].f32().len() - expected[0].f32().len()..];
    assert_eq!(bits(expected[0].f32()), bits(tail));
}

#[test]
fn caches_in_use_twice_or_gone_are_refused() {
    let folder = Folder::fixture("diffllama_gqa");
    let door = Door::new();
    let model = folder.load(&door);
    let cache = create(&door, model, None);
    let request = cached(model, &[1, 2], &[1, 2], &[cache]);
    let in_use = (
        "OPTION",
        "cache: expected a cache that no open call uses, got one in use".to_owned(),
    );
    {
        // A job holds it; no call took a turn, as in a door that does one thing at a time.
        let call = ok(request.call(&door, 80));
        let operands = request.operands();
        let job = ok(call.prepare(&operands));
        assert_eq!(refusal(rewind(&door, cache, 0.0)), in_use);
        assert_eq!(
            refusal(Request::default().n(&[cache]).query(&door, 100)),
            in_use
        );
        assert_eq!(
            refusal(Request::default().n(&[cache]).run(&door, 82)),
            in_use
        );
        assert_eq!(refusal(request.run(&door, 80)), in_use);
        drop(job);
    }
    assert_eq!(length(&door, cache), 0.0);
    {
        // An export reads it: others may read, none may change it.
        let export = Request::default().n(&[cache]);
        let call = ok(export.call(&door, 82));
        let job = ok(call.prepare(&[]));
        assert_eq!(length(&door, cache), 0.0);
        assert_eq!(refusal(request.run(&door, 80)), in_use);
        drop(job);
    }
    let twice = cached(model, &[1, 2], &[2, 1], &[cache, cache]);
    assert_eq!(
        refusal(twice.run(&door, 80)),
        (
            "OPTION",
            "caches: expected a cache for each text, got one of them twice".into()
        )
    );
    assert_eq!(
        refusal(cached(model, &[1, 2], &[2, 1], &[cache]).run(&door, 80)).0,
        "SHAPE"
    );
    assert_eq!(
        refusal(cached(model, &[1], &[1, 1], &[model]).run(&door, 80)),
        (
            "DTYPE",
            "cache: expected a cache of a model, got a model".into()
        )
    );
    let foreign = Folder::fixture("diffllama_mha").load(&door);
    let foreign = create(&door, foreign, None);
    assert_eq!(
        refusal(cached(model, &[1], &[1, 1], &[foreign]).run(&door, 80)).0,
        "SHAPE"
    );
    assert_eq!(
        refusal(rewind(&door, cache, 1.0)),
        (
            "SHAPE",
            "length: expected at most 0, the tokens held, got 1".into()
        )
    );
    let windowless = Request::default().n(&[model, 0.0, 1.0, 0.0, 0.0]);
    assert_eq!(refusal(windowless.query(&door, 97)).0, "OPTION");
    ok(Request::default().n(&[cache]).query(&door, 46));
    assert_eq!(
        refusal(request.run(&door, 80)),
        (
            "DISPOSED",
            "cache: expected a live object, got one that was disposed of".into()
        )
    );
    assert_eq!(refusal(rewind(&door, cache, 0.0)).0, "DISPOSED");
}

/// Calls that share one of several caches run in order; a query waits for them.
#[test]
fn calls_take_turns_with_all_of_their_caches() {
    let folder = Folder::fixture("diffllama_gqa");
    let door = Door::new();
    let model = folder.load(&door);
    let [a, b, c] = [(); 3].map(|()| create(&door, model, None));
    let both = cached(model, &[1, 2], &[2, 1], &[a, b]);
    let one = cached(model, &[3], &[1, 1], &[b]);
    let other = cached(model, &[3], &[1, 1], &[c]);
    let (first, second, third) = (
        ok(both.call(&door, 80)),
        ok(one.call(&door, 80)),
        ok(other.call(&door, 80)),
    );
    assert!(first.is_due() && second.is_due());
    let turn = first.take_turn();
    assert!(!second.is_due() && third.is_due());
    let next = second.take_turn();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| rewind(&door, b, 1.0));
        let outputs = ok(both.run(&door, 80));
        assert_eq!(outputs.len(), 1);
        drop(turn);
        ok(one.run(&door, 80));
        assert!(!waits.is_finished(), "the second call is still open");
        drop(next);
        assert_eq!(waits.join().map(ok).unwrap_or(-1.0), 1.0);
    });
    assert_eq!([a, b].map(|cache| length(&door, cache)), [1.0, 1.0]);
}
