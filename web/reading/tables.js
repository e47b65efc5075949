import { refuse } from "./error.js";

/** The limits, patterns, words and sentences of the Python reader (xray_hf.reading.for_browser.tables). */
export const tables = {};

/** Take over the tables; once, before anything is read. */
export const configure = (json) => void Object.assign(tables, json);

/** Throw unless an image of that size, in pixels, may be decoded. */
export function checkSize(name, width, height) {
  const { side, aspect, pixels } = tables.limits, size = `${width}×${height} pixels`;
  const [less, more] = [Math.min(width, height), Math.max(width, height)];
  if (less < side) refuse(`${name} is ${size}; at least ${side}×${side} are needed.`);
  if (more > aspect * less) refuse(`${name} is ${size}; no side may be over ${aspect} times the other. Crop it.`);
  if (more * less > pixels) refuse(`${name} has ${size}; the limit is ${grouped(pixels)} in all. Shrink it.`);
}

/** A whole number as 1,234,567. */
export const grouped = (number) => number.toLocaleString("en-US");
