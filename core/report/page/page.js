// The page works without this: it lets a click on a column's head sort a table by that column, and
// opens what is folded before the page is printed.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => {
    const text = row => row.cells[column].textContent.trim();
    const sort = () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const order = (one, other) => {
        const [a, b] = [text(one), text(other)];
        if (!a || !b) return (a ? 0 : 1) - (b ? 0 : 1);
        const [x, y] = [a, b].map(each => parseFloat(each.replace("inf", "Infinity")));
        const by = isNaN(x) || isNaN(y) ? a.localeCompare(b) : x - y;
        return down ? -by : by;
      };
      body.append(...[...body.rows].sort(order));
    };
    head.tabIndex = 0;
    head.title = "sort by this column";
    head.addEventListener("click", sort);
    head.addEventListener("keydown", event => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sort(); }
    });
  });
}
addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach(each => { each.open = true; });
});
