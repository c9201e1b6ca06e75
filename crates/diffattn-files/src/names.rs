//! The one reading of tensors' names, for loading and inspecting, language models and vision
//! transformers. What wraps a model puts its own prefix before all names (`torch.compile`,
//! `DistributedDataParallel`, PEFT), and a language model that is saved without its head has none
//! where others have `model.`; neither says anything of the weights. Knows no list of weights.

use std::borrow::Cow;
use std::collections::BTreeSet;

/// What wraps a whole model: taken off in any order, however often.
const WRAPPERS: [&str; 3] = ["_orig_mod.", "module.", "base_model.model."];

/// What wraps any module, a layer for instance: taken off wherever it stands. No model has a module
/// of these names.
const WITHIN: [&str; 3] = [
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
];

/// What language models have before the names of all but their head.
const MODEL: &str = "model.";

/// The modules of a language model without its head, and those of diff-mlx, whose older files have
/// no prefix; the first of each that no other model has.
const BASES: [&[&str]; 2] = [
    &["layers.", "embed_tokens.", "norm.", "final_layernorm."],
    &["tok_embed.", "blocks.", "final_norm."],
];

/// Names as models have them.
#[derive(Debug)]
pub(crate) struct Names<'n> {
    /// In the order in which they were given.
    pub(crate) read: Vec<Cow<'n, str>>,
    taken_off: BTreeSet<&'static str>,
    is_base: bool,
}

impl<'n> Names<'n> {
    /// Reads the names of a checkpoint.
    pub(crate) fn read(names: impl IntoIterator<Item = &'n str>) -> Self {
        let mut taken_off = BTreeSet::new();
        let mut read: Vec<Cow<'n, str>> = names
            .into_iter()
            .map(|name| unwrapped(name, &mut taken_off))
            .collect();
        let begins = |prefix: &str| read.iter().any(|name| name.starts_with(prefix));
        let base = BASES
            .iter()
            .find(|modules| modules.first().is_some_and(|first| begins(first)));
        let base = base.filter(|_| !begins(MODEL));
        if let Some(modules) = base {
            for name in &mut read {
                if modules.iter().any(|module| name.starts_with(module)) {
                    *name = Cow::Owned(format!("{MODEL}{name}"));
                }
            }
        }
        let is_base = base.is_some();
        Self {
            read,
            taken_off,
            is_base,
        }
    }

    /// What is odd about them, each a sentence. `has_base`: whether names without `model.` are
    /// those of a base model.
    pub(crate) fn notices(&self, has_base: bool) -> Vec<String> {
        let mut notices = Vec::new();
        if !self.taken_off.is_empty() {
            let prefixes: Vec<&str> = self.taken_off.iter().copied().collect();
            notices.push(format!(
                "names of tensors have a prefix of what wrapped the model ({}): it is taken off",
                prefixes.join(", ")
            ));
        }
        if has_base && self.is_base {
            notices.push(format!(
                "names of tensors lack the prefix {MODEL}, as a base model's do: it is read as if it were there"
            ));
        }
        notices
    }
}

/// The name without what wraps the model or a module of it.
fn unwrapped<'n>(name: &'n str, taken_off: &mut BTreeSet<&'static str>) -> Cow<'n, str> {
    let mut rest = name;
    while let Some((wrapper, within)) = WRAPPERS
        .iter()
        .find_map(|&wrapper| Some((wrapper, rest.strip_prefix(wrapper)?)))
    {
        taken_off.insert(wrapper);
        rest = within;
    }
    let wraps = |part: &str| WITHIN.iter().copied().find(|&within| within == part);
    if !rest.split('.').any(|part| wraps(part).is_some()) {
        return Cow::Borrowed(rest);
    }
    let mut parts = Vec::new();
    for part in rest.split('.') {
        match wraps(part) {
            Some(within) => _ = taken_off.insert(within),
            None => parts.push(part),
        }
    }
    Cow::Owned(parts.join("."))
}
