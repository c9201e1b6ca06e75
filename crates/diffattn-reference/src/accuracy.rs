//! The accuracy rule for attention in float32: never worse than plain float32 arithmetic. Measures
//! and judges; computes nothing that is judged.

/// Pooled over all cases, a candidate's rms error may be this many times the plain float32
/// computation's.
const POOLED_RMS: f64 = 1.0;
/// The same within one case.
const CASE_RMS: f64 = 1.25;
/// The same for the largest error within one case.
const CASE_MAX: f64 = 1.5;

/// Errors of one result against the float64 oracle, those under 2⁻²⁴·max|expected| counted as zero.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CaseErrors {
    /// Root mean square.
    pub rms: f64,
    /// Largest.
    pub max: f64,
    /// Where the largest is.
    pub max_index: usize,
    /// The largest |expected| that is finite.
    pub magnitude: f64,
}

impl CaseErrors {
    /// Panics unless the lengths agree. Where `expected` is NaN or ±Inf, or `result` is, they must
    /// be the same, else the error is infinite.
    pub fn new(expected: &[f64], result: &[f32]) -> Self {
        assert_eq!(expected.len(), result.len(), "values to compare");
        let magnitude = expected
            .iter()
            .filter(|x| x.is_finite())
            .fold(0.0, |max: f64, x| max.max(x.abs()));
        let (mut squares, mut errors) = (
            0.0,
            Self {
                magnitude,
                ..Self::default()
            },
        );
        for (index, (&expected, &result)) in expected.iter().zip(result).enumerate() {
            let result = f64::from(result);
            let error = if expected.is_finite() && result.is_finite() {
                (expected - result).abs()
            } else if expected == result || expected.is_nan() && result.is_nan() {
                0.0
            } else {
                f64::INFINITY
            };
            if error > 0.0 && error >= magnitude * libm::exp2(-24.0) {
                squares += error * error;
                if error > errors.max {
                    (errors.max, errors.max_index) = (error, index);
                }
            }
        }
        if !expected.is_empty() {
            errors.rms = libm::sqrt(squares / expected.len() as f64);
        }
        errors
    }
}

/// Collects the cases of one comparison and judges each, and all together.
///
/// For the pool every error is divided by its case's max|expected|, so that cases of large values
/// do not drown the rest.
#[derive(Clone, Debug, Default)]
pub struct Accuracy {
    candidate: f64,
    plain: f64,
    values: usize,
}

impl Accuracy {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a case: float64 oracle, plain float32 computation, candidate. The error says which
    /// bound the candidate breaks, its largest error and where; where plain float32 is exact, the
    /// candidate must be so to 2⁻²⁴·max|expected|.
    pub fn case(
        &mut self,
        name: &str,
        expected: &[f64],
        plain: &[f32],
        candidate: &[f32],
    ) -> Result<CaseErrors, String> {
        let (plain_errors, errors) = (
            CaseErrors::new(expected, plain),
            CaseErrors::new(expected, candidate),
        );
        let unit = if errors.magnitude > 0.0 {
            errors.magnitude
        } else {
            1.0
        };
        let weight = |errors: &CaseErrors| (errors.rms / unit).powi(2) * expected.len() as f64;
        // A plain result that overflowed measures nothing; it must not make the pool's allowance
        // infinite.
        assert!(
            plain_errors.max.is_finite(),
            "{name}: the plain float32 computation is not finite where float64 is"
        );
        self.plain += weight(&plain_errors);
        self.candidate += weight(&errors);
        self.values += expected.len();
        if errors.rms <= CASE_RMS * plain_errors.rms && errors.max <= CASE_MAX * plain_errors.max {
            return Ok(errors);
        }
        let at = errors.max_index;
        Err(format!(
            "{name}: rms error {:e} (plain float32 {:e}, at most {CASE_RMS} times that), largest {:e} (plain {:e}, at most \
             {CASE_MAX} times) at index {at}: expected {:e}, got {:e}, plain {:e}",
            errors.rms,
            plain_errors.rms,
            errors.max,
            plain_errors.max,
            expected[at],
            candidate[at],
            plain[at]
        ))
    }

    /// Judges all cases together: the quotient of the two rms errors (1 when both are zero), or a
    /// sentence that it is too large. No case at all is an error too.
    pub fn pooled(&self) -> Result<f64, String> {
        let (candidate, plain) = (libm::sqrt(self.candidate), libm::sqrt(self.plain));
        if self.values == 0 {
            return Err("no case was measured".into());
        }
        if candidate <= POOLED_RMS * plain {
            return Ok(if plain > 0.0 { candidate / plain } else { 1.0 });
        }
        let rms = |sum: f64| sum / libm::sqrt(self.values as f64);
        Err(format!(
            "pooled over {} values: relative rms error {:e}, plain float32 {:e}, at most {POOLED_RMS} times that",
            self.values,
            rms(candidate),
            rms(plain)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest 1, so that errors under 2⁻²⁴ ≈ 6e-8 count as zero.
    const EXPECTED: [f64; 4] = [1.0, 0.5, -0.25, 0.0];

    /// EXPECTED with errors near the given ones.
    fn off(errors: [f64; 4]) -> [f32; 4] {
        std::array::from_fn(|i| (EXPECTED[i] + errors[i]) as f32)
    }

    #[test]
    fn small_errors_count_as_zero_and_the_largest_is_found() {
        let errors = CaseErrors::new(&EXPECTED, &off([0.0, 0.0, 5e-8, -3e-8]));
        assert_eq!((errors.rms, errors.max, errors.magnitude), (0.0, 0.0, 1.0));
        let errors = CaseErrors::new(&EXPECTED, &off([0.0, 0.0, 3e-4, -4e-4]));
        assert_eq!(errors.max_index, 3);
        assert!(
            (errors.max - 4e-4).abs() < 1e-8 && (errors.rms - 2.5e-4).abs() < 1e-8,
            "{errors:?}"
        );
    }

    #[test]
    fn a_case_may_be_a_quarter_worse_in_rms_and_a_half_in_its_largest_error() {
        let plain = off([0.0, 1e-3, 1e-3, 1e-3]);
        for (errors, allowed) in [
            ([0.0, 1e-3, 1e-3, 1e-3], true),
            ([0.0, 1.2e-3, 1.2e-3, 1.2e-3], true),
            ([0.0, 1.3e-3, 1.3e-3, 1.3e-3], false),
            ([0.0, 1.4e-3, 0.0, 0.0], true),
            ([0.0, 1.6e-3, 0.0, 0.0], false),
        ] {
            let judged = Accuracy::new().case("case", &EXPECTED, &plain, &off(errors));
            assert_eq!(judged.is_ok(), allowed, "{errors:?} {judged:?}");
        }
        let sentence = Accuracy::new().case("name", &EXPECTED, &plain, &off([0.0, 0.0, 5e-3, 0.0]));
        assert!(
            sentence
                .is_err_and(|sentence| sentence.contains("name") && sentence.contains("index 2"))
        );
    }

    #[test]
    fn where_plain_float32_is_exact_the_candidate_must_be_too() {
        let exact = off([0.0; 4]);
        let mut accuracy = Accuracy::new();
        assert!(
            accuracy
                .case("both exact", &EXPECTED, &exact, &off([0.0, 0.0, 0.0, 5e-8]))
                .is_ok()
        );
        assert_eq!(accuracy.pooled(), Ok(1.0));
        assert!(
            accuracy
                .case("worse", &EXPECTED, &exact, &off([0.0, 1e-6, 0.0, 0.0]))
                .is_err()
        );
        assert!(accuracy.pooled().is_err());
        // Where all is zero, anything else is an error.
        assert!(Accuracy::new().case("zero", &[0.0], &[0.0], &[0.0]).is_ok());
        assert!(
            Accuracy::new()
                .case("zero", &[0.0], &[0.0], &[1e-40])
                .is_err()
        );
        assert!(Accuracy::new().case("empty", &[], &[], &[]).is_ok());
        assert!(Accuracy::new().pooled().is_err());
    }

    #[test]
    fn values_that_are_not_finite_must_be_the_same() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        let expected = [f64::NAN, f64::INFINITY, 1.0];
        let plain = [nan, inf, 1.0];
        assert!(
            Accuracy::new()
                .case("same", &expected, &plain, &[nan, inf, 1.0])
                .is_ok()
        );
        for candidate in [
            [0.0, inf, 1.0],
            [nan, -inf, 1.0],
            [nan, nan, 1.0],
            [nan, inf, nan],
            [nan, inf, inf],
        ] {
            assert!(
                Accuracy::new()
                    .case("differs", &expected, &plain, &candidate)
                    .is_err(),
                "{candidate:?}"
            );
        }
    }

    #[test]
    fn the_pool_allows_no_more_than_plain_float32_and_weighs_cases_by_their_size() {
        let (plain, worse, better) = (
            off([0.0, 1e-3, 0.0, 0.0]),
            off([0.0, 1.2e-3, 0.0, 0.0]),
            off([0.0, 5e-4, 0.0, 0.0]),
        );
        let mut accuracy = Accuracy::new();
        assert!(
            accuracy
                .case("a little worse", &EXPECTED, &plain, &worse)
                .is_ok()
        );
        assert!(accuracy.pooled().is_err());
        assert!(accuracy.case("better", &EXPECTED, &plain, &better).is_ok());
        assert!(accuracy.pooled().is_ok_and(|ratio| ratio < 1.0));
        // The better one again, a million times larger: one case of three, not the only one that
        // counts.
        let large = |values: [f32; 4]| values.map(|x| x * 1048576.0);
        let expected = EXPECTED.map(|x| x * 1048576.0);
        assert!(
            accuracy
                .case("large", &expected, &large(plain), &large(better))
                .is_ok()
        );
        let ratio = libm::sqrt((1.44 + 0.25 + 0.25) / 3.0);
        assert!(
            accuracy
                .pooled()
                .is_ok_and(|pooled| (pooled - ratio).abs() < 1e-3)
        );
    }
}
