"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const root = document.documentElement;

  // ---- charts: drawn when they come into view, in the colours of the page ----------------------
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const drawn = new Set();
  const PAPER = 680; // pixels across a printed page
  const color = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  // A trace of lines says by its `meta` which colour it shares with others.
  const painted = (trace, paint) => trace.type === "bar"
    ? { marker: { color: paint }, textfont: { color: color("--bg") } }
    : { marker: { ...trace.marker, color: paint }, line: { ...trace.line, color: paint } };

  function styled({ data, layout }) {
    const axis = { color: color("--muted"), gridcolor: color("--line"), linecolor: color("--line"), fixedrange: true };
    const palette = [0, 1, 2, 3, 4, 5].map((n) => color(`--p${n}`));
    return {
      data: data.map((trace, number) => trace.type === "heatmap"
        ? { ...trace, colorscale: [0, 1, 2, 3].map((n) => [n / 3, color(`--heat-${n}`)]),
            colorbar: { ...trace.colorbar, tickfont: { color: color("--muted") }, title: { ...trace.colorbar.title, font: { color: color("--muted") } }, outlinewidth: 0 } }
        : { ...trace, ...painted(trace, palette[(trace.meta ?? number) % palette.length]) }),
      layout: {
        ...layout,
        paper_bgcolor: color("--bg"),
        plot_bgcolor: layout.shapes ? color("--equal") : color("--bg"),
        font: { color: color("--fg"), family: "system-ui, sans-serif", size: 12 },
        hoverlabel: { bgcolor: color("--raised"), bordercolor: color("--line"), font: { color: color("--fg") } },
        xaxis: { ...axis, ...layout.xaxis },
        yaxis: { ...axis, ...layout.yaxis },
        shapes: (layout.shapes || []).map((shape) => ({ ...shape, line: shape.name === "stage"
          ? { color: color("--fg"), width: 2 } : { color: color("--muted"), width: 1, dash: "dot" } })),
        annotations: (layout.annotations || []).map((note) => ({ ...note, bgcolor: color("--bg"), font: { ...note.font, color: color("--fg") } })),
      },
    };
  }
  function draw(element, width) {
    const { data, layout } = styled(charts[element.id]);
    drawn.add(element);
    if (width) layout.width = width;
    if (element.clientWidth < 600) {
      layout.margin = { ...layout.margin, l: 60 };
      layout.xaxis.tickfont = layout.yaxis.tickfont = { size: 9 };
      layout.xaxis.tickangle = layout.shapes.length ? 90 : 0;
    }
    Plotly.react(element, data, layout, { displayModeBar: false, responsive: true });
  }
  const redraw = () => drawn.forEach((element) => draw(element));
  const watcher = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (entry.isIntersecting && !drawn.has(entry.target)) draw(entry.target);
  }), { rootMargin: "300px" });
  all(".chart").forEach((element) => watcher.observe(element));

  // ---- theme -----------------------------------------------------------------------------------
  const themes = ["system", "light", "dark"];
  const button = document.getElementById("theme");
  button.addEventListener("click", () => {
    const next = themes[(themes.indexOf(root.dataset.theme || "system") + 1) % themes.length];
    root.dataset.theme = next;
    button.textContent = `Theme: ${next}`;
    redraw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

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
    opened = all("details:not([open])").filter((element) => !element.matches(".numbers"));
    opened.forEach((element) => { element.open = true; });
    all(".chart").forEach((element) => draw(element, PAPER));
  });
  addEventListener("afterprint", () => { opened.forEach((element) => { element.open = false; }); redraw(); });
})();
