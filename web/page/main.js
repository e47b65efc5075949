// The demo's page, whose main.js is demo.js here, with a reading tab that needs no server.
import "./demo.js";
import { classify, forget, keep } from "./api.js";
import { ready } from "./classifier.js";
import { keepForOffline } from "./offline.js";
import { site } from "./site.js";
import { answersHtml, rowOf, tableHtml } from "./views.js";

const MAX_AT_ONCE = 8;  // X-rays with a viewer each; more are a table
const THUMBNAIL_SIDE = 64;  // pixels
const NEEDED = ["OffscreenCanvas", "DecompressionStream", "createImageBitmap"];
const TOO_OLD = "This browser is too old for the page. Chrome or Edge 109, Firefox 114 and Safari 16.4 are new enough.";

let batch = null;  // {files, answers, rows} while files are read
let loaded = null;  // the promise of models that are ready
const place = (id) => document.querySelector(`#${id}`);
const say = (words) => { place("progress").textContent = words; };
const count = (number) => number.toLocaleString("en");

async function load() {
  if (NEEDED.some((name) => !(name in window))) throw new Error(TOO_OLD);
  await keepForOffline();
  await ready();
}

// Shows the answers to these files and to all that come meanwhile, unless the visitor clears them.
async function read(files) {
  const own = (batch ??= { files: [], answers: [], rows: [] });
  own.files = own.files.concat(files);
  if (own.files.length > files.length) return;  // they are answered with those before them
  const begin = (file) => file && classify(keep(file), own.files.length > MAX_AT_ONCE ? THUMBNAIL_SIDE : undefined);
  try {
    await (loaded ??= load());
    for (let number = 0, next = null; own === batch && number < own.files.length; number += 1) {
      say(`Reading ${count(number + 1)} of ${count(own.files.length)} …`);
      const current = next ?? begin(own.files[number]);
      next = begin(own.files[number + 1]);  // it is read while the current one is classified
      const found = await current;
      own.rows.push(rowOf(found));
      if (number < MAX_AT_ONCE) own.answers.push(found);
    }
    if (own === batch) show(own);
  } catch (error) {
    loaded = null;  // the next files try again
    say(error.message);
  }
  if (own === batch) batch = null;
}

function show({ answers, rows }) {
  const isMany = rows.length > MAX_AT_ONCE;
  place("answers").innerHTML = isMany ? "" : answersHtml(answers);
  place("table").innerHTML = rows.length > 1 ? tableHtml(rows) : "";
  if (isMany) place("table").scrollIntoView();
  say(`Read: ${count(rows.length)} ${rows.length === 1 ? "file" : "files"}.`);
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
  if (button) example(site.examples[button.dataset.index]).then(read, (error) => say(error.message));
});
place("visit").querySelector(".clear").addEventListener("click", () => {
  batch = null;
  forget();
  for (const id of ["answers", "table", "progress"]) place(id).replaceChildren();
});
loaded = load();
loaded.then(() => { if (!batch) say(""); }, (error) => say(error.message));
