import { gzipSync } from "node:zlib";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

/** Bytes, gzipped, of all that a browser loads. */
const BUDGET = 60_000;

/** Prints the size of the bundle and fails the build beyond its budget. */
function budget(): Plugin {
  return {
    name: "budget",
    apply: "build",
    writeBundle(_, bundle) {
      const sizes = Object.values(bundle).map(
        (file) => gzipSync(file.type === "chunk" ? file.code : file.source).length,
      );
      const total = sizes.reduce((sum, size) => sum + size, 0);
      this.info(`bundle: ${total} bytes gzipped of ${BUDGET}`);
      if (total > BUDGET) this.error(`The bundle has ${total} bytes gzipped, ${total - BUDGET} more than its budget.`);
    },
  };
}

/** One offline ES module: the plugin's page imports it and calls `render()`. Styles travel inside it. */
export default defineConfig({
  plugins: [budget()],
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  // `npm run dev` stands in for the plugin's page; the data come from a TensorBoard that runs.
  server: { proxy: { "/data": process.env.TENSORBOARD ?? "http://localhost:6006" } },
  build: {
    target: "es2022",
    outDir: "../deadunits_tb/static",
    emptyOutDir: true,
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
