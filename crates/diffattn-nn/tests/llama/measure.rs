//! What models are compared by and heads chosen: the entropy of maps and the distance of logits,
//! against float64; what is refused.

use crate::common::{ok, refusal};
use diffattn::{Data, Tensor};
use diffattn_nn::{LogitsDistance, compare_logits, map_entropy};
use diffattn_reference as reference;

/// Numbers from −1 to 1.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 40) as f32 / (1u64 << 23) as f32) - 1.0
    }

    fn take(&mut self, len: usize, times: f32) -> Vec<f32> {
        (0..len).map(|_| times * self.next()).collect()
    }
}

fn tensor<'a>(shape: &[usize], data: &'a [f32]) -> Tensor<'a> {
    Tensor {
        data: Data::F32(data),
        shape: shape.to_vec(),
    }
}

fn wide(shape: &[usize], data: &[f32]) -> reference::Tensor<f64> {
    let data = data.iter().map(|&x| f64::from(x)).collect();
    reference::Tensor::new(shape, data)
}

/// Rows of probabilities of scores that spread so far; of row `i` of a head `causal` leaves the
/// first `i + 1` keys, and every seventh row nothing at all.
fn map(numbers: &mut Numbers, shape: [usize; 4], spread: f32, causal: bool) -> Vec<f32> {
    let [batch, heads, rows, keys] = shape;
    let mut map = Vec::new();
    for row in 0..batch * heads * rows {
        let visible = match (causal, row % 7) {
            (true, 6) => 0,
            (true, _) => (row % rows + 1).min(keys),
            (false, _) => keys,
        };
        let scores = numbers.take(visible, spread);
        let sum: f64 = scores.iter().map(|&s| f64::from(s).exp()).sum();
        map.extend(scores.iter().map(|&s| (f64::from(s).exp() / sum) as f32));
        map.extend(vec![0.0; keys - visible]);
    }
    map
}

/// Sums of float64 in another order, of logarithms that differ in the last bit.
fn is_near(got: &[f64], want: &[f64], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (got, want) in got.iter().zip(want) {
        let bound = 1e-13 * want.abs().max(1.0);
        assert!((got - want).abs() <= bound, "{what}: {got}, not {want}");
    }
}

#[test]
fn the_entropy_of_maps() {
    let mut numbers = Numbers(7);
    for shape in [
        [1, 1, 1, 1],
        [1, 3, 5, 9],
        [2, 4, 33, 33],
        [3, 1, 2, 300],
        [1, 2, 64, 1],
    ] {
        for (spread, causal) in [(0.0, false), (2.0, false), (40.0, false), (3.0, true)] {
            let data = map(&mut numbers, shape, spread, causal);
            let got = ok(map_entropy(&tensor(&shape, &data)));
            let want = reference::map_entropy(&wide(&shape, &data));
            is_near(&got, &want, &format!("{shape:?}, spread {spread}"));
        }
    }
}

#[test]
fn entropies_that_are_known() {
    // Each head attends to more keys alike: ln 1, ln 2, ln 4, twice for each of three rows.
    let (shape, alike) = ([2, 3, 3, 4], [1usize, 2, 4]);
    let mut data = Vec::new();
    for _ in 0..shape[0] {
        for count in alike {
            for _ in 0..shape[2] {
                data.extend((0..shape[3]).map(|key| match key < count {
                    true => 1.0 / count as f32,
                    false => 0.0,
                }));
            }
        }
    }
    let want = alike.map(|count| 6.0 * (count as f64).ln());
    is_near(&ok(map_entropy(&tensor(&shape, &data))), &want, "alike");
    // Of nothing there is none.
    for (shape, len) in [([0, 2, 3, 3], 2), ([2, 2, 0, 3], 2), ([1, 0, 3, 3], 0)] {
        assert_eq!(ok(map_entropy(&tensor(&shape, &[]))), vec![0.0; len]);
    }
}

#[test]
fn maps_that_are_refused() {
    let data = [0.5f32; 16];
    let entropy = |shape: &[usize]| refusal(map_entropy(&tensor(shape, &data)));
    for shape in [&[4, 4][..], &[16], &[1, 4, 4]] {
        assert_eq!(
            entropy(shape),
            (
                "SHAPE",
                format!("map: expected 4 axes or more, got {shape:?}")
            )
        );
    }
    let (code, sentence) = entropy(&[1, 1, 1, 4, 4]);
    assert_eq!(code, "SHAPE");
    assert!(sentence.starts_with("map: expected 4 axes, [B, H, Lq, Lk]"));
    assert_eq!(entropy(&[1, 1, 4, 5]).0, "SHAPE");
    let halves = Tensor {
        data: Data::F16(&[0; 16]),
        shape: vec![1, 1, 4, 4],
    };
    assert_eq!(refusal(map_entropy(&halves)).0, "DTYPE");
    assert_eq!(refusal(compare_logits(&halves, &halves)).0, "DTYPE");
}

/// A distance as the oracle has it, NaN as a number that equals itself.
fn same(got: LogitsDistance, want: reference::LogitsDistance, what: &str) {
    let LogitsDistance {
        difference,
        largest,
        same,
        rows,
    } = got;
    assert_eq!(
        [difference, largest].map(f64::to_bits),
        [want.difference, want.largest].map(f64::to_bits),
        "{what}"
    );
    assert_eq!((same, rows), (want.same, want.rows), "{what}");
}

#[test]
fn the_distance_of_logits() {
    let mut numbers = Numbers(11);
    for shape in [
        &[1, 1, 1][..],
        &[5],
        &[2, 7, 59],
        &[1, 64, 97],
        &[0, 9],
        &[4, 0],
    ] {
        let len = shape.iter().product();
        let a = numbers.take(len, 12.0);
        for far in [0.0, 1e-6, 0.5, 30.0] {
            let by = numbers.take(len, far);
            let b: Vec<f32> = a.iter().zip(&by).map(|(a, by)| a + by).collect();
            let got = ok(compare_logits(&tensor(shape, &a), &tensor(shape, &b)));
            let want = reference::compare_logits(&wide(shape, &a), &wide(shape, &b));
            same(got, want, &format!("{shape:?}, {far}"));
            if far == 0.0 {
                assert_eq!((got.difference, got.same), (0.0, got.rows));
            }
        }
    }
}

#[test]
fn logits_that_are_equal_or_no_numbers() {
    let nan = f32::NAN;
    let inf = f32::INFINITY;
    for (name, a, b) in [
        (
            "the first of equals",
            [2.0, 2.0, 1.0, 3.0, 3.0, 3.0],
            [2.0, 2.0, 1.0, 1.0, 3.0, 3.0],
        ),
        (
            "a NaN first",
            [nan, 0.0, 1.0, 2.0, 3.0, 4.0],
            [0.0, 9.0, 1.0, 2.0, 3.0, 4.0],
        ),
        (
            "a NaN last",
            [0.0, 9.0, 1.0, 2.0, 3.0, 4.0],
            [0.0, 0.0, 1.0, 2.0, 3.0, nan],
        ),
        (
            "NaN, then larger",
            [0.0, nan, 1.0, 2.0, 3.0, 4.0],
            [0.0, 0.0, 1.0, 2.0, 3.0, 9.0],
        ),
        (
            "the same infinity",
            [inf, 0.0, 1.0, 2.0, 3.0, 4.0],
            [inf, 0.0, 1.0, 2.0, 3.0, 4.0],
        ),
        (
            "an infinity",
            [-inf, 0.0, 1.0, 2.0, 3.0, 4.0],
            [1.0, 0.0, 1.0, 2.0, 3.0, 4.0],
        ),
    ] {
        let got = ok(compare_logits(&tensor(&[2, 3], &a), &tensor(&[2, 3], &b)));
        let want = reference::compare_logits(&wide(&[2, 3], &a), &wide(&[2, 3], &b));
        assert_eq!(got.difference.is_nan(), want.difference.is_nan(), "{name}");
        let quiet = |x: f64| if x.is_nan() { f64::MAX } else { x };
        let got = LogitsDistance {
            difference: quiet(got.difference),
            ..got
        };
        let difference = quiet(want.difference);
        same(got, reference::LogitsDistance { difference, ..want }, name);
    }
    let a = [0.0; 6];
    let refused = refusal(compare_logits(&tensor(&[2, 3], &a), &tensor(&[3, 2], &a)));
    assert_eq!(
        refused,
        ("SHAPE", "b: expected [2, 3], got [3, 2]".to_owned())
    );
}
