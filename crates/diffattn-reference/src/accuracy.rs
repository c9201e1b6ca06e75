//! The accuracy rule for attention in float32: never worse than plain float32 arithmetic. Measures and judges; computes
//! nothing that is judged.

/// Pooled over all cases, a candidate's rms error may be this many times the plain float32 computation's.
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
    /// Panics unless the lengths agree. Where `expected` is NaN or ±Inf, or `result` is, they must be the same, else the
    /// error is infinite.
    pub fn new(expected: &[f64], result: &[f32]) -> Self {
        assert_eq!(expected.len(), result.len(), "values to compare");
        let magnitude = expected.iter().filter(|x| x.is_finite()).fold(0.0, |max: f64, x| max.max(x.abs()));
        let (mut squares, mut errors) = (0.0, Self { magnitude, ..Self::default() });
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
/// For the pool every error is divided by its case's max|expected|, so that cases of large values do not drown the rest.
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

    /// Adds a case: float64 oracle, plain float32 computation, candidate. The error says which bound the candidate breaks,
    /// its largest error and where; where plain float32 is exact, the candidate must be so to 2⁻²⁴·max|expected|.
    pub fn case(&mut self, name: &str, expected: &[f64], plain: &[f32], candidate: &[f32]) -> Result<CaseErrors, String> {
        let (plain_errors, errors) = (CaseErrors::new(expected, plain), CaseErrors::new(expected, candidate));
        let unit = if errors.magnitude > 0.0 { errors.magnitude } else { 1.0 };
        let weight = |errors: &CaseErrors| (errors.rms / unit).powi(2) * expected.len() as f64;
        // A plain result that overflowed measures nothing; it must not make the pool's allowance infinite.
        assert!(plain_errors.max.is_finite(), "{name}: the plain float32 computation is not finite where float64 is");
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
            errors.rms, plain_errors.rms, errors.max, plain_errors.max, expected[at], candidate[at], plain[at]
        ))
    }

    /// Judges all cases together: the quotient of the two rms errors (1 when both are zero), or a sentence that it is too
    /// large. No case at all is an error too.
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
