// The answers of this visit, in this page's memory and nowhere else.
import { showAnswer } from "./dialog.js";

let copies = 0;

const MOST = 60;  // answers; of 100 to 300 kB each
const answers = new Map();  // key: {id, html, name, thumbnail, decisions}, newest last

const decisions = (section) =>
  [...new Set([...section.querySelectorAll(".decision")].map((each) => each.textContent.trim()))].join(" / ");

// Before anybody changes it. Answers without an X-ray are not kept.
export function remember(section) {
  const viewer = section.querySelector(".viewer");
  if (!viewer) return;
  const { id, path, member, models, name } = viewer.dataset;
  const key = JSON.stringify([path, member, models]);
  const thumbnail = viewer.querySelector(".xray").src;
  answers.delete(key);
  answers.set(key, { id, html: section.outerHTML, name, thumbnail, decisions: decisions(section) });
  if (answers.size > MOST) answers.delete(answers.keys().next().value);
  draw();
}

// With ids of its own, since the same answer may still be on the page.
function copyOf({ id, html }) {
  copies += 1;
  return html.replaceAll(new RegExp(`\\b(answer|levels|keys|drag)-${id}\\b`, "g"), `$1-${id}-${copies}`);
}

function draw() {
  const strip = document.querySelector("#visit");
  if (!strip) return;
  strip.hidden = !answers.size;
  strip.querySelector("ol").replaceChildren(...[...answers].reverse().map(([key, each]) => {
    const [item, button, image] = ["li", "button", "img"].map((kind) => document.createElement(kind));
    const [name, said] = [document.createElement("span"), document.createElement("span")];
    [button.type, button.dataset.key] = ["button", key];
    [image.src, image.alt, name.textContent, said.textContent] = [each.thumbnail, "", each.name, each.decisions];
    [name.className, said.className] = ["name", "said"];
    button.append(image, name, said);
    item.append(button);
    return item;
  }));
}

export function listenForHistory() {
  document.addEventListener("click", (event) => {
    const button = event.target.closest("#visit button");
    if (!button) return;
    if (button.dataset.key) {
      showAnswer(copyOf(answers.get(button.dataset.key)));
      return;
    }
    answers.clear();
    draw();
  });
}
