// Files in, pictures and the engines' outputs out; nothing here knows the page.
import { loadAll, run } from "./engine.js";
import { configure, ImageError, read } from "./reading/read.js";

const DAMAGED = "it is damaged, or larger than this browser can hold; make it smaller, or copy it again.";
let models = null;  // the promise of all sessions

// RGBA for a canvas, of a grey or RGB image as the models see it, in grey (ITU-R 601 luma, as Pillow's).
function greyOf({ width, height, channels, pixels }) {
  const rgba = new Uint8ClampedArray(4 * width * height).fill(255);
  for (let place = 0; place < width * height; place += 1) {
    const from = channels * place;
    const grey = channels === 1
      ? pixels[from]
      : (19595 * pixels[from] + 38470 * pixels[from + 1] + 7471 * pixels[from + 2] + 32768) >> 16;
    rgba.fill(grey, 4 * place, 4 * place + 3);
  }
  return new ImageData(rgba, width, height);
}

// A JPEG of at most `side` pixels a side, as a data URI.
async function picture(image, side) {
  const scale = Math.min(1, side / Math.max(image.width, image.height));
  const [width, height] = [image.width, image.height].map((each) => Math.max(1, Math.round(scale * each)));
  const options = { resizeWidth: width, resizeHeight: height, resizeQuality: "high" };
  const small = await createImageBitmap(greyOf(image), scale < 1 ? options : {});
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").drawImage(small, 0, 0);
  const blob = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 });
  return new FileReaderSync().readAsDataURL(blob);
}

async function answer({ loads, file, side, classifies }) {
  if (loads) return (await models).length;
  const image = await read(new Uint8Array(await file.arrayBuffer()), file.name);
  const { width, height, warnings } = image;
  const found = { width, height, warnings, picture: await picture(image, side), outputs: [] };
  for (const session of classifies ? await models : []) found.outputs.push(await run(session, image));
  return found;
}

self.addEventListener("message", async ({ data: { site, base, number, ...question } }) => {
  if (site) {
    configure(site.reading);
    models = loadAll(site.models, base);
    models.catch(() => {});  // said to whoever asks
    return;
  }
  try {
    self.postMessage({ number, found: await answer(question) });
  } catch (error) {
    const isKnown = error instanceof ImageError || error.isForVisitors;
    self.postMessage({ number, error: isKnown ? error.message : `${question.file?.name ?? "A model"}: ${DAMAGED}` });
  }
});
