// The gallery: from the state to what is shown, and from clicks and keys to the state.

class Gallery {
  constructor(catalogue) {
    const at = (id) => document.getElementById(id);
    this.catalogue = catalogue;
    this.place = at("gallery-photos");
    this.search = at("search");
    this.address = new Address(catalogue);
    this.filters = new Filters(catalogue);
    this.result = this.filters.apply(NOTHING);
    this.thumbnails = new Thumbnails(catalogue);
    const [ranking, tiles] = [new Ranking(catalogue), new Tiles(catalogue, this.thumbnails)];
    this.facets = new Facets(catalogue, at("facets-inner"), this.result, (change, field) => this.change(change, field));
    this.wall = new Wall(catalogue, at("wall"), tiles);
    this.chosen = new Chosen(catalogue, at("chosen"), tiles, ranking);
    this.compared = new Compared(catalogue, at("compared"), tiles, ranking);
    this.state = NOTHING;
    at("filters").open = matchMedia("(min-width: 701px)").matches;
    at("fold-all").parentElement.hidden = !catalogue.groups;
    this.#listen();
    this.#fromAddress();
  }

  // Changes the state by what is different. What is typed into one field is one step back, not one for each letter.
  change(change, field) {
    const next = { ...this.state, ...change };
    const text = this.address.write(next);
    if (text === this.address.write(this.state)) return;
    const isSameStep = field !== undefined && field === this.typedInto;
    this.typedInto = field;
    this.#show(next);
    try {
      history[isSameStep ? "replaceState" : "pushState"](
        { gallery: text },
        "",
        text ? `#${text}` : location.pathname + location.search,
      );
    } catch {
      // Browsers refuse hundreds of changes within seconds; the address follows with the next one.
    }
  }

  // Shows what the address says. A link within the page, to a section, leaves the state as it is.
  #fromAddress() {
    const own = location.hash.slice(1);
    const text = history.state?.gallery ?? (this.address.read(own) ? own : this.address.write(this.state));
    const isSection = own !== "" && this.address.read(own) === undefined;
    history.replaceState({ gallery: text }, "", isSection && text ? `#${text}` : undefined);
    this.typedInto = undefined;
    const state = this.address.read(text) ?? NOTHING;
    this.#show(state);
    if (state.photo >= 0) this.wall.reveal(state.photo);
  }

  #show(state) {
    const before = this.state;
    this.state = state;
    if (this.search.value !== state.search) this.search.value = state.search;
    const isFiltered = (it) => [it.search, it.categories, it.colors, it.columns];
    const isOther = isFiltered(state).some((part, place) => part !== isFiltered(before)[place]);
    if (isOther) this.result = this.filters.apply(state);
    this.facets.update(state, this.result);
    this.items = this.#items(state);
    this.chosen.show(state, this.result);
    this.wall.show(this.items, state, isOther);
    this.compared.show(state);
    this.#say(state);
  }

  // The tiles: of duplicates that are folded, the photo that stands for them or, if it does not match, the first that does.
  #items(state) {
    const { groups } = this.catalogue;
    if (!groups) return this.result.found.map((photo) => ({ photo }));
    const members = Map.groupBy(
      this.result.found.filter((photo) => groups.isDouble(photo)),
      (photo) => groups.of[photo],
    );
    const items = [];
    for (const photo of this.result.found) {
      const group = groups.of[photo];
      const all = members.get(group);
      if (!all || all.length === 1) {
        items.push({ photo });
        continue;
      }
      const first = groups.first[group];
      const stands = all.includes(first) ? first : all[0];
      // The others stand beside the first of them that comes.
      if (photo !== all[0]) continue;
      if (state.isFolded && !state.unfolded.includes(first)) items.push({ photo: stands, doubles: all.length });
      else
        for (const it of [stands, ...all.filter((it) => it !== stands)])
          items.push({ photo: it, doubles: all.length, isUnfolded: true });
    }
    return items;
  }

  #say(state) {
    const [found, total] = [this.result.found.length, this.catalogue.size];
    const folded = found - this.items.length;
    const at = (id) => document.getElementById(id);
    at("said").textContent =
      state.photo < 0 ? "" : `${this.catalogue.names[state.photo]}: ${this.chosen.found} similar outfits`;
    at("count").textContent =
      (found === total ? `${thousands(total)} photos` : `${thousands(found)} of ${thousands(total)} photos`) +
      (folded ? `, ${thousands(folded)} duplicates folded` : "");
    const chips = this.facets.chips(state).map(({ text, rest }) => {
      const chip = element(
        "button",
        { type: "button", className: "chip", "data-key": `chip ${text}`, "aria-label": `Remove filter: ${text}` },
        named(text),
        " ×",
      );
      chip.addEventListener("click", () => this.change(rest));
      return chip;
    });
    if (chips.length > 1)
      chips.push(
        element("button", {
          type: "button",
          className: "chip",
          "data-clear-filters": "",
          "data-key": "clear-filters",
          textContent: "Clear all",
        }),
      );
    refill(at("chips"), chips, () => this.search);
    at("fold-all").checked = state.isFolded;
    at("filters-set").textContent = chips.length ? `(${this.facets.chips(state).length})` : "";
    at("nothing").hidden = found > 0;
    at("to-compared").hidden = state.compared.length === 0;
    at("to-compared").textContent = `Compare ${state.compared.length}`;
    at("link").href = `#${this.address.write(state)}`;
  }

  #listen() {
    this.search.addEventListener("input", () => this.change({ search: this.search.value }, "search"));
    document
      .getElementById("fold-all")
      .addEventListener("change", (event) => this.change({ isFolded: event.target.checked, unfolded: [] }));
    document.addEventListener("click", (event) => this.#click(event));
    document.addEventListener("keydown", (event) => this.#key(event));
    for (const kind of ["mouseover", "focusin"])
      this.place.addEventListener(kind, (event) => this.#outline(event.target));
    addEventListener("popstate", () => this.#fromAddress());
    listenToMap((cell) => this.lookFor(cell));
  }

  // Outlines the garment of the cell that the mouse or the focus is on.
  #outline(target) {
    const [line, area] = [target.closest("[data-cell]"), target.closest("[data-outlines]")];
    if (line && area) this.thumbnails.outline(area, this.catalogue.categoryOf[line.dataset.cell]);
  }

  lookFor(cell) {
    this.change({ search: cell.replaceAll("_", " ") });
    this.search.scrollIntoView({ block: "center" });
    this.search.focus({ preventScroll: true });
  }

  #click({ target }) {
    const number = (name) => {
      const value = target.closest(`[data-${name}]`)?.getAttribute(`data-${name}`);
      return value === undefined ? undefined : Number(value);
    };
    const [compare, fold, why, like, unlike] = ["compare", "fold", "why", "like", "unlike"].map(number);
    const tile = target.closest(".tile");
    if (tile) this.choose(Number(tile.dataset.photo));
    else if (compare !== undefined) this.compare(compare);
    else if (fold !== undefined) this.fold(fold);
    else if (why !== undefined) this.explain(why);
    else if (like !== undefined) this.#steer("like", "unlike", like);
    else if (unlike !== undefined) this.#steer("unlike", "like", unlike);
    else if (target.closest("[data-close]")) this.close();
    else if (target.closest("[data-clear-compared]")) this.change({ compared: [] });
    else if (target.closest("[data-clear-filters]"))
      this.change({ search: "", categories: [], colors: [], columns: new Map() });
    else if (target.closest("#to-compared")) this.#goTo(this.compared.place);
  }

  #goTo(place) {
    place.scrollIntoView({ block: "start" });
    place.querySelector("[tabindex='-1']")?.focus({ preventScroll: true });
  }

  choose(photo) {
    this.change({ photo, why: -1 });
    // In a narrow window the chosen photo is below the wall.
    const { place } = this.chosen;
    if (place.getBoundingClientRect().top > innerHeight - 100) place.scrollIntoView({ block: "center" });
  }

  explain(photo) {
    this.change({ why: this.state.why === photo ? -1 : photo });
    this.chosen.place.querySelector(".explained")?.scrollIntoView({ block: "nearest" });
  }

  close() {
    const { photo } = this.state;
    this.change({ photo: -1, why: -1 });
    this.wall.focus(photo);
  }

  compare(photo) {
    const { compared } = this.state;
    if (compared.includes(photo)) this.change({ compared: compared.filter((it) => it !== photo) });
    else if (compared.length < MOST_COMPARED) this.change({ compared: [...compared, photo] });
  }

  fold(photo) {
    const { groups } = this.catalogue;
    if (!groups?.isDouble(photo)) return;
    const first = groups.first[groups.of[photo]];
    const { isFolded, unfolded } = this.state;
    if (!isFolded) return this.change({ isFolded: true, unfolded: [] });
    this.change({ unfolded: unfolded.includes(first) ? unfolded.filter((it) => it !== first) : [...unfolded, first] });
  }

  #steer(kind, other, cell) {
    const without = (list) => list.filter((it) => it !== cell);
    const isOn = this.state[kind].includes(cell);
    this.change({
      [kind]: isOn ? without(this.state[kind]) : [...this.state[kind], cell],
      [other]: without(this.state[other]),
    });
  }

  #key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const isTyping = event.target.matches("input[type=search], input[type=number], textarea, select");
    if (event.key === "Escape") return this.#escape(event, isTyping);
    if (isTyping) return;
    const { photo, compare, fold } = event.target.dataset;
    const on = [photo, compare, fold].find((it) => it !== undefined);
    if (event.key === "/") this.#goToSearch();
    else if (event.key.toLowerCase() === "c" && on !== undefined) this.compare(Number(on));
    else if (event.key.toLowerCase() === "d" && on !== undefined) this.fold(Number(on));
    else return;
    event.preventDefault();
  }

  #goToSearch() {
    this.search.scrollIntoView({ block: "nearest" });
    this.search.focus({ preventScroll: true });
    this.search.select();
  }

  // Takes back the nearest thing: the text that is being typed, the explanation, the chosen photo.
  #escape(event, isTyping) {
    if (isTyping) {
      if (event.target.value === "") return this.wall.focus(this.state.photo);
      event.preventDefault();
      event.target.value = "";
      event.target.dispatchEvent(new Event("input"));
    } else if (this.state.why >= 0) this.change({ why: -1 });
    else if (this.state.photo >= 0) this.close();
  }
}

// The map of cells further up: a click searches for a cell. By keyboard it is a single tab stop, arrow keys move between
// cells, Enter searches.
const listenToMap = (lookFor) => {
  const map = [...document.querySelectorAll("[data-search]")];
  map[0]?.closest("svg").setAttribute("role", "group");
  const corner = (cell, axis) => Number(cell.querySelector("rect").getAttribute(axis));
  map.forEach((cell, index) => {
    cell.tabIndex = index === 0 ? 0 : -1;
    cell.setAttribute("role", "button");
    cell.addEventListener("click", () => lookFor(cell.dataset.search));
    cell.addEventListener("keydown", (event) => {
      const along = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const down = { ArrowUp: -1, ArrowDown: 1 }[event.key];
      const enters = event.key === "Enter" || event.key === " ";
      if (!along && !down && !enters) return;
      event.preventDefault();
      if (enters) return lookFor(cell.dataset.search);
      const below = (other) => down * (corner(other, "y") - corner(cell, "y"));
      const beside = (other) => Math.abs(corner(other, "x") - corner(cell, "x"));
      const nearest = () =>
        map.filter((other) => below(other) > 0).sort((a, b) => below(a) - below(b) || beside(a) - beside(b))[0];
      const next = along ? map[index + along] : nearest();
      if (!next) return;
      [cell.tabIndex, next.tabIndex] = [-1, 0];
      next.focus();
    });
  });
};

const place = document.getElementById("gallery-photos");
if (place && window.lookbook) new Gallery(new Catalogue(window.lookbook));
else if (place) place.textContent = "gallery.js is not next to this page: copy the whole report folder.";
