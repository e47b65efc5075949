// The parts of the page that need no server: the viewer, sorting, tabs in the address, the first visit.
// TABS: {name in the address: words on the tab}
(TABS) => {
  const SEEN = "xray_hf-statement-read";

  // The viewer: everything is done with the pictures that the answer brought.
  const redraw = (viewer) => {
    const value = (name) => viewer.querySelector(`.${name}`)?.value;
    const chosen = Number(value("choose-map") ?? -1);
    viewer.querySelectorAll(".map").forEach((map, place) => {
      map.hidden = place !== chosen;
      map.style.opacity = value("opacity") / 100;
      map.style.clipPath = `inset(0 0 0 ${value("compare")}%)`;
    });
    const inverted = viewer.querySelector(".invert").checked ? "invert(1)" : "";
    const levels = `contrast(${value("contrast")}%) brightness(${value("brightness")}%)`;
    viewer.querySelector(".xray").style.filter = `${inverted} ${levels}`;
  };

  // A table's rows by one column; again, the other way round.
  const sort = (button) => {
    const head = button.closest("th");
    const descending = head.getAttribute("aria-sort") === "ascending";
    const body = head.closest("table").tBodies[0];
    const key = (row) => row.cells[button.dataset.column]?.dataset.key ?? "";  // a row of an error is short
    // Shares, as 3e-5, by value; other cells as text.
    const compare = (one, other) => (one - other) || one.localeCompare(other);
    const rows = [...body.rows].sort((one, other) => compare(key(one), key(other)));
    head.closest("thead").querySelectorAll("th").forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    body.append(...(descending ? rows.reverse() : rows));
  };

  // A link to a part of the page: #many. A tab that a phone has no room for is in a menu, and there only its
  // words tell which it is.
  const ANY_TAB = '.tabs button[role="tab"], .tabs .overflow-dropdown button';
  const nameOf = (tab) => Object.keys(TABS).find((name) => TABS[name] === tab?.textContent.trim());
  const tabOf = (name) => [...document.querySelectorAll(ANY_TAB)].find((tab) => nameOf(tab) === name);
  const openTab = () => location.hash && tabOf(location.hash.slice(1))?.click();

  // Pasted and dropped files are treated like chosen ones.
  const give = (files) => {
    const visible = [...document.querySelectorAll('.upload input[type="file"]')]
      .find((input) => input.closest('[role="tabpanel"]')?.offsetParent);
    if (!visible) return;
    const given = new DataTransfer();
    for (const file of files) given.items.add(file);
    visible.files = given.files;
    visible.dispatchEvent(new Event("change", { bubbles: true }));
  };

  // A snippet, whole: into the clipboard, or marked where the browser gives none (a page without https).
  const copy = async (button) => {
    const code = button.parentElement.querySelector("code");
    getSelection().selectAllChildren(code);
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Marked: press Ctrl+C";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 3000);
  };

  document.addEventListener("input", (event) => {
    const viewer = event.target.closest(".viewer");
    if (viewer) redraw(viewer);
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("th button");
    if (button) sort(button);
    const snippet = event.target.closest(".snippet .copy");
    if (snippet) copy(snippet);
    const name = nameOf(event.target.closest(ANY_TAB));
    if (name) history.replaceState(null, "", `#${name}`);
    if (event.target.closest("#welcome button")) {
      try { localStorage.setItem(SEEN, "yes"); } catch { /* a browser that keeps nothing asks again */ }
      document.querySelector("#welcome dialog").close();
    }
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length) give(event.clipboardData.files);
  });
  // Files may be dropped anywhere on the page; otherwise the browser would open the file in its place.
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (event.defaultPrevented) return;  // on Gradio's own field
    event.preventDefault();
    if (event.dataTransfer.files.length) give(event.dataTransfer.files);
  });
  window.addEventListener("hashchange", openTab);

  const begin = () => {
    const dialog = document.querySelector("#welcome dialog");
    if (!dialog) return setTimeout(begin, 50);
    let isSeen = false;
    try { isSeen = localStorage.getItem(SEEN) === "yes"; } catch { /* then it is shown */ }
    if (!isSeen) dialog.showModal();
    openTab();
  };
  begin();
}
