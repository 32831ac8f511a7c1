/** Prints the size of the built bundle and fails beyond its budget. */
import { readdirSync, readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const BUDGET = 70_000;
const folder = new URL("../../deadunits_tb/static/", import.meta.url);

const files = readdirSync(folder).map((name) => {
  const bytes = readFileSync(new URL(name, folder));
  return { name, bytes: bytes.length, gzipped: gzipSync(bytes, { level: 9 }).length };
});
const total = files.reduce((sum, file) => sum + file.gzipped, 0);

for (const file of files) console.log(`${file.name}  ${file.bytes} bytes, ${file.gzipped} gzipped`);
console.log(`bundle: ${total} bytes gzipped, budget ${BUDGET}`);
if (total > BUDGET) {
  console.error(`The bundle is ${total - BUDGET} bytes over its budget.`);
  process.exit(1);
}
