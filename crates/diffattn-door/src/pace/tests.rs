//! Slices of many kinds of work.

use super::*;

/// The longest slice after the first, and how many there are, when `units` take `milliseconds`
/// each.
fn slices(units: usize, threads: usize, milliseconds: impl Fn(usize) -> f64) -> (f64, usize) {
    let mut pacer = Pacer::new(threads);
    let (mut done, mut last, mut longest, mut count) = (0, 0.0, 0.0f64, 0);
    while done < units {
        let slice = pacer.next_slice(done, last).min(units - done);
        assert!(slice >= 1);
        last = (done..done + slice).map(&milliseconds).sum::<f64>() / threads as f64;
        if done > 0 {
            longest = longest.max(last);
        }
        done += slice;
        count += 1;
    }
    (longest, count)
}

#[test]
fn slices_stay_under_sixteen_milliseconds() {
    for (units, threads, milliseconds) in [
        (100_000, 1, (|_| 0.01) as fn(usize) -> f64),
        (100_000, 1, |unit| 0.001 + unit as f64 * 1e-5),
        (1_000, 16, |_| 3.0),
        // A cheap unit of packing, then seven of rows.
        (1_000, 1, |unit| if unit % 8 == 0 { 0.1 } else { 2.0 }),
        (1_000, 2, |unit| if unit % 16 < 4 { 0.1 } else { 1.0 }),
    ] {
        let (longest, _) = slices(units, threads, milliseconds);
        assert!(longest <= 16.0, "{longest} ms on {threads} threads");
    }
    // A unit is never cut.
    assert_eq!(slices(10, 1, |_| 20.0), (20.0, 10));
}

#[test]
fn slices_grow_to_the_target() {
    let (longest, count) = slices(100_000, 1, |_| 0.01);
    assert!(
        longest > 7.9 && count < 150,
        "{count} slices of {longest} ms"
    );
    let mut pacer = Pacer::new(2);
    assert_eq!(pacer.next_slice(0, 0.0), 2);
    assert_eq!(pacer.next_slice(2, 0.0), 4);
    assert_eq!(pacer.next_slice(6, 2.0), 8);
    assert_eq!(pacer.next_slice(14, 4.0), 16);
    // The last one did less than it was asked to.
    assert_eq!(pacer.next_slice(16, 8.0), 2);
    assert_eq!(pacer.next_slice(18, f64::NAN), 2);
}
