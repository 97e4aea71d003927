// Which photos match the search and the filters, and how many would with each further choice.
//
// Within a filter any of the chosen values will do; all filters must agree. Category and colour are met by one cell: "dress"
// and "red" show red dresses, not a dress with red shoes. A count says how many photos match all the other filters and have
// the value, so it is what a click on it leads to.

const SEARCH = 0;
const LOOK = 1;
const FIRST_COLUMN = 2;

class Filters {
  constructor(catalogue) {
    this.catalogue = catalogue;
    this.search = new Search(catalogue);
    // By photo: how many filters it fails (2 stands for more), and which one last.
    this.failures = new Uint8Array(catalogue.size);
    this.failed = new Uint16Array(catalogue.size);
  }

  // The rows that match, in order, whether any filter is set, and the counts of each filter.
  apply(state) {
    this.failures.fill(0);
    const isSet = [
      this.#applySearch(state),
      this.#applyLook(state),
      ...this.catalogue.columns.map((column, place) => this.#applyColumn(column, place, state)),
    ];
    const matches = new Uint8Array(this.catalogue.size);
    const found = [];
    for (let photo = 0; photo < matches.length; photo++) {
      if (this.failures[photo]) continue;
      matches[photo] = 1;
      found.push(photo);
    }
    return {
      found,
      matches,
      isSet: isSet.some(Boolean),
      look: this.#countLook(state),
      columns: this.catalogue.columns.map((column, place) => this.#countColumn(column, place)),
    };
  }

  #fail(filter, passes) {
    for (let photo = 0; photo < this.failures.length; photo++) {
      if (passes(photo)) continue;
      this.failures[photo] = Math.min(2, this.failures[photo] + 1);
      this.failed[photo] = filter;
    }
    return true;
  }

  // Whether a photo matches all filters but perhaps this one.
  #isOpen(filter, photo) {
    return this.failures[photo] === 0 || (this.failures[photo] === 1 && this.failed[photo] === filter);
  }

  #applySearch(state) {
    const tests = this.search.tests(state.search);
    return tests.length > 0 && this.#fail(SEARCH, (photo) => tests.every((test) => this.search.matches(test, photo)));
  }

  #chosen(names, chosen) {
    return Uint8Array.from(names, (name) => chosen.length === 0 || chosen.includes(name));
  }

  #applyLook(state) {
    const { categories, colors, categoryOf, colorOf, starts, cells } = this.catalogue;
    if (!state.categories.length && !state.colors.length) return false;
    const ofCategory = this.#chosen(categories, state.categories);
    const ofColor = this.#chosen(
      colors.map((color) => color.name),
      state.colors,
    );
    const passes = Uint8Array.from(
      { length: this.catalogue.cellCount },
      (_, cell) => ofCategory[categoryOf[cell]] && ofColor[colorOf[cell]],
    );
    return this.#fail(LOOK, (photo) => {
      for (let at = starts[photo]; at < starts[photo + 1]; at++) if (passes[cells[at]]) return true;
      return false;
    });
  }

  #applyColumn(column, place, state) {
    const filter = FIRST_COLUMN + place;
    const { chosen = [], none = false, from, to, text } = state.columns.get(column.name) ?? {};
    if (column.kind === "choice") {
      if (!chosen.length && !none) return false;
      const passes = Uint8Array.from([...column.values.map((value) => chosen.includes(value)), none]);
      return this.#fail(filter, (photo) => passes[column.place(photo)]);
    }
    if (column.kind === "number") {
      if (from === undefined && to === undefined) return false;
      // NaN, no value, is in no range.
      return this.#fail(
        filter,
        (photo) => column.numbers[photo] >= (from ?? -Infinity) && column.numbers[photo] <= (to ?? Infinity),
      );
    }
    const wanted = (text ?? "").toLowerCase();
    return wanted !== "" && this.#fail(filter, (photo) => column.text(photo).toLowerCase().includes(wanted));
  }

  #countLook(state) {
    const { categories, colors, categoryOf, colorOf, starts, cells } = this.catalogue;
    const ofCategory = this.#chosen(categories, state.categories);
    const ofColor = this.#chosen(
      colors.map((color) => color.name),
      state.colors,
    );
    const counts = { categories: new Uint32Array(categories.length), colors: new Uint32Array(colors.length) };
    // The photo that was counted last, so that a photo with two red cells counts once.
    const last = {
      categories: new Int32Array(categories.length).fill(-1),
      colors: new Int32Array(colors.length).fill(-1),
    };
    const count = (counts, last, value, photo) => {
      if (last[value] === photo) return;
      last[value] = photo;
      counts[value]++;
    };
    for (let photo = 0; photo < this.catalogue.size; photo++) {
      if (!this.#isOpen(LOOK, photo)) continue;
      for (let at = starts[photo]; at < starts[photo + 1]; at++) {
        const category = categoryOf[cells[at]];
        const color = colorOf[cells[at]];
        if (ofColor[color]) count(counts.categories, last.categories, category, photo);
        if (ofCategory[category]) count(counts.colors, last.colors, color, photo);
      }
    }
    return counts;
  }

  // Of a choice: the photos of each value, and of none. Of numbers: the least, the greatest, and how many there are.
  #countColumn(column, place) {
    const filter = FIRST_COLUMN + place;
    const open = (each) => {
      for (let photo = 0; photo < this.catalogue.size; photo++) if (this.#isOpen(filter, photo)) each(photo);
    };
    if (column.kind === "choice") {
      const counts = new Uint32Array(column.values.length + 1);
      open((photo) => counts[column.place(photo)]++);
      return counts;
    }
    const range = { least: Infinity, greatest: -Infinity, count: 0 };
    if (column.kind === "number") {
      open((photo) => {
        const value = column.numbers[photo];
        if (Number.isNaN(value)) return;
        range.least = Math.min(range.least, value);
        range.greatest = Math.max(range.greatest, value);
        range.count++;
      });
    } else {
      open((photo) => (range.count += column.text(photo) !== ""));
    }
    return range;
  }
}
