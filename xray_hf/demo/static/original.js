// The X-ray at its own size, fetched when somebody looks closer: the answer brings a small one.
import { asFile, call } from "./api.js";

const asked = new WeakSet();  // viewers
const pixels = (image) =>
  `${image.naturalWidth.toLocaleString("en")} × ${image.naturalHeight.toLocaleString("en")} pixels`;

export const say = (viewer, words) => { viewer.querySelector(".viewer-status").textContent = words; };

async function fetchInto(viewer) {
  const { path, member } = viewer.dataset;
  const { picture, error } = await call("picture", [asFile(path), member]);
  if (error) throw new Error(error);
  const image = new Image();
  image.src = picture;
  await image.decode();
  viewer.querySelectorAll(".xray").forEach((each) => { each.src = picture; });
  return image;
}

export async function original(viewer) {
  if (asked.has(viewer)) return;
  asked.add(viewer);
  const small = viewer.querySelector(".xray");
  await small.decode();
  const { width, height } = viewer.dataset;
  if (small.naturalWidth >= Number(width) && small.naturalHeight >= Number(height)) {
    say(viewer, `The image has only ${pixels(small)}; there is no higher resolution.`);
    return;
  }
  say(viewer, "Fetching the original resolution …");
  try {
    say(viewer, `Original resolution: ${pixels(await fetchInto(viewer))}.`);
  } catch (error) {
    say(viewer, `Only the small picture can be shown: ${error.message}`);
    asked.delete(viewer);
  }
}
