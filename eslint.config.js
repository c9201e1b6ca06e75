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
      "test/fixtures",
    ],
  },
  js.configs.recommended,
  {
    files: ["**/*.{js,mjs}"],
    languageOptions: { globals: { ...globals.node, ...globals.browser } },
  },
  {
    files: ["**/*.ts"],
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
