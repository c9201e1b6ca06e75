//! Requests as constants of TypeScript, printed as prettier prints them: pure data, a constant per
//! request, so that bundlers drop those that are not used.

use std::collections::BTreeSet;
use std::fmt::Write;

use diffattn_door::schema::{Encoding, Field, Request};

/// Columns of a line at most.
const WIDTH: usize = 140;

/// An expression.
enum Js {
    Name(String),
    Array(Vec<Js>),
    Object(Vec<(String, Js)>),
}

fn name(name: impl Into<String>) -> Js {
    Js::Name(name.into())
}

impl Js {
    /// On one line.
    fn flat(&self) -> String {
        match self {
            Self::Name(name) => name.clone(),
            Self::Array(items) => {
                let items: Vec<_> = items.iter().map(Self::flat).collect();
                format!("[{}]", items.join(", "))
            }
            Self::Object(entries) if entries.is_empty() => "{}".into(),
            Self::Object(entries) => {
                let entries: Vec<_> = entries
                    .iter()
                    .map(|(key, value)| entry(key, &value.flat()))
                    .collect();
                format!("{{ {} }}", entries.join(", "))
            }
        }
    }

    /// From column `column` of a line that is indented by `indent` columns, with `after` columns to
    /// follow.
    fn print(&self, indent: usize, column: usize, after: usize) -> String {
        let flat = self.flat();
        if column + flat.chars().count() + after <= WIDTH {
            return flat;
        }
        self.broken(indent)
    }

    /// An item per line.
    fn broken(&self, indent: usize) -> String {
        let inner = indent + 2;
        let (open, close, lines): (_, _, Vec<String>) = match self {
            Self::Name(name) => return name.clone(),
            Self::Array(items) => {
                let lines = items.iter().map(|item| item.print(inner, inner, 1));
                ('[', ']', lines.collect())
            }
            Self::Object(entries) => {
                let lines = entries.iter().map(|(key, value)| {
                    let column = inner + key.chars().count() + 2;
                    entry(key, &value.print(inner, column, 1))
                });
                ('{', '}', lines.collect())
            }
        };
        let mut text = format!("{open}\n");
        for line in lines {
            let _ = writeln!(text, "{:inner$}{line},", "");
        }
        let _ = write!(text, "{:indent$}{close}", "");
        text
    }

    fn collect_names(&self, names: &mut BTreeSet<String>) {
        match self {
            Self::Name(name) => {
                names.insert(name.clone());
            }
            Self::Array(items) => items.iter().for_each(|item| item.collect_names(names)),
            Self::Object(entries) => {
                entries
                    .iter()
                    .for_each(|(_, value)| value.collect_names(names));
            }
        }
    }
}

/// An entry of an object.
fn entry(key: &str, value: &str) -> String {
    if key == value {
        value.to_owned()
    } else {
        format!("{key}: {value}")
    }
}

/// Constants in the order in which they are declared.
#[derive(Default)]
struct Constants(Vec<(String, Js)>);

impl Constants {
    /// A constant of `make`, declared where it was not yet.
    fn shared(&mut self, shared: &str, make: impl FnOnce(&mut Self) -> Js) -> Js {
        if !self.0.iter().any(|(declared, _)| declared == shared) {
            let value = make(self);
            self.0.push((shared.to_owned(), value));
        }
        name(shared)
    }

    fn object(&mut self, fields: &[Field]) -> Js {
        let entries = fields.iter();
        Js::Object(
            entries
                .map(|field| (field.name(), self.expression(field.encoding)))
                .collect(),
        )
    }

    fn table(&mut self, shared: Option<&str>, fields: &[Field]) -> Js {
        match shared {
            Some(shared) => self.shared(shared, |constants| constants.object(fields)),
            None => self.object(fields),
        }
    }

    fn expression(&mut self, encoding: &Encoding) -> Js {
        let mut of = |combinator: &str, inner: &Encoding| {
            Js::Array(vec![name(combinator), self.expression(inner)])
        };
        match encoding {
            Encoding::Atom(atom) => name(*atom),
            Encoding::Optional(inner) => of("optional", inner),
            Encoding::Nullable(inner) => of("nullable", inner),
            Encoding::OrNone(inner) => of("orNone", inner),
            Encoding::Or(value, inner) => {
                let value = left_out(*value, inner);
                Js::Array(vec![name("or"), name(value), self.expression(inner)])
            }
            Encoding::List(Encoding::Atom("tensor")) => name("tensors"),
            Encoding::List(inner) => of("list", inner),
            Encoding::OneOrMore(inner) => of("oneOrMore", inner),
            Encoding::Pair(names, inner) => {
                let mut items = vec![name("pair")];
                items.extend(names.map(quoted));
                items.push(self.expression(inner));
                Js::Array(items)
            }
            Encoding::Choice(values) => words("choice", values),
            Encoding::Record(shared, fields) => {
                Js::Array(vec![name("record"), self.table(*shared, fields)])
            }
            Encoding::Fields(shared, fields) => {
                Js::Array(vec![name("fields"), self.table(*shared, fields)])
            }
            Encoding::Variant(shared, fields) => {
                let variant = |constants: &mut Self| {
                    Js::Array(vec![name("variant"), constants.object(fields)])
                };
                match shared {
                    Some(shared) => self.shared(shared, variant),
                    None => variant(self),
                }
            }
            Encoding::Weights(names) => words("weights", &names()),
        }
    }

    /// The tables of the options of a request.
    fn options(&mut self, options: &[Field]) -> Js {
        let mut tables = Vec::new();
        let mut own = Vec::new();
        for field in options {
            if let Encoding::Record(shared, fields) = field.encoding {
                if !own.is_empty() {
                    tables.push(Js::Object(std::mem::take(&mut own)));
                }
                tables.push(self.table(*shared, fields));
            } else {
                own.push((field.name(), self.expression(field.encoding)));
            }
        }
        if !own.is_empty() {
            tables.push(Js::Object(own));
        }
        Js::Array(tables)
    }
}

fn quoted(text: &str) -> Js {
    name(format!("{text:?}"))
}

fn words<W: AsRef<str>>(combinator: &str, words: &[W]) -> Js {
    let mut items = vec![name(combinator)];
    items.extend(words.iter().map(|word| quoted(word.as_ref())));
    Js::Array(items)
}

/// What is written for the caller who leaves a value out.
fn left_out(value: usize, encoding: &Encoding) -> String {
    match encoding {
        Encoding::Choice(values) => format!("{:?}", values[value]),
        Encoding::Atom("flag") => (value != 0).to_string(),
        _ => value.to_string(),
    }
}

/// The file of the tables of `requests`.
pub(crate) fn tables(what: &str, atoms: &str, requests: &[&Request]) -> String {
    let mut constants = Constants::default();
    let mut exported = BTreeSet::new();
    for request in requests {
        let table = Js::Object(vec![
            ("op".into(), name(request.number.to_string())),
            ("operands".into(), constants.object(request.operands)),
            ("options".into(), constants.options(request.options)),
        ]);
        constants.0.push((request.name.to_owned(), table));
        exported.insert(request.name);
    }
    let mut imported = BTreeSet::new();
    for (_, value) in &constants.0 {
        value.collect_names(&mut imported);
    }
    imported.retain(|name| {
        let is_word = name.starts_with(|first: char| first.is_ascii_lowercase());
        let is_own = constants.0.iter().any(|(own, _)| own == name);
        is_word && !is_own && !["true", "false"].contains(&name.as_str())
    });
    let mut text = format!(
        "// Requests of {what}. Generated from crates/diffattn-door: not edited by hand.\n\n"
    );
    text += &import(&imported, atoms);
    for (constant, value) in &constants.0 {
        let export = if exported.contains(constant.as_str()) {
            "export "
        } else {
            ""
        };
        let before = format!("{export}const {constant} = ");
        let value = value.print(0, before.chars().count(), " as const;".len());
        let _ = write!(text, "\n{before}{value} as const;\n");
    }
    text
}

fn import(names: &BTreeSet<String>, from: &str) -> String {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let flat = format!("import {{ {} }} from \"{from}\";\n", names.join(", "));
    if flat.chars().count() <= WIDTH + 1 {
        return flat;
    }
    format!(
        "import {{\n  {},\n}} from \"{from}\";\n",
        names.join(",\n  ")
    )
}

/// The file of the numbers of `requests`.
pub(crate) fn numbers(requests: &[&Request]) -> String {
    let mut text = String::from(
        "// The numbers of requests. Generated from crates/diffattn-door: not edited by hand.\n\n",
    );
    for request in requests {
        let _ = writeln!(text, "export const {} = {};", request.name, request.number);
    }
    text
}
