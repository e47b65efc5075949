// The kind of a file by its first bytes, and advice for files that are often mistaken for X-rays.
import { tables } from "./tables.js";

/** Bytes as text of one character each. (TextDecoder's "latin1" is Windows-1252.) */
export function latin1(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 999) text += String.fromCharCode(...bytes.subarray(at, at + 999));
  return text;
}

/** The kind whose signature a file begins with; undefined if there is none. head: its first bytes as text. */
export function kindOf(head) {
  return hasPreamble(head) ? "DICOM" : tables.kinds.find(([, start]) => begins(head, start))?.[0];
}

export const hasPreamble = (head) => head.slice(128, 132) === "DICM";

/** Whether a DICOM file's preamble begins as something else than TIFF, which common writers put there. */
export function isAlsoAnotherKind(head) {
  const preamble = hasPreamble(head) ? head.slice(0, 128) : "";
  return ![undefined, "TIFF", "DICOM"].includes(kindOf(preamble)) || adviceOn(preamble) !== undefined;
}

/** A sentence about a file that is of no known kind, with what to do next. */
export function whyNotRead(head, name) {
  const expected = "expected one of JPEG, PNG, DICOM", advice = adviceOn(head);
  if (advice) return `${name} is not a readable image (${expected}): it is ${advice}.`;
  return `${name} is not a readable image; ${expected}. Export the X-ray as PNG.`;
}

/** The kind of file that another reader would find after an image's end; undefined if there is none. */
export function stowaway(tail) {
  const groups = new RegExp(tables.stowaways, "s").exec(latin1(tail))?.groups ?? {};
  return Object.keys(groups).find((kind) => groups[kind] !== undefined)?.replace("a7z", "7z");
}

const adviceOn = (head) => tables.strangers.find(([start]) => begins(head, start))?.[1];
const begins = (text, pattern) => new RegExp(`^(?:${pattern})`, "s").test(text);
