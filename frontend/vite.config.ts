import { defineConfig } from "vitest/config";

/** One offline ES module: the plugin's page imports it and calls `render()`. Styles travel inside it. */
export default defineConfig({
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    target: "es2022",
    outDir: "../deadunits_tb/static",
    emptyOutDir: true,
    cssCodeSplit: false,
    reportCompressedSize: false,
    modulePreload: false,
    rolldownOptions: {
      input: "src/index.ts",
      preserveEntrySignatures: "strict",
      output: { format: "es", entryFileNames: "index.js", codeSplitting: false },
    },
  },
  test: { environment: "happy-dom", include: ["tests/**/*.test.ts?(x)"] },
});
