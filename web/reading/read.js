// The bytes of a file -> an upright picture of 8 bits, as xray_hf.reading reads it, or one ImageError.
import { readDicom } from "./dicom.js";
import { ImageError, refuse, refuseHere } from "./error.js";
import { hasPreamble, kindOf, latin1, whyNotRead } from "./kinds.js";
import { readJpeg, readPng } from "./pictures.js";
import { grouped, tables } from "./tables.js";

export { ImageError } from "./error.js";
export { configure } from "./tables.js";

const READERS = { PNG: readPng, JPEG: readJpeg, DICOM: readDicom };

/**
 * {width, height, channels, pixels, warnings}: 1 channel if the picture is grey, else 3 (RGB, interleaved).
 * name: what errors call the file. Throws ImageError for whatever cannot or may not be read.
 */
export async function read(bytes, name) {
  const size = bytes.length, head = latin1(bytes.subarray(0, 512)), kind = kindOf(head);
  const limit = `the limit is ${grouped(tables.limits.bytes)}. Save it smaller, as PNG.`;
  if (size > tables.limits.bytes) refuse(`${name} has ${grouped(size)} bytes; ${limit}`);
  if (size === 0) refuse(`${name} is empty (0 bytes); copy or download it again.`);
  if (!kind) refuse(whyNotRead(head, name));
  if (!READERS[kind]) refuseHere(name, `a ${kind} file`);
  try {
    return await READERS[kind](bytes, name, head);
  } catch (cause) {
    if (cause instanceof ImageError) throw cause;
    if (kind === "DICOM" && !hasPreamble(head)) refuse(whyNotRead(head, name)); // it may begin so by chance
    const again = kind === "DICOM" ? "export or copy" : "copy or download";
    throw new ImageError(`${name} is a damaged or incomplete ${kind} file; ${again} it again.`, { cause });
  }
}
