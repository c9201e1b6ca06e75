//! What is kept, what is not, and what takes whose place.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::*;
use crate::{Door, settings};

/// rmsNorm of float32 `[1, width]`, with `scale`.
fn request(width: usize, scale: f64) -> [f64; 8] {
    [1.0, 2.0, 1.0, width as f64, 0.0, 0.0, 1.0, scale]
}

/// What is kept of a request: a number, as nothing here asks what it is.
fn found(recent: &Recent, op: u32, params: &[f64], run: Run) -> Option<usize> {
    recent.find::<usize>(op, params, run).map(|number| *number)
}

#[test]
fn only_the_same_words_on_the_same_run_are_found() {
    let run = Run::default();
    let mut recent = Recent::default();
    for (number, scale) in [2.0, 0.0, f64::NAN].into_iter().enumerate() {
        recent.keep(4, &request(8, scale), run, Arc::new(number));
    }
    let of = |op, params: &[f64], run| found(&recent, op, params, run);
    assert_eq!(of(4, &request(8, 2.0), run), Some(0));
    assert_eq!(of(4, &request(8, 0.0), run), Some(1));
    assert_eq!(of(4, &request(8, f64::NAN), run), Some(2));
    for other in [request(9, 2.0), request(8, 3.0), request(8, -0.0)] {
        assert_eq!(of(4, &other, run), None, "{other:?}");
    }
    assert_eq!(of(4, &request(8, 2.0)[..7], run), None);
    assert_eq!(of(3, &request(8, 2.0), run), None);
    assert_eq!(of(4, &request(8, 2.0), run.with_deterministic(true)), None);
    assert!(recent.find::<u8>(4, &request(8, 2.0), run).is_none());
}

#[test]
fn the_oldest_goes_first_and_long_ones_are_not_kept() {
    let run = Run::default();
    let mut recent = Recent::default();
    for width in 1..=2 * KEPT + 3 {
        recent.keep(4, &request(width, 1.0), run, Arc::new(width));
        let oldest = width.saturating_sub(KEPT) + 1;
        for earlier in 1..=width {
            let expected = (earlier >= oldest).then_some(earlier);
            assert_eq!(found(&recent, 4, &request(earlier, 1.0), run), expected);
        }
    }
    for (length, is_kept) in [(LONGEST, true), (LONGEST + 1, false)] {
        let params = vec![1.0; length];
        recent.keep(4, &params, run, Arc::new(length));
        assert_eq!(found(&recent, 4, &params, run).is_some(), is_kept);
    }
}

/// What a door keeps: one that names an object never, one that is wrong never.
#[test]
fn a_door_keeps_what_names_no_object() {
    let door = Door::new();
    let kept = || door.recent().read.len();
    for _ in 0..2 {
        door.call(4, &request(8, 2.0)).unwrap();
        assert_eq!(kept(), 1);
    }
    assert_eq!(door.recent().read[0].run, settings::now());

    // createKvCache, exportCache, drop.
    let cache = [2.0, 3.0, 5.0, 0.0, 0.0, 0.0, 1.0, 2.0];
    let id = door.query(40, &cache, &[]).unwrap();
    door.call(7, &[id]).unwrap();
    assert_eq!(kept(), 1);
    door.query(46, &[id], &[]).unwrap();
    assert_eq!(door.call(7, &[id]).unwrap_err().code(), "DISPOSED");

    door.call(4, &[1.0, 2.0]).unwrap_err();
    assert_eq!(kept(), 1);
}
