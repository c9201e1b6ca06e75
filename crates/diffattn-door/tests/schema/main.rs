//! What is written from the declarations of requests: tables of the TypeScript package and of
//! `PROTOCOL.md`. They are committed; this fails where they are stale. To write them anew:
//!
//! ```text
//! DIFFATTN_WRITE_REQUESTS=1 cargo test -p diffattn-door --features training --test schema
//! ```

mod protocol;
mod typescript;

use std::path::Path;

use diffattn_door::{requests, schema::Request};

/// The numbers of models and checkpoints; below are operators and layers.
const MODELS: std::ops::Range<u32> = 64..128;
/// The numbers of gradients.
const GRADIENTS: std::ops::Range<u32> = 128..150;
/// The numbers of training; above are the requests of tests.
const TRAINING: std::ops::Range<u32> = 150..240;

fn of_operators() -> Vec<&'static Request> {
    sorted(|number| number < MODELS.start)
}

fn of_gradients() -> Vec<&'static Request> {
    sorted(|number| GRADIENTS.contains(&number))
}

fn of_training() -> Vec<&'static Request> {
    sorted(|number| TRAINING.contains(&number))
}

fn of_models() -> Vec<&'static Request> {
    sorted(|number| MODELS.contains(&number))
}

fn sorted(is_wanted: impl Fn(u32) -> bool) -> Vec<&'static Request> {
    let mut found: Vec<_> = requests()
        .iter()
        .copied()
        .filter(|request| is_wanted(request.number))
        .collect();
    found.sort_by_key(|request| request.number);
    found
}

/// Compares `file` with what `write` makes of its content, or writes it.
fn check(file: &str, write: impl FnOnce(&str) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(file);
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    let after = write(&before);
    if std::env::var_os("DIFFATTN_WRITE_REQUESTS").is_some() {
        std::fs::write(&path, after).unwrap_or_else(|why| panic!("{file}: {why}"));
        return;
    }
    let stale = before.lines().zip(after.lines()).find(|(a, b)| a != b);
    assert!(
        before == after,
        "{file} is not what the requests say (first: {stale:?}); write it anew: \
         DIFFATTN_WRITE_REQUESTS=1 cargo test -p diffattn-door --features training --test schema"
    );
}

#[test]
fn numbers_are_used_once() {
    let mut numbers: Vec<u32> = requests().iter().map(|request| request.number).collect();
    numbers.sort_unstable();
    assert!(numbers.windows(2).all(|two| two[0] < two[1]), "{numbers:?}");
}

#[test]
fn the_tables_of_typescript_are_those_of_the_requests() {
    check("packages/diffattn/src/requests.generated.ts", |_| {
        // In one file, as they have tables in common; who imports one carries no other.
        let requests = [of_operators(), of_gradients()].concat();
        typescript::tables("operators, layers and gradients", "./atoms.js", &requests)
    });
    check("packages/diffattn/src/models/requests.generated.ts", |_| {
        typescript::tables("models and checkpoints", "./atoms.js", &of_models())
    });
    check(
        "packages/diffattn/src/training/requests.generated.ts",
        |_| typescript::tables("training", "../models/atoms.js", &of_training()),
    );
    check("packages/diffattn/src/ops.generated.ts", |_| {
        let all = [of_operators(), of_models(), of_gradients(), of_training()];
        typescript::numbers(&all.concat())
    });
}

#[test]
fn the_tables_of_the_protocol_are_those_of_the_requests() {
    check("crates/diffattn-door/PROTOCOL.md", |document| {
        let document = protocol::replace(document, "operators", (&of_operators(), &[]));
        let document = protocol::replace(&document, "models", (&of_models(), &[]));
        let gradients = (&of_gradients()[..], &of_operators()[..]);
        let document = protocol::replace(&document, "gradients", gradients);
        protocol::replace(&document, "training", (&of_training(), &[]))
    });
}
