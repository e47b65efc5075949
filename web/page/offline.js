// The page's files are kept by a service worker, once the models are here: the next visit needs no network.
import { ask } from "./classifier.js";
import { site } from "./site.js";

export async function keepForOffline() {
  if (!navigator.serviceWorker) return;  // an old browser, or an address without TLS
  await ask({ loads: true }).catch(() => {});
  await navigator.serviceWorker.register(`sw.js?version=${site.hash}`).catch(() => {});  // a browser that keeps nothing
}
