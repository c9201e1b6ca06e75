// The Rust tests of the kernels, layers, models and requests on NEON, emulated: for aarch64 under
// qemu. (The addon of arm64, in a Node of its own: cross.mjs.)
//
//   node scripts/neon.mjs [arguments of cargo test ...]      -p diffattn is the kernels alone
import { join } from "node:path";
import { rustFor } from "./cross.mjs";
import { main, setup } from "./setup.mjs";
import { run, targetDir } from "./tools.mjs";

const TARGET = "aarch64-unknown-linux-gnu";

main(() => {
  setup({ withNeon: true });
  const { env, args } = rustFor(TARGET, "std,panic_unwind,test");
  const given = process.argv.slice(2);
  const all = ["diffattn", "diffattn-files", "diffattn-nn", "diffattn-door"].flatMap((name) => ["-p", name]);
  const which = given.includes("-p") ? [] : [...all, "--features", "diffattn-nn/models,diffattn-door/training"];
  run("cargo", ["test", ...args, "--target", TARGET, ...which, "--lib", "--tests", ...given], {
    env: {
      ...env,
      CARGO_TARGET_DIR: join(targetDir, "neon"),
      CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER: "aarch64-linux-gnu-gcc",
      CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER: "qemu-aarch64 -L /usr/aarch64-linux-gnu",
    },
  });
});
