// Sorting is all that this adds: without it the tables stand in reading order.
const value = (row, column) => row.cells[column].dataset.value;

function compare(a, b, direction) {
  if (a === undefined || b === undefined) return (a === undefined) - (b === undefined); // missing values stay last
  const numbers = [Number(a), Number(b)];
  const order = numbers.some(Number.isNaN) ? a.localeCompare(b, "en") : numbers[0] - numbers[1];
  return direction * order;
}

function sort(table, column) {
  const heads = [...table.tHead.rows[0].cells];
  const falling = heads[column].ariaSort === "ascending";
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].ariaSort = falling ? "descending" : "ascending";
  const body = table.tBodies[0];
  const rows = [...body.rows];
  rows.sort((a, b) => compare(value(a, column), value(b, column), falling ? -1 : 1));
  body.append(...rows);
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, column));
    head.append(button);
  });
}
