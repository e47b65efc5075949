// Reads files with web/reading/ in Node: `node web_reader.mjs TABLES FOLDER`, for each file of FOLDER FILE.json and,
// if it is read, FILE.pixels.
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";

globalThis.require = createRequire(import.meta.url); // openjpeg.js asks for Node's modules
globalThis.__dirname = new URL("../web/vendor/", import.meta.url).pathname;
const { ImageError } = await import("../web/reading/error.js");
const { configure, read } = await import("../web/reading/read.js");
const [tables, folder] = process.argv.slice(2);

globalThis.createImageBitmap = () => {
  throw new ImageError("needs a browser");
};
configure(JSON.parse(readFileSync(tables, "utf-8")));
for (const file of readdirSync(folder)) {
  const begun = performance.now(), path = `${folder}/${file}`;
  let result;
  try {
    const { pixels, ...picture } = await read(new Uint8Array(readFileSync(path)), "the image");
    writeFileSync(`${path}.pixels`, pixels);
    result = picture;
  } catch (error) {
    result = { error: error.message, expected: error instanceof ImageError, cause: String(error.cause?.stack ?? error.cause ?? error.stack) };
  }
  writeFileSync(`${path}.json`, JSON.stringify({ ...result, seconds: (performance.now() - begun) / 1000 }));
}
