// A worker: files in, pixels and pictures out.
import { answering } from "./answering.js";
import { configure, ImageError, read } from "./reading/read.js";

// The image as the models see it, in grey (ITU-R 601 luma, as Pillow's), for a canvas: every `step`th pixel.
function greyOf({ width, height, channels, pixels }, step) {
  const [columns, rows] = [width, height].map((each) => Math.ceil(each / step));
  const rgba = new Uint32Array(columns * rows);
  let place = 0;
  for (let y = 0; y < height; y += step) {
    for (let x = 0; x < width; x += step, place += 1) {
      const from = channels * (y * width + x);
      const grey = channels === 1
        ? pixels[from]
        : (19595 * pixels[from] + 38470 * pixels[from + 1] + 7471 * pixels[from + 2] + 32768) >> 16;
      rgba[place] = 0xff000000 | (grey * 0x010101);
    }
  }
  return new ImageData(new Uint8ClampedArray(rgba.buffer), columns, rows);
}

// A JPEG of at most `side` pixels a side, as a data URI.
async function picture(image, side) {
  const longest = Math.max(image.width, image.height);
  const scale = Math.min(1, side / longest);
  const [width, height] = [image.width, image.height].map((each) => Math.max(1, Math.round(scale * each)));
  // A thumbnail needs few of the pixels of a large image.
  const grey = greyOf(image, Math.max(1, Math.floor(longest / (4 * side))));
  const options = { resizeWidth: width, resizeHeight: height, resizeQuality: "high" };
  const small = await createImageBitmap(grey, scale < 1 ? options : {});
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").drawImage(small, 0, 0);
  small.close();
  const blob = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 });
  return new FileReaderSync().readAsDataURL(blob);
}

const MOVED = "cannot be read. If it is a folder, choose the files in it; if it was changed, choose it again.";

answering(configure, async ({ file, side }) => {
  const bytes = await file.arrayBuffer().catch(() => { throw new ImageError(`${file.name} ${MOVED}`); });
  const image = await read(new Uint8Array(bytes), file.name);
  return [{ ...image, picture: await picture(image, side) }, [image.pixels.buffer]];
}, ImageError);
