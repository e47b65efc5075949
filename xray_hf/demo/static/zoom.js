// Zoom and pan of all pictures of a viewer together.
import { original } from "./original.js";

const MOST = 16;  // times
const STEP = 1.25;
const states = new WeakMap();  // viewer: {scale, x, y}; x and y in widths and heights of a picture

export function stateOf(viewer) {
  if (!states.has(viewer)) states.set(viewer, { scale: 1, x: 0, y: 0 });
  return states.get(viewer);
}

const within = (value, low, high) => Math.min(Math.max(value, low), high);

function show(viewer, scale, x, y) {
  const state = stateOf(viewer);
  const zoomsIn = scale > state.scale;
  // The picture always fills its frame.
  Object.assign(state, { scale, x: within(x, 1 - scale, 0), y: within(y, 1 - scale, 0) });
  const transform = `translate(${100 * state.x}%, ${100 * state.y}%) scale(${scale})`;
  viewer.querySelectorAll(".scene").forEach((scene) => { scene.style.transform = transform; });
  viewer.classList.toggle("zoomed", scale > 1);
  viewer.querySelector(".zoom").textContent = `${Math.round(100 * scale)}%`;
  if (zoomsIn) original(viewer);
}

// The point (x, y) of the frame, 0 to 1, stays where it is.
export function zoom(viewer, factor, x = 0.5, y = 0.5) {
  const state = stateOf(viewer);
  const scale = within(state.scale * factor, 1, MOST);
  const grown = scale / state.scale;
  show(viewer, scale, x - (x - state.x) * grown, y - (y - state.y) * grown);
}

// By parts of the frame.
export function pan(viewer, x, y) {
  const state = stateOf(viewer);
  show(viewer, state.scale, state.x + x, state.y + y);
}

export function reset(viewer) {
  show(viewer, 1, 0, 0);
}

const KEYS = {
  "+": (viewer) => zoom(viewer, STEP),
  "=": (viewer) => zoom(viewer, STEP),  // + without Shift
  "-": (viewer) => zoom(viewer, 1 / STEP),
  0: reset,
  ArrowLeft: (viewer) => pan(viewer, 0.1, 0),
  ArrowRight: (viewer) => pan(viewer, -0.1, 0),
  ArrowUp: (viewer) => pan(viewer, 0, 0.1),
  ArrowDown: (viewer) => pan(viewer, 0, -0.1),
};

export const BUTTONS = {
  "zoom-in": (viewer) => zoom(viewer, STEP),
  "zoom-out": (viewer) => zoom(viewer, 1 / STEP),
  "zoom-reset": reset,
};

export function listenForZoom() {
  document.addEventListener("keydown", (event) => {
    const isStage = event.target.classList?.contains("stage");
    if (!isStage || event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
    const viewer = event.target.closest(".viewer");
    // At its own size there is nothing to pan: the arrows scroll the page.
    if (event.key.startsWith("Arrow") && stateOf(viewer).scale === 1) return;
    event.preventDefault();
    KEYS[event.key](viewer);
  });
  let scrolled = -Infinity;
  document.addEventListener("scroll", () => { scrolled = performance.now(); }, { capture: true, passive: true });
  document.addEventListener("wheel", (event) => {
    const stage = event.target.closest?.(".stage");
    // A wheel that scrolls the page goes on doing so when a picture comes under it.
    if (!stage || (performance.now() - scrolled < 300 && !event.ctrlKey)) return;
    const viewer = stage.closest(".viewer");
    if (event.deltaY >= 0 && stateOf(viewer).scale === 1 && !event.ctrlKey) return;
    event.preventDefault();
    const frame = stage.getBoundingClientRect();
    const [x, y] = [(event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height];
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 33 : 1;
    zoom(viewer, Math.exp(-within(event.deltaY * lines, -100, 100) / 300), x, y);
  }, { passive: false });
}
