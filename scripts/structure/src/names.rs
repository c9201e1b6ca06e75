//! Where names come from: each path of a module followed to the file that defines what it names,
//! through re-exports.

use crate::modules::{Module, Tree, Use};
use std::collections::HashSet;

/// What a path names.
enum Target {
    /// An item of the file with this index.
    Item(usize),
    /// A module of this crate.
    Module(usize),
}

/// A name that a file takes from another.
pub(crate) struct Import {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) name: String,
    /// By a `use` line of a module that names what lies below that module.
    pub(crate) is_from_below: bool,
}

pub(crate) fn imports(tree: &Tree) -> Vec<Import> {
    let mut found = Vec::new();
    for (index, module) in tree.modules.iter().enumerate() {
        let paths = module
            .paths
            .iter()
            .filter(|path| !is_said_by_use(module, path));
        let uses = module
            .uses
            .iter()
            .filter(|item| !(item.is_public && is_of_below(module, item)));
        let taken = paths
            .map(|path| (path, false))
            .chain(uses.map(|item| (&item.path, is_of_below(module, item))));
        for (path, is_from_below) in taken {
            if let Some(Target::Item(to)) = resolve(tree, index, path, &mut HashSet::new())
                && to != module.source
                && let Some(name) = path.last()
            {
                found.push(Import {
                    from: module.source,
                    to,
                    name: name.clone(),
                    is_from_below,
                });
            }
        }
    }
    found
}

/// Whether a `use` names what lies below its module.
fn is_of_below(module: &Module, item: &Use) -> bool {
    let below = item.path.iter().find(|part| *part != "self");
    below.is_some_and(|part| module.children.contains_key(part))
}

/// Whether a path begins with a name that a `use` brings from below: then that line counts, or, as
/// a `pub use`, does not.
fn is_said_by_use(module: &Module, path: &[String]) -> bool {
    let Some(first) = path.first() else {
        return false;
    };
    let is_child = path.len() > 1 && module.children.contains_key(first);
    let mut named = module.uses.iter().filter(|item| item.name == *first);
    !is_child && named.any(|item| is_of_below(module, item))
}

type Asked = HashSet<(usize, String)>;

fn resolve(tree: &Tree, from: usize, path: &[String], asked: &mut Asked) -> Option<Target> {
    let mut at = from;
    let mut parts = path.iter().peekable();
    while let Some(part) = parts.peek() {
        match part.as_str() {
            "crate" => at = 0,
            "self" => {}
            "super" => at = tree.modules[at].parent?,
            _ => break,
        }
        parts.next();
    }
    let mut target = Target::Module(at);
    for (index, part) in parts.enumerate() {
        let Target::Module(module) = target else {
            // What follows an item is its own: a variant, a function of its.
            break;
        };
        let is_last = index + 1 == path.len();
        target = lookup(tree, module, part, is_last, asked)?;
    }
    Some(target)
}

fn lookup(
    tree: &Tree,
    index: usize,
    name: &str,
    is_last: bool,
    asked: &mut Asked,
) -> Option<Target> {
    let module = &tree.modules[index];
    let child = module
        .children
        .get(name)
        .map(|&child| Target::Module(child));
    // A name can be a module's and an item's: before `::` the module is meant, at the end the item.
    if !is_last && child.is_some() {
        return child;
    }
    if module.items.contains(name) {
        return Some(Target::Item(module.source));
    }
    if child.is_some() {
        return child;
    }
    if !asked.insert((index, name.to_owned())) {
        return None;
    }
    let named = module.uses.iter().filter(|item| item.name == name);
    for item in named {
        // A path that begins with its own name is another crate's.
        if item.path.len() == 1 && item.path[0] == name {
            continue;
        }
        if let Some(target) = resolve(tree, index, &item.path, asked) {
            return Some(target);
        }
    }
    for item in module.uses.iter().filter(|item| item.name == "*") {
        let Some(Target::Module(other)) = resolve(tree, index, &item.path, asked) else {
            continue;
        };
        if let Some(target) = lookup(tree, other, name, is_last, asked) {
            return Some(target);
        }
    }
    None
}
