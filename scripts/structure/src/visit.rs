//! One item of a file: the names that it defines, its imports, the paths in it, its functions.
//! Knows no other item.

use crate::Function;
use crate::modules::lines;
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::ops::RangeInclusive;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Block, Item, ItemUse, Signature, UseTree, Visibility};

/// What an item says.
#[derive(Default)]
pub(crate) struct Seen<'a> {
    /// What the module has by it.
    pub(crate) names: Vec<String>,
    pub(crate) uses: Vec<(&'a UseTree, &'a Visibility)>,
    pub(crate) paths: Vec<Vec<String>>,
    pub(crate) functions: Vec<Function>,
    pub(crate) tests: Vec<RangeInclusive<usize>>,
}

/// Whether it is compiled for tests alone.
pub(crate) fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else {
            return false;
        };
        let words: Vec<String> = list
            .tokens
            .clone()
            .into_iter()
            .map(|token| token.to_string())
            .collect();
        list.path.is_ident("cfg")
            && (words == ["test"]
                || words.first().is_some_and(|word| word == "all")
                    && words[1]
                        .trim_matches(['(', ')'])
                        .split(',')
                        .any(|part| part.trim() == "test"))
    })
}

pub(crate) fn see(item: &Item) -> Seen<'_> {
    let mut seen = Seen::default();
    if let Some(name) = name_of(item) {
        seen.names.push(name);
    }
    seen.visit_item(item);
    seen
}

fn name_of(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::TraitAlias(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

impl Seen<'_> {
    fn function(&mut self, signature: &Signature, block: &Block) {
        let line = signature.fn_token.span.start().line;
        self.functions.push(Function {
            name: signature.ident.to_string(),
            line,
            lines: block.brace_token.span.close().end().line - line + 1,
            arguments: signature.inputs.len() - usize::from(signature.receiver().is_some()),
        });
    }

    /// Functions and paths of what a macro is given or made of.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(word) if word == "fn" => self.function_in_macro(&tokens[at..]),
                TokenTree::Ident(_) if at == 0 || !is_punctuation(&tokens[at - 1], '.') => {
                    let path = path_at(&tokens[at..]);
                    // Each part is two colons and a word.
                    at += 3 * (path.len() - 1);
                    self.paths.push(path);
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// `fn` with what follows: a name, arguments in parentheses, somewhere its braces.
    fn function_in_macro(&mut self, tokens: &[TokenTree]) {
        let [TokenTree::Ident(start), TokenTree::Ident(name), rest @ ..] = tokens else {
            return;
        };
        let groups = |delimiter| {
            rest.iter()
                .enumerate()
                .find_map(move |(at, token)| match token {
                    TokenTree::Group(group) if group.delimiter() == delimiter => Some((at, group)),
                    _ => None,
                })
        };
        let ends = rest.iter().position(|token| is_punctuation(token, ';'));
        let (Some((_, inputs)), Some((at, body))) =
            (groups(Delimiter::Parenthesis), groups(Delimiter::Brace))
        else {
            return;
        };
        if ends.is_some_and(|end| end < at) {
            return;
        }
        let line = start.span().start().line;
        self.functions.push(Function {
            name: name.to_string(),
            line,
            lines: body.span_close().end().line - line + 1,
            arguments: arguments(inputs.stream()),
        });
    }
}

/// How many arguments stand in these parentheses, `self` apart. Angle brackets are no groups of
/// their own.
fn arguments(inputs: TokenStream) -> usize {
    let (mut depth, mut count, mut words) = (0, 0, Vec::new());
    let mut end = |words: &mut Vec<String>| {
        let is_self = words.iter().any(|word| word == "self") && !words.contains(&"dyn".to_owned());
        count += usize::from(!words.is_empty() && !is_self);
        words.clear();
    };
    for token in inputs {
        match token {
            token if is_punctuation(&token, '<') => depth += 1,
            token if is_punctuation(&token, '>') => depth -= 1,
            token if depth == 0 && is_punctuation(&token, ',') => end(&mut words),
            token => words.push(token.to_string()),
        }
    }
    end(&mut words);
    count
}

fn is_punctuation(token: &TokenTree, sign: char) -> bool {
    matches!(token, TokenTree::Punct(mark) if mark.as_char() == sign)
}

/// The path that begins with the first of these.
fn path_at(tokens: &[TokenTree]) -> Vec<String> {
    let mut path = Vec::new();
    let mut rest = tokens;
    while let [TokenTree::Ident(word), more @ ..] = rest {
        path.push(word.to_string());
        match more {
            [one, two, next @ ..] if is_punctuation(one, ':') && is_punctuation(two, ':') => {
                rest = next
            }
            _ => break,
        }
    }
    path
}

impl<'a> Visit<'a> for Seen<'a> {
    fn visit_item(&mut self, item: &'a Item) {
        if is_for_tests(attributes(item)) {
            self.tests.push(lines(item.span()));
        } else {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'a ItemUse) {
        self.uses.push((&item.tree, &item.vis));
    }

    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        if is_for_tests(&item.attrs) {
            self.tests.push(lines(item.span()));
            return;
        }
        self.function(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'a syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let words = path.segments.iter().map(|part| part.ident.to_string());
        self.paths.push(words.collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'a syn::Macro) {
        self.tokens(item.tokens.clone());
        visit::visit_macro(self, item);
    }

    // Attributes name no items of this crate.
    fn visit_attribute(&mut self, _: &'a Attribute) {}
}
