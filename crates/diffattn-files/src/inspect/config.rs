//! A checkpoint's configuration as an inspection reads it: what does not fit is passed over, for
//! where it and the tensors disagree, tensors win.

use super::inspection::Architecture;
use crate::json;
use diffattn::Error;
use serde_json::{Map, Value};

/// A configuration, or none.
pub(super) struct Config(Option<Map<String, Value>>);

impl Config {
    pub(super) fn parse(text: Option<&str>) -> Result<Self, Error> {
        text.map(|text| json::json_object("config.json", text))
            .transpose()
            .map(Self)
    }

    /// All of it.
    pub(super) fn map(&self) -> Option<&Map<String, Value>> {
        self.0.as_ref()
    }

    pub(super) fn value(&self, key: &str) -> Option<&Value> {
        self.0.as_ref()?.get(key)
    }

    pub(super) fn count(&self, key: &str) -> Option<usize> {
        usize::try_from(self.value(key)?.as_u64()?).ok()
    }

    pub(super) fn number(&self, key: &str) -> Option<f64> {
        self.value(key)?.as_f64()
    }

    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.value(key)?.as_bool()
    }

    /// timm's own arguments stand apart where a hub wrote the file.
    pub(super) fn timm_count(&self, key: &str) -> Option<usize> {
        let nested = || usize::try_from(self.value("model_args")?.get(key)?.as_u64()?).ok();
        self.count(key).or_else(nested)
    }

    /// Where no tensor tells: with timm's λ of two numbers and no norm weight.
    pub(super) fn timm_head_dim(&self) -> Option<usize> {
        let heads = self.timm_count("num_heads")?.checked_mul(2)?;
        self.timm_count("embed_dim")?.checked_div(heads)
    }

    pub(super) fn rope(&self, key: &str) -> Option<&Value> {
        let nested = |object: &str| self.value(object)?.get(key);
        nested("rope_parameters").or_else(|| nested("rope_scaling"))
    }

    pub(super) fn theta(&self) -> Option<f64> {
        let nested = || self.rope("rope_theta")?.as_f64();
        self.number("rope_theta").or_else(nested)
    }

    pub(super) fn rope_type(&self) -> Option<String> {
        let kind = self.rope("rope_type").or_else(|| self.rope("type"))?;
        kind.as_str().map(str::to_owned)
    }

    pub(super) fn architecture(&self) -> Option<Architecture> {
        Architecture::of_config(self.0.as_ref()?)
    }
}
