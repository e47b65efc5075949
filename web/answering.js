// A worker that is told its settings first, and then answers one question after the other.

// start: called with the settings. answer: called with a question; returns [what was found, buffers to hand over].
// Refusal: the errors whose words are for the visitor; after any other the worker is not to be trusted.
export function answering(start, answer, Refusal) {
  self.addEventListener("message", async ({ data }) => {
    if (data.settings) return start(data.settings);
    try {
      const [found, transferred] = await answer(data);
      return self.postMessage({ found }, transferred);
    } catch (error) {
      return self.postMessage(error instanceof Refusal ? { refusal: error.message } : { isBroken: true });
    }
  });
}
