// The report of one answer, as data and as a page that contains everything it shows.
import { mapsOf } from "./maps.js";
import { render } from "./render.js";
import { site } from "./site.js";
import { reportOf } from "./views.js";

const SIDE = 512;  // pixels; the longer side of a picture
const ALPHA = 0.65;  // of the strongest evidence

async function imageOf(source) {
  const image = Object.assign(new Image(), { src: source });
  await image.decode();
  return image;
}

// An X-ray, with a map over it if there is one, as a data URI.
async function drawn(xray, map) {
  const scale = Math.min(1, SIDE / Math.max(xray.naturalWidth, xray.naturalHeight));
  const [width, height] = [xray.naturalWidth, xray.naturalHeight].map((each) => Math.round(scale * each));
  const context = Object.assign(document.createElement("canvas"), { width, height }).getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(xray, 0, 0, width, height);
  context.globalAlpha = ALPHA;
  if (map) context.drawImage(await imageOf(map), 0, 0, width, height);
  return context.canvas.toDataURL("image/jpeg", 0.9);
}

export async function report(answer) {
  const { json, predicted } = reportOf(answer);
  const xray = await imageOf(answer.found.picture);
  const { stages: maps, ticks } = mapsOf(predicted);
  for (const layers of Object.values(maps)) {
    for (const [label, map] of Object.entries(layers)) layers[label] = await drawn(xray, map);
  }
  const pictures = { xray: await drawn(xray), maps, bar: site.bar, ticks };
  return { json, html: render("report", { ...json, ...pictures }) };
}
