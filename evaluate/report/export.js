// The rows that are shown, as a file: with the votes of a person, where there are any.
const EXPORT = (() => {
  const COLUMNS = ["number", "sample", "dataset", "instruction", "output", "reference", "preference", "failure", "flags", "vote"];

  function plain(row) {
    return {
      number: row.number + 1,
      sample: row.sample,
      dataset: row.dataset,
      instruction: row.instruction,
      output: row.output,
      reference: row.reference,
      preference: row.preference,
      failure: row.failure,
      flags: row.flags,
      vote: BLIND.votes.get(row.number) ?? null,
    };
  }

  // A cell that a spreadsheet would take for a formula gets a quote before it.
  function cell(value) {
    const text = value === null || value === undefined ? "" : Array.isArray(value) ? value.join(" ") : String(value);
    const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? "'" + text : text;
    return /[",\r\n]/.test(safe) ? '"' + safe.replaceAll('"', '""') + '"' : safe;
  }

  function text(kind, chosen) {
    const found = chosen.map(plain);
    if (kind === "json") return JSON.stringify(found, null, 2) + "\n";
    return [COLUMNS.join(","), ...found.map((row) => COLUMNS.map((name) => cell(row[name])).join(","))].join("\r\n") + "\r\n";
  }

  return {
    save(kind, chosen) {
      const link = document.createElement("a");
      const type = kind === "json" ? "application/json" : "text/csv";
      link.href = URL.createObjectURL(new Blob([text(kind, chosen)], { type }));
      link.download = "answers." + kind;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    },
  };
})();
