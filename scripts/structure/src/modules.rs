//! The module tree of a crate: its files read and parsed, each module with what it defines, what it
//! imports and the paths that stand in it. Resolves no path.

use crate::visit::{Seen, is_for_tests, see};
use proc_macro2::Span;
use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use syn::spanned::Spanned;
use syn::{Item, ItemMod, UseTree, Visibility};

/// A file and what it reads as.
pub(crate) struct Source {
    /// Its path below the crate's folder, with slashes.
    pub(crate) path: String,
    pub(crate) text: String,
    /// Lines of tests, from 1.
    pub(crate) tests: Vec<RangeInclusive<usize>>,
    pub(crate) functions: Vec<crate::Function>,
}

/// One name that a `use` brings.
pub(crate) struct Use {
    /// `*` for all names.
    pub(crate) name: String,
    pub(crate) path: Vec<String>,
    pub(crate) is_public: bool,
}

/// A module, of its own file or within one.
#[derive(Default)]
pub(crate) struct Module {
    /// Its file's index in the sources.
    pub(crate) source: usize,
    pub(crate) parent: Option<usize>,
    pub(crate) children: HashMap<String, usize>,
    pub(crate) items: HashSet<String>,
    pub(crate) uses: Vec<Use>,
    /// The paths in its code.
    pub(crate) paths: Vec<Vec<String>>,
}

/// A whole crate. The first module is its root.
#[derive(Default)]
pub(crate) struct Tree {
    pub(crate) sources: Vec<Source>,
    pub(crate) modules: Vec<Module>,
}

/// Where the files of a module's children lie, and which file it is in itself.
#[derive(Clone)]
struct Place {
    source: usize,
    children: PathBuf,
    /// Where `#[path]` of a child is looked for.
    beside: PathBuf,
}

pub(crate) fn lines(span: Span) -> RangeInclusive<usize> {
    span.start().line..=span.end().line
}

impl Tree {
    pub(crate) fn read(folder: &Path) -> Result<Self, String> {
        let mut tree = Self::default();
        let path = folder.join("lib.rs");
        tree.file(folder, &path, folder.to_owned(), None, false)?;
        Ok(tree)
    }

    /// Reads a file with all below it; returns its module.
    fn file(
        &mut self,
        folder: &Path,
        path: &Path,
        children: PathBuf,
        parent: Option<usize>,
        is_test: bool,
    ) -> Result<usize, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let parsed = syn::parse_file(&text).map_err(|e| {
            let start = e.span().start();
            format!("{}:{}: {e}", path.display(), start.line)
        })?;
        let below = path.strip_prefix(folder).unwrap_or(path);
        let source = self.sources.len();
        let all = 1..=text.lines().count();
        self.sources.push(Source {
            path: below.to_string_lossy().replace('\\', "/"),
            text,
            tests: if is_test { vec![all] } else { Vec::new() },
            functions: Vec::new(),
        });
        let place = Place {
            source,
            children,
            beside: path.parent().unwrap_or(folder).to_owned(),
        };
        // What is there for tests alone takes names as it likes.
        let items: &[Item] = if is_test { &[] } else { &parsed.items };
        self.module(folder, &place, items, parent)
    }

    fn module(
        &mut self,
        folder: &Path,
        place: &Place,
        items: &[Item],
        parent: Option<usize>,
    ) -> Result<usize, String> {
        let index = self.modules.len();
        self.modules.push(Module {
            source: place.source,
            parent,
            ..Module::default()
        });
        for item in items {
            if let Item::Mod(child) = item {
                self.child(folder, place, child, index)?;
            } else {
                self.item(index, item);
            }
        }
        Ok(index)
    }

    fn child(
        &mut self,
        folder: &Path,
        place: &Place,
        child: &ItemMod,
        parent: usize,
    ) -> Result<(), String> {
        let is_test = is_for_tests(&child.attrs);
        let name = child.ident.to_string();
        if is_test && child.content.is_some() {
            let span = lines(child.span());
            self.sources[place.source].tests.push(span);
            return Ok(());
        }
        let module = if let Some((_, items)) = &child.content {
            let inner = Place {
                children: place.children.join(&name),
                ..place.clone()
            };
            self.module(folder, &inner, items, Some(parent))?
        } else {
            let (path, children) = found(place, child, &name);
            self.file(folder, &path, children, Some(parent), is_test)?
        };
        if !is_test {
            self.modules[parent].children.insert(name, module);
        }
        Ok(())
    }

    fn item(&mut self, index: usize, item: &Item) {
        let Seen {
            names,
            uses,
            paths,
            functions,
            tests,
        } = see(item);
        let module = &mut self.modules[index];
        module.items.extend(names);
        for (tree, visibility) in uses {
            let is_public = !matches!(visibility, Visibility::Inherited);
            flatten(tree, &mut Vec::new(), is_public, &mut module.uses);
        }
        module.paths.extend(paths);
        let source = &mut self.sources[module.source];
        source.functions.extend(functions);
        source.tests.extend(tests);
    }
}

/// The file of a module that has one of its own, and where the files of its children lie.
fn found(place: &Place, child: &ItemMod, name: &str) -> (PathBuf, PathBuf) {
    let given = child.attrs.iter().find_map(|attribute| {
        let syn::Meta::NameValue(pair) = &attribute.meta else {
            return None;
        };
        let syn::Expr::Lit(syn::ExprLit {
            lit: syn::Lit::Str(path),
            ..
        }) = &pair.value
        else {
            return None;
        };
        pair.path.is_ident("path").then(|| path.value())
    });
    if let Some(given) = given {
        let path = place.beside.join(given);
        let children = path.parent().unwrap_or(&place.beside).to_owned();
        return (path, children);
    }
    let children = place.children.join(name);
    let flat = place.children.join(format!("{name}.rs"));
    if flat.exists() {
        (flat, children)
    } else {
        (children.join("mod.rs"), children)
    }
}

/// The names that a `use` brings, each with its path.
fn flatten(tree: &UseTree, prefix: &mut Vec<String>, is_public: bool, uses: &mut Vec<Use>) {
    let mut add = |name: String, path: Vec<String>| {
        uses.push(Use {
            name,
            path,
            is_public,
        });
    };
    match tree {
        UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            flatten(&path.tree, prefix, is_public, uses);
            prefix.pop();
        }
        UseTree::Group(group) => {
            for item in &group.items {
                flatten(item, prefix, is_public, uses);
            }
        }
        UseTree::Glob(_) => add("*".to_owned(), prefix.clone()),
        UseTree::Name(name) if name.ident == "self" => {
            let last = prefix.last().cloned().unwrap_or_default();
            add(last, prefix.clone());
        }
        UseTree::Name(name) => {
            let name = name.ident.to_string();
            add(name.clone(), [prefix.clone(), vec![name]].concat());
        }
        UseTree::Rename(rename) => {
            let from = rename.ident.to_string();
            let path = if from == "self" {
                prefix.clone()
            } else {
                [prefix.clone(), vec![from]].concat()
            };
            add(rename.rename.to_string(), path);
        }
    }
}
