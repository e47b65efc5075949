// The table of many answers: sorted by a column, and a row opens its answer with the viewer.
import { openAnswer } from "./dialog.js";

// By one column; again, the other way round. Rows without a value there, such as errors and rejected X-rays,
// come last either way.
function sort(button) {
  const head = button.closest("th");
  const isDescending = head.getAttribute("aria-sort") === "ascending";
  const body = head.closest("table").tBodies[0];
  const keyOf = (row) => row.cells[button.dataset.column]?.dataset.key ?? "";  // a row of an error is short
  // Probabilities, as 3e-5, by value; other cells as text.
  const compare = (one, other) => (one - other) || one.localeCompare(other);
  const rows = [...body.rows];
  const known = rows.filter((row) => keyOf(row) !== "").sort((one, other) => compare(keyOf(one), keyOf(other)));
  const unknown = rows.filter((row) => keyOf(row) === "");
  head.closest("thead").querySelectorAll("th").forEach((each) => each.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", isDescending ? "descending" : "ascending");
  body.append(...(isDescending ? known.reverse() : known), ...unknown);
}

function open(row) {
  const { path, member } = row.dataset;
  openAnswer({ path, member, models: JSON.parse(row.closest("table").dataset.models) });
}

export function listenForTables() {
  document.addEventListener("click", (event) => {
    const button = event.target.closest(".rows th button");
    if (button) sort(button);
    const row = event.target.closest(".rows tr.opens");
    if (row && !getSelection().toString()) open(row);  // somebody may only mark text
  });
}
