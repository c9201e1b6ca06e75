//! Atoms, well formed and not.

use super::*;

fn code<T>(result: Result<T, Error>) -> &'static str {
    result.map_or_else(|error| error.code(), |_| "ok")
}

fn sentence<T>(result: Result<T, Error>) -> String {
    result.map_or_else(|error| error.to_string(), |_| "ok".into())
}

#[test]
fn sizes_are_whole_and_not_negative() {
    for (x, says) in [
        (1.5, "num_groups: expected a whole number, got 1.5"),
        (-1.0, "num_groups: expected a whole number from 0, got -1"),
        (f64::NAN, "num_groups: expected a whole number, got NaN"),
        (
            f64::INFINITY,
            "num_groups: expected a whole number, got Infinity",
        ),
        (1e300, "num_groups: expected a whole number, got 1"),
    ] {
        let got = Reader::new(&[x]).size("num_groups");
        assert_eq!(code(got.clone()), "SHAPE");
        assert!(sentence(got).starts_with(says), "{x}");
    }
    assert_eq!(code(Reader::new(&[0.5]).count("ratio")), "OPTION");
    assert_eq!(
        Reader::new(&[MAX_WHOLE]).integer("query_offset"),
        Ok(1 << 53)
    );
    assert_eq!(Reader::new(&[-3.0]).integer("query_offset"), Ok(-3));
}

#[test]
fn a_malformed_request_is_a_bug_of_ours() {
    assert_eq!(code(Reader::new(&[]).number("x")), "INTERNAL");
    assert_eq!(code(Reader::new(&[2.0]).flag("x")), "INTERNAL");
    assert_eq!(code(Reader::new(&[f64::NAN]).flag("x")), "INTERNAL");
    assert_eq!(
        code(Reader::new(&[3.0, 1.0]).list("x", Reader::number)),
        "INTERNAL"
    );
    assert_eq!(
        code(Reader::new(&[-1.0]).list("x", Reader::number)),
        "INTERNAL"
    );
    assert_eq!(
        code(Reader::new(&[1e18]).list("x", Reader::number)),
        "INTERNAL"
    );
    assert_eq!(code(Reader::new(&[6.0, 0.0]).tensor("x")), "INTERNAL");
    assert_eq!(code(Reader::new(&[0.0]).tensor("x")), "INTERNAL");
    assert_eq!(code(Reader::new(&[-1.0]).object("x")), "INTERNAL");
    assert_eq!(code(Reader::new(&[1.0]).finish()), "INTERNAL");
}

#[test]
fn operands_must_fit_their_dims() {
    let words = [1.0f32, 2.0, 3.0];
    let bytes: &[u8] = bytemuck::cast_slice(&words);
    let mut reader = Reader::new(&[1.0, 1.0, 3.0]);
    let x = reader.tensor("x").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(reader.finish(), Ok(1));
    assert_eq!(x.f32(&[bytes]), Ok(&words[..]));
    assert_eq!(
        sentence(x.f32(&[&bytes[..8]])),
        "x: expected 3 elements for shape [3], got 2"
    );
    assert_eq!(code(x.f32(&[&bytes[..9]])), "SHAPE");
    assert_eq!(code(x.f32(&[])), "INTERNAL");
    assert_eq!(sentence(x.u8(&[bytes])), "x: expected uint8, got float32");
    // An odd address is what a buffer of other native code may have.
    let mut reader = Reader::new(&[1.0, 1.0, 2.0]);
    let x = reader.tensor("x").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(code(x.f32(&[&bytes[1..9]])), "DTYPE");
    assert_eq!(
        sentence(x.f32(&[&bytes[1..9]])),
        "x: expected float32 elements at an address that is a multiple of 4, got bytes at another"
    );
    // Nothing is read of an empty tensor.
    let mut reader = Reader::new(&[2.0, 2.0, 0.0, 7.0]);
    let x = reader.tensor("x").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        x.tensor(&[&[] as &[u8]]).map(|x| (x.data.len(), x.shape)),
        Ok((0, vec![0, 7]))
    );
}

#[test]
fn shapes_that_overflow_are_refused() {
    let mut reader = Reader::new(&[1.0, 3.0, 4e9, 4e9, 4e9]);
    let x = reader.tensor("x").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(code(x.tensor(&[&[] as &[u8]])), "SHAPE");
}
