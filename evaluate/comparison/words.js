// The words in which two texts differ: the longest common subsequence of their words, as [kind, text] pieces.
const WORDS = (() => {
  const MOST = 4e6;  // cells of the table: two answers of 2,000 words

  function split(text) {
    return text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) || [];
  }

  function pieces(parts) {
    const found = [];
    for (const [kind, text] of parts) {
      const last = found[found.length - 1];
      if (last && last[0] === kind) last[1] += text;
      else found.push([kind, text]);
    }
    return found;
  }

  // Pieces of `text` that are the same as in `base`, new, or gone from it; null where the texts are too long.
  function compare(base, text) {
    const a = split(base);
    const b = split(text);
    let start = 0;
    while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
    let tail = 0;
    while (tail < a.length - start && tail < b.length - start && a[a.length - 1 - tail] === b[b.length - 1 - tail]) tail += 1;
    const left = a.slice(start, a.length - tail);
    const right = b.slice(start, b.length - tail);
    if (left.length * right.length > MOST) return null;
    const width = right.length + 1;
    const table = new Uint16Array((left.length + 1) * width);
    for (let i = left.length - 1; i >= 0; i -= 1) {
      for (let j = right.length - 1; j >= 0; j -= 1) {
        table[i * width + j] = left[i] === right[j] ? table[(i + 1) * width + j + 1] + 1
          : Math.max(table[(i + 1) * width + j], table[i * width + j + 1]);
      }
    }
    const parts = [["same", a.slice(0, start).join("")]];
    let i = 0;
    let j = 0;
    while (i < left.length || j < right.length) {
      if (i < left.length && j < right.length && left[i] === right[j]) {
        parts.push(["same", left[i]]);
        i += 1;
        j += 1;
      } else if (j >= right.length || (i < left.length && table[(i + 1) * width + j] >= table[i * width + j + 1])) {
        parts.push(["gone", left[i]]);
        i += 1;
      } else {
        parts.push(["new", right[j]]);
        j += 1;
      }
    }
    parts.push(["same", a.slice(a.length - tail).join("")]);
    return pieces(parts.filter(([, text]) => text));
  }

  return { compare };
})();
