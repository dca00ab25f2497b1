"use strict";
// Without this script the page shows everything, section after section.
document.documentElement.classList.add("js");

function tabs(list) {
  const all = [...list.querySelectorAll("[role=tab]")];
  const panel = (tab) => document.getElementById(tab.getAttribute("aria-controls"));
  const select = (chosen) => {
    for (const tab of all) {
      tab.setAttribute("aria-selected", tab === chosen);
      tab.tabIndex = tab === chosen ? 0 : -1;
      panel(tab).hidden = tab !== chosen;
    }
  };
  const go = (chosen) => {
    select(chosen);
    history.replaceState(null, "", "#" + panel(chosen).id);
  };
  const asked = () => all.find((tab) => "#" + panel(tab).id === location.hash);
  for (const tab of all) {
    panel(tab).setAttribute("role", "tabpanel");
    panel(tab).setAttribute("aria-labelledby", tab.id);
    tab.addEventListener("click", () => go(tab));
  }
  list.addEventListener("keydown", (event) => {
    const here = all.indexOf(document.activeElement);
    const there = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: all.length - 1 }[event.key];
    if (there === undefined) return;
    event.preventDefault();
    const next = all[(there + all.length) % all.length];
    go(next);
    next.focus();
  });
  addEventListener("hashchange", () => asked() && select(asked()));
  list.hidden = false;
  select(asked() || all[0]);
}

function pager(table) {
  const size = Number(table.dataset.page), body = table.tBodies[0];
  let first = 0;
  const bar = document.createElement("div"), where = document.createElement("span");
  const button = (name, step) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = name;
    made.addEventListener("click", () => show(first + step));
    return made;
  };
  const back = button("previous", -size), on = button("next", size);
  const show = (begin) => {
    first = begin;
    const rows = [...body.rows];
    rows.forEach((row, place) => { row.hidden = place < first || place >= first + size; });
    where.textContent = `${first + 1}–${Math.min(first + size, rows.length)} of ${rows.length}`;
    back.disabled = first === 0;
    on.disabled = first + size >= rows.length;
  };
  bar.className = "pager";
  where.setAttribute("role", "status");
  bar.append(back, where, on);
  if (body.rows.length > size) table.parentElement.after(bar);
  show(0);
  return () => show(0);
}

function sorting(table, sorted) {
  const value = (row, column, kind) => {
    const cell = row.cells[column], told = cell.dataset.value ?? cell.textContent.trim();
    return kind === "number" ? Number.parseFloat(told) : told.toLowerCase();
  };
  for (const head of table.querySelectorAll("th[data-sort]")) {
    const button = document.createElement("button"), kind = head.dataset.sort, column = head.cellIndex;
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") ? head.getAttribute("aria-sort") === "ascending" : kind === "number";
      for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keyed = [...table.tBodies[0].rows].map((row) => [value(row, column, kind), row]);
      keyed.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0) * (down ? -1 : 1));
      table.tBodies[0].append(...keyed.map(([, row]) => row));
      sorted();
    });
  }
}

function theme(button) {
  const all = ["auto", "light", "dark"];
  const apply = (name) => {
    document.documentElement.dataset.theme = name;
    button.textContent = `theme: ${name}`;
  };
  button.addEventListener("click", () => {
    apply(all[(all.indexOf(document.documentElement.dataset.theme) + 1) % all.length]);
  });
  button.hidden = false;
  apply("auto");
}

document.querySelectorAll("[role=tablist]").forEach(tabs);
for (const table of document.querySelectorAll("table")) {
  sorting(table, table.dataset.page ? pager(table) : () => {});
}
theme(document.getElementById("theme"));
