"use strict";
// Tables of the class "sortable": a click on a heading sorts by its column, numbers as numbers;
// another click turns the order round. Empty cells stand last in both. data-value is what a cell
// is sorted by where that is not its text.
(() => {
  const value = (row, column) => {
    const cell = row.cells[column], text = cell.dataset.value ?? cell.textContent.trim();
    const number = Number(text.replace(/[−–]/g, "-"));
    return text === "" || text === "–" ? null : Number.isNaN(number) ? text : number;
  };
  const compare = (one, other) => {
    if (typeof one === "number" && typeof other === "number") return one - other;
    return String(one).localeCompare(String(other), "en", { numeric: true });
  };
  function sort(table, column) {
    const heading = table.tHead.rows[0].cells[column], body = table.tBodies[0];
    const falling = heading.getAttribute("aria-sort") === "ascending";
    const rows = [...body.rows].map((row) => [value(row, column), row]);
    rows.sort(([one], [other]) => {
      if (one === null || other === null) return (one === null) - (other === null);
      return falling ? compare(other, one) : compare(one, other);
    });
    body.append(...rows.map(([, row]) => row));
    for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
  }
  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((cell, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...cell.childNodes);
      button.addEventListener("click", () => sort(table, column));
      cell.append(button);
    });
  }
})();
