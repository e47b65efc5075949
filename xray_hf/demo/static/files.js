// Pasted and dropped files are treated like chosen ones.

function give(files) {
  const visible = [...document.querySelectorAll('.upload input[type="file"]')]
    .find((input) => input.closest(".tab-panel")?.offsetParent);
  if (!visible) return;
  const given = new DataTransfer();
  for (const file of files) given.items.add(file);
  visible.files = given.files;
  visible.dispatchEvent(new Event("change", { bubbles: true }));
}

export function listenForFiles() {
  document.addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length) give(event.clipboardData.files);
  });
  // Files may be dropped anywhere on the page; otherwise the browser would open the file in its place.
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (event.defaultPrevented) return;  // on Gradio's own field
    event.preventDefault();
    if (event.dataTransfer.files.length) give(event.dataTransfer.files);
  });
}
