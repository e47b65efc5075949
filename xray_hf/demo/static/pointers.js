// Mouse, pen and fingers on a picture: one sets the window or pans, two zoom and pan.
import { levels, setLevels } from "./window_level.js";
import { pan, zoom } from "./zoom.js";

const down = new Map();  // pointer: where it was last
let stage = null;  // which all of them are on
let begun = null;  // of the drag: where, and the window then

const middle = (points) => ({
  x: points.reduce((sum, each) => sum + each.x, 0) / points.length,
  y: points.reduce((sum, each) => sum + each.y, 0) / points.length,
});
const distance = ([one, other]) => Math.hypot(one.x - other.x, one.y - other.y);

function begin(x, y) {
  begun = { x, y, ...levels(stage.closest(".viewer")) };
}

// One grey level a pixel, counted from the beginning, since the fields round.
function drag(viewer, frame, event, last) {
  const pans = (viewer.dataset.drag === "pan") !== event.shiftKey;
  if (pans) pan(viewer, (event.clientX - last.x) / frame.width, (event.clientY - last.y) / frame.height);
  else setLevels(viewer, begun.width + event.clientX - begun.x, begun.centre + event.clientY - begun.y);
}

function move(event) {
  const last = down.get(event.pointerId);
  if (!last) return;
  const [viewer, frame, before] = [stage.closest(".viewer"), stage.getBoundingClientRect(), [...down.values()]];
  down.set(event.pointerId, { x: event.clientX, y: event.clientY });
  const after = [...down.values()];
  if (after.length === 1) {
    drag(viewer, frame, event, last);
    return;
  }
  const [from, to] = [middle(before), middle(after)];
  pan(viewer, (to.x - from.x) / frame.width, (to.y - from.y) / frame.height);
  const factor = distance(after) / Math.max(distance(before), 1);
  zoom(viewer, factor, (to.x - frame.left) / frame.width, (to.y - frame.top) / frame.height);
}

function lift(event) {
  down.delete(event.pointerId);
  const [left] = down.values();
  if (left) begin(left.x, left.y);
  else stage = null;
}

export function listenForPointers() {
  document.addEventListener("pointerdown", (event) => {
    const over = event.target.closest?.(".stage");
    if (!over || event.button !== 0 || (stage && over !== stage) || down.size === 2) return;
    stage = over;
    down.set(event.pointerId, { x: event.clientX, y: event.clientY });
    begin(event.clientX, event.clientY);
    stage.setPointerCapture(event.pointerId);
  });
  document.addEventListener("pointermove", move);
  document.addEventListener("pointerup", lift);
  document.addEventListener("pointercancel", lift);
}
