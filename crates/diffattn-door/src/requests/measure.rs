//! What models are compared by, and heads chosen. Computes nothing itself.

use diffattn::Error;
use diffattn_nn::{LogitsDistance, compare_logits, map_entropy};
use serde_json::json;

use super::ready::{Made, ready};
use crate::encoding::{Tensor, request};
use crate::job::Prepared;
use crate::operation::{Inputs, Operation};

request! {
    /// A request of `mapEntropy`.
    78 mapEntropy MapEntropyRequest {
        map: Tensor,
    }
}

impl Operation for MapEntropyRequest {
    fn prepares_at_length(&self) -> bool {
        true
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let map = self.map.tensor(inputs.operands)?;
        ready(vec![("entropy", Made::json(&map_entropy(&map)?)?)])
    }
}

request! {
    /// A request of `compareLogits`.
    79 compareLogits CompareLogitsRequest {
        a: Tensor,
        b: Tensor,
    }
}

impl Operation for CompareLogitsRequest {
    fn prepares_at_length(&self) -> bool {
        true
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let operands = inputs.operands;
        let distance = compare_logits(&self.a.tensor(operands)?, &self.b.tensor(operands)?)?;
        let LogitsDistance {
            difference,
            largest,
            same,
            rows,
        } = distance;
        let json = json!({
            "difference": difference, "largest": largest, "same": same, "rows": rows,
        });
        ready(vec![("distance", Made::json(&json)?)])
    }
}
