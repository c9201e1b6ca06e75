// The binary of this machine, or an error that says in one sentence why there is none (loader.js).
"use strict";

const { load } = require("./loader.js");

module.exports = load({
  require,
  // Each by its literal name, which is what tools look for that copy only what a program needs
  // (Next's standalone output, for instance). The targets of package.json, as a test sees to.
  binaries: {
    "linux-x64-gnu": () => require("@diffattn/native-linux-x64-gnu"),
    "linux-x64-musl": () => require("@diffattn/native-linux-x64-musl"),
    "linux-arm64-gnu": () => require("@diffattn/native-linux-arm64-gnu"),
    "linux-arm64-musl": () => require("@diffattn/native-linux-arm64-musl"),
    "darwin-x64": () => require("@diffattn/native-darwin-x64"),
    "darwin-arm64": () => require("@diffattn/native-darwin-arm64"),
    "win32-x64-msvc": () => require("@diffattn/native-win32-x64-msvc"),
    "win32-arm64-msvc": () => require("@diffattn/native-win32-arm64-msvc"),
  },
});
