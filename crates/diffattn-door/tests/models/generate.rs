//! Generation.

use crate::caches::{create, length};
use crate::common::{Folder, Request, ok, parts, refusal};
use diffattn::Error;
use diffattn_door::Door;

/// What a text is asked for besides its prompt.
#[derive(Default)]
struct Wanted {
    max_new_tokens: f64,
    stop_ids: Option<Vec<f64>>,
    /// temperature, top_k, top_p, repetition_penalty, seed.
    sampling: [Option<f64>; 5],
}

fn optional(request: Request, value: Option<f64>) -> Request {
    match value {
        None => request.n(&[0.0]),
        Some(value) => request.n(&[1.0, value]),
    }
}

/// A text as requests have it.
fn text(request: Request, prompt: &[i32], wanted: &Wanted) -> Request {
    let mut request = request.i32(&[prompt.len()], prompt);
    request = request.n(&[wanted.max_new_tokens]);
    request = match &wanted.stop_ids {
        None => request.n(&[0.0]),
        Some(ids) => request.n(&[1.0]).list(ids),
    };
    let [temperature, top_k, top_p, repetition_penalty, seed] = wanted.sampling;
    let (min_p, presence_penalty, frequency_penalty) = (None, None, None);
    for value in [
        temperature,
        top_k,
        top_p,
        min_p,
        repetition_penalty,
        presence_penalty,
        frequency_penalty,
    ] {
        request = optional(request, value);
    }
    let logprobs = None;
    // (No logit_bias.)
    request = request.n(&[0.0]);
    for value in [seed, logprobs] {
        request = optional(request, value);
    }
    request
}

fn generator(
    door: &Door,
    model: f64,
    texts: &[(&[i32], &Wanted)],
    window: Option<f64>,
    caches: &[f64],
) -> Result<f64, Error> {
    let mut request = Request::default().n(&[model, texts.len() as f64]);
    for (prompt, wanted) in texts {
        request = text(request, prompt, wanted);
    }
    request = optional(request, window).n(&[0.0]).list(caches);
    // (float32, no prefixBytes, no stepTokens.)
    request.n(&[0.0, 0.0, 0.0]).query(door, 101)
}

/// One of texts that come and go.
fn batch(door: &Door, model: f64, prefix_bytes: f64, step_tokens: Option<f64>) -> f64 {
    let request = Request::default().n(&[model, 0.0, 0.0, 0.0]).list(&[]);
    let request = request.n(&[0.0, 1.0, prefix_bytes]);
    ok(optional(request, step_tokens).query(door, 101))
}

fn add(door: &Door, generator: f64, prompt: &[i32], wanted: &Wanted) -> Result<i32, Error> {
    let request = text(Request::default().n(&[generator]), prompt, wanted);
    let outputs = request.run(door, 87)?;
    assert_eq!(outputs[0].spec.shape, [1]);
    Ok(outputs[0].i32()[0])
}

/// Text, id, finish, and how much of the prompt was not computed.
fn step_whole(door: &Door, generator: f64) -> Result<Vec<[i32; 4]>, Error> {
    let outputs = Request::default().n(&[generator]).run(door, 81)?;
    let rows = outputs[0].i32().as_chunks().0.to_vec();
    assert_eq!(outputs[0].spec.shape, [rows.len(), 4]);
    Ok(rows)
}

fn step(door: &Door, generator: f64) -> Result<Vec<[i32; 3]>, Error> {
    let rows = step_whole(door, generator)?;
    let told = rows
        .into_iter()
        .map(|[text, id, finish, _]| [text, id, finish]);
    Ok(told.collect())
}

/// The ids of each text, to the end.
fn run(door: &Door, generator: f64, texts: usize) -> Vec<Vec<i32>> {
    let mut ids = vec![Vec::new(); texts];
    let mut ended = vec![0; texts];
    loop {
        let rows = ok(step(door, generator));
        if rows.is_empty() {
            break;
        }
        for [text, id, finish] in rows {
            assert_eq!(ended[text as usize], 0, "a text goes on after its end");
            ids[text as usize].push(id);
            ended[text as usize] = finish;
        }
    }
    assert!(ended.iter().all(|finish| [1, 2].contains(finish)));
    ids
}

fn dispose(door: &Door, object: f64) {
    ok(Request::default().n(&[object]).query(door, 46));
}

/// `expected.greedy` is a prompt and what Hugging Face continues it with.
#[test]
fn greedy_texts_are_those_of_the_reference() {
    let door = Door::new();
    for name in [
        "diffllama_bias",
        "diffllama_gqa",
        "diffllama_llama3_rope",
        "diffllama_mha",
    ] {
        let folder = Folder::fixture(name);
        let model = folder.load(&door);
        let (_, whole) = folder.ids("expected.greedy");
        let (shape, ids) = folder.ids("input_ids");
        let prompt = &ids[..shape[1]];
        assert!(whole.starts_with(prompt));
        let wanted = Wanted {
            max_new_tokens: (whole.len() - prompt.len()) as f64,
            stop_ids: Some(Vec::new()),
            ..Wanted::default()
        };
        let id = ok(generator(&door, model, &[(prompt, &wanted)], None, &[]));
        assert_eq!(run(&door, id, 1)[0], whole[prompt.len()..], "{name}");
    }
}

/// Four texts of the trained model, side by side and each of its own length.
#[test]
fn a_batch_of_the_trained_model() {
    let folder = Folder::trained();
    let door = Door::new();
    let model = folder.load(&door);
    let texts: Vec<(Vec<i32>, Vec<i32>)> = (0..4)
        .map(|text| {
            let prompt = folder.ids(&format!("{text}.input_ids")).1;
            (prompt, folder.ids(&format!("{text}.greedy")).1)
        })
        .collect();
    let wanted: Vec<Wanted> = texts
        .iter()
        .map(|(prompt, whole)| Wanted {
            max_new_tokens: (whole.len() - prompt.len()) as f64,
            stop_ids: Some(Vec::new()),
            ..Wanted::default()
        })
        .collect();
    let asked: Vec<(&[i32], &Wanted)> = texts
        .iter()
        .zip(&wanted)
        .map(|((prompt, _), wanted)| (prompt.as_slice(), wanted))
        .collect();
    let id = ok(generator(&door, model, &asked, None, &[]));
    for (got, (prompt, whole)) in run(&door, id, 4).iter().zip(&texts) {
        assert_eq!(got, &whole[prompt.len()..]);
    }
    // The config's own end of a text, where no other is asked for.
    let ended = texts.iter().find_map(|(prompt, whole)| {
        let continued = &whole[prompt.len()..];
        let end = continued.iter().position(|&id| id == 0)?;
        Some((prompt, &continued[..=end]))
    });
    let (prompt, expected) = ended.unwrap_or_else(|| panic!("a text that ends"));
    let wanted = Wanted {
        max_new_tokens: 1e6,
        ..Wanted::default()
    };
    let id = ok(generator(&door, model, &[(prompt, &wanted)], None, &[]));
    assert_eq!(run(&door, id, 1)[0], expected);
}

#[test]
fn lent_caches_return_with_their_texts() {
    let folder = Folder::fixture("diffllama_gqa");
    let door = Door::new();
    let model = folder.load(&door);
    let caches = [create(&door, model, None), create(&door, model, None)];
    let wanted = Wanted {
        max_new_tokens: 6.0,
        stop_ids: Some(Vec::new()),
        ..Wanted::default()
    };
    let texts: [(&[i32], &Wanted); 2] = [(&[1, 5, 9], &wanted), (&[1, 7], &wanted)];
    let alone = ok(generator(&door, model, &texts, None, &[]));
    let expected = run(&door, alone, 2);
    let id = ok(generator(&door, model, &texts, None, &caches));
    // Lent: nobody else may have them.
    for cache in caches {
        assert_eq!(
            refusal(Request::default().n(&[cache]).query(&door, 100)),
            (
                "OPTION",
                "cache: expected a cache that no open call uses, got one in use".into()
            )
        );
    }
    assert_eq!(
        refusal(generator(&door, model, &texts, None, &caches)).0,
        "OPTION"
    );
    // A model may go while its generator lives; so may the caches' names.
    dispose(&door, model);
    dispose(&door, caches[1]);
    assert_eq!(run(&door, id, 2), expected);
    dispose(&door, id);
    assert_eq!(refusal(step(&door, id)).0, "DISPOSED");
    assert_eq!(length(&door, caches[0]), 3.0 + 5.0, "all but the last id");
    assert_eq!(
        refusal(Request::default().n(&[caches[1]]).query(&door, 100)).0,
        "DISPOSED"
    );
    // What a cache holds is gone on with.
    let model = folder.load(&door);
    let longer: Vec<i32> = [&[1, 5, 9], expected[0].as_slice(), &[4]].concat();
    let texts: [(&[i32], &Wanted); 1] = [(&longer, &wanted)];
    let fresh = ok(generator(&door, model, &texts, None, &[]));
    let on = ok(generator(&door, model, &texts, None, &caches[..1]));
    assert_eq!(run(&door, on, 1), run(&door, fresh, 1));
}

/// A request that is refused leaves the caches where they were, and as they were.
#[test]
fn refused_generators_take_no_caches() {
    let folder = Folder::fixture("diffllama_gqa");
    let door = Door::new();
    let model = folder.load(&door);
    let caches = [create(&door, model, None), create(&door, model, None)];
    let wanted = Wanted {
        max_new_tokens: 3.0,
        ..Wanted::default()
    };
    for cache in caches {
        let id = ok(generator(
            &door,
            model,
            &[(&[1, 2, 3], &wanted)],
            None,
            &[cache],
        ));
        ok(step(&door, id));
        dispose(&door, id);
    }
    let refused = |texts: &[(&[i32], &Wanted)], window, caches: &[f64]| {
        refusal(generator(&door, model, texts, window, caches))
    };
    let good: (&[i32], &Wanted) = (&[1], &wanted);
    let sampling = |at: usize, value: f64| {
        let mut wanted = Wanted {
            max_new_tokens: 1.0,
            ..Wanted::default()
        };
        wanted.sampling[at] = Some(value);
        wanted
    };
    assert_eq!(refused(&[good], None, &caches).0, "SHAPE");
    assert_eq!(refused(&[good, good], Some(4.0), &caches).0, "OPTION");
    assert_eq!(
        refused(&[good, (&[], &wanted)], None, &caches),
        ("OPTION", "prompt: expected 1 id or more, got none".into())
    );
    assert_eq!(
        refused(&[good, (&[97], &wanted)], None, &caches).0,
        "OPTION"
    );
    assert_eq!(
        refused(&[good, (&[-1], &wanted)], None, &caches).0,
        "OPTION"
    );
    for (at, value, starts) in [
        (0, -1.0, "temperature: "),
        (1, 0.0, "topK: "),
        (2, 1.5, "topP: "),
        (3, 0.0, "repetitionPenalty: "),
        (4, -1.0, "seed: "),
        (4, 0.5, "seed: "),
    ] {
        let wanted = sampling(at, value);
        let (code, sentence) = refused(&[good, (&[1], &wanted)], None, &caches);
        assert_eq!(code, "OPTION");
        assert!(sentence.starts_with(starts), "{sentence}");
    }
    let stops = Wanted {
        stop_ids: Some(vec![1.5]),
        ..Wanted::default()
    };
    assert_eq!(refused(&[(&[1], &stops)], None, &[]).0, "OPTION");
    // The first of two that do not both go.
    let gone = create(&door, model, None);
    dispose(&door, gone);
    assert_eq!(
        refused(&[good, good], None, &[caches[0], gone]).0,
        "DISPOSED"
    );
    for cache in caches {
        assert_eq!(length(&door, cache), 3.0);
    }
}

#[test]
fn a_cancelled_step_changes_nothing_and_a_seed_gives_one_text() {
    let folder = Folder::fixture("diffllama_mha");
    let door = Door::new();
    let model = folder.load(&door);
    let wanted = Wanted {
        max_new_tokens: 8.0,
        stop_ids: Some(Vec::new()),
        sampling: [
            Some(0.9),
            Some(20.0),
            Some(0.95),
            Some(1.1),
            Some(9_007_199_254_740_991.0),
        ],
    };
    let texts: [(&[i32], &Wanted); 1] = [(&[1, 2, 3, 4], &wanted)];
    let expected = ok(generator(&door, model, &texts, None, &[]));
    let expected = run(&door, expected, 1);
    let id = ok(generator(&door, model, &texts, None, &[]));
    let request = Request::default().n(&[id]);
    let mut got = Vec::new();
    for steps in [3, 1, 7, 0, 2, 5, 4, 6] {
        assert_eq!(ok(request.run_for(&door, 81, steps)), None);
        let [[0, token, finish]] = ok(step(&door, id))[..] else {
            panic!("one text")
        };
        got.push(token);
        assert_eq!(finish == 2, got.len() == 8);
    }
    assert_eq!(got, expected[0]);
    assert_eq!(ok(step(&door, id)), [[0; 3]; 0]);
    // One that stops at an id of its own.
    let stops = Wanted {
        stop_ids: Some(vec![f64::from(got[2])]),
        ..wanted
    };
    let texts: [(&[i32], &Wanted); 1] = [(&[1, 2, 3, 4], &stops)];
    let id = ok(generator(&door, model, &texts, None, &[]));
    let ended: Vec<i32> = (0..3).map(|_| ok(step(&door, id))[0][2]).collect();
    assert_eq!(ended, [0, 0, 1]);
}

/// Logits that are no numbers: an error of the step, and the end of the text.
#[test]
fn a_text_without_numbers_ends() {
    let folder = Folder::fixture("diffllama_gqa");
    let door = Door::new();
    let model = ok(folder.create(&door, &folder.entries(&door)));
    for (part, names) in parts(&door, model).iter().enumerate() {
        let request = if names[0] == "model.norm.weight" {
            let weights = [f32::NAN; 64];
            let request = Request::default().n(&[model, part as f64, 1.0]);
            let bytes = bytemuck::cast_slice(&weights);
            request.stored("model.norm.weight", "F32", &[64], bytes)
        } else {
            folder.part(model, part, names)
        };
        ok(request.run(&door, 73));
    }
    let wanted = Wanted {
        max_new_tokens: 3.0,
        ..Wanted::default()
    };
    let cache = create(&door, model, None);
    let id = ok(generator(
        &door,
        model,
        &[(&[1, 2], &wanted)],
        None,
        &[cache],
    ));
    let (code, sentence) = refusal(step(&door, id));
    assert_eq!(code, "OPTION");
    assert!(sentence.starts_with("logits: "), "{sentence}");
    assert_eq!(ok(step(&door, id)), [[0; 3]; 0]);
    dispose(&door, id);
    assert_eq!(length(&door, cache), 2.0);
}

/// Each request adds or removes once, though its job is prepared twice.
#[test]
fn texts_join_and_leave() {
    let folder = Folder::fixture("diffllama_gqa");
    let door = Door::new();
    let model = folder.load(&door);
    let wanted = Wanted {
        max_new_tokens: 5.0,
        stop_ids: Some(Vec::new()),
        ..Wanted::default()
    };
    let prompt: Vec<i32> = (1..41).collect();
    let alone = ok(generator(&door, model, &[(&prompt, &wanted)], None, &[]));
    let expected = run(&door, alone, 1).swap_remove(0);

    let id = batch(&door, model, 1e6, Some(64.0));
    assert_eq!(ok(step_whole(&door, id)), [[0; 4]; 0]);
    let first = ok(add(&door, id, &prompt, &wanted));
    assert_eq!(ok(step_whole(&door, id)), [[first, expected[0], 0, 0]]);
    // The second begins with what the first has.
    let second = ok(add(&door, id, &prompt, &wanted));
    let rows = ok(step_whole(&door, id));
    assert_eq!(
        rows,
        [[first, expected[1], 0, 0], [second, expected[0], 0, 39]]
    );
    let remove = |text: i32, kept: f64| {
        let request = Request::default().n(&[id, f64::from(text), kept]);
        request.run(&door, 94).map(|outputs| outputs.len())
    };
    assert_eq!(ok(remove(first, 2.0)), 0);
    let (code, sentence) = refusal(remove(first, 2.0));
    assert_eq!(code, "OPTION");
    assert!(sentence.starts_with("text: "), "{sentence}");
    assert_eq!(ok(step_whole(&door, id)), [[second, expected[1], 0, 39]]);
    assert_eq!(ok(remove(second, 2.0)), 0);
    // What is gone is begun with, too.
    let third = ok(add(&door, id, &prompt, &wanted));
    assert!(![first, second].contains(&third));
    let mut told = Vec::new();
    while told.len() < expected.len() {
        let [[text, token, finish, reused]] = ok(step_whole(&door, id))[..] else {
            panic!("one text")
        };
        told.push(token);
        let is_last = told.len() == expected.len();
        assert_eq!([text, finish, reused], [third, 2 * i32::from(is_last), 39]);
    }
    assert_eq!(told, expected);
    // What is refused joins nothing.
    assert_eq!(refusal(add(&door, id, &[], &wanted)).0, "OPTION");
    assert_eq!(refusal(add(&door, id, &[97], &wanted)).0, "OPTION");
    let endless = Wanted {
        max_new_tokens: 1e12,
        ..Wanted::default()
    };
    assert_eq!(refusal(add(&door, id, &prompt, &endless)).0, "SHAPE");
    assert_eq!(ok(step_whole(&door, id)), [[0; 4]; 0]);
}
