// Dialogs that the browser's Back button closes, as phone users expect.

// A reload closes the dialog, but keeps its step of the history.
if (history.state?.modal) history.replaceState(null, "");

export function openModal(dialog) {
  if (dialog.open) return;
  history.pushState({ modal: true }, "");
  dialog.showModal();
  dialog.addEventListener("close", () => { if (history.state?.modal) history.back(); }, { once: true });
  window.addEventListener("popstate", () => dialog.close(), { once: true });
}
