// All entries in one CommonJS script, for whatever cannot `require` a module (jest): they share
// their state, as the modules do.

export * as operators from "./node.js";
export * as models from "./models/node.js";
export * as training from "./training/node.js";
export * as viz from "./viz/index.js";
