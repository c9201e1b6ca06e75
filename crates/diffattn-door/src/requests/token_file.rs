//! Requests of files of tokens: where in them their documents are told, and their bytes. Reads no
//! file.

use diffattn::Error;
use diffattn_nn::checkpoint::{token_starts, write_tokens};
use serde_json::json;

use super::ready::{Made, ready};
use super::text::token_ids;
use crate::encoding::{Ints, Long, Text, Uint8, request};
use crate::job::Prepared;
use crate::operation::{Inputs, Operation};

request! {
    /// What a file of tokens says of itself by its header: the bytes in which its documents begin.
    165 tokenFile TokenFileRequest {
        file: Text,
        length: Long,
        header("file"): Uint8,
    }
}

impl Operation for TokenFileRequest {
    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let file = self.file.text(inputs.operands)?;
        let range = token_starts(file, self.header.u8(inputs.operands)?, self.length)?;
        let told = json!({ "starts": [range.start, range.end] });
        ready(vec![("file", Made::json(&told)?)])
    }
}

request! {
    /// The bytes of a file of tokens of these ids, whose documents begin at these places.
    166 writeTokens WriteTokensRequest {
        ids: Ints,
        starts: Ints,
    }
}

impl Operation for WriteTokensRequest {
    fn prepares_at_length(&self) -> bool {
        true
    }

    fn prepare<'m>(&'m self, inputs: Inputs<'_, 'm>) -> Result<Prepared<'m>, Error> {
        let ids = token_ids("ids", &self.ids, inputs.operands)?;
        let starts = token_ids("starts", &self.starts, inputs.operands)?;
        let starts: Vec<u64> = starts.into_iter().map(u64::from).collect();
        ready(vec![("file", Made::Bytes(write_tokens(&ids, &starts)?))])
    }
}
