// The worker that reads and classifies, one file after the other. One that hangs or breaks is replaced.
import { site } from "./site.js";

const PATIENCE = 60_000;  // milliseconds; the largest X-ray that is read takes a few seconds on a slow computer
const TOO_LONG = "it took over a minute, so it was given up; make the image smaller, or use xray-hf predict.";
const BROKEN = "the browser could not classify it, perhaps for lack of memory; make the image smaller.";

let worker = null;
let number = 0;
const waiting = new Map();  // number: {resolve, reject} of an asked question
let last = Promise.resolve();

// A worker has the policy of its own response, which a static host does not send; one of a blob has the page's.
function start() {
  const address = new URL("worker.js", document.baseURI).href;
  const blob = URL.createObjectURL(new Blob([`import ${JSON.stringify(address)};`], { type: "text/javascript" }));
  worker = new Worker(blob, { type: "module" });
  worker.addEventListener("message", ({ data }) => {
    const asked = waiting.get(data.number);
    if (data.error) asked?.reject(new Error(data.error));
    else asked?.resolve(data.found);
  });
  worker.addEventListener("error", () => stop(BROKEN));
  worker.postMessage({ site, base: document.baseURI });
}

function stop(words) {
  worker?.terminate();
  worker = null;
  waiting.forEach(({ reject }) => reject(new Error(words)));
}

async function asked(question) {
  if (!worker) start();
  number += 1;
  const own = number;
  const timer = setTimeout(() => stop(TOO_LONG), PATIENCE);
  try {
    return await new Promise((resolve, reject) => {
      waiting.set(own, { resolve, reject });
      worker.postMessage({ number: own, ...question });
    });
  } finally {
    clearTimeout(timer);
    waiting.delete(own);
  }
}

// question: {loads: true}, or {file, side, classifies}: side, of a picture of it in pixels. Throws an Error
// with words for the visitor.
export function ask(question) {
  const answer = last.then(() => asked(question));
  last = answer.catch(() => {});
  return answer;
}
