// The wall: a grid of tiles of which only the rows in view exist.

// A tile with its marks: one to compare the photo, and the number of its duplicates that are folded into it.
class Tiles {
  constructor(catalogue, thumbnails) {
    this.catalogue = catalogue;
    this.thumbnails = thumbnails;
  }

  make(photo, state, { doubles = 0, isUnfolded = false, keys = "" } = {}) {
    const name = this.catalogue.names[photo];
    const isCompared = state.compared.includes(photo);
    const tile = element("button", {
      type: "button",
      className: "tile",
      title: name,
      "data-photo": photo,
      "aria-current": photo === state.photo,
    });
    if (keys) tile.dataset.key = `${keys}-${photo}`;
    tile.append(this.thumbnails.of(photo), named(name, { className: "name" }));
    const mark = element("button", {
      type: "button",
      className: "mark",
      "data-compare": photo,
      "aria-pressed": isCompared,
      "aria-label": `Compare ${name}`,
      title: "Compare (C)",
    });
    if (keys) mark.dataset.key = `${keys}-compare-${photo}`;
    const place = element("div", { className: "place" }, tile, mark);
    if (doubles > 1) {
      const said = isUnfolded ? `Fold ${doubles} duplicates` : `Unfold ${doubles} duplicates`;
      const text = isUnfolded ? "fold" : `× ${doubles}`;
      place.append(
        element("button", {
          type: "button",
          className: "fold",
          "data-fold": photo,
          "aria-expanded": isUnfolded,
          "aria-label": said,
          title: `${said} (D)`,
          textContent: text,
        }),
      );
    }
    place.classList.toggle("unfolded", isUnfolded);
    return place;
  }
}

class Wall {
  constructor(catalogue, place, tiles) {
    this.place = place;
    this.inner = place.firstElementChild;
    this.tiles = tiles;
    const [width, height] = catalogue.thumbnailPx;
    this.tilePx = { width: width + 16, height: height + 30 };
    this.items = [];
    // The photo that the tab key leads to.
    this.stop = -1;
    let isWaiting = false;
    place.addEventListener("scroll", () => {
      if (isWaiting) return;
      isWaiting = true;
      requestAnimationFrame(() => {
        isWaiting = false;
        this.draw();
      });
    });
    place.addEventListener("keydown", (event) => this.#walk(event));
    // The wall is narrower beside a chosen photo.
    new ResizeObserver(() => this.draw()).observe(place);
  }

  get columns() {
    return Math.max(1, Math.floor(this.place.clientWidth / this.tilePx.width));
  }

  // `items`: photos with the number of duplicates in each, and whether they are unfolded.
  show(items, state, isOther) {
    this.items = items;
    this.state = state;
    this.drawn = undefined;
    if (this.#place(this.stop) < 0) this.stop = this.#place(state.photo) < 0 ? (items[0]?.photo ?? -1) : state.photo;
    if (isOther) this.place.scrollTop = 0;
    this.draw();
  }

  // The place of a photo among the items, or -1.
  #place(photo) {
    return photo < 0 ? -1 : this.items.findIndex((item) => item.photo === photo);
  }

  draw() {
    const [wide, { height }] = [this.columns, this.tilePx];
    const lines = Math.ceil(this.items.length / wide);
    const first = Math.max(0, Math.floor(this.place.scrollTop / height) - 1);
    const last = Math.min(lines, Math.ceil((this.place.scrollTop + this.place.clientHeight) / height + 1));
    const drawn = `${wide} ${first} ${last}`;
    if (drawn === this.drawn) return;
    this.drawn = drawn;
    this.inner.style.height = lines * height + "px";
    this.inner.setAttribute("aria-rowcount", lines);
    this.inner.setAttribute("aria-colcount", wide);
    const focused = this.inner.contains(document.activeElement) ? document.activeElement.dataset : {};
    const made = [];
    for (let line = first; line < last; line++) made.push(this.#line(line, wide));
    this.inner.replaceChildren(...made);
    const [name, photo] =
      ["photo", "compare", "fold"].map((name) => [name, focused[name]]).find(([, photo]) => photo !== undefined) ?? [];
    const candidates = name ? [`[data-${name}="${photo}"]`, `[data-photo="${photo}"]`, ".tile[tabindex='0']"] : [];
    candidates
      .map((it) => this.inner.querySelector(it))
      .find(Boolean)
      ?.focus({ preventScroll: true });
  }

  #line(line, wide) {
    const made = element("div", { className: "line", role: "row", "aria-rowindex": line + 1 });
    made.style.top = line * this.tilePx.height + "px";
    this.items.slice(line * wide, (line + 1) * wide).forEach((item, column) => {
      const place = this.tiles.make(item.photo, this.state, item);
      place.setAttribute("role", "gridcell");
      place.setAttribute("aria-colindex", column + 1);
      place.style.width = 100 / wide + "%";
      for (const control of place.children) control.tabIndex = item.photo === this.stop ? 0 : -1;
      made.append(place);
    });
    return made;
  }

  // Brings a photo into view, if it is on the wall.
  reveal(photo) {
    const at = this.#place(photo);
    if (at < 0) return;
    this.draw();
    const top = Math.floor(at / this.columns) * this.tilePx.height;
    const { scrollTop, clientHeight } = this.place;
    if (top < scrollTop) this.place.scrollTop = top;
    else if (top + this.tilePx.height > scrollTop + clientHeight)
      this.place.scrollTop = top + this.tilePx.height - clientHeight;
    this.draw();
  }

  // Makes a photo the one that has the focus.
  focus(photo) {
    if (this.#place(photo) < 0) photo = this.stop;
    this.stop = photo;
    this.drawn = undefined;
    this.reveal(photo);
    this.inner.querySelector(`[data-photo="${photo}"]`)?.focus({ preventScroll: true });
  }

  #walk(event) {
    const page = this.columns * Math.max(1, Math.floor(this.place.clientHeight / this.tilePx.height));
    const steps = {
      ArrowLeft: -1,
      ArrowRight: 1,
      ArrowUp: -this.columns,
      ArrowDown: this.columns,
      PageUp: -page,
      PageDown: page,
      Home: -this.items.length,
      End: this.items.length,
    };
    const by = steps[event.key];
    if (!by || !this.items.length || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const { photo, compare, fold } = document.activeElement.dataset;
    const at = Math.max(0, this.#place(Number(photo ?? compare ?? fold ?? this.stop)));
    this.focus(this.items[Math.min(this.items.length - 1, Math.max(0, at + by))].photo);
  }
}
