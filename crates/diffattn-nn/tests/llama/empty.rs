//! Texts without ids: work and memory in proportion to the ids, however many texts there are said
//! to be.

use crate::common::{Checkpoint, ok, refusal};
use diffattn_nn::{DiffLlamaOptions, Generation, Generator, GeneratorOptions, Logits, TokenIds};
use std::time::{Duration, Instant};

/// The fastest of three runs takes less than 100 ms: other programs run beside tests.
fn at_once(name: &str, mut run: impl FnMut()) {
    let best = (0..3).map(|_| {
        let start = Instant::now();
        run();
        start.elapsed()
    });
    let best = best.min().unwrap_or_default();
    assert!(best < Duration::from_millis(100), "{name}: {best:?}");
}

#[test]
fn texts_without_ids_cost_nothing() {
    let model = Checkpoint::fixture("diffllama_gqa").model();
    let options = DiffLlamaOptions {
        hidden_states: true,
        map_layers: vec![0],
        ..DiffLlamaOptions::default()
    };
    for shape in [[1 << 40, 0], [0, 1 << 40]] {
        at_once(&format!("{shape:?}"), || {
            let output = ok(model.forward(TokenIds::u32(&[], &shape), None, &options));
            assert_eq!(output.logits_shape, [shape[0], shape[1], 97]);
            assert!(output.logits.is_empty() && output.hidden_states.is_empty());
            let [map] = output.maps.as_slice() else {
                panic!("the maps of one layer")
            };
            assert_eq!([map.shape[0], map.shape[3]], shape);
        });
    }
    at_once("the last one's logits", || {
        let last = DiffLlamaOptions {
            logits: Logits::Last,
            ..DiffLlamaOptions::default()
        };
        let refused = refusal(model.forward(TokenIds::u32(&[], &[1 << 40, 0]), None, &last));
        assert_eq!(refused.0, "SHAPE");
    });
}

#[test]
fn generators_of_texts_without_ids_are_refused_before_a_cache_is_made() {
    let model = Checkpoint::fixture("diffllama_gqa").model();
    let texts = vec![Generation::default(); 1 << 18];
    let mut lists: Vec<_> = (0..3).map(|_| texts.clone()).collect();
    at_once("a generator", || {
        let texts = lists.pop().unwrap_or_default();
        let refused = refusal(Generator::new(&model, texts, &GeneratorOptions::default()));
        let sentence = "prompt: expected 1 id or more, got none".to_owned();
        assert_eq!(refused, ("OPTION", sentence));
    });
}
