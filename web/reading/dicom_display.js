// Stored values of a grey DICOM picture -> shades, in the order of the standard (PS3.3, C.11; PS3.4, N.2).
// Each step is a function of the values that are present, and not of the pixels.
import { decimal } from "./dicom_header.js";
import { refuse, refuseHere } from "./error.js";
import { clamp, lookedUp, rint } from "./levels.js";
import { tables } from "./tables.js";

const UNUSUAL = "DICOM with an unusual lookup table"; // of which the Python reader knows many kinds

const least = (values) => values.reduce((one, other) => Math.min(one, other));
const most = (values) => values.reduce((one, other) => Math.max(one, other));
const shade = (share) => rint(clamp(share, 0, 1) * 255);

/** [pixels, warnings]: the picture as a viewer shows it, 0 black to 255 white. keeps: see keepsUnusedBits. */
export function greyOf(words, keeps, form, header, name) {
  const present = presentIn(words).map((word) => ({ word, stored: storedIn(word, keeps, form) }));
  const parts = present.filter(isNoPadding(form, header));
  const picture = parts.length ? parts : present; // one of nothing but padding is shown as one of values
  const [values, warnings] = modalityValues(picture.map(({ stored }) => stored), header, name);
  const [shares, more] = shownShares(values, header, name);
  const isInverted = form.photometric === "MONOCHROME1", table = new Uint8Array(2 ** 16); // of padding, black
  const shown = shares.map(shade).map((grey) => (isInverted ? 255 - grey : grey));
  picture.forEach(({ word }, at) => (table[word] = shown[at]));
  // INVERSE belongs to MONOCHROME1 and IDENTITY to the other (C.11.6): they say the same, so invert once.
  const contradicts = header.text("PresentationLUTShape") === (isInverted ? "IDENTITY" : "INVERSE");
  return [lookedUp(words, table), [...warnings, ...more, ...(contradicts ? [tables.display.shape] : [])]];
}

/** The words that occur, in order. */
function presentIn(words) {
  const isThere = new Uint8Array(2 ** 16);
  for (const word of words) isThere[word] = 1;
  return [...isThere.keys()].filter((word) => isThere[word]);
}

/** The stored value in a word (C.7.6.3.1.1), without overlays in unused bits, with its sign. */
function storedIn(word, keeps, { stored, shift, signed }) {
  const bits = keeps ? word >> shift : word, value = keeps || signed ? bits & (2 ** stored - 1) : bits;
  return signed ? withSign(value, stored) : value;
}

const withSign = (value, bits) => (value >= 2 ** (bits - 1) ? value - 2 ** bits : value);

/** A test for what is no padding (C.7.5.1.1.2), which may need bits that stored values do not have. */
function isNoPadding({ signed, allocated }, header) {
  const stated = ["PixelPaddingValue", "PixelPaddingRangeLimit"].map((keyword) => header.words(keyword)[0]);
  const [first, last = first] = stated.map((value) => (signed ? withSign(value, 16) : value));
  const isBetween = (value) => Math.min(first, last) <= value && value <= Math.max(first, last);
  return ({ word, stored }) => !isBetween(stored) && !isBetween(signed ? withSign(word, allocated) : word);
}

/** [values, warnings]: stored values by the modality table, or by slope and intercept (C.11.1). */
function modalityValues(stored, header, name) {
  const [item] = header.items("ModalityLUTSequence"), { noSlope } = tables.display;
  if (item) return [stored.map(entryOf(tableOf(item, name))), []];
  const [slope = 1] = header.numbers("RescaleSlope"), [intercept = 0] = header.numbers("RescaleIntercept");
  const values = stored.map((value) => value * (slope === 0 ? 1 : slope) + intercept);
  if (!values.every(Number.isFinite)) refuse(`${name} ${tables.refusals.noRescale}`);
  return [values, slope === 0 ? [noSlope] : []];
}

/** [shares 0..1 of white, warnings] by the first table or window that shows any shade of grey. */
function shownShares(values, header, name) {
  const { tried, nextWindow, noWindow } = tables.display;
  const transforms = [...voiTables(header, name), ...windows(header)].slice(0, tried);
  const offered = transforms.map((transform) => values.map(transform));
  const isShown = (shares) => shares.some((share) => shade(share) > 0 && shade(share) < 255);
  const chosen = offered.findIndex((shares) => shares.every(Number.isFinite) && isShown(shares));
  if (chosen >= 0) return [offered[chosen], chosen > 0 ? [nextWindow] : []];
  const low = least(values), high = most(values);
  const shares = values.map((value) => (low < high ? (value - low) / (high - low) : 0));
  return [shares, offered.length ? [noWindow] : []];
}

/** The VOI tables (C.11.2.1.1) as functions from a value to its share. */
function voiTables(header, name) {
  return header.items("VOILUTSequence").map((item) => {
    const table = tableOf(item, name), entry = entryOf(table), white = 2 ** table.bits - 1;
    const highest = most(table.entries), isRight = table.bits >= 8 && table.bits <= 16 && highest <= white;
    if (!isRight || highest <= white >> 2) refuseHere(name, UNUSUAL); // or leaves much of its range unused
    return (value) => entry(value) / white;
  });
}

/** A table as a function; below its first value and above its last it gives the entry there (C.11.1.1.1). */
const entryOf = ({ first, entries }) => (value) => entries[clamp(rint(value) - first, 0, entries.length - 1)];

/** {first, bits, entries}, if the first value cannot be negative, and the entries are not packed. */
function tableOf(item, name) {
  const [announced, first, bits] = item.words("LUTDescriptor"), count = announced || 2 ** 16;
  const entries = item.words("LUTData").slice(0, count);
  if (!(first < 2 ** 15) || entries.length < count) refuseHere(name, UNUSUAL);
  return { first, bits, entries };
}

/** The windows (C.11.2.1.2, C.11.2.1.3), likewise; the share by one that cannot be used is not a number. */
function windows(header) {
  if (!header.has("WindowCenter") || !header.has("WindowWidth")) return [];
  const decimals = (keyword) => header.texts(keyword).map(decimal), widths = decimals("WindowWidth");
  const kind = header.text("VOILUTFunction") || "LINEAR";
  return decimals("WindowCenter").map((center, number) => windowOf(center, widths[number], kind));
}

function windowOf(center, width, kind) {
  if (kind === "LINEAR" && width >= 1) return ramp(center - 0.5, width - 1);
  if (kind === "LINEAR_EXACT" && width > 0) return ramp(center, width);
  if (kind === "SIGMOID" && width > 0) return (value) => 1 / (1 + Math.exp((-4 * (value - center)) / width));
  return () => NaN;
}

function ramp(middle, width) {
  const low = middle - width / 2, high = middle + width / 2;
  return (value) => (value <= low ? 0 : value > high ? 1 : (value - middle) / width + 0.5);
}
