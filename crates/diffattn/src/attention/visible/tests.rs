//! Live stretches of keys.

use super::*;

#[test]
fn live_stretches_are_joined_and_cut() {
    let data = [0, 1, 7, 0, 1, 1, 0, 0, 0, 0, 0, 1];
    let blocks = Blocks::new(&data, [1, 1, 2, 6]);
    let ranges = |query: usize, from: usize, to: usize| -> Vec<_> {
        blocks.row((3, 5, query)).ranges(from, to).collect()
    };
    assert_eq!(ranges(63, 0, 384), [(64, 192), (256, 384)]);
    assert_eq!(ranges(0, 70, 100), [(70, 100)]);
    assert_eq!(ranges(0, 150, 260), [(150, 192), (256, 260)]);
    assert_eq!(ranges(64, 0, 384), [(320, 384)]);
    assert_eq!(ranges(64, 0, 320), []);
    assert_eq!(ranges(64, 5, 5), []);
    for query in [0, 64] {
        let row = blocks.row((0, 0, query));
        let seen: Vec<_> = row.ranges(0, 384).flat_map(|(from, to)| from..to).collect();
        let expected: Vec<_> = (0..384).filter(|&key| row.sees(key)).collect();
        assert_eq!(seen, expected);
    }
    let all: Vec<_> = Blocks::default().row((0, 0, 0)).ranges(3, 9).collect();
    assert_eq!(all, [(3, 9)]);
    let none: Vec<_> = Blocks::default().row((0, 0, 0)).ranges(9, 9).collect();
    assert_eq!(none, []);
}
