// A figure as large as the window; a click or Escape closes it.
import { openModal } from "./modal.js";

function enlarge(image) {
  const dialog = document.createElement("dialog");
  dialog.className = "enlarged";
  dialog.setAttribute("aria-label", image.alt);
  const large = new Image();
  large.src = image.src;
  large.alt = image.alt;
  dialog.append(large);
  dialog.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  // Gradio gives our styles to what is inside this only.
  document.querySelector(".gradio-container .contain").append(dialog);
  openModal(dialog);
}

export function enlargeFigures() {
  document.addEventListener("click", (event) => {
    const link = event.target.closest(".figures a");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;  // a new tab, as asked for
    event.preventDefault();
    enlarge(link.querySelector("img"));
  });
}
