//! What a call runs on: a value that cannot be wrong.

use diffattn::{Isa, Run, available_threads};

#[test]
fn the_default_is_the_fastest_on_every_thread() {
    let run = Run::default();
    assert_eq!(run.isa(), Isa::detect());
    assert_eq!(run.threads(), available_threads());
    assert!(!run.is_deterministic());
    assert_eq!(Run::new(None, None, false), Ok(run));
}

#[test]
fn what_is_asked_for_is_what_it_runs_on() {
    for isa in Isa::available() {
        let run = Run::new(Some(isa), Some(3), true);
        let same = Run::default().with_isa(isa).with_deterministic(true);
        assert_eq!(run, same.with_threads(3));
        assert!(run.is_ok_and(|run| run.isa() == isa && run.threads() == 3));
    }
}

#[test]
fn there_is_no_call_without_threads() {
    for refused in [
        Run::new(None, Some(0), false),
        Run::default().with_threads(0),
    ] {
        assert_eq!(
            refused.map_err(|error| (error.code(), error.to_string())),
            Err(("OPTION", "threads: expected 1 or more, got 0".to_owned()))
        );
    }
}
