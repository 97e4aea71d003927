// The chosen photo: what it wears, its nearest photos, and why each of them is near.

const FIRST_WORN = 6;
const MOST_NEAR = 10;
const SHARED_NAMED = 4;

class Chosen {
  constructor(catalogue, place, tiles, ranking) {
    this.catalogue = catalogue;
    this.place = place;
    this.tiles = tiles;
    this.ranking = ranking;
    this.showsAll = false;
  }

  // `result`: what the filters leave.
  show(state, result) {
    this.place.hidden = state.photo < 0;
    if (state.photo < 0) return this.place.replaceChildren();
    this.state = state;
    this.weights = this.ranking.weights(state.like, state.unlike);
    this.isSteered = state.like.length + state.unlike.length > 0;
    const near = this.near(state, result);
    this.found = near.length;
    const why = near.find(({ photo }) => photo === state.why);
    const places = near.map((it) => this.#neighbour(it));
    if (why) places.splice(near.indexOf(why) + 1, 0, this.#why(why));
    const title = element("h3", { textContent: near.length ? "Most similar outfits" : "No neighbours" });
    const right = element(
      "div",
      {},
      title,
      ...this.#steering(state, result),
      element("div", { className: "near" }, ...places),
    );
    refill(this.place, [this.#own(state), right], () => this.place.querySelector("strong"));
    const area = this.place.querySelector(".explained");
    const strongest = area?.querySelector("[data-cell]");
    if (strongest) this.tiles.thumbnails.outline(area, this.catalogue.categoryOf[strongest.dataset.cell]);
  }

  // The nearest photos: those that the similarity stage found or, once the choice is steered by filters, cells or folded
  // duplicates, the nearest among those that are left.
  near(state, { matches, isSet }) {
    const { groups } = this.catalogue;
    const isFolded = groups && state.isFolded;
    this.isRanked = this.isSteered || isSet || (isFolded && this.ranking.isExact);
    const found = this.catalogue.near(state.photo);
    const seen = new Set(isFolded ? [groups.of[state.photo]] : []);
    // Of duplicates, and of those of the chosen photo itself, the nearest alone.
    const isNew = ({ photo }) => !isFolded || (!seen.has(groups.of[photo]) && seen.add(groups.of[photo]));
    if (!this.isRanked) return found.filter(isNew);
    const count = found.length || MOST_NEAR;
    return this.ranking.nearest(state.photo, this.weights, (photo) => matches[photo] === 1, isNew, count);
  }

  #own(state) {
    const name = this.catalogue.names[state.photo];
    const isCompared = state.compared.includes(state.photo);
    const actions = element(
      "div",
      { className: "actions" },
      element("button", {
        type: "button",
        "data-compare": state.photo,
        "data-key": "compare",
        "aria-pressed": isCompared,
        textContent: isCompared ? "Compared" : "Compare",
      }),
      element("button", {
        type: "button",
        "data-close": "",
        "data-key": "close",
        title: "Close (Esc)",
        textContent: "Close",
      }),
    );
    return element(
      "div",
      { className: "own", "data-outlines": "" },
      this.tiles.thumbnails.of(state.photo),
      element("strong", { tabIndex: -1 }, named(name)),
      actions,
      ...this.#metadata(state.photo),
      this.#wornBy(state.photo),
    );
  }

  // The largest shares, and the others for whoever asks.
  #wornBy(photo) {
    const lines = this.catalogue.worn(photo).map(({ cell, share }) => this.#worn(cell, share));
    if (!lines.length) return element("p", { className: "soft", textContent: "No apparel was found." });
    const list = (lines) => element("ul", { className: "worn" }, ...lines);
    const [first, others] = [lines.slice(0, FIRST_WORN), lines.slice(FIRST_WORN)];
    if (!others.length) return list(first);
    const more = element(
      "details",
      { open: this.showsAll },
      element("summary", { "data-key": "all", textContent: `and ${others.length} more` }),
      list(others),
    );
    more.addEventListener("toggle", () => (this.showsAll = more.open));
    return element("div", { className: "all-worn" }, list(first), more);
  }

  #metadata(photo) {
    const facts = this.catalogue.columns
      .map((column) => [column.name, column.text(photo)])
      .filter(([, text]) => text !== "");
    if (!facts.length) return [];
    return [
      element(
        "dl",
        { className: "metadata" },
        ...facts.flatMap(([name, text]) => [element("dt", {}, named(name)), element("dd", {}, named(text))]),
      ),
    ];
  }

  #worn(cell, share) {
    const bar = element("span", { className: "share" });
    bar.style.setProperty("--share", share);
    return element(
      "li",
      { "data-cell": cell },
      element("span", { textContent: this.catalogue.cellLabel(cell) }),
      bar,
      element("span", { className: "figure", textContent: percent(share) }),
      this.#steer(cell, "worn"),
    );
  }

  // "More like this" and "less like this" for a cell.
  #steer(cell, list) {
    const label = this.catalogue.cellLabel(cell);
    const button = (kind, text, said) =>
      element("button", {
        type: "button",
        [`data-${kind}`]: cell,
        "data-key": `${list}-${kind}-${cell}`,
        "aria-pressed": this.state[kind].includes(cell),
        "aria-label": `${said} like this: ${label}`,
        title: `${said} like this: ${label}`,
        textContent: text,
      });
    return element("span", { className: "steer" }, button("like", "+", "More"), button("unlike", "−", "Less"));
  }

  // What the ranking heeds, if it is not that of the similarity stage.
  #steering(state, result) {
    const chip = (kind, cell) => {
      const label = this.catalogue.cellLabel(cell);
      const said = kind === "like" ? "more" : "less";
      return element("button", {
        type: "button",
        className: `chip ${kind}`,
        [`data-${kind}`]: cell,
        "data-key": `chip-${cell}`,
        "aria-label": `Remove: ${said} ${label}`,
        textContent: `${said} ${label} ×`,
      });
    };
    const chips = [
      ...state.like.map((cell) => chip("like", cell)),
      ...state.unlike.map((cell) => chip("unlike", cell)),
    ];
    const parts = [];
    if (chips.length) parts.push(element("div", { className: "chips" }, ...chips));
    if (this.isRanked && (this.isSteered || result.isSet)) {
      const among = result.isSet
        ? `among the ${thousands(result.found.length)} photos that match`
        : "among all photos of this page";
      const measure = this.ranking.steeredMeasure === "cosine" ? "the cosine" : "Pearson's r";
      parts.push(
        element("p", {
          className: "soft",
          textContent: `Ranked by ${measure}${this.isSteered ? " plus the share of what is liked, less that of what is not," : ""} ${among}.`,
        }),
      );
    }
    return parts;
  }

  #neighbour({ photo, correlation, score }) {
    const place = this.tiles.make(photo, this.state, { keys: "near" });
    const shared = this.#shared(photo);
    const text = shared.length
      ? shared.slice(0, SHARED_NAMED).join(", ") + (shared.length > SHARED_NAMED ? ", ..." : "")
      : "no cell in common";
    place.firstElementChild.append(
      element("small", {
        textContent: `r = ${correlation.toFixed(2)}${this.isSteered ? `, score ${score.toFixed(2)}` : ""}`,
      }),
      element("small", { textContent: text }),
    );
    const isOpen = photo === this.state.why;
    place.append(
      element("button", {
        type: "button",
        className: "why",
        "data-why": photo,
        "data-key": `why-${photo}`,
        "aria-expanded": isOpen,
        "aria-label": `Why ${this.catalogue.names[photo]}`,
        textContent: "Why?",
      }),
    );
    return place;
  }

  // The cells that the chosen photo and another share, the largest common share first.
  #shared(other) {
    const shares = new Map(this.catalogue.worn(this.state.photo).map(({ cell, share }) => [cell, share]));
    const both = this.catalogue.worn(other).filter(({ cell }) => shares.has(cell));
    const common = both.map(({ cell, share }) => [cell, Math.min(share, shares.get(cell))]);
    return common.sort((a, b) => b[1] - a[1]).map(([cell]) => this.catalogue.cellLabel(cell));
  }

  #why({ photo, correlation }) {
    const { thumbnails } = this.tiles;
    const pair = element("div", { className: "pair" }, thumbnails.of(this.state.photo), thumbnails.of(photo));
    const why = this.ranking.explain(this.state.photo, photo, this.isRanked);
    const none = () => element("p", { className: "soft", textContent: "Nothing is worn in one of them." });
    const content = [pair, why ? this.#terms(why, photo) : none()];
    if (!this.isRanked && ["latent", "embedding"].includes(this.catalogue.measure)) {
      const said = `r = ${correlation.toFixed(3)} by the measure ${this.catalogue.measure}, which is not a sum over cells. Pearson's r is:`;
      content.splice(1, 0, element("p", { className: "soft", textContent: said }));
    }
    if (!this.catalogue.outlinePx) {
      content.push(
        element("p", {
          className: "soft",
          textContent: "There are no masks to outline the garments by; segment --masks png keeps them.",
        }),
      );
    }
    const title = element("h4", {}, "Why ", named(this.catalogue.names[photo]));
    return element("section", { className: "explained", "data-outlines": "", "aria-label": "Why" }, title, ...content);
  }

  #terms({ terms, rest }, photo) {
    const rounded = roundedToSum([...terms.map((term) => term.value), rest.value]);
    const strongest = Math.max(...terms.map((term) => Math.abs(term.value)));
    const share = (value) => element("td", { className: "number", textContent: value > 0 ? percent(value) : "–" });
    const lines = terms.map(({ cell, a, b, value }, place) => {
      const figure = element("td", {
        className: `number term ${value < 0 ? "against" : "for"}`,
        textContent: signed(rounded.values[place]),
      });
      figure.style.setProperty("--share", Math.abs(value) / strongest);
      return element(
        "tr",
        { "data-cell": cell, "data-term": value },
        element("th", { scope: "row", textContent: this.catalogue.cellLabel(cell) }),
        share(a),
        share(b),
        figure,
        element("td", {}, this.#steer(cell, "why")),
      );
    });
    const head = ["", "this", "that", "adds", ""].map((textContent) =>
      element("th", { scope: "col", className: "number", textContent }),
    );
    const foot = [sumLine("r", rounded.sum.toFixed(3), { className: "sum" })];
    if (rest.cells)
      foot.unshift(
        sumLine(`${rest.cells} cells that neither wears`, signed(rounded.values.at(-1)), { "data-term": rest.value }),
      );
    if (this.isSteered) foot.push(...this.#preferences(photo, rounded.sum));
    return element(
      "table",
      {},
      element("thead", {}, element("tr", {}, ...head)),
      element("tbody", {}, ...lines),
      element("tfoot", {}, ...foot),
    );
  }

  // What the liked cells add to r, and the cells that are not liked take off: the score.
  #preferences(photo, correlation) {
    const shares = new Map(this.catalogue.worn(photo).map(({ cell, share }) => [cell, share]));
    const { like, unlike } = this.state;
    const cells = [...like, ...unlike];
    const values = cells.map((cell) => this.weights[cell] * (shares.get(cell) ?? 0));
    const rounded = roundedToSum([correlation, ...values]);
    const lines = cells.map((cell, place) =>
      sumLine(
        `${like.includes(cell) ? "more" : "less"} ${this.catalogue.cellLabel(cell)}`,
        signed(rounded.values[place + 1]),
        { "data-preference": values[place] },
      ),
    );
    return [...lines, sumLine("score", rounded.sum.toFixed(3), { className: "sum score" })];
  }
}

const sumLine = (textContent, figure, properties) =>
  element(
    "tr",
    properties,
    element("th", { scope: "row", colSpan: 3, textContent }),
    element("td", { className: "number term", textContent: figure }),
    element("td"),
  );

// With a sign, as people write it.
const signed = (value) => (value === 0 ? "" : value < 0 ? "−" : "+") + Math.abs(value).toFixed(3);
