//! Facts of small crates that are written for the test: who takes names from whom, lengths,
//! arguments, tests, comments.

#![expect(clippy::unwrap_used, reason = "tests")]

use diffattn_structure::{File, facts};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A crate's sources in a folder that goes with it.
struct Crate(PathBuf);

impl Crate {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let folder = std::env::temp_dir().join(format!("structure-{name}-{}", std::process::id()));
        for (path, text) in files {
            let file = folder.join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        Self(folder)
    }

    fn facts(&self) -> BTreeMap<String, File> {
        facts(&self.0).unwrap()
    }
}

impl Drop for Crate {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// `a.rs: b.rs X Y` for each file and those that it takes names from.
fn imports(files: &BTreeMap<String, File>) -> Vec<String> {
    let lines = files.iter().flat_map(|(from, file)| {
        let said =
            move |to: &String, names: &Vec<String>| format!("{from}: {to} {}", names.join(" "));
        file.imports.iter().map(move |(to, names)| said(to, names))
    });
    lines.collect()
}

#[test]
fn a_name_is_followed_to_the_file_that_defines_it() {
    let files = Crate::new(
        "names",
        &[
            (
                "lib.rs",
                "mod a;\nmod b;\nmod deep;\npub use deep::Inner as Renamed;\n",
            ),
            // By a re-export with another name, by a path in code, and what is not of this crate.
            (
                "a.rs",
                "use crate::Renamed;\nuse std::fmt;\npub struct A(Renamed);\nfn f() { crate::b::g(super::deep::Kind::One) }\nimpl fmt::Debug for A {}\n",
            ),
            (
                "b.rs",
                "use crate::deep;\npub fn g(kind: deep::Kind) { let _ = kind; }\n",
            ),
            (
                "deep/mod.rs",
                "mod inner;\nmod more;\npub use inner::*;\npub enum Kind { One }\n",
            ),
            ("deep/inner.rs", "pub struct Inner;\n"),
            // In what a macro is given, and through a glob.
            (
                "deep/more.rs",
                "use super::*;\nfn h() { assert!(matches!(Kind::One, crate::deep::Kind::One)); let _ = Inner; }\n",
            ),
        ],
    )
    .facts();
    assert_eq!(
        imports(&files),
        [
            "a.rs: b.rs g",
            "a.rs: deep/inner.rs Renamed",
            "a.rs: deep/mod.rs One",
            "b.rs: deep/mod.rs Kind",
            "deep/more.rs: deep/inner.rs Inner",
            "deep/more.rs: deep/mod.rs One",
        ]
    );
}

#[test]
fn a_parents_exports_are_no_imports_and_its_uses_are_told_apart() {
    let files = Crate::new(
        "parents",
        &[
            (
                "lib.rs",
                "mod a;\nmod b;\nmod c;\npub use a::A;\nuse b::B;\npub struct Own;\nfn f(_: A, _: B) { c::g() }\n",
            ),
            ("a.rs", "use super::Own;\npub struct A(Own);\n"),
            ("b.rs", "pub struct B;\n"),
            ("c.rs", "pub fn g() {}\n"),
        ],
    )
    .facts();
    assert_eq!(imports(&files), ["a.rs: lib.rs Own", "lib.rs: c.rs g"]);
    let below: Vec<&String> = files["lib.rs"].from_below.keys().collect();
    assert_eq!(below, ["b.rs"]);
}

#[test]
fn tests_take_no_names_and_count_as_no_product() {
    let files = Crate::new(
        "tests",
        &[
            (
                "lib.rs",
                "mod a;\n#[cfg(test)]\nmod far;\npub fn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::a::A;\n    fn long() {\n        unsafe { A }\n    }\n}\n",
            ),
            ("a.rs", "pub struct A;\n#[cfg(test)]\nuse crate::f;\n"),
            ("far.rs", "use crate::a::A;\nfn g() {}\n"),
        ],
    )
    .facts();
    assert_eq!(imports(&files), [] as [String; 0]);
    let measures = |name: &str| {
        let file = &files[name];
        (
            file.lines,
            file.test_lines,
            file.functions.len(),
            file.unsafe_lines,
        )
    };
    assert_eq!(measures("lib.rs"), (11, 7, 1, 0));
    assert_eq!(measures("a.rs"), (3, 2, 0, 0));
    assert_eq!(measures("far.rs"), (2, 2, 0, 0));
}

#[test]
fn functions_are_measured_where_they_stand() {
    let text = "
/// Not counted.
pub fn one<const N: usize>(
    a: [u8; N],
    b: impl Fn(u8, u8) -> u8,
) {
    fn within() {}
}
trait Two {
    fn declared(&self);
    fn given(&self, x: u8) {}
}
macro_rules! make {
    ($name:ident) => {
        pub fn made(self: &Self, x: Vec<(u8, u8)>, y: HashMap<u8, u8>) -> u8 {
            0
        }
        fn only_said(x: u8);
    };
}
";
    let files = Crate::new("functions", &[("lib.rs", text)]).facts();
    let functions: Vec<_> = files["lib.rs"]
        .functions
        .iter()
        .map(|one| (one.name.as_str(), one.line, one.lines, one.arguments))
        .collect();
    assert_eq!(
        functions,
        [
            ("one", 3, 6, 2),
            ("within", 7, 1, 0),
            ("given", 11, 1, 1),
            ("made", 15, 3, 2),
        ]
    );
}

#[test]
fn comments_and_unsafe_code_are_counted_by_lines() {
    let wide = "x".repeat(98);
    let text = format!(
        "//! {wide}\n// {}\nfn f() {{\n    let text = \"// {wide}\";\n    unsafe {{ g() }} // {wide}\n    // unsafe {{\n}}\n",
        &wide[..97]
    );
    let files = Crate::new("comments", &[("lib.rs", &text)]).facts();
    let file = &files["lib.rs"];
    assert_eq!(file.long_comments, [1, 5]);
    assert_eq!(
        (file.comment_lines, file.code_lines, file.unsafe_lines),
        (3, 4, 1)
    );
}

#[test]
fn what_cannot_be_read_is_said() {
    let missing = Crate::new("missing", &[("lib.rs", "mod gone;\n")]);
    let said = facts(&missing.0).unwrap_err();
    assert!(said.contains("gone/mod.rs: "), "{said}");
    let wrong = Crate::new("wrong", &[("lib.rs", "fn f() {}\nfn {\n")]);
    let said = facts(&wrong.0).unwrap_err();
    assert!(said.contains("lib.rs:2: "), "{said}");
}
