// A worker: pixels in, the outputs of engine.onnx out, which ONNX Runtime runs as WebAssembly.
import { answering } from "./answering.js";
import * as ort from "./vendor/onnxruntime.js";

class NotLoaded extends Error {}

const MOST_THREADS = 4;
let settings = null;
let sessions = null;  // the promise of one for each model

ort.env.wasm.wasmPaths = new URL("./vendor/", import.meta.url).href;
// Threads share memory, which browsers allow only to pages with the headers COOP and COEP.
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency) : 1;

async function fetched(address) {
  const response = await fetch(address).catch(() => ({ ok: false }));
  if (response.ok) return new Uint8Array(await response.arrayBuffer());
  throw new NotLoaded("A model could not be loaded; check the connection, and load the page again.");
}

// models: [{folder, graph, weights: names of the files that the graph reads}]. base: the page's address.
async function loadAll({ models, base }) {
  const fetchAll = ({ folder, graph, weights }) =>
    Promise.all([graph, ...weights].map((name) => fetched(new URL(`${folder}/${name}`, base))));
  const contents = await Promise.all(models.map(fetchAll));
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
  const { probabilities, decision, reason, ood_score: score, findings, heatmaps, lungs } = await session.run(
    { image: new ort.Tensor("uint8", pixels, [height, width, channels]) },
  );
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

const start = (told) => { settings = told; };

answering(start, async (image) => {
  sessions ??= loadAll(settings);
  sessions.catch(() => { sessions = null; });  // the next question tries again
  const outputs = [];
  for (const session of await sessions) outputs.push(await run(session, image));
  return [outputs, []];
}, NotLoaded);
