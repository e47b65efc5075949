// The page's files are kept by a service worker, once the models are here: the next visit needs no network.
import { ready } from "./classifier.js";

export async function keepForOffline() {
  if (!navigator.serviceWorker) return;  // an old browser, or an address without TLS
  await ready().catch(() => {});
  await navigator.serviceWorker.register("sw.js").catch(() => {});  // a browser that keeps nothing
}
