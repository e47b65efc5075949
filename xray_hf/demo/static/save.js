// What the visitor takes along: the picture as it is shown, and the report.
import { asFile, call } from "./api.js";
import { say } from "./original.js";
import { levels, mapping } from "./window_level.js";
import { stateOf } from "./zoom.js";

const SIDE = 1024;  // pixels; the longer side of each X-ray
const [GAP, LINE] = [24, 34];

function download(content, type, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

const stem = (viewer) => viewer.dataset.name.replace(/\.\w+$/, "").replace(/[^\p{L}\p{N}._-]+/gu, "_");

// The X-ray with its window, as the filter shows it, and the map over it; `into` is a canvas of this size.
function drawStage(into, viewer, stage) {
  const { scale, x, y } = stateOf(viewer);
  const { width, height } = into;
  const context = into.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.setTransform(scale, 0, 0, scale, x * width, y * height);
  context.drawImage(stage.querySelector(".xray"), 0, 0, width, height);
  const { slope, intercept } = mapping(viewer);
  const table = Uint8ClampedArray.from({ length: 256 }, (_, grey) => slope * grey + 255 * intercept);
  const pixels = context.getImageData(0, 0, width, height);
  pixels.data.forEach((value, place) => { if (place % 4 < 3) pixels.data[place] = table[value]; });
  context.putImageData(pixels, 0, 0);
  const map = stage.querySelector(".map:not([hidden])");
  if (!map) return;
  const wiped = (width * viewer.querySelector(".wipe").value) / 100;
  context.beginPath();
  context.rect(wiped, 0, width - wiped, height);
  context.clip();
  context.globalAlpha = viewer.querySelector(".opacity").value / 100;
  context.drawImage(map, 0, 0, width, height);
}

function drawLegend(context, viewer, x, y) {
  const [bar, width] = [viewer.querySelector(".bar"), 400];
  context.fillStyle = "#808080";
  context.fillRect(x, y, width, 20);
  context.globalAlpha = viewer.querySelector(".opacity").value / 100;
  context.drawImage(bar, x, y, width, 20);
  context.globalAlpha = 1;
  context.fillStyle = "black";
  context.textAlign = "center";
  for (const tick of viewer.querySelectorAll(".ticks span")) {
    context.fillText(tick.textContent, x + (width * parseFloat(tick.style.left)) / 100, y + 44);
  }
  context.textAlign = "left";
  context.fillText("logits: evidence for the class, not where disease is", x + width + GAP, y + 18);
}

async function savePicture(viewer) {
  const figures = [...viewer.querySelectorAll(".stages figure")].filter((each) => !each.hidden);
  const [wide, high] = [Number(viewer.dataset.width), Number(viewer.dataset.height)];
  const [width, height] = [wide, high].map((side) => Math.round((SIDE * side) / Math.max(wide, high)));
  const hasMap = viewer.querySelector(".map:not([hidden])") !== null;
  const sheet = document.createElement("canvas");
  sheet.width = Math.max(GAP + figures.length * (width + GAP), 960);
  sheet.height = height + 4 * LINE + (hasMap ? 2 * LINE : 0) + GAP;
  const context = sheet.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, sheet.width, sheet.height);
  context.fillStyle = "black";
  context.font = "600 24px system-ui, sans-serif";
  context.fillText(viewer.dataset.name, GAP, LINE, sheet.width - 2 * GAP);
  context.font = "20px system-ui, sans-serif";
  figures.forEach((figure, place) => {
    const left = GAP + place * (width + GAP);
    context.fillText(figure.querySelector("figcaption").innerText, left, 2 * LINE, width);
    const drawn = document.createElement("canvas");
    Object.assign(drawn, { width, height });
    drawStage(drawn, viewer, figure);
    context.drawImage(drawn, left, 2 * LINE + 12);
  });
  const below = height + 2 * LINE + 12 + GAP;
  if (hasMap) drawLegend(context, viewer, GAP, below);
  const shown = levels(viewer);
  const models = JSON.parse(viewer.dataset.models).join(", ");
  const words = `Not a medical device. Models: ${models}. Window width ${shown.width}, centre ${shown.centre}.`;
  context.fillText(words, GAP, sheet.height - GAP, sheet.width - 2 * GAP);
  const content = await new Promise((give) => { sheet.toBlob(give, "image/png"); });
  download(content, "image/png", `${stem(viewer)}-viewer.png`);
}

async function saveReport(viewer, form) {
  const { path, member, models } = viewer.dataset;
  say(viewer, "Writing the report …");
  const { error, html, json } = await call("report", [asFile(path), member, JSON.parse(models)]);
  if (error) throw new Error(error);
  if (form === "html") download(html, "text/html;charset=utf-8", `${stem(viewer)}-report.html`);
  else download(JSON.stringify(json, null, 2), "application/json", `${stem(viewer)}-report.json`);
  say(viewer, "The report is saved.");
}

const toVisitor = (save) => async (viewer) => {
  try {
    await save(viewer);
  } catch (error) {
    say(viewer, `Nothing was saved: ${error.message}`);
  }
};

export const BUTTONS = {
  "save-picture": toVisitor(savePicture),
  "save-html": toVisitor((viewer) => saveReport(viewer, "html")),
  "save-json": toVisitor((viewer) => saveReport(viewer, "json")),
};
