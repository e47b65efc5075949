// Keeps all files of one version of the page and answers with them. A new version waits until the last tab with the
// old one is closed: one page never mixes the two.
const VERSION = "VERSION_OF_THE_PAGE";  // a hash that scripts/build_web.py puts here
const OURS = `xray_hf ${registration.scope} `;  // other pages of this host have caches, too
const CACHE = OURS + VERSION;

async function keep() {
  const fresh = { cache: "no-cache" };  // the browser's own cache may have files of an older version
  const files = await (await fetch("files.json", fresh)).json();
  await (await caches.open(CACHE)).addAll(files.map((file) => new Request(file, fresh)));
}

async function tidy() {
  const old = (await caches.keys()).filter((name) => name.startsWith(OURS) && name !== CACHE);
  await Promise.all(old.map((name) => caches.delete(name)));
  await self.clients.claim();  // the first visit loads its models through this worker
}

async function answer(request) {
  const kept = await (await caches.open(CACHE)).match(request, { ignoreSearch: true });
  return kept ?? fetch(request);
}

self.addEventListener("install", (event) => event.waitUntil(keep()));
self.addEventListener("activate", (event) => event.waitUntil(tidy()));
self.addEventListener("fetch", (event) => {
  if (event.request.method === "GET") event.respondWith(answer(event.request));
});
