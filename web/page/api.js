// The functions that the viewer asks of the demo's server, answered here.
import { classify as classified, read } from "./classifier.js";
import { report } from "./report.js";
import { answersHtml } from "./views.js";

const PREVIEW_SIDE = 768;  // pixels, the longer side
const FULL_SIDE = 4096;  // of a picture to zoom into; few browsers draw much larger ones
const files = [];  // of this visit, by the path that an answer has; the browser reads them from the disk

export function keep(file) {
  files.push(file);
  return String(files.length - 1);
}

export const forget = () => { files.length = 0; };
export const asFile = (path) => path;

// {name, path, found} or, of a file that cannot be read, {name, path, error}.
export async function classify(path, side = PREVIEW_SIDE) {
  const file = files[path];
  try {
    return { name: file.name, path, found: await classified(file, side) };
  } catch (error) {
    return { name: file.name, path, error: error.message };
  }
}

const FUNCTIONS = {
  picture: async (path) => ({ picture: (await read(files[path], FULL_SIDE)).picture }),
  view: async (path) => ({ html: answersHtml([await classify(path)]) }),
  report: async (path) => {
    const answer = await classify(path);
    return answer.error ? answer : report(answer);
  },
};

export const call = (name, [path]) => FUNCTIONS[name](path);
