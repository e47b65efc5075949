// The header of a DICOM file: the elements that describe the pixels, and where these are.
import dicomParser from "../vendor/dicom-parser.js";
import { hasPreamble, latin1 } from "./kinds.js";
import { tables } from "./tables.js";

const LITTLE = dicomParser.littleEndianByteArrayParser, BIG = dicomParser.bigEndianByteArrayParser;
const PIXEL_DATA = "x7fe00010", FLOATS = ["x7fe00008", "x7fe00009"];

/** Functions of keywords that give elements; a missing and an empty one are the same. */
function headerOf(dataSet) {
  const element = (keyword) => dataSet.elements[tables.header.tags[keyword]] ?? { length: 0 };
  // The values as text in capitals, without the blanks around them.
  const texts = (keyword) => {
    const { tag, length } = element(keyword);
    if (length > tables.header.longest) throw new Error("a value that is too long");
    return (dataSet.string(tag) ?? "").split("\\").map((text) => text.trim().toUpperCase());
  };
  // The values of 16 bits, unsigned.
  const words = (keyword) => {
    const { tag, length, vr = "US" } = element(keyword);
    if (!["US", "SS", "OW", "UN"].includes(vr)) throw new Error("no words");
    return Array.from({ length: length >> 1 }, (_, at) => dataSet.uint16(tag, at));
  };
  return {
    has: (keyword) => element(keyword).length > 0,
    texts,
    text: (keyword) => texts(keyword)[0],
    numbers: (keyword) => texts(keyword).filter(Boolean).map(decimal),
    words,
    items: (keyword) => (element(keyword).items ?? []).map((item) => headerOf(item.dataSet)),
  };
}

/** A decimal string as a number; NaN if it is none. */
export const decimal = (text) => (/^[+-]?(\d+\.?\d*|\.\d+)(E[+-]?\d+)?$/.test(text) ? Number(text) : NaN);

/** A file that refuses to be read in too many pieces: each element costs memory. */
class Bounded extends dicomParser.ByteStream {
  left = 3 * tables.header.reads;

  readUint16() {
    if (--this.left < 0) throw new Error("too many elements");
    return super.readUint16();
  }
}

/** [the file meta information (PS3.10, 7.1), the place behind it]; preamble and meta may be missing. */
export function readMeta(bytes, head) {
  const stream = new Bounded(LITTLE, bytes, hasPreamble(head) ? 132 : head.startsWith("DICM") ? 4 : 0);
  const meta = new dicomParser.DataSet(LITTLE, bytes, {});
  while (latin1(bytes.subarray(stream.position, stream.position + 2)) === "\x02\0") {
    const element = dicomParser.readDicomElementExplicit(stream, []);
    meta.elements[element.tag] = element;
  }
  return [headerOf(meta), stream.position];
}

/** {header, syntax, isLittle, hasFloats, pixels} of a data set. stated: its transfer syntax, "" for none. */
export function readHeader(bytes, place, stated) {
  const [implicit, explicit, bigEndian] = tables.pixels.native;
  const start = latin1(bytes.subarray(place, place + 6));
  const isExplicit = /^[A-Z]{2}$/.test(start.slice(4)); // by the bytes: what files state is often wrong
  const isLittle = stated ? stated !== bigEndian : start[0] !== "\0", order = isLittle ? LITTLE : BIG;
  const guess = isExplicit ? (isLittle ? explicit : bigEndian) : implicit;
  const parse = isExplicit ? dicomParser.parseDicomDataSetExplicit : dicomParser.parseDicomDataSetImplicit;
  const dataSet = new dicomParser.DataSet(order, bytes, {});
  parse(dataSet, new Bounded(order, bytes, place), bytes.length, { untilTag: PIXEL_DATA });
  const hasFloats = FLOATS.some((tag) => tag in dataSet.elements), pixels = dataSet.elements[PIXEL_DATA];
  return { header: headerOf(dataSet), syntax: stated || guess, isLittle, hasFloats, pixels };
}
