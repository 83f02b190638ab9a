// The rows are data: every text goes onto the page as a text node.
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const FILTERS = ["all", "won", "lost", "drawn", "failed", "flagged"];

const rows = data.rows.map((row, number) => ({
  ...row,
  number,
  kind: row.preference === null ? "failed" : row.preference > 1.5 ? "won" : row.preference < 1.5 ? "lost" : "drawn",
  longer: row.output.length - row.reference.length,
  text: (row.instruction + "\n" + row.output + "\n" + row.reference).toLowerCase(),
}));
const state = { filter: "all", dataset: "", flag: "", query: "", order: "given", visible: rows, chosen: -1, plain: false };

const percent = (preference) => (100 * (preference - 1)).toFixed(preference === 1 || preference === 2 ? 0 : 1) + "%";

const KEYS = {
  given: (row) => row.number,
  lost: (row) => (row.preference === null ? 9 : row.preference),
  won: (row) => (row.preference === null ? 9 : -row.preference),
  unsure: (row) => (row.preference === null ? 9 : Math.abs(row.preference - 1.5)),
  longer: (row) => -row.longer,
  shorter: (row) => row.longer,
};

function passes(row) {
  const kind = state.filter === "all" || (state.filter === "flagged" ? row.flags.length > 0 : row.kind === state.filter);
  return kind && (!state.dataset || row.dataset === state.dataset) && (!state.flag || row.flags.includes(state.flag))
    && (!state.query || row.text.includes(state.query));
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// Text with the search's hits marked: text nodes and <mark>, never markup.
function fill(node, text) {
  node.textContent = text;
  markHits(node, state.query);
}

function fillAnswer(node, text) {
  node.classList.toggle("plain", state.plain);
  if (state.plain) node.textContent = text;
  else MARKDOWN.render(node, text);
  markHits(node, state.query);
}

const items = rows.map((row) => {
  const item = element("li", row.kind);
  item.id = "row-" + row.number;
  item.setAttribute("role", "option");
  item.setAttribute("aria-selected", "false");
  const rate = row.preference === null ? "failed" : percent(row.preference);
  item.append(
    element("span", "number", String(row.number + 1)),
    element("span", "what", row.instruction.slice(0, 160)),
    element("span", row.flags.length ? "rate flagged" : "rate", rate),
  );
  return item;
});

function choose(number, scroll = true) {
  if (state.chosen >= 0) items[state.chosen].setAttribute("aria-selected", "false");
  state.chosen = number;
  at("detail").hidden = number < 0;
  if (number < 0) return;
  items[number].setAttribute("aria-selected", "true");
  at("list").setAttribute("aria-activedescendant", items[number].id);
  if (scroll) reveal(items[number]);
  show(rows[number]);
  try {
    history.replaceState(null, "", "#" + (number + 1));
  } catch {
    // Some browsers forbid it in local files; the link to a row is a convenience.
  }
}

// Scrolls the list alone: scrollIntoView would move the page too.
function reveal(item) {
  const list = at("list");
  const top = item.offsetTop;  // of the list, which is positioned
  if (top < list.scrollTop) list.scrollTop = top;
  const bottom = top + item.offsetHeight - list.clientHeight;
  if (bottom > list.scrollTop) list.scrollTop = bottom;
}

function show(row) {
  const where = ["instruction " + (row.number + 1) + " of " + rows.length];
  if (row.dataset) where.push(row.dataset);
  if (row.sample) where.push("sample " + (row.sample + 1));
  at("place").textContent = where.join(" · ");
  const hidden = BLIND.hides(row);
  at("detail").classList.toggle("hidden", hidden);
  at("verdict").className = row.kind;
  at("verdict").textContent = row.kind === "failed" ? "judgement failed" : row.kind + ", " + percent(row.preference);
  if (hidden) at("verdict").textContent = "";
  fill(at("instruction"), row.instruction);
  fillAnswer(at("output"), row.output);
  fillAnswer(at("against"), row.reference);
  const sides = [at("output").parentElement, at("against").parentElement];
  if (BLIND.on && BLIND.turned(row)) sides.reverse();
  at("pair").replaceChildren(...sides);
  at("model").textContent = data.model + " · " + row.output.length.toLocaleString("en") + " characters";
  at("other").textContent = data.reference + " · " + row.reference.length.toLocaleString("en") + " characters";
  if (hidden) for (const [place, side] of sides.entries()) side.firstElementChild.textContent = ["first", "second"][place];
  at("meter").className = row.kind === "failed" ? "meter failed" : "meter";
  at("share").style.width = row.kind === "failed" ? "0" : percent(row.preference);
  at("output").parentElement.className = row.kind === "won" ? "favoured" : "";
  at("against").parentElement.className = row.kind === "lost" ? "favoured" : "";
  if (hidden) for (const side of sides) side.className = "";
  at("told").textContent = hidden ? "" : told(row).join(" · ");
  SAID.fill(at("said"), hidden ? { said: [] } : row);
  at("votes").hidden = !BLIND.on;
  for (const button of at("voting").children) button.disabled = !hidden;
  at("agreement").textContent = BLIND.inWords();
  at("detail").scrollTop = 0;
}

function told(row) {
  const said = [];
  if (row.failure) said.push("failed: " + row.failure);
  const names = ["reference shown first: ", "model shown first: "];
  for (const [place, one] of row.orders.entries()) {
    // A judge of one order was never asked the other: only of two that were both asked one can be missing.
    if (one !== null) said.push(names[place] + percent(one));
    else if (row.failure && data.both) said.push(names[place] + "failed");
  }
  if (row.mass !== null) said.push("probability on the answer letters " + (100 * row.mass).toFixed(1) + "%");
  said.push((row.longer > 0 ? "+" : "") + row.longer.toLocaleString("en") + " characters against the reference");
  for (const flag of row.flags) said.push("⚑ " + (data.kinds[flag] || flag));
  return said;
}

function refresh() {
  if (state.order !== state.placed) {
    const key = KEYS[state.order];
    state.ordered = [...rows].sort((a, b) => key(a) - key(b) || a.number - b.number);
    at("list").replaceChildren(...state.ordered.map((row) => items[row.number]));
    state.placed = state.order;
  }
  state.visible = state.ordered.filter(passes);
  const shown = new Set(state.visible);
  for (const row of rows) items[row.number].hidden = !shown.has(row);
  at("count").textContent = state.visible.length.toLocaleString("en") + " of " + rows.length.toLocaleString("en");
  at("nothing").hidden = state.visible.length > 0;
  for (const button of at("filters").children) button.setAttribute("aria-pressed", String(button.value === state.filter));
  const kept = state.chosen >= 0 && shown.has(rows[state.chosen]);
  choose(kept ? state.chosen : state.visible.length ? state.visible[0].number : -1);
}

function move(step) {
  if (!state.visible.length) return;
  const place = state.visible.findIndex((row) => row.number === state.chosen);
  const next = Math.min(Math.max(place + step, 0), state.visible.length - 1);
  choose(state.visible[next].number);
}

function options(select, first, values) {
  select.append(new Option(first, ""), ...values.map(([value, label]) => new Option(label, value)));
  select.parentElement.hidden = values.length === 0;
}

function counted(values) {
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) || 0) + 1);
  return [...counts].sort().map(([value, count]) => [value, value + " (" + count + ")"]);
}

for (const [place, name] of FILTERS.entries()) {
  const count = name === "all" ? rows.length
    : rows.filter((row) => (name === "flagged" ? row.flags.length : row.kind === name)).length;
  const button = element("button", "", name + " " + count);
  button.type = "button";
  button.value = name;
  button.title = "key " + (place + 1);
  button.addEventListener("click", () => { state.filter = name; refresh(); });
  at("filters").append(button);
}
options(at("dataset"), "all", counted(rows.map((row) => row.dataset).filter(Boolean)));
options(at("flag"), "any", counted(rows.flatMap((row) => row.flags)).map(([value, label]) =>
  [value, label.replace(value, data.kinds[value] || value)]));

function vote(side) {
  if (!BLIND.on || state.chosen < 0) return;
  BLIND.vote(rows[state.chosen], side);
  show(rows[state.chosen]);
}

function blind(on) {
  BLIND.on = on;
  document.body.classList.toggle("blind", on);
  at("blind").setAttribute("aria-pressed", String(on));
  if (on) {
    // Filters and orders by the judge's word would tell it.
    state.filter = "all";
    state.flag = at("flag").value = "";
    state.order = at("order").value = "given";
  }
  refresh();
}

at("blind").addEventListener("click", () => blind(!BLIND.on));
for (const button of at("voting").children) button.addEventListener("click", () => vote(button.value));
at("plain").addEventListener("click", () => {
  state.plain = !state.plain;
  at("plain").setAttribute("aria-pressed", String(state.plain));
  if (state.chosen >= 0) show(rows[state.chosen]);
});
for (const kind of ["json", "csv"]) at(kind).addEventListener("click", () => EXPORT.save(kind, state.visible));

for (const id of ["dataset", "flag", "order"]) {
  at(id).addEventListener("change", () => { state[id] = at(id).value; refresh(); });
}
at("search").addEventListener("input", () => { state.query = at("search").value.toLowerCase(); refresh(); });
at("list").addEventListener("click", (event) => {
  const item = event.target.closest("li");
  if (item) choose(Number(item.id.slice(4)), false);
});
at("help").addEventListener("click", () => at("keys").showModal());
window.addEventListener("hashchange", () => fromHash());

document.addEventListener("keydown", (event) => {
  const typing = event.target === at("search");
  if (event.key === "Escape" && typing) {
    if (at("search").value) { at("search").value = ""; state.query = ""; refresh(); } else at("search").blur();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || at("keys").open) return;
  if (typing && event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
  if (event.target.tagName === "SELECT") return;
  const moves = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1, Home: -rows.length, End: rows.length };
  if (event.key in moves) {
    event.preventDefault();
    move(moves[event.key]);
  } else if (event.key === "/") {
    event.preventDefault();
    at("search").focus();
    at("search").select();
  } else if (event.key === "?") {
    at("keys").showModal();
  } else if (event.key === "b") {
    blind(!BLIND.on);
  } else if (BLIND.on && "fse".includes(event.key)) {
    vote({ f: "first", s: "second", e: "same" }[event.key]);
  } else if (event.key >= "1" && event.key <= String(FILTERS.length) && !BLIND.on) {
    state.filter = FILTERS[Number(event.key) - 1];
    refresh();
  }
});

function fromHash() {
  const number = Number(location.hash.slice(1)) - 1;
  if (rows[number] && number !== state.chosen) choose(number);
}

const linked = Number(location.hash.slice(1)) - 1;
refresh();
if (rows[linked]) choose(linked);
