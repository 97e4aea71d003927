// Correlations of photos in the browser, as the similarity stage defines them (docs/tables.md), the cells that carry them, and
// the nearest photos by a score that likes some cells more and others less, as `recommend --like --unlike` has it.
//
// With n cells, shares a and b (absent = 0), m their means and s the norms of a - m_a and b - m_b, the term of cell p is
// (a_p - m_a) (b_p - m_b) / (s_a s_b), and r the sum of the terms. The cosine has m = 0. The score of a photo is r plus its
// share of each liked cell, less its share of each cell that is not liked.

const LIKE_WEIGHT = 1;

class Ranking {
  constructor(catalogue) {
    this.catalogue = catalogue;
    // The other measures are not made of all cells: once something is steered, photos are ranked by Pearson's r.
    this.steeredMeasure = catalogue.measure === "cosine" ? "cosine" : "pearson";
    this.means = new Float64Array(catalogue.size);
    // 1 / norm; NaN if nothing is worn or all cells are equal: the correlation is then undefined.
    this.scales = new Float64Array(catalogue.size);
    for (let photo = 0; photo < catalogue.size; photo++) this.#measure(photo);
  }

  #measure(photo) {
    const { starts, shares, cellCount } = this.catalogue;
    const [from, to] = [starts[photo], starts[photo + 1]];
    let [sum, squares] = [0, 0];
    for (let at = from; at < to; at++) sum += shares[at];
    const mean = this.steeredMeasure === "pearson" ? sum / cellCount : 0;
    for (let at = from; at < to; at++) squares += (shares[at] - mean) ** 2;
    squares += (cellCount - (to - from)) * mean * mean;
    this.means[photo] = mean;
    this.scales[photo] = squares > 0 ? 1 / Math.sqrt(squares) : NaN;
  }

  // Whether the page can compute the neighbours that the similarity stage found.
  get isExact() {
    return this.steeredMeasure === this.catalogue.measure && !this.catalogue.isRestricted;
  }

  // What a photo's share of each cell is multiplied by.
  weights(like, unlike) {
    const weights = new Float64Array(this.catalogue.cellCount);
    for (const cell of like) weights[cell] = LIKE_WEIGHT;
    for (const cell of unlike) weights[cell] = -LIKE_WEIGHT;
    return weights;
  }

  correlation(photo, other) {
    const shares = this.#dense(photo);
    return this.#correlation(shares, photo, other);
  }

  #dense(photo) {
    const { starts, cells, shares, cellCount } = this.catalogue;
    const dense = new Float64Array(cellCount);
    for (let at = starts[photo]; at < starts[photo + 1]; at++) dense[cells[at]] = shares[at];
    return dense;
  }

  #correlation(dense, photo, other) {
    const { starts, cells, shares, cellCount } = this.catalogue;
    let product = 0;
    for (let at = starts[other]; at < starts[other + 1]; at++) product += dense[cells[at]] * shares[at];
    const correlation =
      (product - cellCount * this.means[photo] * this.means[other]) * this.scales[photo] * this.scales[other];
    return Math.max(-1, Math.min(1, correlation));
  }

  #preference(other, weights) {
    const { starts, cells, shares } = this.catalogue;
    let preference = 0;
    for (let at = starts[other]; at < starts[other + 1]; at++) preference += weights[cells[at]] * shares[at];
    return preference;
  }

  // The photos nearest to a photo by their score, the nearest first and equal ones in the order of rows: the first `count` of
  // those that are allowed and that `isNew` takes.
  nearest(photo, weights, isAllowed, isNew, count) {
    const dense = this.#dense(photo);
    const all = [];
    for (let other = 0; other < this.catalogue.size; other++) {
      if (other === photo || !isAllowed(other)) continue;
      const correlation = this.#correlation(dense, photo, other);
      if (!Number.isNaN(correlation))
        all.push({ photo: other, correlation, score: correlation + this.#preference(other, weights) });
    }
    all.sort((a, b) => b.score - a.score || a.photo - b.photo);
    const nearest = [];
    for (let at = 0; at < all.length && nearest.length < count; at++) if (isNew(all[at])) nearest.push(all[at]);
    return nearest;
  }

  // The cells that carry the correlation of two photos: terms that, with the rest, sum to it. The rest is what the cells that
  // neither wears add: they agree in being absent. Measures that are not made of cells have the terms of Pearson's r.
  // `undefined` if that is, too: nothing is worn in one of them.
  explain(photo, other, isSteered) {
    const isCommon = this.catalogue.measure === "co_rated" && !isSteered;
    return isCommon ? this.#explainCommon(photo, other) : this.#explainCentred(photo, other);
  }

  // The cells that either photo wears, with the shares of both.
  #either(photo, other) {
    const [own, of] = [this.#dense(photo), this.#dense(other)];
    const cells = [...own.keys()].filter((cell) => own[cell] > 0 || of[cell] > 0);
    return cells.map((cell) => ({ cell, a: own[cell], b: of[cell] }));
  }

  #explainCentred(photo, other) {
    const [mean, otherMean] = [this.means[photo], this.means[other]];
    const scale = this.scales[photo] * this.scales[other];
    if (Number.isNaN(scale)) return undefined;
    const terms = this.#either(photo, other).map(({ cell, a, b }) => ({
      cell,
      a,
      b,
      value: (a - mean) * (b - otherMean) * scale,
    }));
    const absent = this.catalogue.cellCount - terms.length;
    return explanation(terms, { cells: absent, value: absent * mean * otherMean * scale });
  }

  // Of `co_rated`, which compares the cells that both wear alone.
  #explainCommon(photo, other) {
    const common = this.#either(photo, other).filter(({ a, b }) => a > 0 && b > 0);
    const mean = (side) => common.reduce((sum, cell) => sum + cell[side], 0) / common.length;
    const [meanA, meanB] = [mean("a"), mean("b")];
    const squares = (side, mean) => common.reduce((sum, cell) => sum + (cell[side] - mean) ** 2, 0);
    const norms = Math.sqrt(squares("a", meanA) * squares("b", meanB));
    return explanation(
      common.map(({ cell, a, b }) => ({ cell, a, b, value: ((a - meanA) * (b - meanB)) / norms })),
      { cells: 0, value: 0 },
    );
  }
}

// The terms, those that weigh most first, and the rest.
const explanation = (terms, rest) => ({
  terms: terms.sort((a, b) => Math.abs(b.value) - Math.abs(a.value) || a.cell - b.cell),
  rest,
});

// Numbers rounded to three digits in such a way that they sum to their sum, rounded: those whose remainders are largest are
// rounded up.
const roundedToSum = (values) => {
  const scaled = values.map((value) => Number((value * 1000).toFixed(6)));
  const rounded = scaled.map(Math.floor);
  const total = Math.round(scaled.reduce((sum, value) => sum + value, 0));
  const places = scaled
    .map((_, place) => place)
    .sort((a, b) => scaled[b] - rounded[b] - (scaled[a] - rounded[a]) || a - b);
  const missing = total - rounded.reduce((sum, value) => sum + value, 0);
  for (const place of places.slice(0, missing)) rounded[place]++;
  return { values: rounded.map((value) => value / 1000), sum: total / 1000 };
};
