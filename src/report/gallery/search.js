// The search over names, metadata and cells. A photo matches if every word is in its name, in its metadata or in one of its
// cells; "red dress" and "dress red" mean one cell.

class Search {
  constructor(catalogue) {
    this.catalogue = catalogue;
    // For each cell, the words of its column and of its names.
    this.words = catalogue.cellNames.map((name, cell) => {
      const names = [name.replaceAll("_", " "), catalogue.cellLabel(cell)].join(" ");
      return new Set(names.toLowerCase().split(" "));
    });
    this.phrases = new Map();
    this.longest = 1;
    catalogue.cellNames.forEach((name, cell) => {
      const color = catalogue.colors[catalogue.colorOf[cell]].name;
      const category = catalogue.categories[catalogue.categoryOf[cell]];
      const column = name.replaceAll("_", " ");
      for (const phrase of [column, `${category} ${color}`, `${color} ${category}`])
        this.#know(phrase.toLowerCase(), cell);
      const last = column.lastIndexOf(" ");
      this.#know(`${column.slice(last + 1)} ${column.slice(0, last)}`.toLowerCase(), cell);
    });
  }

  #know(phrase, cell) {
    if (!this.phrases.has(phrase)) this.phrases.set(phrase, cell);
    this.longest = Math.max(this.longest, phrase.split(" ").length);
  }

  // The tests of a search text: which cells pass each, and the word whose place in a name or in metadata passes too.
  tests(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const tests = [];
    for (let at = 0; at < words.length; at++) {
      const cells = new Uint8Array(this.catalogue.cellCount);
      const [phrase, length] = this.#cellAt(words, at);
      if (phrase !== undefined) {
        cells[phrase] = 1;
        at += length - 1;
        tests.push({ cells });
        continue;
      }
      this.words.forEach((known, cell) => (cells[cell] = known.has(words[at])));
      tests.push({ cells, word: words[at] });
    }
    return tests;
  }

  // The cell that the words from a place on name, and how many of them do.
  #cellAt(words, at) {
    if (words[at].includes("_")) return [this.phrases.get(words[at].replaceAll("_", " ")), 1];
    for (let length = Math.min(this.longest, words.length - at); length > 1; length--) {
      const cell = this.phrases.get(words.slice(at, at + length).join(" "));
      if (cell !== undefined) return [cell, length];
    }
    return [undefined, 0];
  }

  matches({ cells, word }, photo) {
    const { starts, cells: worn, haystacks } = this.catalogue;
    for (let at = starts[photo]; at < starts[photo + 1]; at++) if (cells[worn[at]]) return true;
    return word !== undefined && haystacks[photo].includes(word);
  }
}
