//! What a weight of halves takes in memory: not to be seen from outside.

use super::Linear;
use super::panels::with_format;
use crate::tensor::{Data, Tensor};

#[test]
fn halves_stay_halves() {
    let shape = vec![50, 300];
    for data in [
        Data::F16(&[0; 50 * 300][..]),
        Data::Bf16(&[0; 50 * 300][..]),
    ] {
        let weight = Tensor {
            data,
            shape: shape.clone(),
        };
        let linear = Linear::new(&weight, None).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(with_format!(&linear.weight, weight => weight.bits()), 16);
    }
}
