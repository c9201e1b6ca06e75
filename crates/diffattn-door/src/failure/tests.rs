//! Sentences and panics.

use super::*;

#[test]
fn names_are_those_of_the_javascript_side() {
    for (rust, javascript) in [
        (
            "key_lengths[1]: expected 0 to 8 beside cu_seqlens_q, got 9",
            "keyLengths[1]: expected 0 to 8 beside cuSeqlensQ, got 9",
        ),
        (
            "weights.q_proj.weight: expected [8, 8], got none",
            "weights.q_proj.weight: expected [8, 8], got none",
        ),
        (
            "weights.model.layers.0.self_attn.q_proj.weight.a: expected key_lengths, got none",
            "weights.model.layers.0.self_attn.q_proj.weight.a: expected keyLengths, got none",
        ),
        (
            "isa: expected one of scalar, got \"a_b\"",
            "isa: expected one of scalar, got \"a_b\"",
        ),
        (
            "memory: expected 8 more bytes, got a refusal",
            "memory: expected 8 more bytes, got a refusal",
        ),
        ("λ é_1: _ x_", "λ é_1: _ x_"),
    ] {
        assert_eq!(in_camel_case(rust), javascript);
    }
}

#[test]
fn a_sentence_has_an_end() {
    for name in ["n", "é", "🦀"] {
        let failure = Failure::from(Error::option(name.repeat(100_000), "less", "more"));
        let message = failure.message;
        assert!(
            message.len() <= LONGEST + 3 && message.ends_with('…'),
            "{message}"
        );
    }
    let short = Failure::from(Error::option("ratio", "2", "3"));
    assert_eq!(short.message, "ratio: expected 2, got 3");
}

#[test]
fn a_panic_becomes_an_internal_error() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let text = contain::<()>(|| panic!("{} wheels", 3));
    let literal = contain::<()>(|| panic!("no wheels"));
    let other = contain::<()>(|| std::panic::panic_any(3));
    std::panic::set_hook(hook);
    assert_eq!(text, Err(Error::internal("3 wheels")));
    assert_eq!(literal, Err(Error::internal("no wheels")));
    assert_eq!(other, Err(Error::internal("a panic without a message")));
    assert_eq!(contain(|| Ok(1)), Ok(1));
}
