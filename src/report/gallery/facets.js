// The filters beside the wall: what is worn, its colours, and the columns of the metadata. Their controls are made once; only
// counts and choices change.

class Facets {
  // `totals`: the counts without any filter. `change` is called with what is to be different in the state, and with the name
  // of a field that somebody types in.
  constructor(catalogue, place, totals, change) {
    this.catalogue = catalogue;
    this.totals = totals;
    this.change = change;
    this.updates = [];
    const swatch = ({ css }) => {
      const made = element("i", { className: "swatch", "aria-hidden": "true" });
      made.style.background = css;
      return made;
    };
    const category = this.#choices("Category", catalogue.categories, {
      chosen: (state) => state.categories,
      counts: (result) => result.look.categories,
      choose: (categories) => this.change({ categories }),
    });
    const color = this.#choices(
      "Colour",
      catalogue.colors.map((it) => it.name),
      {
        chosen: (state) => state.colors,
        counts: (result) => result.look.colors,
        choose: (colors) => this.change({ colors }),
        before: (place) => swatch(catalogue.colors[place]),
      },
    );
    place.append(category, color, ...catalogue.columns.map((column, at) => this.#column(column, at)));
  }

  update(state, result) {
    this.state = state;
    this.updates.forEach((update) => update(state, result));
  }

  // The state without a filter, and what is said of it, for each filter that is set.
  chips(state) {
    const without = (list, value) => list.filter((it) => it !== value);
    const chips = [];
    if (state.search.trim()) chips.push({ text: `“${state.search.trim()}”`, rest: { search: "" } });
    for (const name of state.categories)
      chips.push({ text: name, rest: { categories: without(state.categories, name) } });
    for (const name of state.colors) chips.push({ text: name, rest: { colors: without(state.colors, name) } });
    for (const [name, set] of state.columns) {
      const { chosen, none, from, to, text } = set;
      const rest = (change) => ({ columns: this.#with(name, { ...set, ...change }) });
      for (const value of chosen)
        chips.push({ text: `${name}: ${value}`, rest: rest({ chosen: without(chosen, value) }) });
      if (none) chips.push({ text: `${name}: none`, rest: rest({ none: false }) });
      if (from !== undefined || to !== undefined)
        chips.push({ text: `${name}: ${rangeText(from, to)}`, rest: rest({ from: undefined, to: undefined }) });
      if (text) chips.push({ text: `${name}: “${text}”`, rest: rest({ text: "" }) });
    }
    return chips;
  }

  // The filters of the columns with another one for the column `name`.
  #with(name, set) {
    const columns = new Map(this.state.columns);
    const { chosen = [], none = false, from, to, text = "" } = set;
    if (chosen.length || none || from !== undefined || to !== undefined || text)
      columns.set(name, { chosen, none, from, to, text });
    else columns.delete(name);
    return columns;
  }

  #facet(title, ...content) {
    const name = named(title);
    return element(
      "details",
      { className: "facet", open: true },
      element("summary", {}, name),
      element("div", { role: "group", "aria-label": title }, ...content),
    );
  }

  // Checkboxes with counts.
  #choices(title, values, { chosen, counts, choose, before = () => "", labels = values }) {
    const boxes = labels.map((label) => element("input", { type: "checkbox", "aria-label": label }));
    const shown = labels.map(() => element("span", { className: "count" }));
    const lines = labels.map((label, place) =>
      element(
        "label",
        { className: "option", title: label },
        boxes[place],
        before(place),
        named(label, { className: "value" }),
        shown[place],
      ),
    );
    boxes.forEach((box, place) =>
      box.addEventListener("change", () => {
        const before = chosen(this.state);
        choose(values.filter((value, at) => (at === place ? box.checked : before.includes(value))));
      }),
    );
    // Values that no photo of the catalogue has are not offered.
    counts(this.totals).forEach((count, place) => (lines[place].hidden = count === 0));
    this.updates.push((state, result) => {
      const now = chosen(state);
      counts(result).forEach((count, place) => {
        boxes[place].checked = now.includes(values[place]);
        shown[place].textContent = thousands(count);
        boxes[place].setAttribute("aria-description", `${thousands(count)} photos`);
        lines[place].classList.toggle("empty", count === 0);
      });
    });
    return this.#facet(title, element("div", { className: "options" }, ...lines));
  }

  #column(column, place) {
    if (column.kind === "choice") return this.#columnChoices(column, place);
    return column.kind === "number" ? this.#columnRange(column, place) : this.#columnText(column, place);
  }

  #columnChoices({ name, values }, place) {
    // `undefined` stands for photos without a value.
    return this.#choices(name, [...values, undefined], {
      labels: [...values.map((value) => (value.trim() === "" ? "(empty)" : value)), "(no value)"],
      chosen: (state) => {
        const { chosen = [], none } = state.columns.get(name) ?? {};
        return none ? [...chosen, undefined] : chosen;
      },
      counts: (result) => result.columns[place],
      choose: (chosen) =>
        this.change({
          columns: this.#with(name, {
            chosen: chosen.filter((it) => it !== undefined),
            none: chosen.includes(undefined),
          }),
        }),
    });
  }

  #columnRange({ name }, place) {
    const input = (end) =>
      element("input", { type: "number", step: "any", "aria-label": `${name}, ${end}`, autocomplete: "off" });
    const [from, to] = [input("from"), input("to")];
    const note = element("p", { className: "soft" });
    const value = (it) => (it.value === "" || !Number.isFinite(it.valueAsNumber) ? undefined : it.valueAsNumber);
    const typed = () => this.change({ columns: this.#with(name, { from: value(from), to: value(to) }) }, name);
    for (const it of [from, to]) it.addEventListener("input", typed);
    this.updates.push((state, result) => {
      const set = state.columns.get(name) ?? {};
      // What somebody is typing stays as it is.
      if (value(from) !== set.from) from.value = set.from ?? "";
      if (value(to) !== set.to) to.value = set.to ?? "";
      const { least, greatest, count } = result.columns[place];
      [from.placeholder, to.placeholder] = count ? [least, greatest] : ["", ""];
      note.textContent = count ? `${least} to ${greatest} in ${thousands(count)} photos` : "no photo has a value";
    });
    return this.#facet(
      name,
      element("div", { className: "range" }, from, element("span", { textContent: "to" }), to),
      note,
    );
  }

  #columnText({ name }, place) {
    const input = element("input", {
      type: "search",
      "aria-label": `${name} contains`,
      placeholder: "contains",
      autocomplete: "off",
      spellcheck: false,
    });
    const note = element("p", { className: "soft" });
    input.addEventListener("input", () => this.change({ columns: this.#with(name, { text: input.value }) }, name));
    this.updates.push((state, result) => {
      const { text = "" } = state.columns.get(name) ?? {};
      if (input.value !== text) input.value = text;
      note.textContent = `a value in ${thousands(result.columns[place].count)} photos`;
    });
    return this.#facet(name, input, note);
  }
}

const rangeText = (from, to) => {
  if (from === undefined) return `up to ${to}`;
  return to === undefined ? `from ${from}` : `${from} to ${to}`;
};
