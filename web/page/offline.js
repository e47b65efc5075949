// A service worker fetches all files of the page once and keeps them: the next visit needs no network.
export async function keepForOffline() {
  try {
    const { active, installing } = await navigator.serviceWorker.register("sw.js");
    if (active || !installing) return;
    const isOver = () => ["activated", "redundant"].includes(installing.state);
    await new Promise((resolve) => installing.addEventListener("statechange", () => isOver() && resolve()));
  } catch { /* an address without TLS, or a browser that keeps nothing: the page works, with a network */ }
}
