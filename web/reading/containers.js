// The parts of PNG and JPEG files, without decoding them: sizes, depths, and where the file ends.
import { refuse } from "./error.js";
import { latin1, stowaway } from "./kinds.js";
import { tables } from "./tables.js";

const CHANNELS = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 }; // by a PNG's colour type

export const viewOf = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/**
 * {width, height, depth, channels, stated, exif, compressed, parts} of a whole PNG.
 * stated: the bits that sBIT says, if equal for all channels. exif: its bytes, if any. compressed: the parts of the
 * compressed pixels. parts: the file without text and colour profiles, which decoders might inflate or apply.
 */
export function png(bytes, name) {
  const view = viewOf(bytes), found = { parts: [bytes.subarray(0, 8)], compressed: [] };
  let place = 8, kind = "";
  for (let chunk = 0; kind !== "IEND" && place + 12 <= bytes.length; chunk++) {
    if (chunk === tables.limits.parts) tooMany(name, "chunks");
    const end = place + 12 + view.getUint32(place), body = bytes.subarray(place + 8, end - 4);
    if (end > bytes.length) break;
    kind = latin1(bytes.subarray(place + 4, place + 8));
    if (kind === "CgBI") refuse(`${name} ${tables.refusals.apple}`);
    const isAnimated = kind === "acTL" && `${body.subarray(0, 4)}` !== "0,0,0,1";
    if (isAnimated) refuse(`${name} ${tables.refusals.several}`);
    if ((kind === "IHDR") !== (chunk === 0)) throw new Error("not one header, and at the beginning");
    if (kind === "IHDR") [found.width, found.height] = [view.getUint32(16), view.getUint32(20)];
    if (kind === "IHDR") [found.depth, found.channels] = [body[8], CHANNELS[body[9]]];
    if (kind === "sBIT" && new Set(body).size === 1) found.stated = body[0];
    if (kind === "eXIf") found.exif = body.length;
    if (kind === "IDAT") found.compressed.push(body);
    if (/^[A-Z]|tRNS|eXIf/.test(kind)) found.parts.push(bytes.subarray(place, end));
    place = end;
  }
  checkTail(bytes.subarray(place), name);
  if (found.exif > tables.limits.exif) tooMany(name, "bytes of EXIF");
  if (kind !== "IEND" || !found.channels) throw new Error("not whole");
  return found;
}

/**
 * {process, precision, width, height, components, sampling} of a JPEG's frame header, with its marker `process`;
 * {predictor, shift} of its last scan; whether it has restart intervals, `restarts`, and an end, `isWhole`.
 */
export function jpeg(bytes, name) {
  const view = viewOf(bytes), found = {};
  let place = 2, pixels = bytes.length, scans = 0, exif = 0;
  for (let segment = 0; segment < tables.limits.parts; segment++) {
    let start = place;
    while (bytes[start] === 0xff) start++;
    const kind = start > place ? bytes[start++] : 0;
    if (!kind || kind === 0xd9) {
      checkTail(bytes.subarray(kind ? start : Math.min(place, pixels)), name);
      return { ...found, isWhole: kind === 0xd9 };
    }
    place = start;
    if (kind === 0x01 || (kind >= 0xd0 && kind <= 0xd8)) continue; // markers without a length
    place += view.getUint16(start);
    if (kind >= 0xc0 && kind <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(kind) && !found.process) {
      Object.assign(found, { process: kind, precision: bytes[start + 2], components: bytes[start + 7] });
      Object.assign(found, { height: view.getUint16(start + 3), width: view.getUint16(start + 5) });
      found.sampling = bytes[start + 9]; // of the first component
    }
    if (kind === 0xdd) found.restarts = true;
    if (kind === 0xe1 && latin1(bytes.subarray(start + 2, start + 6)) === "Exif") exif += place - start - 2;
    if (kind === 0xda) {
      Object.assign(found, { predictor: bytes[place - 3], shift: bytes[place - 1] & 15 });
      [scans, pixels, place] = [scans + 1, Math.min(pixels, place), afterScan(bytes, place)];
    }
    if (scans > tables.limits.scans) tooMany(name, "scans");
    if (exif > tables.limits.exif) tooMany(name, "bytes of EXIF");
  }
  tooMany(name, "segments");
}

/** Where the entropy-coded data that begin at a place end: at the next marker but restarts. */
function afterScan(bytes, place) {
  for (let at = bytes.indexOf(0xff, place); at >= 0; at = bytes.indexOf(0xff, at + 1)) {
    const next = bytes[at + 1];
    if ((next > 0 && next < 0xd0) || (next > 0xd7 && next < 0xff)) return at;
  }
  return bytes.length;
}

function checkTail(tail, name) {
  const kind = tail.length && stowaway(tail);
  const advice = "open it in an image viewer, save it again as PNG and use that.";
  if (kind) refuse(`${name} carries another file after the image's end (${kind}); ${advice}`);
}

function tooMany(name, what) {
  refuse(`${name} has more ${what} than any X-ray; open it in an image viewer and save it as PNG.`);
}
