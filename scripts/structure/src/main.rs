//! `diffattn-structure FOLDER…`: each the `src` of a crate. Prints the facts of its files as one
//! JSON object by folder. Judges nothing; scripts/structure.mjs does.

#![expect(clippy::print_stdout, reason = "the facts are what it is for")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut facts = BTreeMap::new();
    for folder in std::env::args().skip(1) {
        match diffattn_structure::facts(Path::new(&folder)) {
            Ok(files) => facts.insert(folder, files),
            Err(why) => {
                eprintln!("{why}");
                return ExitCode::FAILURE;
            }
        };
    }
    match serde_json::to_string(&facts) {
        Ok(text) => println!("{text}"),
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
