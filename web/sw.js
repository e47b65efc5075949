// Keeps all files of one version of the page, and answers with them; a new version replaces them.
const VERSION = "VERSION_OF_THE_PAGE";  // a hash that scripts/build_web.py puts here

async function keep() {
  const files = await (await fetch("files.json")).json();
  const cache = await caches.open(VERSION);
  await cache.addAll(files);
  await self.skipWaiting();
}

async function tidy() {
  const old = (await caches.keys()).filter((name) => name !== VERSION);
  await Promise.all(old.map((name) => caches.delete(name)));
  await self.clients.claim();
}

async function answer(request) {
  const cache = await caches.open(VERSION);
  return (await cache.match(request)) ?? fetch(request);
}

self.addEventListener("install", (event) => event.waitUntil(keep()));
self.addEventListener("activate", (event) => event.waitUntil(tidy()));
self.addEventListener("fetch", (event) => {
  if (event.request.method === "GET") event.respondWith(answer(event.request));
});
