// The pixel data of a DICOM file -> words of 8 or 16 bits.
import { Decoder } from "../vendor/jpeg-lossless.js";
import openjpeg from "../vendor/openjpeg.js";
import { jpeg, viewOf } from "./containers.js";
import { refuse, refuseHere } from "./error.js";
import { latin1 } from "./kinds.js";
import { decodeByBrowser } from "./pictures.js";
import { grouped, tables } from "./tables.js";

const UNDEFINED = 2 ** 32 - 1; // the length of compressed pixel data
const ITEM = 0xe000fffe, END = 0xe0ddfffe; // the tags before and after fragments, little-endian
const LOSSLESS = 0xc3, JPEG_LS = 0xf7; // frame headers
const CODE_STREAM = "\xff\x4f\xff\x51"; // how JPEG 2000 begins; in a JP2 file, after other things
const VENDOR = new URL("../vendor/", import.meta.url);

/** Words, Uint8Array or Uint16Array: the stored values and whatever lies in the bits around them. */
export async function decodePixels(bytes, file, form, name) {
  const { native, jpeg2000, jpeg: frames, syntaxes } = tables.pixels, { syntax, pixels } = file;
  if (native.includes(syntax)) return nativeWords(bytes, file, form, name);
  if (pixels.length !== UNDEFINED) throw new Error("compressed pixels without fragments");
  const frame = await joined(bytes, pixels.dataOffset), processes = frames[syntax] ?? [JPEG_LS];
  if (jpeg2000.includes(syntax)) return wordsOfJpeg2000(frame, form, name);
  if (processes.includes(JPEG_LS)) refuseHere(name, `DICOM with ${syntaxes[syntax]}`);
  return wordsOfJpeg(frame, processes, form, name);
}

/** Whether words have the bits around the stored values; see xray_hf/reading/dicom_pixels.py. */
export function keepsUnusedBits(words, syntax, { stored }) {
  const { exact, losslessNumbers } = tables.pixels, isBeyond = (word) => word >= 2 ** stored;
  return exact.includes(syntax) || (losslessNumbers.includes(syntax) && words.some(isBeyond));
}

function nativeWords(bytes, { isLittle, pixels }, { rows, columns, allocated }, name) {
  const expected = (rows * columns * allocated) / 8, { dataOffset: start, length, vr } = pixels;
  const there = Math.min(length, bytes.length - start), sizes = [there, expected].map(grouped);
  if (length === UNDEFINED || there < expected || there >= 2 * expected) {
    refuse(`${name} has ${sizes[0]} bytes of pixels; expected ${sizes[1]}. Export or copy it again.`);
  }
  if (allocated === 8 && !isLittle && vr !== "OB") refuseHere(name, "DICOM with bytes in big-endian words");
  if (allocated === 8) return bytes.subarray(start, start + expected);
  const words = new Uint16Array(expected / 2), view = viewOf(bytes);
  for (let at = 0; at < words.length; at++) words[at] = view.getUint16(start + 2 * at, isLittle);
  return words;
}

/** The fragments of the one frame, joined; the first item, which may list them (PS3.5, A.4), is left out. */
async function joined(bytes, start) {
  const view = viewOf(bytes), parts = [];
  let place = start;
  while (place + 8 <= bytes.length && view.getUint32(place, true) === ITEM) {
    const end = place + 8 + view.getUint32(place + 4, true);
    parts.push(bytes.subarray(place + 8, end));
    if (parts.length > tables.limits.parts) throw new Error("too many fragments");
    place = end;
  }
  if (place + 8 <= bytes.length && view.getUint32(place, true) !== END) throw new Error("no fragment");
  return new Uint8Array(await new Blob(parts.slice(1)).arrayBuffer());
}

async function wordsOfJpeg(frame, processes, form, name) {
  const found = jpeg(frame, name), { process, width, height, components, precision } = found;
  if (!processes.includes(process) || !found.isWhole) throw new Error("another kind of JPEG, or not whole");
  checkStream(width, height, components, precision, form, name);
  if (process === LOSSLESS) return losslessWords(frame, found, name);
  if (precision > 8) refuseHere(name, "DICOM with JPEG of 12 bits");
  if (found.exif) refuseHere(name, "DICOM with EXIF in its JPEG"); // by which the browser would turn it
  const { channels, pixels } = await decodeByBrowser([frame], "image/jpeg", width, height, name);
  if (channels !== 1) throw new Error("not grey");
  return pixels;
}

function losslessWords(frame, { restarts, shift, sampling, predictor, precision }, name) {
  if (sampling !== 0x11) throw new Error("blocks, for which the decoder takes its time");
  const decoder = new Decoder(), end = latin1(frame).lastIndexOf("\xff\xd9"); // seeing it, it stops too soon
  const words = decoder.decode(frame.buffer, 0, end, precision > 8 ? 2 : 1);
  // It ignores a point transform, errs in predictor 7 and after restarts, and sometimes loses its place.
  const isRare = restarts || shift || predictor > 6 || Math.abs(decoder.stream.index - end) > 2;
  if (isRare) refuseHere(name, "DICOM with a rare or damaged kind of lossless JPEG");
  return words;
}

async function wordsOfJpeg2000(file, form, name) {
  const start = latin1(file).indexOf(CODE_STREAM), frame = file.subarray(start), view = viewOf(frame);
  if (start < 0) throw new Error("no code stream");
  const [right, bottom, left, top] = [8, 12, 16, 20].map((at) => view.getUint32(at));
  const isSigned = frame[42] >= 128, bits = (frame[42] & 127) + 1;
  checkStream(right - left, bottom - top, view.getUint16(40), bits, form, name);
  if (isSigned && bits <= 8) refuseHere(name, "DICOM with signed bytes in JPEG 2000"); // which it cuts
  const options = { locateFile: (wasm) => new URL(wasm, VENDOR).href, print() {}, printErr() {} };
  const failed = () => refuse(`${name} needs a decoder that could not be loaded; reload the page.`);
  const codec = await openjpeg(options).catch(failed), decoder = new codec.J2KDecoder();
  decoder.getEncodedBuffer(frame.length).set(frame);
  decoder.decode();
  const samples = decoder.getDecodedBuffer().slice();
  if (samples.length !== form.rows * form.columns * (bits > 8 ? 2 : 1)) throw new Error("not decoded");
  const words = bits > 8 ? new Uint16Array(samples.buffer) : samples;
  // The bits that an uncompressed file would have, at the header's depth; the header decides about the sign.
  return isSigned ? words.map((word) => word & (2 ** form.stored - 1)) : words;
}

/** Throw unless what a frame itself says fits the header. */
function checkStream(columns, rows, components, bits, form, name) {
  const announced = `${form.columns}×${form.rows}`, frame = `${columns}×${rows}`;
  if (frame !== announced) {
    refuse(`${name} holds ${frame} compressed pixels but announces ${announced}; export it again.`);
  }
  if (components !== 1 || bits > form.allocated) {
    const samples = `${components} × ${bits} bits; expected 1 × ${form.allocated}`;
    refuse(`${name} holds compressed pixels of ${samples}. Export it again.`);
  }
}
