//! What is kept, what is not, and what takes whose place.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use crate::{Call, Door};

/// rmsNorm of float32 `[1, width]`, with `scale`.
fn request(width: usize, scale: f64) -> [f64; 8] {
    [1.0, 2.0, 1.0, width as f64, 0.0, 0.0, 1.0, scale]
}

fn call(door: &Door, params: &[f64]) -> Call {
    door.call(4, params).unwrap()
}

#[test]
fn what_comes_again_is_not_read_again() {
    let door = Door::new();
    let first = call(&door, &request(8, 2.0));
    assert!(call(&door, &request(8, 2.0)).is(&first));
    for other in [request(9, 2.0), request(8, 3.0)] {
        assert!(!call(&door, &other).is(&first));
    }
    let zero = call(&door, &request(8, 0.0));
    assert!(!call(&door, &request(8, -0.0)).is(&zero));
    let nan = call(&door, &request(8, f64::NAN));
    assert!(call(&door, &request(8, f64::NAN)).is(&nan));
    assert!(!call(&Door::new(), &request(8, 2.0)).is(&first));
}

#[test]
fn the_oldest_goes_first() {
    let door = Door::new();
    let widths = 1..=super::KEPT + 2;
    let made = |width| (width, call(&door, &request(width, 1.0)));
    let mut calls: Vec<(usize, Call)> = widths.map(made).collect();
    let kept = calls.split_off(2);
    for (width, earlier) in kept {
        assert!(call(&door, &request(width, 1.0)).is(&earlier), "{width}");
    }
    for (width, earlier) in calls {
        assert!(!call(&door, &request(width, 1.0)).is(&earlier), "{width}");
    }
}

#[test]
fn long_requests_and_other_runs_are_read() {
    let door = Door::new();
    let [short, long] = [2, super::LONGEST].map(|rank| {
        let mut params = vec![1.0, rank as f64];
        params.extend(vec![1.0; rank]);
        params.extend([0.0; 3]);
        params
    });
    assert!(call(&door, &short).is(&call(&door, &short)));
    assert!(!call(&door, &long).is(&call(&door, &long)));

    let run = call(&door, &short).run();
    assert!(door.recent().find(4, &short, run).is_some());
    let other = run.with_deterministic(true);
    assert!(door.recent().find(4, &short, other).is_none());
    assert!(door.recent().find(3, &short, run).is_none());
}

#[test]
fn a_request_of_an_object_is_read_each_time() {
    let door = Door::new();
    // createKvCache, exportCache, drop.
    let cache = [2.0, 3.0, 5.0, 0.0, 0.0, 0.0, 1.0, 2.0];
    let id = door.query(40, &cache, &[]).unwrap();
    let first = door.call(7, &[id]).unwrap();
    assert!(!door.call(7, &[id]).unwrap().is(&first));
    door.query(46, &[id], &[]).unwrap();
    assert_eq!(door.call(7, &[id]).unwrap_err().code(), "DISPOSED");
}
