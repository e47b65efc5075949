// JPEG and PNG -> pixels: up to 8 bits by the browser, 16 bits by fast-png.
import { decode } from "../vendor/fast-png.js";
import { jpeg, png } from "./containers.js";
import { refuse, refuseHere } from "./error.js";
import { greyOrRgb, picked, rint, toEightBits } from "./levels.js";
import { checkSize } from "./tables.js";

const BY_BROWSERS = [0xc0, 0xc1, 0xc2]; // frame headers: baseline, extended, progressive

export async function readJpeg(bytes, name) {
  const { process, precision, width, height, isWhole } = jpeg(bytes, name);
  if (!process) throw new Error("no frame header");
  const isKnown = precision === 8 && BY_BROWSERS.includes(process);
  if (!isKnown) refuseHere(name, "a JPEG of over 8 bits, or without loss");
  checkSize(name, width, height);
  if (!isWhole) throw new Error("a browser would show the missing part grey");
  return decodeByBrowser([bytes], "image/jpeg", width, height, name);
}

export async function readPng(bytes, name) {
  const { width, height, depth, channels, stated, exif, isKeyed, parts, compressed } = png(bytes, name);
  checkSize(name, width, height);
  await checkInflated(compressed, height * (1 + Math.ceil((width * channels * depth) / 8)));
  if (depth < 16) return decodeByBrowser(parts, "image/png", width, height, name);
  if (exif || isKeyed) refuseHere(name, "a PNG of 16 bits with EXIF or a transparent colour");
  const { data } = decode(await new Blob(parts).arrayBuffer(), { checkCrc: true });
  return { width, height, ...fromSixteenBits(data, channels, stated) };
}

/** An image file's picture, upright by its EXIF, transparent parts on black. width, height: by its header. */
export async function decodeByBrowser(parts, type, width, height, name) {
  const options = { imageOrientation: "from-image", premultiplyAlpha: "none", colorSpaceConversion: "none" };
  const bitmap = await createImageBitmap(new Blob(parts, { type }), options);
  const size = [bitmap.width, bitmap.height];
  const announced = [[width, height], [height, width]].map(String);
  if (!announced.includes(String(size))) throw new Error("another size");
  const context = new OffscreenCanvas(...size).getContext("2d", { alpha: false, willReadFrequently: true });
  checkReadable(context, name);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const rgba = new Uint8Array(context.getImageData(0, 0, ...size).data.buffer);
  return { width: size[0], height: size[1], ...greyOrRgb(rgba, 4), warnings: [] };
}

/** Throw if the browser changes what a page reads from a canvas, as some do against fingerprinting. */
function checkReadable(context, name) {
  context.fillStyle = "#123456";
  context.fillRect(0, 0, 1, 1);
  const found = `${context.getImageData(0, 0, 1, 1).data}`;
  context.clearRect(0, 0, 1, 1);
  if (found === "18,52,86,255") return;
  const reason = "the browser hides pixels from pages, against fingerprinting";
  refuse(`${name} cannot be read: ${reason}. Allow this page to read canvases, or use another browser.`);
}

/**
 * Throw unless compressed pixels are whole and about as many as announced: decoders may inflate without limit
 * and show what is missing as black. Interlaced pixels need more bytes than others, up to the double.
 */
async function checkInflated(compressed, expected) {
  const reader = new Blob(compressed).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  let size = 0, part = await reader.read();
  for (; !part.done && size <= 2 * expected; part = await reader.read()) size += part.value.length;
  await reader.cancel();
  if (size < expected || size > 2 * expected) throw new Error("other pixels than announced");
}

/** {channels, pixels, warnings}; of 2 or 4 channels the last is alpha, and black lies below. */
function fromSixteenBits(samples, channels, stated) {
  const colours = channels - 1 + (channels % 2);
  const [pixels, warnings] = toEightBits(picked(samples, channels, 0, colours), stated);
  if (colours < channels) {
    const alpha = picked(samples, channels, colours, 1);
    const opaque = alpha.reduce((one, other) => Math.max(one, other), 1);
    pixels.forEach((shade, at) => (pixels[at] = rint((shade * alpha[Math.floor(at / colours)]) / opaque)));
  }
  return { ...(colours === 3 ? greyOrRgb(pixels, 3) : { channels: 1, pixels }), warnings };
}
