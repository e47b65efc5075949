// What every visitor is told first, once.
const SEEN = "xray_hf-statement-read";

// `then` runs as soon as Gradio has drawn the page.
export function welcome(then) {
  const dialog = document.querySelector("#welcome dialog");
  if (!dialog) {
    setTimeout(() => welcome(then), 50);
    return;
  }
  dialog.querySelector("button").addEventListener("click", () => {
    try { localStorage.setItem(SEEN, "yes"); } catch { /* a browser that keeps nothing asks again */ }
    dialog.close();
  });
  let isSeen = false;
  try { isSeen = localStorage.getItem(SEEN) === "yes"; } catch { /* then it is shown */ }
  if (!isSeen) dialog.showModal();
  then();
}
