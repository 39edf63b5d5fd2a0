// A table is sorted by the column whose heading is clicked: by numbers first large ones, a second click turns it round.
for (const heading of document.querySelectorAll("th")) {
  heading.addEventListener("click", () => {
    const column = heading.cellIndex, body = heading.closest("table").tBodies[0];
    const order = heading.getAttribute("aria-sort");
    const numbers = heading.dataset.numbers !== undefined;
    const ascending = order ? order === "descending" : !numbers;
    const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const compare = numbers
      ? (a, b) => Number(value(a)) - Number(value(b))
      : (a, b) => value(a).localeCompare(value(b), undefined, { numeric: true });
    for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    body.append(...[...body.rows].sort((a, b) => (ascending ? compare(a, b) : compare(b, a))));
  });
}
