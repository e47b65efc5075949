// Two workers: one reads the next file while the other classifies the last. One that hangs or breaks is replaced.
import { site } from "./site.js";

const MOST_THREADS = 4;
const START_PATIENCE = 10_000;  // milliseconds, for threads and models once all is downloaded
const PATIENCE = 60_000;  // milliseconds; the largest X-ray that is read takes a few seconds on a slow computer
const TOO_LONG = "it took over a minute, so it was given up; make the image smaller, or use xray-hf predict.";
const UNREADABLE = "the file is damaged, or larger than this browser can hold; copy it again, or make it smaller.";
const TOO_LARGE = "the models failed, perhaps for lack of memory; make the image smaller, or use xray-hf predict.";

class Helper {
  #worker = null;
  #refuse = null;  // the question that waits
  #last = Promise.resolve();

  // settings: what its script is told first. broken: words for when it breaks.
  constructor(script, settings, broken) {
    Object.assign(this, { settings, broken });
    // A worker has the policy of its own response, which a static host does not send; one of a blob has the page's.
    const code = `import ${JSON.stringify(new URL(script, document.baseURI).href)};`;
    this.address = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  }

  // Throws an Error with words for the visitor.
  ask(question, transferred = [], patience = PATIENCE) {
    const answer = this.#last.then(() => this.#asked(question, transferred, patience));
    this.#last = answer.catch(() => {});
    return answer;
  }

  async #asked(question, transferred, patience) {
    if (!this.#worker) this.#start();
    const timer = patience && setTimeout(() => this.#stop(TOO_LONG), patience);
    try {
      return await new Promise((resolve, reject) => {
        this.#refuse = reject;
        this.#worker.onmessage = ({ data: { found, refusal, isBroken } }) => {
          if (isBroken) this.#stop(this.broken);
          else if (refusal) reject(new Error(refusal));
          else resolve(found);
        };
        this.#worker.postMessage(question, transferred);
      });
    } finally {
      clearTimeout(timer);
    }
  }

  #start() {
    const worker = new Worker(this.address, { type: "module" });
    worker.addEventListener("error", () => { if (worker === this.#worker) this.#stop(this.broken); });
    worker.postMessage({ settings: this.settings });
    this.#worker = worker;
  }

  #stop(words) {
    this.#worker.terminate();
    this.#worker = null;
    this.#refuse?.(new Error(words));
  }
}

// Threads share memory, which browsers allow only to pages with the headers COOP and COEP.
const threads = crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency) : 1;
const reader = new Helper("reader.js", site.reading, UNREADABLE);
const engine = new Helper("engine.js", { models: site.models, base: document.baseURI, threads }, TOO_LARGE);
const blank = { width: 96, height: 96, channels: 1, pixels: new Uint8Array(96 * 96) };

// The models are loaded, however long that takes, and have answered once: the first answer takes longer.
export async function ready() {
  reader.ask({ file: new File([], "") }).catch(() => {});  // so that its scripts are here, too
  await engine.ask({}, [], null);
  // Firefox sometimes never returns from starting a thread (docs/web.md).
  await engine.ask(blank, [], threads > 1 ? START_PATIENCE : null).catch(() => {
    engine.settings.threads = 1;
    return engine.ask(blank, [], null);
  });
}

// {width, height, channels, pixels, warnings, picture}; side: of the picture, in pixels.
export const read = (file, side) => reader.ask({ file, side });

// {width, height, warnings, picture, outputs: one of each model}.
export async function classify(file, side) {
  const { width, height, channels, pixels, ...found } = await read(file, side);
  const outputs = await engine.ask({ width, height, channels, pixels }, [pixels.buffer]);
  return { width, height, ...found, outputs };
}
