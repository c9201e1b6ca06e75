//! Atoms, well formed and not.

use super::*;

fn code<T>(result: Result<T, Error>) -> &'static str {
    result.map_or_else(|error| error.code(), |_| "ok")
}

/// What `read` makes of the whole of `params`.
fn read<T>(params: &[f64], read: impl FnOnce(&mut Reader<'_>) -> T) -> Result<T, Error> {
    let mut reader = Reader::new(params);
    let value = read(&mut reader);
    reader.finish().map(|_| value)
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
        let got = read(&[x], |r| r.size("num_groups"));
        assert_eq!(code(got.clone()), "SHAPE");
        assert!(sentence(got).starts_with(says), "{x}");
    }
    assert_eq!(code(read(&[0.5], |r| r.count("ratio"))), "OPTION");
    assert_eq!(
        read(&[MAX_WHOLE], |r| r.integer("query_offset")),
        Ok(1 << 53)
    );
    assert_eq!(read(&[-3.0], |r| r.integer("query_offset")), Ok(-3));
}

#[test]
fn a_malformed_request_is_a_bug_of_ours() {
    assert_eq!(code(read(&[], |r| r.number("x"))), "INTERNAL");
    assert_eq!(code(read(&[2.0], |r| r.flag("x"))), "INTERNAL");
    assert_eq!(code(read(&[0.5], |r| r.flag("x"))), "INTERNAL");
    assert_eq!(code(read(&[-1.0], |r| r.flag("x"))), "INTERNAL");
    assert_eq!(code(read(&[f64::NAN], |r| r.flag("x"))), "INTERNAL");
    for count in [3.0, -1.0, 0.5, 1e18, f64::NAN] {
        let list = read(&[count, 1.0], |r| r.list("x", Reader::number));
        assert_eq!(code(list), "INTERNAL", "{count}");
    }
    assert_eq!(code(read(&[6.0, 0.0], |r| r.tensor("x"))), "INTERNAL");
    assert_eq!(code(read(&[0.0], |r| r.tensor("x"))), "INTERNAL");
    assert_eq!(code(read(&[-1.0], |r| r.object("x"))), "INTERNAL");
    assert_eq!(code(read(&[1.0], |_| ())), "INTERNAL");
}

#[test]
fn the_first_error_ends_a_request() {
    let mut reader = Reader::new(&[1.0, 2.0, -1.0, 0.5, 7.0]);
    assert_eq!(reader.list("heads", |r, head| r.size(head)), [2]);
    assert_eq!(reader.size("ratio"), 0);
    // Nothing is left to read, so neither these nor the last number are wrong in turn.
    assert_eq!(reader.count("window"), 0);
    assert!(!reader.flag("causal"));
    assert!(reader.list("lengths", Reader::size).is_empty());
    assert_eq!(
        sentence(reader.finish()),
        "ratio: expected a whole number from 0, got -1"
    );
}

#[test]
fn operands_must_fit_their_dims() {
    let words = [1.0f32, 2.0, 3.0];
    let bytes: &[u8] = bytemuck::cast_slice(&words);
    let mut reader = Reader::new(&[1.0, 1.0, 3.0]);
    let x = reader.tensor("x");
    assert_eq!(reader.finish().map(|named| named.operands), Ok(1));
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
    let x = reader.tensor("x");
    assert_eq!(code(x.f32(&[&bytes[1..9]])), "DTYPE");
    assert_eq!(
        sentence(x.f32(&[&bytes[1..9]])),
        "x: expected float32 elements at an address that is a multiple of 4, got bytes at another"
    );
    // Nothing is read of an empty tensor.
    let mut reader = Reader::new(&[2.0, 2.0, 0.0, 7.0]);
    let x = reader.tensor("x");
    assert_eq!(
        x.tensor(&[&[] as &[u8]]).map(|x| (x.data.len(), x.shape)),
        Ok((0, vec![0, 7]))
    );
}

#[test]
fn shapes_that_overflow_are_refused() {
    let mut reader = Reader::new(&[1.0, 3.0, 4e9, 4e9, 4e9]);
    let x = reader.tensor("x");
    assert_eq!(code(x.tensor(&[&[] as &[u8]])), "SHAPE");
}
