// A table's rows by one column; again, the other way round.

function sort(button) {
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
}

export function sortTable() {
  document.addEventListener("click", (event) => {
    const button = event.target.closest("th button");
    if (button) sort(button);
  });
}
