//! The entries of a configuration in JSON, each read as what it should be, or refused by its name
//! (`config.KEY`). Reads text, no file; knows no model.

use diffattn::Error;
use diffattn_files::json_object;
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// A JSON object and what it is called in errors.
pub(crate) struct Entries<'v> {
    pub(crate) name: String,
    pub(crate) map: Cow<'v, Map<String, Value>>,
}

impl Entries<'static> {
    pub(crate) fn read(name: &str, text: &str) -> Result<Self, Error> {
        Ok(Self {
            name: name.to_owned(),
            map: Cow::Owned(json_object(name, text)?),
        })
    }
}

impl Entries<'_> {
    /// The value; null counts as none.
    pub(crate) fn value(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn wrong(
        &self,
        key: &str,
        expected: impl std::fmt::Display,
        got: Option<&Value>,
    ) -> Error {
        file_error(
            format_args!("{}.{key}", self.name),
            expected,
            described(got),
        )
    }

    pub(crate) fn size(&self, key: &str) -> Result<Option<usize>, Error> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        match value.as_u64().map(usize::try_from) {
            Some(Ok(size)) if size > 0 => Ok(Some(size)),
            Some(Err(_)) => Err(self.wrong(key, "a size that fits this machine", Some(value))),
            _ => Err(self.wrong(key, "a whole number of at least 1", Some(value))),
        }
    }

    pub(crate) fn number(&self, key: &str) -> Result<Option<f64>, Error> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) => Ok(Some(number)),
                None => Err(self.wrong(key, "a number", Some(value))),
            },
        }
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, Error> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            value => Err(self.wrong(key, "true or false", value)),
        }
    }

    /// `None` where the key is missing, `Some(None)` for null; and for −1, which older files have.
    pub(crate) fn id(&self, key: &str) -> Result<Option<Option<u32>>, Error> {
        match self.map.get(key) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(None)),
            Some(value) if value.as_i64() == Some(-1) => Ok(Some(None)),
            value => match value.and_then(as_id) {
                Some(id) => Ok(Some(Some(id))),
                None => Err(self.wrong(key, "a token id or null", value)),
            },
        }
    }

    /// `None` where the key is missing, an empty list for null.
    pub(crate) fn ids(&self, key: &str) -> Result<Option<Vec<u32>>, Error> {
        let expected = "a token id, a list of them or null";
        match self.map.get(key) {
            Some(Value::Array(values)) => values
                .iter()
                .map(|value| as_id(value).ok_or_else(|| self.wrong(key, expected, Some(value))))
                .collect::<Result<_, _>>()
                .map(Some),
            Some(value)
                if !value.is_null() && as_id(value).is_none() && value.as_i64() != Some(-1) =>
            {
                Err(self.wrong(key, expected, Some(value)))
            }
            _ => Ok(self.id(key)?.map(|id| id.into_iter().collect())),
        }
    }

    /// The object under `key`, unless it is missing or empty.
    pub(crate) fn object(&self, key: &str) -> Result<Option<Entries<'_>>, Error> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok((!map.is_empty()).then(|| Entries {
                name: format!("{}.{key}", self.name),
                map: Cow::Borrowed(map),
            })),
            value => Err(self.wrong(key, "an object or null", value)),
        }
    }
}

/// What a `generation_config.json` says of the ids that begin, fill and end a text.
pub(crate) struct GenerationIds {
    pub(crate) bos: Option<u32>,
    pub(crate) pad: Option<u32>,
    pub(crate) eos: Option<Vec<u32>>,
}

impl Entries<'_> {
    /// Those ids; none where it says nothing, or null.
    pub(crate) fn generation_ids(&self) -> Result<GenerationIds, Error> {
        Ok(GenerationIds {
            bos: self.id("bos_token_id")?.flatten(),
            pad: self.id("pad_token_id")?.flatten(),
            eos: self.ids("eos_token_id")?.filter(|ids| !ids.is_empty()),
        })
    }
}

/// Token ids as a config has them: what [`Entries::ids`] reads as these.
pub(crate) fn ids_json(ids: &[u32]) -> Value {
    match ids {
        [] => Value::Null,
        [id] => json!(id),
        ids => json!(ids),
    }
}

fn as_id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

/// A value as an error prints it, cut where it is long.
pub(crate) fn described(value: Option<&Value>) -> String {
    const LONGEST: usize = 60;
    match value {
        None => "none".to_owned(),
        Some(value) => {
            let text = value.to_string();
            match text.char_indices().nth(LONGEST) {
                None => text,
                Some((end, _)) => format!("{}…", &text[..end]),
            }
        }
    }
}

pub(crate) fn file_error(
    argument: impl std::fmt::Display,
    expected: impl std::fmt::Display,
    got: impl std::fmt::Display,
) -> Error {
    Error::file(argument, expected, got)
}
