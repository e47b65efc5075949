// DICOM -> a grey picture, as a radiologist's viewer would show it, if it is a frontal X-ray of the chest.
import { checkContent, checkKind } from "./dicom_content.js";
import { greyOf } from "./dicom_display.js";
import { readHeader, readMeta } from "./dicom_header.js";
import { decodePixels, keepsUnusedBits } from "./dicom_pixels.js";
import { refuse, refuseHere } from "./error.js";
import { hasPreamble, isAlsoAnotherKind } from "./kinds.js";
import { clamp, rint } from "./levels.js";
import { checkSize, tables } from "./tables.js";

/** The picture in a DICOM file. head: the file's first bytes as text. */
export async function readDicom(bytes, name, head) {
  if (isAlsoAnotherKind(head)) refuse(`${name} ${tables.refusals.twoKinds}`);
  const file = opened(bytes, name, head), { header, syntax } = file;
  const warnings = checkContent(header, name), form = formatOf(header, name), { columns, rows } = form;
  const [ratio, more] = pixelRatio(header);
  const width = rint(columns * Math.max(1, 1 / ratio)), height = rint(rows * Math.max(1, ratio));
  checkSize(name, columns, rows);
  checkSize(name, width, height);
  const words = await decodePixels(bytes, file, form, name);
  if (words.length !== columns * rows) throw new Error("other pixels than announced");
  const [grey, shown] = greyOf(words, keepsUnusedBits(words, syntax, form), form, header, name);
  const pixels = resampled(grey, columns, rows, width, height);
  return { width, height, channels: 1, pixels, warnings: [...warnings, ...more, ...shown] };
}

/** What readHeader gives. Throws unless there are pixels that can be decoded. */
function opened(bytes, name, head) {
  const { floats, noPicture, noSyntax } = tables.refusals;
  const [meta, place] = readMeta(bytes, head), syntax = meta.text("TransferSyntaxUID");
  checkKind(meta.text("MediaStorageSOPClassUID"), name);
  if (syntax && !tables.pixels.supported.includes(syntax)) {
    const unsupported = `is not supported (${tables.pixels.syntaxes[syntax] ?? "unknown"})`;
    refuse(`${name} has a transfer syntax that ${unsupported}; export it as Explicit VR Little Endian.`);
  }
  const file = readHeader(bytes, place, syntax), { header, hasFloats, pixels } = file;
  const isDicom = ["SOPClassUID", "Modality", "Rows"].some((keyword) => header.has(keyword));
  if (!hasPreamble(head) && !isDicom) throw new Error("it begins like DICOM by chance");
  checkKind(header.text("SOPClassUID"), name);
  if (hasFloats) refuse(`${name} ${floats}`);
  if (!pixels) refuse(`${name} ${noPicture}`);
  if (!syntax && pixels.hadUndefinedLength) refuse(`${name} ${noSyntax}`);
  return file;
}

/** {columns, rows, photometric, allocated, stored, shift, signed} of the pixels by the header. */
function formatOf(header, name) {
  const { noPhotometric, palette } = tables.refusals, wrong = (text) => refuse(`${name} has ${text}`);
  const word = (keyword, missing) => header.words(keyword)[0] ?? missing;
  const [frames = 1] = header.numbers("NumberOfFrames");
  const photometric = header.text("PhotometricInterpretation");
  if (!(frames <= 1)) wrong(`${frames} frames; expected one. Export the X-ray alone.`);
  if (!photometric) refuse(`${name} ${noPhotometric}`);
  if (photometric === "PALETTE COLOR") refuse(`${name} ${palette}`);
  if (!/^MONOCHROME[12]$/.test(photometric)) refuseHere(name, "DICOM in colours");
  const samples = word("SamplesPerPixel", 1), allocated = word("BitsAllocated", 0);
  const one = "expected 1 by its photometric interpretation";
  if (samples !== 1) wrong(`${samples} samples per pixel; ${one}. Export it again.`);
  if (![8, 16].includes(allocated)) wrong(`${allocated} bits per pixel; expected 8 or 16. Export it again.`);
  const stored = word("BitsStored", allocated), shift = word("HighBit", stored - 1) - stored + 1;
  if (stored < 1 || shift < 0 || stored + shift > allocated) {
    wrong(`${stored} bits in an unusual place of ${allocated}; export it again.`);
  }
  const signed = word("PixelRepresentation", 0) === 1, columns = word("Columns", 0), rows = word("Rows", 0);
  return { columns, rows, photometric, allocated, stored, shift, signed };
}

/** [a pixel's height over its width, 1 if these are about equal or unknown; warnings]. */
function pixelRatio(header) {
  const { spacings, square, longest, spacing } = tables.pixels;
  const stated = spacings.map((keyword) => header.numbers(keyword));
  const ratio = stated.map(([vertical, horizontal]) => vertical / horizontal).find(Number.isFinite) ?? 1;
  if (ratio < 1 / longest || ratio > longest) return [1, [spacing]];
  return [Math.abs(ratio - 1) <= square ? 1 : ratio, []];
}

/** A picture whose columns or rows, or neither, are resampled to a larger number, bilinearly. */
function resampled(grey, columns, rows, width, height) {
  if (width === columns && height === rows) return grey;
  const isWider = width > columns, pixels = new Uint8Array(width * height);
  const [from, to, step] = isWider ? [columns, width, 1] : [rows, height, columns];
  for (let at = 0; at < pixels.length; at++) {
    const x = at % width, y = (at - x) / width;
    const place = clamp((((isWider ? x : y) + 0.5) * from) / to - 0.5, 0, from - 1);
    const below = Math.floor(place);
    const start = (isWider ? y * columns : x) + below * step, next = below < from - 1 ? start + step : start;
    pixels[at] = rint(grey[start] + (grey[next] - grey[start]) * (place - below));
  }
  return pixels;
}
