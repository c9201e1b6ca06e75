// The Rust tests of the kernels on NEON, emulated: crates/diffattn for aarch64, with its own std, under qemu.
//
//   node scripts/neon.mjs [arguments of cargo test ...]
import { join } from "node:path";
import { main, setup } from "./setup.mjs";
import { crossRust, run, targetDir } from "./tools.mjs";

main(() => {
  setup({ withNeon: true });
  const env = {
    ...crossRust().env,
    CARGO_TARGET_DIR: join(targetDir, "neon"),
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER: "aarch64-linux-gnu-gcc",
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER: "qemu-aarch64 -L /usr/aarch64-linux-gnu",
  };
  const target = ["-Z", "build-std=std,panic_unwind,test", "--target", "aarch64-unknown-linux-gnu"];
  run("cargo", ["test", ...target, "-p", "diffattn", "--lib", "--tests", ...process.argv.slice(2)], { env });
});
