// Pasted and dropped files are treated like chosen ones, and more can be added.

let pasted = 0;

function visibleField() {
  return [...document.querySelectorAll('.upload input[type="file"]')]
    .find((input) => input.closest(".tab-panel")?.offsetParent);
}

function give(files) {
  const visible = visibleField();
  if (!visible) return;
  const given = new DataTransfer();
  for (const file of files) given.items.add(file);
  visible.files = given.files;
  visible.dispatchEvent(new Event("change", { bubbles: true }));
}

// Browsers call every picture of the clipboard image.png; a file that was copied has its own name.
function numbered(file) {
  if (file.name !== "image.png") return file;
  pasted += 1;
  return new File([file], `pasted-${pasted}.png`, { type: file.type });
}

export function listenForFiles() {
  document.addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length) give([...event.clipboardData.files].map(numbered));
  });
  // Files may be dropped anywhere on the page; otherwise the browser would open the file in its place.
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (event.defaultPrevented) return;  // on Gradio's own field
    event.preventDefault();
    if (event.dataTransfer.files.length) give(event.dataTransfer.files);
  });
  document.addEventListener("click", (event) => {
    if (event.target.closest(".add-more button")) visibleField()?.click();
  });
}
