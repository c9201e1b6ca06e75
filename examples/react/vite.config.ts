// What the package's files need: Vite would bundle them for development beforehand, and lose those beside them.
import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

export default defineConfig({
  plugins: [react()],
  optimizeDeps: { exclude: ["diffattn"] },
  worker: { format: "es" },
});
