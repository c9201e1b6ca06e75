//! What the crates' tests share: results unwrapped with their own sentence, values that any machine
//! repeats, and comparisons. Knows no operator and no error type: who tests refusals says what an
//! error has to tell.

use std::fmt::Display;

/// Unwraps, or panics with the error's own sentence.
#[track_caller]
pub fn ok<T, E: Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}

/// The code and sentence of what must fail, as `said` reads them off its error.
#[track_caller]
pub fn refusal<T, E>(
    result: Result<T, E>,
    said: impl FnOnce(E) -> (&'static str, String),
) -> (&'static str, String) {
    match result {
        Ok(_) => panic!("expected an error"),
        Err(error) => said(error),
    }
}

/// The bits of each value: equal only where NaN has the same bits, too.
pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// The bits of each value, with one NaN for all NaNs: which of two NaNs an addition gives differs
/// between machines.
pub fn bits_with_one_nan(values: &[f32]) -> Vec<u32> {
    let one_nan = |value: &f32| if value.is_nan() { f32::NAN } else { *value };
    values
        .iter()
        .map(|value| one_nan(value).to_bits())
        .collect()
}

/// FNV-1a over the bits of some values.
pub fn hash(values: &[f32]) -> u64 {
    let bytes = values.iter().flat_map(|x| x.to_bits().to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// Noise in [−1, 1) from xorshift64, which any machine repeats.
fn xorshift(seed: u64) -> impl Iterator<Item = f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    })
}

/// Noise in [−1, 1), the same each time.
pub fn noise(len: usize, seed: u64) -> Vec<f32> {
    xorshift(seed).take(len).collect()
}

/// Pseudo-random values in [−scale, scale), the same each time.
pub fn values(seed: u64, len: usize, scale: f32) -> Vec<f32> {
    // The first ones of small seeds are alike.
    let settled = xorshift(seed).skip(4);
    settled.take(len).map(|value| scale * value).collect()
}

/// Panics with the largest error and its index where `got` is further than `tolerance` from
/// `expected`.
#[track_caller]
pub fn assert_near(name: &str, expected: &[f64], got: &[f32], tolerance: f64) {
    assert_eq!(expected.len(), got.len(), "{name}: length");
    let errors = expected
        .iter()
        .zip(got)
        .map(|(&expected, &got)| (expected - f64::from(got)).abs());
    let (index, error) = errors.enumerate().fold((0, 0.0), |worst, (index, error)| {
        if error > worst.1 || error.is_nan() {
            (index, error)
        } else {
            worst
        }
    });
    assert!(
        error <= tolerance,
        "{name}: largest error {error:e} (at most {tolerance:e}) at {index}: expected {}, got {}",
        expected[index],
        got[index]
    );
}
