"use strict";
(() => {
  document.documentElement.classList.add("js");
  const board = document.getElementById("board");
  const body = board.tBodies[0];
  const heads = [...board.tHead.rows[0].cells];
  const filter = document.getElementById("filter");
  const tiles = [...document.querySelectorAll(".tile")];

  const key = (row, column, isNumber) => {
    const text = row.cells[column].dataset.sort;
    return isNumber ? (text === "" ? null : Number(text)) : text;
  };

  const sort = (head) => {
    const column = head.cellIndex;
    const isNumber = head.dataset.kind === "number";
    const first = isNumber && column > 0 ? "descending" : "ascending";
    const other = first === "descending" ? "ascending" : "descending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    const sign = order === "ascending" ? 1 : -1;
    for (const each of heads) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    const rows = [...body.rows].map((row) => [key(row, column, isNumber), row]);
    rows.sort(([a], [b]) => {
      // What was not measured stays below, whichever way the rest is sorted.
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * (isNumber ? a - b : a.localeCompare(b));
    });
    body.append(...rows.map(([, row]) => row));
  };

  const show = () => {
    const pressed = tiles.filter((tile) => tile.getAttribute("aria-pressed") === "true");
    const statuses = pressed.map((tile) => tile.dataset.status);
    const text = filter ? filter.value.trim().toUpperCase() : "";
    for (const row of body.rows) {
      const isWanted = statuses.length === 0 || statuses.includes(row.dataset.status);
      row.hidden = !(isWanted && row.cells[1].dataset.sort.toUpperCase().includes(text));
    }
  };

  const open = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target || target.tagName !== "DETAILS") return;
    target.open = true;
    target.scrollIntoView();
  };

  for (const head of heads) {
    head.tabIndex = 0;
    head.addEventListener("click", () => sort(head));
    head.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      sort(head);
    });
  }
  for (const tile of tiles) {
    tile.addEventListener("click", () => {
      tile.setAttribute("aria-pressed", String(tile.getAttribute("aria-pressed") !== "true"));
      show();
    });
  }
  if (filter) {
    filter.hidden = false;
    filter.addEventListener("input", show);
  }
  addEventListener("hashchange", open);
  // A link that was followed before does not change the address again.
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    if (link && link.hash === location.hash) open();
  });
  addEventListener("beforeprint", () => {
    for (const each of document.querySelectorAll(".model, .legend")) each.open = true;
  });
  open();
})();
