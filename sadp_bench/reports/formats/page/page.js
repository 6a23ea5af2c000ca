// This script adds only sorting and filtering. Without it, all lines are shown in reading order.
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

const plain = (text) => text.toLowerCase().replaceAll("-", " "); // "fewer-epochs" finds "Fewer epochs"

// A line is shown if it or the title of its group contains every word.
const groups = [...document.querySelectorAll(".group:not(li)")].map((group) => ({
  group,
  title: plain(group.querySelector("h2, summary").textContent),
  beside: group.id
    ? [
        ...[...document.querySelectorAll(".finding")].filter((one) => one.dataset.group === group.dataset.group),
        ...[...document.querySelectorAll("nav li.group")].filter((one) => one.firstChild.hash === `#${group.id}`),
      ]
    : [],
  lines: [...group.querySelectorAll(".claims tbody tr, .whole tbody tr, details.run")].map((line) => ({
    line,
    claim: line.closest(".claims") !== null,
    text: plain((line.matches("tr") ? line : line.querySelector("summary")).textContent),
  })),
}));

function filter(text, output) {
  const words = plain(text).split(/\s+/).filter(Boolean);
  let shown = 0;
  let all = 0;
  for (const { group, title, beside, lines } of groups) {
    let some = false;
    for (const { line, claim, text: own } of lines) {
      line.hidden = !words.every((word) => own.includes(word) || title.includes(word));
      some ||= !line.hidden;
      all += claim;
      shown += claim && !line.hidden;
    }
    group.hidden = !some;
    for (const one of beside) one.hidden = !some;
  }
  output.textContent = words.length ? `${shown} of ${all} lines` : "";
}

if (groups.length) {
  const box = document.createElement("div");
  box.className = "filter";
  const label = document.createElement("label");
  const input = document.createElement("input");
  const output = document.createElement("output");
  input.type = "search";
  input.id = "filter";
  input.placeholder = "sadp 50 %";
  label.htmlFor = input.id;
  label.textContent = "Filter";
  input.addEventListener("input", () => filter(input.value, output));
  box.append(label, input, output);
  document.querySelector("nav").prepend(box);
}

if (window.matchMedia("(max-width: 70rem)").matches) document.querySelector("nav details").open = false;
