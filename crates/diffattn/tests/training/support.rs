//! What these tests share: every way a machine computes, and cases of `training/operators`.

use diffattn::{Isa, Run};
use diffattn_reference::fixture::{Fixture, read_all};
use diffattn_reference::testing::ok;

/// On one instruction set.
pub(crate) fn on(isa: Isa, threads: usize, deterministic: bool) -> Run {
    ok(Run::new(Some(isa), Some(threads), deterministic))
}

/// Every instruction set of the machine, fused and not, on one thread.
pub(crate) fn runs() -> Vec<Run> {
    let both = |isa| [false, true].map(|deterministic| on(isa, 1, deterministic));
    Isa::available().into_iter().flat_map(both).collect()
}

/// The cases of an operator.
pub(crate) fn cases(operator: &str) -> Vec<Fixture> {
    let cases = read_all(&format!("training/operators/{operator}"));
    assert!(!cases.is_empty());
    cases
}

/// Checks that `made` gives the bits that it must: the same for all that fuse, the same for all
/// that do not, and on each for one thread, two and four.
#[track_caller]
pub(crate) fn check_bits(made: impl Fn(Run) -> Vec<u32>) {
    let mut fused = None;
    let mut unfused = None;
    for isa in Isa::available() {
        for deterministic in [false, true] {
            let bits = made(on(isa, 1, deterministic));
            for threads in [2, 4] {
                let shared = made(on(isa, threads, deterministic));
                assert!(bits == shared, "{}: {threads} threads", isa.name());
            }
            let is_fused = !deterministic && isa.name() != "scalar";
            let kept = if is_fused { &mut fused } else { &mut unfused };
            let kept = kept.get_or_insert_with(|| bits.clone());
            assert!(*kept == bits, "{}, {deterministic}", isa.name());
        }
    }
}

/// Panics where a gradient is off by more than `part` of the largest that is expected.
#[track_caller]
pub(crate) fn assert_close(name: &str, expected: &[f64], got: &[f32], part: f64) {
    let largest = expected.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    diffattn_reference::testing::assert_near(name, expected, got, part * largest);
}
