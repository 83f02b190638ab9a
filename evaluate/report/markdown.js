"use strict";
// Markdown as elements of the page. Nothing is ever parsed as markup: each text becomes a text node, so what a model
// wrote can't be anything else. A link shows where it leads and is none; a picture stays text.
const MARKDOWN = (() => {
  const DEEPEST = 6;
  const INLINE = new RegExp([
    /(?<tick>`+)(?<code>[^`](?:.{0,2000}?[^`])?)\k<tick>(?!`)/s,
    /\*\*(?<bold>\S(?:.{0,1000}?\S)?)\*\*/s,
    /~~(?<gone>\S(?:.{0,1000}?\S)?)~~/s,
    /(?<![*\w])\*(?<leaning>[^\s*](?:[^*\n]{0,1000}?[^\s*])?)\*(?!\*)/,
    /(?<!\w)_(?<slanted>[^\s_](?:[^_\n]{0,1000}?[^\s_])?)_(?!\w)/,
    /\[(?<label>[^\][\n]{1,500})\]\((?<address>[^()\s]{1,2000})\)/,
  ].map((one) => one.source).join("|"), "gs");
  const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)[^`]*$/;
  const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*$/;
  const RULE = /^ {0,3}(?:(?:-\s*){3,}|(?:\*\s*){3,}|(?:_\s*){3,})$/;
  const QUOTE = /^ {0,3}> ?/;
  const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])( +)(?=\S)/;
  const CELLS = /^ {0,3}\|?(?:\s*:?-+:?\s*\|)+(?:\s*:?-+:?\s*)?$/;

  function element(name, className) {
    const made = document.createElement(name);
    if (className) made.className = className;
    return made;
  }

  function inline(node, text, depth = 0) {
    let end = 0;
    if (depth < DEEPEST) {
      for (const hit of text.matchAll(INLINE)) {
        node.append(text.slice(end, hit.index));
        end = hit.index + hit[0].length;
        const found = hit.groups;
        if (found.code !== undefined) {
          const code = element("code");
          code.append(found.code);
          node.append(code);
        } else if (found.label !== undefined) {
          inline(node, found.label, depth + 1);
          const address = element("span", "address");
          address.append(" (" + found.address + ")");
          node.append(address);
        } else {
          const kind = found.bold !== undefined ? "strong" : found.gone !== undefined ? "del" : "em";
          const part = element(kind);
          inline(part, found.bold ?? found.gone ?? found.leaning ?? found.slanted, depth + 1);
          node.append(part);
        }
      }
    }
    node.append(text.slice(end));
  }

  function cells(line) {
    return line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
  }

  function table(lines, start) {
    const made = element("table");
    let place = start;
    for (; place < lines.length && lines[place].includes("|"); place += 1) {
      if (place === start + 1) continue;
      const row = element("tr");
      for (const text of cells(lines[place])) {
        const cell = element(place === start ? "th" : "td");
        inline(cell, text);
        row.append(cell);
      }
      made.append(row);
    }
    const box = element("div", "table");
    box.append(made);
    return [box, place];
  }

  function fence(lines, start, mark) {
    let place = start + 1;
    const closing = new RegExp("^ {0,3}" + mark[0] + "{" + mark.length + ",}\\s*$");
    while (place < lines.length && !closing.test(lines[place])) place += 1;
    const box = element("pre", "code");
    const code = element("code");
    code.append(lines.slice(start + 1, place).join("\n"));
    box.append(code);
    return [box, place + 1];
  }

  // The lines of one item: its first, and those that are indented behind its mark.
  function list(lines, start, depth) {
    const ordered = /\d/.test(lines[start].match(ITEM)[2]);
    const made = element(ordered ? "ol" : "ul");
    if (ordered) made.start = Number.parseInt(lines[start].match(ITEM)[2], 10);
    let place = start;
    while (place < lines.length) {
      const mark = lines[place].match(ITEM);
      if (!mark || /\d/.test(mark[2]) !== ordered) break;
      const width = mark[0].length;
      const held = [lines[place].slice(width)];
      for (place += 1; place < lines.length; place += 1) {
        const line = lines[place];
        const indented = line.match(/^ */)[0].length;
        const empty = !line.trim();
        const next = lines[place + 1] || "";
        if (empty && !(next.trim() && next.match(/^ */)[0].length >= 2)) break;
        if (!empty && indented < 2 && (ITEM.test(line) || !held[held.length - 1].trim() || special(line))) break;
        held.push(line.slice(Math.min(indented, width)));
      }
      const item = element("li");
      blocks(item, held, depth + 1);
      made.append(item);
      let next = place;
      while (next < lines.length && !lines[next].trim()) next += 1;
      if (next < lines.length && ITEM.test(lines[next])) place = next;
    }
    return [made, place];
  }

  function special(line) {
    return FENCE.test(line) || HEADING.test(line) || QUOTE.test(line) || RULE.test(line);
  }

  function blocks(node, lines, depth = 0) {
    let place = 0;
    while (place < lines.length) {
      const line = lines[place];
      const heading = line.match(HEADING);
      const opened = place + 1 < lines.length && line.match(FENCE);  // a last line has nothing to hold
      let made = null;
      if (!line.trim()) {
        place += 1;
        continue;
      }
      if (opened) {
        [made, place] = fence(lines, place, opened[1]);
      } else if (heading) {
        made = element("p", "heading h" + heading[1].length);
        inline(made, heading[2]);
        place += 1;
      } else if (RULE.test(line)) {
        made = element("hr");
        place += 1;
      } else if (QUOTE.test(line) && depth < DEEPEST) {
        const held = [];
        for (; place < lines.length && QUOTE.test(lines[place]); place += 1) held.push(lines[place].replace(QUOTE, ""));
        made = element("blockquote");
        blocks(made, held, depth + 1);
      } else if (ITEM.test(line) && depth < DEEPEST) {
        [made, place] = list(lines, place, depth);
      } else if (line.includes("|") && CELLS.test(lines[place + 1] || "")) {
        [made, place] = table(lines, place);
      } else {
        const held = [line];
        for (place += 1; place < lines.length && lines[place].trim() && !special(lines[place])
          && !(ITEM.test(lines[place]) && depth < DEEPEST); place += 1) held.push(lines[place]);
        made = element("p");
        inline(made, held.join("\n"));
      }
      node.append(made);
    }
  }

  return {
    render(node, text) {
      node.replaceChildren();
      blocks(node, text.replace(/\r\n?/g, "\n").replace(/\t/g, "    ").split("\n"));
    },
  };
})();

// Marks every place in the texts of an element that a query is found in.
function markHits(node, query) {
  if (!query) return;
  const wanted = new RegExp(query.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "gi");
  const texts = [];
  const walker = document.createTreeWalker(node, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) texts.push(walker.currentNode);
  for (const found of texts) {
    const text = found.data;
    const parts = [];
    let end = 0;
    for (const hit of text.matchAll(wanted)) {
      const mark = document.createElement("mark");
      mark.append(hit[0]);
      parts.push(text.slice(end, hit.index), mark);
      end = hit.index + hit[0].length;
    }
    if (parts.length) found.replaceWith(...parts, text.slice(end));
  }
}
