// Blind mode: a person says which answer is better before the judge's word is shown, and sees how far they agree.
// Which answer stands first is drawn from the row alone, so that it is the same at every look.
const BLIND = (() => {
  const votes = new Map();
  const shuffled = (number) => {
    let hash = 2166136261;
    for (const letter of "blind " + number + rows[number].instruction.slice(0, 200)) {
      hash = Math.imul(hash ^ letter.codePointAt(0), 16777619);
    }
    return ((hash ^ (hash >>> 15)) >>> 3) % 2 === 1;
  };

  // Of the rows with both a vote and a preference: how many agree, and Cohen's kappa over won, lost and drawn.
  function agreement() {
    const kinds = ["won", "lost", "drawn"];
    const pairs = [...votes].filter(([number]) => rows[number].kind !== "failed")
      .map(([number, vote]) => [vote, rows[number].kind]);
    const same = pairs.filter(([mine, judges]) => mine === judges).length;
    const share = (side, kind) => pairs.filter((pair) => pair[side] === kind).length / pairs.length;
    const chance = kinds.reduce((sum, kind) => sum + share(0, kind) * share(1, kind), 0);
    const observed = same / pairs.length;
    return {
      votes: votes.size,
      compared: pairs.length,
      same,
      kappa: pairs.length && chance < 1 ? (observed - chance) / (1 - chance) : null,
    };
  }

  function inWords() {
    const found = agreement();
    if (!found.compared) return found.votes + " votes";
    const kappa = found.kappa === null ? "not defined yet" : found.kappa.toFixed(2);
    return found.votes + " votes; you and the judge agree on " + found.same + " of " + found.compared
      + ", kappa " + kappa;
  }

  return {
    votes,
    agreement,
    inWords,
    on: false,
    // Whether the model's answer stands second.
    turned: (row) => shuffled(row.number),
    hides(row) {
      return this.on && !votes.has(row.number);
    },
    vote(row, side) {
      if (!this.hides(row)) return;
      const first = shuffled(row.number) ? "lost" : "won";
      votes.set(row.number, side === "same" ? "drawn" : side === "first" ? first : first === "won" ? "lost" : "won");
    },
  };
})();
