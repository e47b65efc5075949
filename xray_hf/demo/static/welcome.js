// What every visitor is told first, once; then the statement is one line.
const SEEN = "xray_hf-statement-read";  // header.js reads it, too

function isSeen() {
  try {
    return localStorage.getItem(SEEN) !== null;
  } catch {
    return false;  // a browser that keeps nothing asks again
  }
}

export function welcome() {
  const dialog = document.querySelector("#welcome");
  dialog.addEventListener("close", () => {  // by its button or Escape
    try { localStorage.setItem(SEEN, "yes"); } catch { /* as above */ }
    document.querySelector("#statement details").open = false;
  });
  dialog.querySelector("button").addEventListener("click", () => dialog.close());
  if (!isSeen()) dialog.showModal();
}
