// What the gallery shows, and the part of the address after "#" that says all of it, so that a link or Back leads to the same
// view.

const NOTHING = Object.freeze({
  search: "",
  categories: [],
  colors: [],
  columns: new Map(),
  photo: -1,
  why: -1,
  like: [],
  unlike: [],
  compared: [],
  isFolded: true,
  unfolded: [],
});

// Prefixes of what belongs to a column of the metadata: names of columns may be anything.
const COLUMN_KEYS = { is: "is.", none: "none.", from: "from.", to: "to.", has: "has." };

class Address {
  constructor(catalogue) {
    this.catalogue = catalogue;
    this.cells = new Map(catalogue.cellNames.map((name, cell) => [name, cell]));
  }

  // The state as text; empty for the one that a page opens with.
  write(state) {
    const parts = new URLSearchParams();
    const add = (key, value) => (value === "" || value === undefined ? undefined : parts.append(key, value));
    add("search", state.search);
    state.categories.forEach((name) => add("category", name));
    state.colors.forEach((name) => add("color", name));
    for (const [name, { chosen = [], none, from, to, text }] of state.columns) {
      // A value may be empty text.
      chosen.forEach((value) => parts.append(COLUMN_KEYS.is + name, value));
      if (none) parts.append(COLUMN_KEYS.none + name, "1");
      add(COLUMN_KEYS.from + name, from);
      add(COLUMN_KEYS.to + name, to);
      add(COLUMN_KEYS.has + name, text);
    }
    if (!state.isFolded) add("folded", "no");
    add("unfolded", state.unfolded.join(" "));
    if (state.photo >= 0) add("photo", String(state.photo));
    if (state.why >= 0) add("why", String(state.why));
    state.like.forEach((cell) => add("like", this.catalogue.cellNames[cell]));
    state.unlike.forEach((cell) => add("unlike", this.catalogue.cellNames[cell]));
    add("compare", state.compared.join(" "));
    return parts.toString();
  }

  // The state that a text says; what the catalogue does not know, such as a photo of another report, is left out. `undefined`
  // for a text that says nothing about the gallery, such as the name of a section.
  read(text) {
    const parts = new URLSearchParams(text);
    const state = { ...NOTHING, columns: this.#readColumns(parts) };
    const photo = (text) => (/^\d+$/.test(text ?? "") && Number(text) < this.catalogue.size ? Number(text) : -1);
    const photos = (key) => [...new Set((parts.get(key) ?? "").split(" ").map(photo))].filter((it) => it >= 0);
    const cells = (key) =>
      [...new Set(parts.getAll(key))].map((name) => this.cells.get(name)).filter((cell) => cell !== undefined);
    const colors = this.catalogue.colors.map((color) => color.name);
    state.search = parts.get("search") ?? "";
    state.categories = this.catalogue.categories.filter((name) => parts.getAll("category").includes(name));
    state.colors = colors.filter((name) => parts.getAll("color").includes(name));
    state.isFolded = parts.get("folded") !== "no";
    state.unfolded = photos("unfolded");
    state.photo = photo(parts.get("photo"));
    state.why = state.photo >= 0 ? photo(parts.get("why")) : -1;
    state.like = cells("like");
    state.unlike = cells("unlike").filter((cell) => !state.like.includes(cell));
    state.compared = photos("compare").slice(0, MOST_COMPARED);
    return text === "" || this.write(state) !== "" ? state : undefined;
  }

  #readColumns(parts) {
    const columns = new Map();
    const number = (text) =>
      text === null || text.trim() === "" || !Number.isFinite(Number(text)) ? undefined : Number(text);
    for (const { name, kind, values } of this.catalogue.columns) {
      const chosen =
        kind === "choice" ? values.filter((value) => parts.getAll(COLUMN_KEYS.is + name).includes(value)) : [];
      const none = kind === "choice" && parts.has(COLUMN_KEYS.none + name);
      const [from, to] =
        kind === "number" ? [number(parts.get(COLUMN_KEYS.from + name)), number(parts.get(COLUMN_KEYS.to + name))] : [];
      const text = kind === "text" ? (parts.get(COLUMN_KEYS.has + name) ?? "") : "";
      if (chosen.length || none || from !== undefined || to !== undefined || text)
        columns.set(name, { chosen, none, from, to, text });
    }
    return columns;
  }
}
