// What the package's files need: Vite would bundle them for development beforehand, and lose those beside them.
import { defineConfig } from "vite";

export default defineConfig({
  optimizeDeps: { exclude: ["diffattn"] },
  worker: { format: "es" },
});
