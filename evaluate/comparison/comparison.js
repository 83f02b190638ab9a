// Rows are data: every text goes onto the page as a text node.
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const percent = (preference) => (100 * (preference - 1)).toFixed(preference === 1 || preference === 2 ? 0 : 1) + "%";
const kindOf = (preference) => (preference === null ? "failed" : preference > 1.5 ? "won" : preference < 1.5 ? "lost" : "drawn");

const rows = data.rows.map((row, number) => {
  const models = row.answers.slice(1).filter(Boolean);
  const known = models.map((one) => one.preference).filter((one) => one !== null);
  return {
    ...row,
    number,
    differs: new Set(models.map((one) => one.text)).size > 1,
    verdicts: new Set(models.map((one) => kindOf(one.preference))).size > 1,
    spread: known.length > 1 ? Math.max(...known) - Math.min(...known) : 0,
    gain: known.length > 1 ? models[0].preference - models[1].preference : 0,
    text: [row.instruction, ...row.answers.filter(Boolean).map((one) => one.text)].join("\n").toLowerCase(),
  };
});
const state = { visible: rows, chosen: -1, query: "", show: "all", order: "given", how: "markdown", base: 0 };
const KEYS = {
  given: (row) => row.number,
  spread: (row) => -row.spread,
  better: (row) => -row.gain,
  worse: (row) => row.gain,
};
const SHOWN = { all: () => true, differs: (row) => row.differs, verdicts: (row) => row.verdicts };

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

const items = rows.map((row) => {
  const item = element("li");
  item.id = "row-" + row.number;
  item.setAttribute("role", "option");
  item.setAttribute("aria-selected", "false");
  const marks = element("span", "rate");
  for (const one of row.answers.slice(1)) {
    marks.append(element("span", one ? "dot " + kindOf(one.preference) : "dot", ""));
  }
  item.append(element("span", "number", String(row.number + 1)), element("span", "what", row.instruction.slice(0, 160)), marks);
  return item;
});

function fillAnswer(node, row, place) {
  const text = row.answers[place].text;
  if (state.how === "words" && place !== state.base && row.answers[state.base]) {
    const parts = WORDS.compare(row.answers[state.base].text, text);
    node.classList.add("plain");
    if (parts === null) {
      node.append(element("p", "toolong", "too long to mark the words that differ"), text);
    } else {
      for (const [kind, words] of parts) {
        node.append(kind === "same" ? words : element(kind === "new" ? "ins" : "del", "", words));
      }
    }
  } else if (state.how === "markdown") {
    MARKDOWN.render(node, text);
  } else {
    node.classList.add("plain");
    node.textContent = text;
  }
  markHits(node, state.query);
}

function column(row, place) {
  const one = row.answers[place];
  const box = element("section");
  const head = element("h3", "", data.names[place]);
  box.append(head);
  if (!one) {
    box.append(element("p", "absent", "no answer"));
    return box;
  }
  const said = place === 0 ? "the reference" : one.preference === null ? "failed: " + (one.failure || "no judgement")
    : kindOf(one.preference) + ", " + percent(one.preference);
  const count = one.text.length.toLocaleString("en") + " characters";
  box.append(element("p", "said " + (place ? kindOf(one.preference) : ""), said + " · " + count));
  const answer = element("div", "answer");
  fillAnswer(answer, row, place);
  box.append(answer);
  return box;
}

function show(row) {
  const where = ["question " + (row.number + 1) + " of " + rows.length];
  if (row.dataset) where.push(row.dataset);
  if (row.sample) where.push("sample " + (row.sample + 1));
  if (!row.differs) where.push("all models answer the same");
  at("place").textContent = where.join(" · ");
  at("instruction").textContent = row.instruction;
  markHits(at("instruction"), state.query);
  at("columns").replaceChildren(...row.answers.map((_, place) => column(row, place)));
  at("detail").scrollTop = 0;
}

function choose(number, scroll = true) {
  if (state.chosen >= 0) items[state.chosen].setAttribute("aria-selected", "false");
  state.chosen = number;
  at("detail").hidden = number < 0;
  if (number < 0) return;
  items[number].setAttribute("aria-selected", "true");
  at("list").setAttribute("aria-activedescendant", items[number].id);
  if (scroll) {
    const top = items[number].offsetTop;
    const bottom = top + items[number].offsetHeight - at("list").clientHeight;
    if (top < at("list").scrollTop) at("list").scrollTop = top;
    else if (bottom > at("list").scrollTop) at("list").scrollTop = bottom;
  }
  show(rows[number]);
}

function refresh() {
  const key = KEYS[state.order];
  const ordered = [...rows].sort((a, b) => key(a) - key(b) || a.number - b.number);
  state.visible = ordered.filter((row) => SHOWN[state.show](row) && (!state.query || row.text.includes(state.query)));
  at("list").replaceChildren(...state.visible.map((row) => items[row.number]));
  at("count").textContent = state.visible.length.toLocaleString("en") + " of " + rows.length.toLocaleString("en");
  at("nothing").hidden = state.visible.length > 0;
  const kept = state.visible.some((row) => row.number === state.chosen);
  choose(kept ? state.chosen : state.visible.length ? state.visible[0].number : -1);
}

function move(step) {
  if (!state.visible.length) return;
  const place = state.visible.findIndex((row) => row.number === state.chosen);
  choose(state.visible[Math.min(Math.max(place + step, 0), state.visible.length - 1)].number);
}

at("base").append(...data.names.map((name, place) => new Option(name, String(place))));
for (const id of ["show", "order", "how", "base"]) {
  at(id).addEventListener("change", () => {
    state[id] = id === "base" ? Number(at(id).value) : at(id).value;
    at("base").parentElement.hidden = state.how !== "words";
    refresh();
  });
}
at("search").addEventListener("input", () => { state.query = at("search").value.toLowerCase(); refresh(); });
at("list").addEventListener("click", (event) => {
  const item = event.target.closest("li");
  if (item) choose(Number(item.id.slice(4)), false);
});
document.addEventListener("keydown", (event) => {
  const typing = event.target === at("search");
  if (event.key === "Escape" && typing) at("search").blur();
  if (typing || event.target.tagName === "SELECT" || event.ctrlKey || event.metaKey || event.altKey) return;
  const moves = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1, Home: -rows.length, End: rows.length };
  if (event.key in moves) {
    event.preventDefault();
    move(moves[event.key]);
  } else if (event.key === "/") {
    event.preventDefault();
    at("search").focus();
  }
});
at("base").parentElement.hidden = true;
refresh();
