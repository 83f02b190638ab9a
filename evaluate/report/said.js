// What the judge was sent, what it said, and the log-probabilities behind it, order by order.
const SAID = (() => {
  const ORDERS = { reference_first: "reference shown first", answer_first: "model shown first" };
  const PLACE = /\{(instruction|output_1|output_2)\}/g;

  // The prompt's turns, filled in one pass: what a model wrote is never read as another place to fill.
  function sent(row, order) {
    const [first, second] = order === "answer_first" ? [row.output, row.reference] : [row.reference, row.output];
    const values = { instruction: row.instruction, output_1: first, output_2: second };
    return data.prompt.map(([role, text]) => role + "\n" + text.replace(PLACE, (_, name) => values[name])).join("\n\n");
  }

  function block(title, text, open) {
    const box = document.createElement("details");
    const head = document.createElement("summary");
    const held = document.createElement("pre");
    head.append(title);
    held.append(text);
    box.append(head, held);
    box.open = open;
    return box;
  }

  function probabilities(top) {
    const made = document.createElement("table");
    for (const [token, logprob] of top) {
      const row = document.createElement("tr");
      const name = document.createElement("th");
      const log = document.createElement("td");
      const share = document.createElement("td");
      name.append(JSON.stringify(token));
      log.append(logprob === null ? "–" : logprob.toFixed(4));
      share.append(logprob === null ? "0%" : (100 * Math.exp(logprob)).toPrecision(3) + "%");
      row.append(name, log, share);
      made.append(row);
    }
    return made;
  }

  return {
    fill(node, row) {
      node.replaceChildren();
      for (const said of row.said) {
        const order = ORDERS[said.order] || said.order;
        for (const [number, words] of said.words.entries()) {
          const vote = said.words.length > 1 ? ", vote " + (number + 1) : "";
          const letter = said.letters[number] ? ": " + said.letters[number] : "";
          node.append(block("The judge's words, " + order + vote + letter, words, true));
        }
        if (said.top.length) {
          const box = block("Log-probabilities, " + order, "", true);
          box.lastChild.replaceWith(probabilities(said.top));
          node.append(box);
        }
      }
      const asked = row.said.map((said) => said.order).filter((order) => order in ORDERS);
      for (const order of data.prompt.length ? asked : []) {
        node.append(block("The prompt that was sent, " + ORDERS[order], sent(row, order), false));
      }
      node.hidden = !node.children.length;
    },
  };
})();
