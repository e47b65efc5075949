// A worker: pixels in, the outputs of engine.onnx out, which ONNX Runtime runs as WebAssembly.
import { answering } from "./answering.js";
import * as ort from "./vendor/onnxruntime.js";

class NotLoaded extends Error {}

let settings = null;
let downloads = null;  // the promise of all that comes from the network
let sessions = null;  // the promise of one for each model

async function fetched(address) {
  const response = await fetch(address).catch(() => ({ ok: false }));
  if (response.ok) return new Uint8Array(await response.arrayBuffer());
  throw new NotLoaded("A model could not be loaded; check the connection, and load the page again.");
}

// models: [{folder, graph, weights: names of the files that the graph reads}]. base: the page's address.
function downloadAll({ models, base }) {
  const fetchAll = ({ folder, graph, weights }) =>
    Promise.all([graph, ...weights].map((name) => fetched(new URL(`${folder}/${name}`, base))));
  const runtime = fetched(new URL("vendor/ort-wasm-simd-threaded.wasm", base));
  return Promise.all([runtime, ...models.map(fetchAll)]);
}

async function loadAll({ models, threads }, [wasmBinary, ...contents]) {
  Object.assign(ort.env.wasm, { wasmBinary, numThreads: threads });
  const loaded = [];
  for (const [place, { weights }] of models.entries()) {  // not at once: ONNX Runtime knows such files by name only
    const [graph, ...files] = contents[place];
    const externalData = files.map((data, number) => ({ path: weights[number], data }));
    loaded.push(await ort.InferenceSession.create(graph, { externalData, executionProviders: ["wasm"] }));
  }
  return loaded;
}

// image: {width, height, channels: 1 or 3, pixels: Uint8Array, row by row}. Returns {output: its values; of
// heatmaps and lungs {values, shape}}; decision and reason are numbers, findings a list of 0 and 1.
async function run(session, { width, height, channels, pixels }) {
  const image = new ort.Tensor("uint8", pixels, [height, width, channels]);
  const { probabilities, decision, reason, ood_score: score, findings, heatmaps, lungs } = await session.run({ image });
  const grid = (tensor) => tensor && { values: tensor.data, shape: tensor.dims };
  return {
    probabilities: [...probabilities.data],
    decision: Number(decision.data[0]),
    reason: Number(reason.data[0]),
    score: score.data[0],
    findings: [...findings.data],
    heatmaps: grid(heatmaps),
    lungs: grid(lungs),
  };
}

// The question {} only waits for the downloads.
answering((told) => { settings = told; }, async (image) => {
  if (!sessions) {
    downloads ??= downloadAll(settings);
    downloads.catch(() => { downloads = null; });  // the next question tries again
    const found = await downloads;
    if (image.pixels) [sessions, downloads] = [loadAll(settings, found), null];
  }
  if (!image.pixels) return [null, []];
  const outputs = [];
  for (const session of await sessions) outputs.push(await run(session, image));
  return [outputs, []];
}, NotLoaded);
