//! How shapes print.

use super::*;

#[test]
fn a_shape_prints_short_whatever_its_rank() {
    assert_eq!(format_shape(&[]), "[]");
    assert_eq!(format_shape(&[2, 4, 33, 16]), "[2, 4, 33, 16]");
    assert_eq!(format_shape(&[1; 8]), "[1, 1, 1, 1, 1, 1, 1, 1]");
    assert_eq!(
        format_shape(&[1; 300_000]),
        "[1, 1, 1, 1, 1, 1, 1, 1, …] (300000 axes)"
    );
}
