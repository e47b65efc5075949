// Class activation maps as pictures, as xray_hf.inference.overlay draws them.
import { site } from "./site.js";

const SIDE = 112;  // pixels; heatmaps are 7×7 to 16×16, the browser smooths the rest
const FULL = 3;  // logits of the strongest colour, at least
const STEPS = [1, 2, 5, 10, 20, 50, 100];  // logits between two ticks
const MOST_TICKS = 5;
const PALETTE = Uint8Array.from(atob(site.palette), (each) => each.charCodeAt(0));  // 256 × RGBA

const cubic = (x) => (x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((2.5 - 0.5 * x) * x - 4) * x + 2 : 0);

// For each of `to` places the [place before, weight] of Pillow's bicubic filter.
function weights(from, to) {
  return Array.from({ length: to }, (_, place) => {
    const centre = ((place + 0.5) * from) / to;
    const [first, end] = [Math.max(0, Math.round(centre - 2)), Math.min(from, Math.round(centre + 2))];
    const near = Array.from({ length: end - first }, (__, k) => [first + k, cubic(Math.abs(first + k + 0.5 - centre))]);
    const sum = near.reduce((total, [, weight]) => total + weight, 0);
    return near.map(([k, weight]) => [k, weight / sum]);
  });
}

const sum = (near, valueAt) => near.reduce((total, [k, weight]) => total + weight * valueAt(k), 0);

// {class: its map as a data URI}. heatmaps: {values, shape: [C, h, w]}. top: the logits of the strongest colour.
function layers({ values, shape: [, height, width] }, top) {
  const [across, down] = [weights(width, SIDE), weights(height, SIDE)];
  const canvas = Object.assign(document.createElement("canvas"), { width: SIDE, height: SIDE });
  return Object.fromEntries(site.labels.map((label, place) => {
    const at = (y, x) => values[(place * height + y) * width + x];
    const wide = Array.from({ length: height }, (_, y) => across.map((near) => sum(near, (x) => at(y, x))));
    const pixels = new ImageData(SIDE, SIDE);
    down.forEach((near, y) => across.forEach((_, x) => {
      const strength = Math.min(1, Math.max(0, sum(near, (k) => wide[k][x]) / top));
      const colour = 4 * Math.round(255 * strength);
      pixels.data.set(PALETTE.subarray(colour, colour + 4), 4 * (y * SIDE + x));
    }));
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    return [label, canvas.toDataURL()];
  }));
}

// {logits: where on the colour bar, 0 to 1}, in round steps.
function ticksTo(top) {
  const step = STEPS.find((each) => top / each < MOST_TICKS) ?? STEPS.at(-1);
  const count = Math.floor(top / step) + 1;
  return Object.fromEntries(Array.from({ length: count }, (_, k) => [k * step, (k * step) / top]));
}

// {stages: {model: its layers}, ticks} of the predictions that have heatmaps, all with the same colours.
export function mapsOf(predicted) {
  const mapped = Object.entries(predicted).filter(([, { heatmaps }]) => heatmaps);
  const top = mapped.reduce((most, [, { heatmaps }]) => heatmaps.values.reduce((a, b) => Math.max(a, b), most), FULL);
  const stages = Object.fromEntries(mapped.map(([name, { heatmaps }]) => [name, layers(heatmaps, top)]));
  return { stages, ticks: ticksTo(top) };
}
