"use strict";
// Tables that sort and filter, figures that open large. Without this script everything on the page can be read.
(() => {
  const textOf = (cell) => cell.textContent.trim();
  const valueOf = (cell) => {
    const given = cell.dataset.v;
    return given === undefined ? textOf(cell) : given === "" ? null : Number(given);
  };
  const compare = (a, b) => {
    if (a === null || b === null) return (a === null) - (b === null); // what is missing comes last
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  };

  for (const table of document.querySelectorAll("table")) {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    if (rows.length < 2) continue;
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, at) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const sorted = rows
          .map((row, place) => [valueOf(row.cells[at]), place, row])
          .sort((a, b) => {
            if (a[0] === null || b[0] === null) return compare(a[0], b[0]) || a[1] - b[1];
            return (down ? -1 : 1) * compare(a[0], b[0]) || a[1] - b[1];
          });
        body.append(...sorted.map((each) => each[2]));
      });
    });
    if (rows.length < 9) continue;
    const filter = document.createElement("input");
    filter.type = "search";
    filter.placeholder = "filter " + rows.length + " rows";
    filter.setAttribute("aria-label", "filter the rows of this table");
    filter.addEventListener("input", () => {
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      }
    });
    table.parentElement.before(filter);
  }

  const large = document.createElement("dialog");
  large.addEventListener("click", () => large.close());
  document.body.append(large);
  for (const image of document.querySelectorAll("figure img")) {
    image.tabIndex = 0;
    image.setAttribute("role", "button");
    const open = () => {
      const copy = image.cloneNode();
      copy.removeAttribute("style");
      large.replaceChildren(copy);
      large.showModal();
    };
    image.addEventListener("click", open);
    image.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        open();
      }
    });
  }
})();
