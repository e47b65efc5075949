// The content of a DICOM file by its header; anything but a frontal X-ray of the chest is refused.
import { refuse } from "./error.js";
import { tables } from "./tables.js";

/** Throw for DICOM files that are not pictures by the UID of their SOP class; "" is unknown. */
export function checkKind(sopClass, name) {
  const [, advice] = tables.content.noPictures.find(([start]) => sopClass.startsWith(start)) ?? [];
  if (advice) refuse(`${name} is ${advice}.`);
}

/** Throw if the header says that this is not a frontal X-ray of the chest; return warnings. */
export function checkContent(header, name) {
  const { radiography, modalities, turned, burnedIn } = tables.content;
  const modality = header.text("Modality"), kind = modalities[modality] ?? "not radiography";
  if (modality && !radiography.includes(modality)) {
    refuse(`${name} is ${kind} by its modality; expected a chest radiograph (${radiography.join(", ")}).`);
  }
  const directions = header.texts("PatientOrientation").map((direction) => direction.slice(0, 1)).join("\\");
  const isFromTheSide = /^([AP]\\.?|.?\\[AP])$/.test(directions) && !isFrontal(header);
  if (isLateral(header) || isFromTheSide) refuse(`${name} ${tables.refusals.lateral}`);
  if (isOtherRegion(header)) refuse(`${name} ${tables.refusals.otherPart}`);
  const isTurned = /^[LRHF]\\[LRHF]$/.test(directions) && directions !== "L\\F";
  return [isTurned && turned, header.text("BurnedInAnnotation") === "YES" && burnedIn].filter(Boolean);
}

/** Whether the header names a lateral view: by its own attributes, else by a description. */
function isLateral(header) {
  const position = header.text("ViewPosition");
  if (["LL", "RL"].includes(position) || (position.includes("LAT") && !position.includes("DEC"))) return true;
  if (views(header).some(saysLateral)) return true;
  if (isFrontal(header)) return false;
  const told = tables.content.descriptions.map((keyword) => words(header.text(keyword)));
  return saysLateral(told.find((each) => says(each, "lateral") || says(each, "frontal")) ?? "");
}

/** Whether the view's own attributes name a frontal view. */
const isFrontal = (header) => views(header).some((each) => says(each, "frontal"));

const views = (header) => [words(header.text("ViewPosition")), meanings(header, "ViewCodeSequence", "views")];

/** One view, not "PA and lateral". */
const saysLateral = (text) => says(text, "lateral") && !says(text, "notLateral") && !says(text, "frontal");

function isOtherRegion(header) {
  const regions = meanings(header, "AnatomicRegionSequence", "regions");
  const text = `${words(header.text("BodyPartExamined"))} ${regions}`;
  return says(text, "otherRegion") && !says(text, "chest");
}

const says = (text, pattern) => new RegExp(tables.content[pattern]).test(text);

/** In capitals, "P.A." as "PA", every other character as a blank. */
const words = (text) => text.toUpperCase().replaceAll(".", "").replace(/[^A-Z]+/g, " ");

/** The meanings of codes, in the file's words and the standard's: the file's may be in any language. */
function meanings(header, keyword, group) {
  const told = header.items(keyword).flatMap((item) => {
    const meaning = tables.content[group][item.text("CodingSchemeDesignator")]?.[item.text("CodeValue")];
    return [item.text("CodeMeaning"), meaning ?? ""];
  });
  return words(told.join(" "));
}
