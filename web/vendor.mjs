// Writes vendor/: each library of package.json as one module, so that the page imports nothing from another host.
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

// {module: what it offers}
const MODULES = {
  "dicom-parser": 'export { default } from "dicom-parser";',
  "fast-png": 'export { decode } from "fast-png";',
  "jpeg-lossless": 'export { Decoder } from "jpeg-lossless-decoder-js";',
  "nunjucks": 'export { default } from "nunjucks/browser/nunjucks-slim.js";',
  "openjpeg": 'export { default } from "@cornerstonejs/codec-openjpeg/decodewasmjs";',
  "onnxruntime": 'export * from "onnxruntime-web/wasm";',
};
const BINARIES = [
  "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm",
  "@cornerstonejs/codec-openjpeg/dist/openjpegwasm_decode.wasm",
];

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

// Most licences want to travel with the code. Packages that only build the page are left out.
const { packages } = JSON.parse(readFileSync(new URL("package-lock.json", import.meta.url)));
const shipped = Object.entries(packages).filter(([path, { dev, optional }]) => path && !dev && !optional);
const licences = shipped.map(([path, { version, license }]) => {
  const place = new URL(`${path}/`, import.meta.url);
  const file = readdirSync(place).find((name) => /^licen[cs]e/i.test(name));
  const text = file ? readFileSync(new URL(file, place), "utf8").trim() : "";
  return `${path.replace(/^.*node_modules\//, "")} ${version}: ${license}\n\n${text}`;
});
writeFileSync(`${folder}LICENSES.txt`, `${licences.join(`\n\n${"-".repeat(80)}\n\n`)}\n`);
