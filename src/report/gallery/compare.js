// Several photos side by side: the shares of every cell that any of them wears, their metadata, and the correlations between
// them.

const MOST_COMPARED = 8;

class Compared {
  constructor(catalogue, place, tiles, ranking) {
    this.catalogue = catalogue;
    this.place = place;
    this.tiles = tiles;
    this.ranking = ranking;
  }

  show(state) {
    const photos = state.compared;
    this.place.hidden = photos.length === 0;
    if (!photos.length) return this.place.replaceChildren();
    const clear = element("button", {
      type: "button",
      "data-clear-compared": "",
      "data-key": "clear",
      textContent: "Clear",
    });
    const title = element(
      "div",
      { className: "title" },
      element("h3", { tabIndex: -1, textContent: `Compared: ${photos.length} of at most ${MOST_COMPARED}` }),
      clear,
    );
    const head = element("tr", {}, element("th", { scope: "col" }), ...photos.map((photo) => this.#head(photo, state)));
    const table = element(
      "table",
      { className: "compared" },
      element("thead", {}, head),
      element("tbody", {}, ...this.#metadata(photos), ...this.#cells(photos)),
    );
    if (photos.length > 1) table.append(this.#correlations(photos));
    const hint =
      photos.length > 1
        ? []
        : [element("p", { className: "soft", textContent: "Mark another photo to compare it with." })];
    const scrolled = element(
      "div",
      { className: "scroll", tabIndex: 0, role: "region", "aria-label": "Compared photos", "data-key": "table" },
      table,
    );
    refill(this.place, [title, scrolled, ...hint], () => this.place.querySelector("h3"));
  }

  #head(photo, state) {
    return element("th", { scope: "col" }, this.tiles.make(photo, state, { keys: "compared" }));
  }

  #metadata(photos) {
    const line = (column) =>
      element(
        "tr",
        {},
        element("th", { scope: "row" }, named(column.name)),
        ...photos.map((photo) => element("td", {}, named(column.text(photo)))),
      );
    return this.catalogue.columns.filter((column) => photos.some((photo) => column.text(photo) !== "")).map(line);
  }

  // A line for each cell that any of the photos wears, the largest share first.
  #cells(photos) {
    const worn = photos.map((photo) => new Map(this.catalogue.worn(photo).map(({ cell, share }) => [cell, share])));
    const largest = (cell) => Math.max(...worn.map((shares) => shares.get(cell) ?? 0));
    const cells = [...new Set(worn.flatMap((shares) => [...shares.keys()]))].sort(
      (a, b) => largest(b) - largest(a) || a - b,
    );
    const figure = (share) => {
      const made = element("td", {
        className: "number share-of",
        textContent: share === undefined ? "–" : percent(share),
      });
      made.style.setProperty("--share", share ?? 0);
      return made;
    };
    return cells.map((cell) =>
      element(
        "tr",
        { "data-cell": cell },
        element("th", { scope: "row", textContent: this.catalogue.cellLabel(cell) }),
        ...worn.map((shares) => figure(shares.get(cell))),
      ),
    );
  }

  #correlations(photos) {
    const figure = (photo, other) => {
      const correlation = photo === other ? 1 : this.ranking.correlation(photo, other);
      const made = element("td", {
        className: "number correlation",
        textContent: Number.isNaN(correlation) ? "–" : correlation.toFixed(2),
      });
      made.style.setProperty("--share", Math.max(0, correlation || 0));
      return made;
    };
    const name = this.ranking.steeredMeasure === "cosine" ? "cosine with " : "r with ";
    const line = (photo) =>
      element(
        "tr",
        {},
        element("th", { scope: "row" }, name, named(this.catalogue.names[photo])),
        ...photos.map((other) => figure(photo, other)),
      );
    return element("tfoot", {}, ...photos.map(line));
  }
}
