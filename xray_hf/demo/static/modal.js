// Dialogs over the page, which the browser's Back closes, as visitors of a phone expect.

export function openModal(dialog) {
  if (dialog.open) return;
  history.pushState({ modal: true }, "");
  dialog.showModal();
  dialog.addEventListener("close", () => { if (history.state?.modal) history.back(); }, { once: true });
  window.addEventListener("popstate", () => dialog.close(), { once: true });
}
