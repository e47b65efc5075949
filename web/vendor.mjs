// Writes vendor/: each library of package.json as one module, so that the page imports nothing from another host.
import { cpSync, mkdirSync, rmSync } from "node:fs";
import { build } from "esbuild";

const ORT = "onnxruntime-web/dist/ort-wasm-simd-threaded";
const OPENJPEG = "@cornerstonejs/codec-openjpeg/dist/openjpegwasm_decode";

// {module: what it offers}
const MODULES = {
  "dicom-parser": 'export { default } from "dicom-parser";',
  "fast-png": 'export { decode } from "fast-png";',
  "jpeg-lossless": 'export { Decoder } from "jpeg-lossless-decoder-js";',
  "nunjucks": 'export { default } from "nunjucks/browser/nunjucks-slim.js";',
  "openjpeg": 'export { default } from "@cornerstonejs/codec-openjpeg/decodewasmjs";',
  "onnxruntime": 'export * from "onnxruntime-web/wasm";',
};
const BINARIES = [`${ORT}.wasm`, `${ORT}.mjs`, `${OPENJPEG}.wasm`];

const folder = new URL("vendor/", import.meta.url).pathname;
rmSync(folder, { recursive: true, force: true });
mkdirSync(folder);
for (const [name, contents] of Object.entries(MODULES)) {
  await build({
    stdin: { contents, resolveDir: import.meta.dirname },
    bundle: true,
    minify: true,
    format: "esm",
    platform: "browser",
    external: ["fs", "path", "crypto", "*.wasm", "*.mjs"],
    legalComments: "inline",
    logLevel: "warning",
    outfile: `${folder}${name}.js`,
  });
}
for (const path of BINARIES) cpSync(new URL(`node_modules/${path}`, import.meta.url), folder + path.split("/").at(-1));
