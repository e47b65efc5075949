// The viewer of an answer: everything but the original resolution and the report is done with the pictures
// that the answer brought.
import { original } from "./original.js";
import { listenForPointers } from "./pointers.js";
import { BUTTONS as SAVE } from "./save.js";
import { resetWindow, showWindow } from "./window_level.js";
import { BUTTONS as ZOOM, listenForZoom } from "./zoom.js";

const DO = { ...ZOOM, ...SAVE, original, "reset-window": resetWindow };

// Maps: each model's most probable class, one class for all models, or only the X-ray, once.
function showMaps(viewer) {
  const chosen = viewer.querySelector(".choose-map")?.value;
  if (chosen === undefined) return;
  const [opacity, wiped] = ["opacity", "wipe"].map((name) => viewer.querySelector(`.${name}`).value);
  viewer.style.setProperty("--opacity", opacity / 100);
  viewer.style.setProperty("--wiped", `${wiped}%`);
  viewer.querySelectorAll(".of-map, .legend").forEach((each) => { each.hidden = !chosen; });
  viewer.querySelectorAll(".of-xray").forEach((each) => { each.hidden = Boolean(chosen); });
  viewer.querySelectorAll(".stages figure").forEach((figure, place) => {
    const shown = chosen === "own" ? figure.dataset.own : chosen;
    figure.querySelectorAll(".map").forEach((map) => { map.hidden = map.dataset.label !== shown; });
    figure.querySelector(".label").textContent = shown;
    figure.hidden = !chosen && place > 0;
  });
}

// Once for each viewer that comes: the X-ray is sent once, and fingers scroll until somebody chooses otherwise.
export function prepare(viewer) {
  const [first, ...others] = viewer.querySelectorAll(".xray");
  others.forEach((each) => { each.src = first.src; });
  if (matchMedia("(pointer: coarse)").matches) chooseDrag(viewer, "pan");
}

function chooseDrag(viewer, what) {
  viewer.dataset.drag = what;
  viewer.querySelector(`.drag[value="${what}"]`).checked = true;
}

export function listenForViewers() {
  document.addEventListener("input", (event) => {
    const viewer = event.target.closest(".viewer");
    if (!viewer) return;
    if (event.target.matches(".drag")) chooseDrag(viewer, event.target.value);
    showMaps(viewer);
    showWindow(viewer);
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest(".viewer button[data-do]");
    if (button) DO[button.dataset.do](button.closest(".viewer"));
  });
  listenForZoom();
  listenForPointers();
}
