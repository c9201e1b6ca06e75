//! The rotary embedding that a configuration of Hugging Face's speaks of. Reads text, no file.

use super::entries::Entries;
use diffattn::{Error, ErrorKind, RopeFrequencies, RopeScaling, RopeTable, RopeType};
use serde_json::Value;

/// Checks the frequencies of `head_dim` channels; `key` names the entry that the kernels call so.
pub(crate) fn check_rope(
    rope: &RopeFrequencies,
    head_dim: usize,
    key: impl Fn(&str) -> String,
) -> Result<(), Error> {
    match RopeTable::new(0..0, head_dim, rope, diffattn::Run::default()) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == Some(ErrorKind::Option) => {
            Err(error.renamed(ErrorKind::Option, key).of(ErrorKind::File))
        }
        Err(other) => Err(other),
    }
}

impl Entries<'_> {
    /// Refuses a rotary embedding of part of the head, which the architecture has not.
    pub(crate) fn whole_head(&self) -> Result<(), Error> {
        match self.number("partial_rotary_factor")? {
            None | Some(1.0) => Ok(()),
            Some(_) => Err(self.wrong(
                "partial_rotary_factor",
                "1, as the whole head turns",
                self.value("partial_rotary_factor"),
            )),
        }
    }

    /// The rotary embedding of the top-level entries.
    pub(crate) fn rope(&self) -> Result<RopeFrequencies, Error> {
        let within = match self.object("rope_scaling")? {
            Some(scaling) => Some(scaling),
            None => self.object("rope_parameters")?,
        };
        let mut theta = self.number("rope_theta")?;
        let (mut theta_of, mut scaling_of) = (&self.name, &self.name);
        let mut scaling = None;
        if let Some(entries) = &within {
            if let Some(own) = entries.number("rope_theta")? {
                (theta, theta_of) = (Some(own), &entries.name);
            }
            (scaling, scaling_of) = (entries.rope_scaling()?, &entries.name);
        }
        let original = self.number("original_max_position_embeddings")?;
        if let (Some(scaling), Some(original)) = (&mut scaling, original) {
            scaling
                .original_max_position_embeddings
                .get_or_insert(original);
        }
        let length = self.size("max_position_embeddings")?.unwrap_or(2048);
        let rope = RopeFrequencies {
            theta: Some(theta.unwrap_or(10_000.0)),
            scaling,
            max_position_embeddings: Some(length as f64),
        };
        check_rope(&rope, 2, |entry| match entry.strip_prefix("scaling.") {
            Some(entry) => format!("{scaling_of}.{entry}"),
            None => format!("{theta_of}.rope_{entry}"),
        })?;
        Ok(rope)
    }

    /// The entries of `rope_scaling` or `rope_parameters`; `None` for the type `default`.
    pub(crate) fn rope_scaling(&self) -> Result<Option<RopeScaling>, Error> {
        let key = if self.value("rope_type").is_some() {
            "rope_type"
        } else {
            "type"
        };
        let types = [
            RopeType::Default,
            RopeType::Linear,
            RopeType::Llama3,
            RopeType::Yarn,
            RopeType::Dynamic,
        ];
        let rope_type = match self.value(key) {
            None => RopeType::Default,
            value => {
                let named = |name| types.into_iter().find(|one| Some(one.name()) == name);
                named(value.and_then(Value::as_str)).ok_or_else(|| {
                    let expected = types.map(|one| format!("{:?}", one.name())).join(", ");
                    self.wrong(key, format_args!("one of {expected}"), value)
                })?
            }
        };
        self.whole_head()?;
        if rope_type == RopeType::Default {
            return Ok(None);
        }
        Ok(Some(RopeScaling {
            rope_type,
            rope_theta: None,
            factor: self.number("factor")?,
            low_freq_factor: self.number("low_freq_factor")?,
            high_freq_factor: self.number("high_freq_factor")?,
            original_max_position_embeddings: self.number("original_max_position_embeddings")?,
            attention_factor: self.number("attention_factor")?,
            beta_fast: self.number("beta_fast")?,
            beta_slow: self.number("beta_slow")?,
            mscale: self.number("mscale")?,
            mscale_all_dim: self.number("mscale_all_dim")?,
            truncate: self.flag("truncate")?,
        }))
    }
}
