// The tab of the address: #many opens a tab, #evidence-sources the tab and in it the element of that id. Each is a
// step of the browser's history, so back and forward move between tabs and a reload keeps the tab.

const links = [...document.querySelectorAll("#tabs a")];
const nameOf = (link) => link.getAttribute("href").slice(1);
const place = () => location.hash.slice(1);

function show() {
  const [first] = place().split("-");
  const root = document.documentElement;
  // An address of something else leaves the tab as it is.
  const name = place() && !links.some((link) => nameOf(link) === first) ? root.dataset.tab : first;
  const open = links.find((link) => nameOf(link) === name) ?? links[0];
  root.dataset.tab = nameOf(open);
  for (const link of links) {
    if (link === open) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  scrollToPlace();
}

// The element of the address, which may have come only now.
export function scrollToPlace() {
  if (place().includes("-")) document.getElementById(place())?.scrollIntoView();
}

function follow(event) {
  const link = event.target.closest('a[href^="#"]');
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();  // because of the page's <base>, the browser would load the page again
  if (link.id === "skip") {
    focusContent();
    return;
  }
  const target = link.getAttribute("href");
  if (location.hash === target) scrollToPlace();
  else location.hash = target;
  if (!target.includes("-")) document.querySelector("#tabs").scrollIntoView({ block: "nearest" });
}

// Gradio's element is there before Gradio has drawn the tabs in it; the static page has none.
function focusContent() {
  const content = document.querySelector("gradio-app, main");
  content.tabIndex = -1;
  content.focus();
}

export function showTabOfAddress() {
  document.addEventListener("click", follow);
  window.addEventListener("hashchange", show);
  show();
}
