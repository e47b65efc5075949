// An answer in a dialog over the page.
import { asFile, call } from "./api.js";
import { openModal } from "./modal.js";
import { prepare } from "./viewer.js";

function dialog() {
  const there = document.querySelector("#one-answer");
  if (there) return there;
  const made = document.createElement("dialog");
  made.id = "one-answer";
  made.setAttribute("aria-label", "One answer");
  made.innerHTML = '<button type="button" class="close">Close</button><div class="content" aria-live="polite"></div>';
  made.querySelector(".close").addEventListener("click", () => made.close());
  made.addEventListener("close", () => made.querySelector(".content").replaceChildren());
  // Gradio gives our styles to what is inside this only.
  document.querySelector(".gradio-container .contain").append(made);
  return made;
}

// html: an answer as the page shows it.
export function showAnswer(html) {
  const own = dialog();
  own.querySelector(".content").innerHTML = html;
  own.querySelectorAll(".viewer").forEach(prepare);
  openModal(own);
}

let latest = 0;  // of the answers asked for; only the newest is shown

// path, member: of an upload, as data-path and data-member name them. models: names, or null for the preferred.
export async function openAnswer({ path, member = "", models = null }) {
  latest += 1;
  const own = latest;
  showAnswer("<p>Reading the X-ray …</p>");
  const shown = dialog();
  let html;
  try {
    ({ html } = await call("view", [asFile(path), member, models]));
  } catch (error) {
    if (own === latest) shown.querySelector(".content p").textContent = error.message;
    return;
  }
  if (shown.open && own === latest) showAnswer(html);  // unless it was closed meanwhile
}
