// `npm start`: sets up, builds, and runs the trained layer of examples/ on every backend that this Node has.
import { build } from "./build.mjs";
import { main, setup } from "./setup.mjs";
import { run } from "./tools.mjs";

main(() => {
  setup();
  build();
  run(process.execPath, ["examples/run-layer.mjs"]);
});
