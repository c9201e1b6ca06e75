//! Requests as `PROTOCOL.md` lists them.

use std::fmt::Write;

use diffattn_door::schema::{Encoding, Field, Request};

/// Columns of a line at most.
const WIDTH: usize = 120;

/// The document with the listing between the two marks of `listing` written anew; tables that
/// `above` has are listed there.
pub(crate) fn replace(
    document: &str,
    listing: &str,
    (requests, above): (&[&Request], &[&Request]),
) -> String {
    let begin = format!("<!-- generated: {listing} -->\n");
    let end = format!("<!-- end of {listing} -->\n");
    let parts = document
        .split_once(&begin)
        .and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    let Some((before, after)) = parts else {
        panic!("PROTOCOL.md has no place for the listing of {listing}");
    };
    let mut tables = Vec::new();
    collect(above, &mut tables);
    let listed = tables.len();
    collect(requests, &mut tables);
    let mut text = String::from("```\n");
    for (name, fields, is_variant) in tables.split_off(listed) {
        if is_variant {
            let _ = writeln!(text, "{name}: enum");
            let numbered = fields.iter().enumerate();
            list(
                &mut text,
                numbered.map(|(index, field)| (format!("{index} {}", field.name()), field)),
            );
        } else {
            let _ = writeln!(text, "{name}:");
            list(&mut text, fields.iter().map(|field| (field.name(), field)));
        }
        text.push('\n');
    }
    for (index, request) in requests.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        let _ = writeln!(text, "{} {}", request.number, request.name);
        let fields = request.operands.iter().chain(request.options);
        list(&mut text, fields.map(|field| (field.name(), field)));
    }
    text += "```\n";
    format!("{before}{begin}{text}{end}{after}")
}

/// A table, or a choice, that has a name: the last says which.
type Shared = (&'static str, &'static [Field], bool);

fn collect(requests: &[&Request], found: &mut Vec<Shared>) {
    for request in requests {
        for field in request.operands.iter().chain(request.options) {
            shared(field.encoding, found);
        }
    }
}

/// Tables and choices that have a name, those that others need first.
fn shared(encoding: &Encoding, found: &mut Vec<Shared>) {
    match encoding {
        Encoding::Optional(inner)
        | Encoding::Nullable(inner)
        | Encoding::Or(_, inner)
        | Encoding::OrNone(inner)
        | Encoding::List(inner)
        | Encoding::OneOrMore(inner)
        | Encoding::Pair(_, inner) => shared(inner, found),
        Encoding::Record(name, fields)
        | Encoding::Fields(name, fields)
        | Encoding::Variant(name, fields) => {
            for field in *fields {
                shared(field.encoding, found);
            }
            if let Some(name) = name
                && !found.iter().any(|(other, ..)| other == name)
            {
                found.push((name, fields, matches!(encoding, Encoding::Variant(..))));
            }
        }
        Encoding::Atom(_) | Encoding::Choice(_) | Encoding::Weights(_) => {}
    }
}

/// A field per line, its encoding beside its name.
fn list<'f>(text: &mut String, fields: impl Iterator<Item = (String, &'f Field)>) {
    let fields: Vec<_> = fields.collect();
    let width = fields.iter().map(|(name, _)| name.chars().count()).max();
    let width = width.unwrap_or(0) + 2;
    for (name, field) in fields {
        let mut line = format!("  {name:width$}");
        for word in words(field.encoding).split(' ') {
            if line.chars().count() + word.chars().count() > WIDTH {
                let _ = writeln!(text, "{}", line.trim_end());
                line = format!("  {:width$}", "");
            }
            line += word;
            line.push(' ');
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

fn words(encoding: &Encoding) -> String {
    match encoding {
        Encoding::Atom("vector") => "tensor (float32)".into(),
        Encoding::Atom("mask" | "uint8") => "tensor (uint8)".into(),
        Encoding::Atom("int32") => "tensor (int32)".into(),
        Encoding::Atom("numbers") => "tensor (floats, or uint8 as codes)".into(),
        Encoding::Atom("numberOrVector") => {
            "enum { 0 absent, 1 number, 2 tensor (float32) }".into()
        }
        Encoding::Atom("integerTensor") => "{ dims: list of size, values: list of integer }".into(),
        Encoding::Atom(atom) => (*atom).into(),
        Encoding::Optional(inner) => format!("optional {}", words(inner)),
        Encoding::OrNone(inner) => format!("optional {}, or null", words(inner)),
        Encoding::Nullable(inner) => words(inner).replacen("tensor", "tensor?", 1),
        Encoding::Or(value, inner) => {
            let value = match inner {
                Encoding::Choice(names) => names[*value].to_owned(),
                _ => value.to_string(),
            };
            format!("{} ({value} where left out)", words(inner))
        }
        Encoding::List(inner) => format!("list of {}", words(inner)),
        Encoding::OneOrMore(inner) => {
            format!("list of {} (one alone is a list of one)", words(inner))
        }
        Encoding::Pair(names, inner) => {
            let inner = words(inner);
            format!("{{ {}: {inner}, {}: {inner} }}", names[0], names[1])
        }
        Encoding::Choice(names) => format!("enum {{ {} }}", names.join(", ")),
        Encoding::Record(Some(name), _)
        | Encoding::Fields(Some(name), _)
        | Encoding::Variant(Some(name), _) => (*name).into(),
        Encoding::Record(None, fields) | Encoding::Fields(None, fields) => {
            let fields: Vec<_> = fields
                .iter()
                .map(|field| format!("{}: {}", field.name(), words(field.encoding)))
                .collect();
            format!("{{ {} }}", fields.join(", "))
        }
        Encoding::Variant(None, fields) => {
            let fields: Vec<_> = fields
                .iter()
                .enumerate()
                .map(|(index, field)| {
                    format!("{index} {}: {}", field.name(), words(field.encoding))
                })
                .collect();
            format!("enum {{ {} }}", fields.join(", "))
        }
        Encoding::Weights(names) => format!("tensor? for each of {}", names().join(" ")),
    }
}
