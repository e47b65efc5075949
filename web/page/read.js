// The reading tab: files chosen, dropped, pasted or taken from the examples; their answers, or a table of many.
import { classify, keep } from "./api.js";
import { ready } from "./classifier.js";
import { site } from "./site.js";
import { answersHtml, rowOf, tableHtml } from "./views.js";

const MAX_AT_ONCE = 8;  // X-rays with a viewer each; more are a table
const THUMBNAIL_SIDE = 64;  // pixels

let latest = 0;  // the newest files' number; older ones stop being read
const place = (id) => document.querySelector(`#${id}`);
const say = (words) => { place("progress").textContent = words; };

async function read(files) {
  latest += 1;
  const own = latest;
  const isMany = files.length > MAX_AT_ONCE;
  const found = [];
  const begin = (file) => file && classify(keep(file), isMany ? THUMBNAIL_SIDE : undefined);
  let next = begin(files[0]);
  while (next) {
    say(`Reading ${(found.length + 1).toLocaleString("en")} of ${files.length.toLocaleString("en")} …`);
    const current = next;
    next = begin(files[found.length + 1]);  // it is read while the current one is classified
    const answer = await current;
    if (own !== latest) return;
    found.push(isMany ? rowOf(answer) : answer);
  }
  say("");
  place("answers").innerHTML = isMany ? "" : answersHtml(found);
  place("table").innerHTML = isMany || found.length > 1 ? tableHtml(isMany ? found : found.map(rowOf)) : "";
  if (isMany) place("table").scrollIntoView();
}

async function readExample(name) {
  const response = await fetch(`examples/${name}`);
  await read([new File([await response.blob()], name)]);
}

async function load() {
  try {
    await ready();
    say("");
  } catch (error) {
    say(error.message);
  }
}

export function listenForUploads() {
  const field = document.querySelector('.upload input[type="file"]');
  field.addEventListener("change", () => {
    const files = [...field.files];
    field.value = "";  // so that the same file can be chosen again
    if (files.length) read(files);
  });
  place("examples").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) readExample(site.examples[button.dataset.index]);
  });
  load();
}
