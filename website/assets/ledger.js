// Filters of a paper's ledger: words, and the status of entries. Without this script all entries show.
const table = document.querySelector("table.ledger");
if (table) {
  const rows = [...table.tBodies[0].rows];
  const bar = document.createElement("form");
  bar.className = "ledger-filter";
  bar.addEventListener("submit", (event) => event.preventDefault());

  const words = document.createElement("input");
  words.type = "search";
  words.placeholder = "Filter by words";
  words.setAttribute("aria-label", words.placeholder);
  bar.append(words);

  const statuses = ["exact", "equivalent", "departs", "chosen"];
  const boxes = statuses.map((status) => {
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = true;
    box.value = status;
    const label = document.createElement("label");
    const count = rows.filter((row) => row.dataset.status === status).length;
    label.append(box, ` ${status} (${count})`);
    bar.append(label);
    return box;
  });

  const shown = document.createElement("output");
  bar.append(shown);

  const filter = () => {
    const wanted = words.value.toLowerCase().split(/\s+/);
    const checked = boxes.filter((box) => box.checked).map((box) => box.value);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden =
        !checked.includes(row.dataset.status) || !wanted.every((word) => text.includes(word));
    }
    shown.value = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
  };
  // A link to an entry must find it, whatever the filter hides.
  const reveal = () => {
    const row = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (row && row.hidden) {
      words.value = "";
      for (const box of boxes) box.checked = true;
      filter();
      row.scrollIntoView();
    }
  };
  bar.addEventListener("input", filter);
  window.addEventListener("hashchange", reveal);
  // Material wraps tables in boxes that scroll.
  (table.closest(".md-typeset__scrollwrap") || table).before(bar);
  filter();
}
