// Formats everything that has a formatter: Rust, TypeScript, JavaScript, JSON and YAML.
import { main } from "./setup.mjs";
import { bin, run } from "./tools.mjs";

main(() => {
  run("cargo", ["fmt", "--all"]);
  run("cargo", ["fmt", "--manifest-path", "examples/rust/Cargo.toml"]);
  run(bin("prettier"), ["--write", "--log-level", "warn", "."]);
});
