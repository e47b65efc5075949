// What happens when answers come: viewers are prepared, this visit remembers them, the newest comes into view.
import { remember } from "./history.js";
import { prepare } from "./viewer.js";

const answerOf = new WeakMap();  // section: the id of its answer
let known = new Set();  // files of the last answers
let table = "";  // the CSV of the last table of many answers

// A file with its answer, or a refused one by its name.
const fileOf = (section) => {
  const viewer = section.querySelector(".viewer");
  return JSON.stringify(viewer ? [viewer.dataset.path, viewer.dataset.member] : [section.querySelector("h2").textContent]);
};

const idOf = (section) => section.getAttribute("aria-labelledby");

// Gradio puts a new answer into the elements of the last one, with their zoom, window and fields as they were
// left. It gets elements of its own.
function renewed(section) {
  if (!answerOf.has(section)) return section;
  const made = document.createElement("template");
  made.innerHTML = section.outerHTML;
  const own = made.content.firstElementChild;
  section.replaceWith(own);
  return own;
}

function bringIntoView(section) {
  const { top } = section.getBoundingClientRect();
  if (top >= 0 && top < innerHeight / 3) return;
  // Below the statement, which stays in sight.
  section.style.scrollMarginTop = `${document.querySelector("#statement").offsetHeight + 24}px`;
  const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  section.scrollIntoView({ behavior: isCalm ? "auto" : "smooth", block: "start" });
}

// Gradio drops the focus when files are chosen; whoever uses the keyboard goes on where the answer begins.
function takeFocus(element) {
  if (document.activeElement !== document.body) return;
  element.tabIndex = -1;
  element.focus({ preventScroll: true });
}

function lookAtTable() {
  const there = document.querySelector('#table [role="status"]');
  const csv = there?.querySelector("a").href ?? "";
  if (csv && csv !== table) takeFocus(there);
  table = csv;
}

function look() {
  lookAtTable();
  const sections = [...document.querySelectorAll("#answers .answer")];
  const arrived = sections.filter((each) => answerOf.get(each) !== idOf(each)).map(renewed);
  if (!arrived.length) {
    if (!sections.length) known = new Set();
    return;
  }
  arrived.forEach((section) => {
    answerOf.set(section, idOf(section));
    remember(section);
    section.querySelectorAll(".viewer").forEach(prepare);
  });
  const fresh = arrived.filter((each) => !known.has(fileOf(each)));
  if (known.size) fresh.forEach((each) => each.classList.add("newest"));
  known = new Set([...document.querySelectorAll("#answers .answer")].map(fileOf));
  if (!fresh.length) return;
  bringIntoView(fresh[0]);
  takeFocus(fresh[0].querySelector("h2"));
}

export function listenForArrivals() {
  new MutationObserver(look).observe(document.body, {
    childList: true, subtree: true, attributeFilter: ["aria-labelledby", "href"],
  });
}
