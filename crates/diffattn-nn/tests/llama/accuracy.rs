//! Logits, hidden states and greedy continuations against those of the sources, in float64.

use crate::common::{Checkpoint, FIXTURES, MOTIFS, error, forward, ok};
use diffattn_nn::{DiffLlamaOptions, Generation, Generator, GeneratorOptions};

/// Of the largest error, in standard deviations: what the sources' own float32 parts leave certain.
const TOLERANCE: f64 = 2e-5;

fn greedy(checkpoint: &Checkpoint, prompt: &[u32], expected: &[u32]) {
    let model = checkpoint.model();
    let generation = Generation {
        prompt: prompt.to_vec(),
        max_new_tokens: expected.len() - prompt.len(),
        stop_ids: Some(Vec::new()),
        ..Generation::default()
    };
    let options = GeneratorOptions::default();
    let mut generator = ok(Generator::new(&model, vec![generation], &options));
    while !generator.is_finished() {
        ok(generator.step());
    }
    assert_eq!(generator.ids(0), Some(expected), "{}", checkpoint.name);
}

#[test]
fn fixtures() {
    let others = MOTIFS
        .into_iter()
        .chain(["diff_mlx"])
        .map(|name| (name, 16));
    let cases = FIXTURES.map(|name| (name, 24)).into_iter().chain(others);
    for (name, new_tokens) in cases {
        let checkpoint = Checkpoint::fixture(name);
        let model = checkpoint.model();
        let (shape, ids) = checkpoint.ids("input_ids");
        let options = DiffLlamaOptions {
            hidden_states: true,
            ..DiffLlamaOptions::default()
        };
        let output = forward(&model, &ids, &shape, &options);
        let (vocab, hidden) = (checkpoint.config.vocab_size, checkpoint.config.hidden_size);
        assert_eq!(output.logits_shape, [shape[0], shape[1], vocab]);
        assert!(error(checkpoint.expected("expected.logits"), &output.logits) < TOLERANCE);
        let states = checkpoint.config.num_hidden_layers + 1;
        assert_eq!(
            output.hidden_states_shape,
            [states, shape[0], shape[1], hidden]
        );
        for (index, got) in output
            .hidden_states
            .chunks_exact(ids.len() * hidden)
            .enumerate()
        {
            let expected = checkpoint.expected(&format!("expected.hidden_{index}"));
            let error = error(expected, got);
            assert!(error < TOLERANCE, "{name}, hidden state {index}: {error:e}");
        }
        let (_, continuation) = checkpoint.ids("expected.greedy");
        greedy(
            &checkpoint,
            &continuation[..continuation.len() - new_tokens],
            &continuation,
        );
    }
}

#[test]
fn the_trained_model() {
    let checkpoint = Checkpoint::trained();
    let model = checkpoint.model();
    for prompt in 0..4 {
        let (shape, ids) = checkpoint.ids(&format!("{prompt}.input_ids"));
        let output = forward(&model, &ids, &shape, &DiffLlamaOptions::default());
        let expected = checkpoint.expected(&format!("{prompt}.logits"));
        let error = error(expected, &output.logits);
        assert!(error < TOLERANCE, "prompt {prompt}: {error:e}");
        let (_, continuation) = checkpoint.ids(&format!("{prompt}.greedy"));
        greedy(&checkpoint, &ids, &continuation);
    }
}
