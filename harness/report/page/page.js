"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const root = document.documentElement;

  // ---- theme -----------------------------------------------------------------------------------
  const themes = ["system", "light", "dark"];
  const button = document.getElementById("theme");
  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(root.dataset.theme || "system") + 1) % themes.length];
    root.dataset.theme = next;
    button.textContent = `Theme: ${next}`;
  });

  // ---- sorting ---------------------------------------------------------------------------------
  function key(row, column) {
    const cell = row.cells[column];
    return cell.dataset.sort ?? cell.textContent.trim();
  }
  all("table.sortable").forEach((table) => all("thead th", table).forEach((head, column) => {
    head.querySelector("button")?.addEventListener("click", () => {
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      all("thead th", table).forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => key(a, column).localeCompare(key(b, column), "en", { numeric: true }) * (ascending ? 1 : -1));
      table.tBodies[0].append(...rows);
    });
  }));

  // ---- filters ---------------------------------------------------------------------------------
  const form = document.querySelector(".filters"); // the page of a history has none
  function filter() {
    const wanted = Object.fromEntries(new FormData(form));
    const text = wanted.text.toLowerCase();
    all(".filterable").forEach((element) => {
      const fits = ["variant", "model", "pp", "state"].every((name) => !wanted[name] || element.dataset[name] === wanted[name]);
      const speaks = !text || element.tagName !== "TR" || element.textContent.toLowerCase().includes(text);
      if (element.tagName === "TD") element.firstElementChild.hidden = !fits;
      else element.hidden = !(fits && speaks);
    });
    all(".matrix tbody tr").forEach((row) => { row.hidden = !row.querySelector(".chips:not([hidden])"); });
    const count = (selector) => [all(`${selector}:not([hidden])`).length, all(selector).length].join(" of ");
    document.getElementById("shown").textContent = `${count("tr.filterable")} findings, ${count("details.point")} points shown`;
  }
  if (form) {
    form.addEventListener("input", filter);
    form.addEventListener("reset", () => setTimeout(filter));
    form.addEventListener("submit", (event) => event.preventDefault());
    filter();
  }

  // ---- links to a finding or a check open what holds it -------------------------------------------
  function follow() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    if (form && target.closest("[hidden]")) { form.reset(); filter(); }
    for (let element = target; element; element = element.parentElement) if (element.tagName === "DETAILS") element.open = true;
    const inner = target.matches("tr") && target.querySelector("details");
    if (inner) inner.open = true;
    target.scrollIntoView();
  }
  addEventListener("hashchange", follow);
  follow();

  // ---- copying, printing -------------------------------------------------------------------------
  all(".copy").forEach((copy) => copy.addEventListener("click", async () => {
    const code = copy.previousElementSibling;
    try {
      await navigator.clipboard.writeText(code.textContent);
      copy.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      copy.textContent = "Selected";
    }
  }));
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("details:not([open])");
    opened.forEach((element) => { element.open = true; });
  });
  addEventListener("afterprint", () => { opened.forEach((element) => { element.open = false; }); });
})();
