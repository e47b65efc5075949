// A table's rows by one column; again, the other way round. Rows without a value there, such as errors and
// rejected X-rays, come last either way.

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

export function sortTable() {
  document.addEventListener("click", (event) => {
    const button = event.target.closest("th button");
    if (button) sort(button);
  });
}
