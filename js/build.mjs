// Builds the package's module (dist/index.js) and the script that the blueprint serves; prints sizes.
import { readFileSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

import { build } from "esbuild";
import { minify } from "terser";

const MOST = 6 * 1024;                     // bytes of the served script, compressed
const SCRIPT = new URL("../sse_broker/web/client.js", import.meta.url).pathname;
const common = { bundle: true, target: "es2022", absWorkingDir: import.meta.dirname };

await build({ ...common, entryPoints: ["src/index.ts"], format: "esm", outfile: "dist/index.js" });
await build({ ...common, entryPoints: ["src/script.ts"], format: "iife", minify: true, outfile: SCRIPT });
const { code } = await minify(readFileSync(SCRIPT, "utf8"), { ecma: 2020, toplevel: true, compress: { passes: 3, unsafe_arrows: true, pure_getters: true } });
// Private names are unique in their class and one or two letters now; as ordinary ones they pack better.
const plain = code.replace(/(?<=\.)#(?=[\w$])/g, "").replace(/async#(?=[\w$])/g, "async ").replace(/(?<=[{};])#(?=[\w$])/g, "");
writeFileSync(SCRIPT, `${plain}\n`);

const size = (file) => {
  const text = readFileSync(file);
  const packed = gzipSync(text, { level: 9 }).length;
  console.log(`${file.replace(/.*\/(?=[^/]+\/[^/]+$)/, "")}: ${text.length} bytes, ${packed} gzipped`);
  return packed;
};
size(new URL("dist/index.js", import.meta.url).pathname);
if (size(SCRIPT) > MOST) throw new Error(`client.js may have ${MOST} bytes, gzipped`);
