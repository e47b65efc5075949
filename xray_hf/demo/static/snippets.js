// A snippet, whole: into the clipboard, or marked where the browser gives none (a page without https).

async function copy(button) {
  const code = button.parentElement.querySelector("code");
  getSelection().selectAllChildren(code);
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Marked: press Ctrl+C";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 3000);
}

export function copySnippet() {
  document.addEventListener("click", (event) => {
    const button = event.target.closest(".snippet .copy");
    if (button) copy(button);
  });
}
