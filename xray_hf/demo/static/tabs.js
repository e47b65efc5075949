// A link to a part of the page: #many. A tab that a phone has no room for is in a menu, and there only its
// words tell which it is.

// {name in the address: words on the tab}
const TABS = JSON.parse(document.querySelector("#tabs").textContent);
const ANY_TAB = '.tabs button[role="tab"], .tabs .overflow-dropdown button';
const nameOf = (tab) => Object.keys(TABS).find((name) => TABS[name] === tab?.textContent.trim());
const tabOf = (name) => [...document.querySelectorAll(ANY_TAB)].find((tab) => nameOf(tab) === name);

function open() {
  if (location.hash) tabOf(location.hash.slice(1))?.click();
}

// Once the page is drawn.
export function showTabOfAddress() {
  document.addEventListener("click", (event) => {
    const name = nameOf(event.target.closest(ANY_TAB));
    if (name) history.replaceState(null, "", `#${name}`);
  });
  window.addEventListener("hashchange", open);
  open();
}
