// Making elements, thumbnails and outlines. Names and metadata are only ever set as text, and stand apart from the direction
// of what is around them.

const element = (tag, properties = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined) continue;
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
};
const thousands = (count) => count.toLocaleString("en");
const percent = (share) => (share * 100).toFixed(share < 0.1 ? 1 : 0) + " %";
const named = (text, properties = {}) => element("bdi", { textContent: text, ...properties });

// Fills a container anew; the focus stays on the control with the same `data-key`, or goes to `otherwise`.
const refill = (container, children, otherwise) => {
  const focused = container.contains(document.activeElement) ? document.activeElement : null;
  const key = focused?.closest("[data-key]")?.dataset.key;
  const scrolled = container.scrollTop;
  container.replaceChildren(...children);
  container.scrollTop = scrolled;
  if (!focused || document.activeElement === focused) return;
  const same = [...container.querySelectorAll("[data-key]")].find((it) => it.dataset.key === key);
  (same ?? otherwise?.())?.focus({ preventScroll: true });
};

class Thumbnails {
  constructor(catalogue) {
    this.catalogue = catalogue;
    [this.columns, this.rows] = catalogue.sheet;
    this.loading = new Map();
    window.lookbook.outlines = {};
  }

  #sheet(photo) {
    return Math.floor(photo / (this.columns * this.rows));
  }

  of(photo) {
    const [width, height] = this.catalogue.thumbnailPx;
    const [column, row] = [photo % this.columns, Math.floor(photo / this.columns) % this.rows];
    const made = element("span", { className: "thumbnail", "data-thumbnail": photo });
    made.style.backgroundImage = `url(thumbnails/${String(this.#sheet(photo)).padStart(4, "0")}.jpg)`;
    made.style.backgroundPosition = `${-column * width}px ${-row * height}px`;
    return made;
  }

  // Draws the outline of a category (`undefined` for none) onto the thumbnails within a place, once their sheets' label maps
  // have come.
  outline(place, category) {
    for (const thumbnail of place.querySelectorAll("[data-thumbnail]")) {
      const photo = Number(thumbnail.dataset.thumbnail);
      thumbnail.dataset.outlined = category ?? "";
      thumbnail.replaceChildren();
      if (category === undefined || !this.catalogue.outlinePx) continue;
      this.#labelMap(photo).then((labelMap) => {
        if (!labelMap || thumbnail.dataset.outlined !== String(category)) return;
        thumbnail.replaceChildren(outlineOf(labelMap, category + 1, this.catalogue.outlinePx));
      });
    }
  }

  // The label map of a photo: for each pixel the category, counted from 1; `undefined` if there is none.
  async #labelMap(photo) {
    const sheet = this.#sheet(photo);
    if (!this.loading.has(sheet)) this.loading.set(sheet, loadScript(`outlines/${String(sheet).padStart(4, "0")}.js`));
    await this.loading.get(sheet);
    const runs = window.lookbook.outlines[sheet]?.[photo % (this.columns * this.rows)];
    if (!runs) return undefined;
    const [width, height] = this.catalogue.outlinePx;
    const [pairs, labelMap] = [numbers(Uint8Array, runs), new Uint8Array(width * height)];
    for (let at = 0, pixel = 0; at < pairs.length; pixel += pairs[at + 1], at += 2)
      labelMap.fill(pairs[at], pixel, pixel + pairs[at + 1]);
    return labelMap;
  }
}

// Resolves when the script has come, or is known not to be there.
const loadScript = (path) =>
  new Promise((resolve) => {
    const script = element("script", { src: path, onload: resolve, onerror: resolve });
    document.head.append(script);
  });

// The edges between pixels of a category and others, as SVG.
const outlineOf = (labelMap, category, [width, height]) => {
  const is = (x, y) => x >= 0 && x < width && y >= 0 && y < height && labelMap[y * width + x] === category;
  const edges = [];
  for (let y = 0; y <= height; y++) {
    for (let x = 0; x <= width; x++) {
      if (is(x, y) !== is(x, y - 1)) edges.push(`M${x} ${y}h1`);
      if (is(x, y) !== is(x - 1, y)) edges.push(`M${x} ${y}v1`);
    }
  }
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("class", "outline");
  svg.setAttribute("aria-hidden", "true");
  for (const name of ["halo", "edge"]) {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("class", name);
    path.setAttribute("d", edges.join(""));
    svg.append(path);
  }
  return svg;
};
