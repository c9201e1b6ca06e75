// TypeScript is checked with types; scripts and examples are plain JavaScript.
import js from "@eslint/js";
import globals from "globals";
import typescript from "typescript-eslint";

export default typescript.config(
  {
    ignores: [
      "**/dist",
      "**/node_modules",
      ".cache",
      "target",
      "packages/native/npm",
      "packages/native/*.d.ts",
      "packages/wasm",
      "examples/out",
      "examples/*/.next",
      "test/fixtures",
    ],
  },
  js.configs.recommended,
  {
    files: ["**/*.{js,mjs}"],
    languageOptions: { globals: { ...globals.node, ...globals.browser } },
  },
  {
    // What the examples import is installed nowhere in the workspace: test/matrix checks their types where it is.
    files: ["examples/*/**/*.{ts,tsx}"],
    extends: [typescript.configs.strict],
    languageOptions: { globals: { ...globals.node, ...globals.browser, Deno: "readonly" } },
  },
  {
    files: ["**/*.ts"],
    ignores: ["examples/**"],
    extends: [typescript.configs.strictTypeChecked],
    languageOptions: { parserOptions: { projectService: true } },
    rules: {
      // Numbers belong in sentences about shapes.
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true, allowBoolean: true }],
      // `void promise` says that a promise is left alone on purpose.
      "@typescript-eslint/no-confusing-void-expression": ["error", { ignoreArrowShorthand: true }],
    },
  },
);
