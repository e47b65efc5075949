// Samples of 16 bits -> 8 bits, as xray_hf/reading/levels.py does it; helpers for samples.
import { tables } from "./tables.js";

export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** Round half to even, as NumPy does. */
export function rint(value) {
  const up = Math.round(value);
  return up - value === 0.5 && up % 2 !== 0 ? up - 1 : up;
}

/** [Uint8Array, warnings] of the samples of all colours. stated: the bits that the file states, if any. */
export function toEightBits(samples, stated) {
  const picture = pictureOf(samples), narrow = (bits) => tables.levels.narrow * 2 ** bits;
  // A PNG that states 12 bits may hold them scaled to 16, as its standard has it, or as they are.
  if (stated > 0 && stated < 16 && holds(picture, stated)) return [fromBlack(samples, stated), []];
  const bits = tables.levels.bits.find((depth) => holds(picture, depth)) ?? 16;
  const low = picture.findIndex(Boolean), high = picture.findLastIndex(Boolean);
  if (low > narrow(bits) && high - low < narrow(bits)) {
    const shades = mapped(samples, (value) => rint(clamp(((value - low) * 255) / (high - low || 1), 0, 255)));
    const unknown = "The image does not state which values are black and white";
    return [shades, [`${unknown}; ${low} and ${high} were taken.`]];
  }
  const warning = `The image does not state how many bits its values have; they suggest ${bits}.`;
  return [fromBlack(samples, bits), bits < 16 ? [warning] : []];
}

/** The histogram of samples without their background and, if it stands alone, their highest value. */
function pictureOf(samples) {
  const counts = new Uint32Array(2 ** 16);
  for (const sample of samples) counts[sample]++;
  const there = [...counts.keys()].filter((value) => counts[value]);
  const [first, second, before, last] = [there[0], there[1], there.at(-2), there.at(-1)];
  if (there.length > 2 && last - before > tables.levels.gap * (before - second)) counts[last] = 0;
  counts[first] = 0;
  return counts;
}

/** Whether the picture of a histogram has at most so many bits. */
function holds(picture, bits) {
  const sum = (counts) => counts.reduce((one, other) => one + other), all = sum(picture);
  return all > 0 && sum(picture.subarray(2 ** bits)) <= tables.levels.beyond * all;
}

/** 0 becomes black and the largest value of so many bits white. */
function fromBlack(samples, bits) {
  const full = 2 ** bits - 1;
  return mapped(samples, (value) => Math.floor((Math.min(value, full) * 255 + (full >> 1)) / full));
}

const mapped = (samples, shade) => lookedUp(samples, Uint8Array.from(Array(2 ** 16).keys(), shade));

/** Whole numbers by a table of bytes. */
export function lookedUp(values, table) {
  const found = new Uint8Array(values.length);
  for (let at = 0; at < found.length; at++) found[at] = table[values[at]];
  return found;
}

/** {channels, pixels}: one channel if the first three samples of every pixel are equal, else these three. */
export function greyOrRgb(samples, stride) {
  let isGrey = true;
  for (let at = 0; isGrey && at < samples.length; at += stride) {
    isGrey = samples[at] === samples[at + 1] && samples[at] === samples[at + 2];
  }
  const channels = isGrey ? 1 : 3;
  return { channels, pixels: picked(samples, stride, 0, channels) };
}

/** Some samples of every pixel. stride: the samples that a pixel has. */
export function picked(samples, stride, first, count) {
  const found = new samples.constructor((samples.length / stride) * count);
  for (let from = first, to = 0; to < found.length; from += stride) {
    for (let channel = 0; channel < count; channel++) found[to++] = samples[from + channel];
  }
  return found;
}
