// The demo's page, whose main.js is demo.js here, with a reading tab that needs no server: files chosen, dropped, pasted
// or taken from the examples; their answers, or a table of many.
import "./demo.js";
import { classify, keep } from "./api.js";
import { ready } from "./classifier.js";
import { keepForOffline } from "./offline.js";
import { site } from "./site.js";
import { answersHtml, rowOf, tableHtml } from "./views.js";

const MAX_AT_ONCE = 8;  // X-rays with a viewer each; more are a table
const THUMBNAIL_SIDE = 64;  // pixels
const NEEDED = ["OffscreenCanvas", "DecompressionStream", "createImageBitmap"];
const TOO_OLD = "This browser is too old for the page. Chrome or Edge 109, Firefox 114 and Safari 16.4 are new enough.";

let latest = 0;  // the newest files' number; older ones stop being read
let loaded = null;  // the promise of models that are ready
const place = (id) => document.querySelector(`#${id}`);
const say = (words) => { place("progress").textContent = words; };
const count = (number) => number.toLocaleString("en");

async function load() {
  if (NEEDED.some((name) => !(name in window))) throw new Error(TOO_OLD);
  await keepForOffline();
  await ready();
}

// files: a list, or the promise of one.
async function read(files) {
  latest += 1;
  const own = latest;
  try {
    await (loaded ??= load());
    const found = await answersTo(await files, own);
    if (own === latest) show(found);
  } catch (error) {
    loaded = null;  // the next files try again
    if (own === latest) say(error.message);
  }
}

async function answersTo(files, own) {
  const isMany = files.length > MAX_AT_ONCE;
  const begin = (file) => file && classify(keep(file), isMany ? THUMBNAIL_SIDE : undefined);
  const found = [];
  let next = begin(files[0]);
  while (next && own === latest) {
    say(`Reading ${count(found.length + 1)} of ${count(files.length)} …`);
    const current = next;
    next = begin(files[found.length + 1]);  // it is read while the current one is classified
    found.push(isMany ? rowOf(await current) : await current);
  }
  return found;
}

function show(found) {
  const isMany = found.length > MAX_AT_ONCE;
  place("answers").innerHTML = isMany ? "" : answersHtml(found);
  place("table").innerHTML = found.length > 1 ? tableHtml(isMany ? found : found.map(rowOf)) : "";
  if (isMany) place("table").scrollIntoView();
  say(`Read: ${count(found.length)} ${found.length === 1 ? "file" : "files"}.`);
}

async function example(name) {
  const response = await fetch(`examples/${name}`).catch(() => ({ ok: false }));
  if (!response.ok) throw new Error("The example could not be loaded; check the connection, and try again.");
  return [new File([await response.blob()], name)];
}

const field = document.querySelector('.upload input[type="file"]');
field.addEventListener("change", () => {
  const files = [...field.files];
  field.value = "";  // so that the same file can be chosen again
  if (files.length) read(files);
});
place("examples").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) read(example(site.examples[button.dataset.index]));
});
loaded = load();
loaded.then(() => { if (!latest) say(""); }, (error) => say(error.message));
