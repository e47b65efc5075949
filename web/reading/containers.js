// The parts of PNG and JPEG files, without decoding them: sizes, depths, and where the file ends.
import { refuse, refuseHere } from "./error.js";
import { latin1, stowaway } from "./kinds.js";
import { tables } from "./tables.js";

const CHANNELS = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 }; // by a PNG's colour type

export const viewOf = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/**
 * {width, height, depth, channels, stated, exif, isKeyed, compressed, parts} of a whole PNG.
 * stated: the bits that sBIT says, if equal for all channels. exif: its bytes. isKeyed: has transparent
 * colours. compressed: the parts of the compressed pixels. parts: the file without text and colour profiles,
 * which decoders might inflate or apply.
 */
export function png(bytes, name) {
  const view = viewOf(bytes), found = { parts: [bytes.subarray(0, 8)], compressed: [] };
  const size = { width: view.getUint32(16), height: view.getUint32(20) }; // the header is the first chunk
  const format = { depth: bytes[24], channels: CHANNELS[bytes[25]] };
  let place = 8, kind = "";
  for (let chunk = 0; kind !== "IEND" && place + 12 <= bytes.length; chunk++) {
    if (chunk === tables.limits.parts) refuseMany(name, "chunks");
    const end = place + 12 + view.getUint32(place), body = bytes.subarray(place + 8, end - 4);
    if (end > bytes.length) break;
    kind = latin1(bytes.subarray(place + 4, place + 8));
    if (kind === "acTL" && `${body.subarray(0, 4)}` !== "0,0,0,1") refuse(`${name} ${tables.refusals.several}`);
    if (latin1(body.subarray(0, 21)) === "Raw profile type exif") refuseHere(name, "a PNG with EXIF as text");
    if (kind === "CgBI") refuse(`${name} ${tables.refusals.apple}`);
    if ((kind === "IHDR") !== (chunk === 0)) throw new Error("not one header, and at the beginning");
    if (kind === "sBIT" && new Set(body).size === 1) found.stated = body[0];
    if (kind === "eXIf") found.exif = body.length;
    if (kind === "tRNS") found.isKeyed = true;
    if (kind === "IDAT") found.compressed.push(body);
    if (/^[A-Z]|tRNS|eXIf/.test(kind)) found.parts.push(bytes.subarray(place, end));
    place = end;
  }
  checkTail(bytes.subarray(place), name);
  if (found.exif > tables.limits.exif) refuseMany(name, "bytes of EXIF");
  if (kind !== "IEND" || !format.channels) throw new Error("not whole");
  return { ...size, ...format, ...found };
}

/**
 * {process, precision, width, height, components, sampling} of a JPEG's frame header; process: its marker;
 * {predictor, shift} of its last scan; whether it `restarts` and `isWhole`; and its bytes of EXIF.
 */
export function jpeg(bytes, name) {
  const view = viewOf(bytes), found = { exif: 0 };
  let place = 2, pixels = bytes.length, scans = 0;
  for (let segment = 0; segment < tables.limits.parts; segment++) {
    let at = place;
    while (bytes[at] === 0xff) at++;
    const kind = at > place ? bytes[at++] : 0; // the marker; `at` is now behind it
    if (!kind || kind === 0xd9) {
      checkTail(bytes.subarray(kind ? at : Math.min(place, pixels)), name);
      return { ...found, isWhole: kind === 0xd9 };
    }
    place = at;
    if (kind === 0x01 || (kind >= 0xd0 && kind <= 0xd8)) continue; // markers without a length
    place += view.getUint16(at);
    if (isFrameHeader(kind) && !found.process) {
      Object.assign(found, { process: kind, precision: bytes[at + 2], components: bytes[at + 7] });
      Object.assign(found, { height: view.getUint16(at + 3), width: view.getUint16(at + 5) });
      found.sampling = bytes[at + 9]; // of the first component
    }
    if (kind === 0xdd) found.restarts = true;
    if (kind === 0xe1 && latin1(bytes.subarray(at + 2, at + 6)) === "Exif") found.exif += place - at - 2;
    if (kind === 0xda) {
      Object.assign(found, { predictor: bytes[place - 3], shift: bytes[place - 1] & 15 });
      [scans, pixels, place] = [scans + 1, Math.min(pixels, place), afterScan(bytes, place)];
    }
    if (scans > tables.limits.scans) refuseMany(name, "scans");
    if (found.exif > tables.limits.exif) refuseMany(name, "bytes of EXIF");
  }
  return refuseMany(name, "segments");
}

/** Whether a marker begins a frame header, SOF0 to SOF15 (ITU-T T.81, table B.1). */
const isFrameHeader = (marker) => marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);

/** Where the entropy-coded data that begin at a place end: at the next marker but restarts. */
function afterScan(bytes, place) {
  for (let at = bytes.indexOf(0xff, place); at >= 0; at = bytes.indexOf(0xff, at + 1)) {
    const next = bytes[at + 1];
    if ((next > 0 && next < 0xd0) || (next > 0xd7 && next < 0xff)) return at;
  }
  return bytes.length;
}

function checkTail(tail, name) {
  const kind = stowaway(tail), advice = "open it in an image viewer, save it again as PNG and use that.";
  if (kind) refuse(`${name} carries another file after the image's end (${kind}); ${advice}`);
}

function refuseMany(name, what) {
  refuse(`${name} has more ${what} than any X-ray; open it in an image viewer and save it as PNG.`);
}
