// The gallery: a wall of photos of which only the visible part is drawn, a search over names and cells, and the
// neighbours
// of the chosen photo. The data is in gallery.js next to the page.
"use strict";
(() => {
  const data = window.lookbook;
  const place = document.getElementById("gallery-photos");
  if (!place) return;
  if (!data) {
    place.textContent = "gallery.js is not next to this page: copy the whole report folder.";
    return;
  }
  const [thumbWidth, thumbHeight] = data.thumbnail_px;
  const [sheetColumns, sheetRows] = data.sheet;
  const TILE = { width: thumbWidth + 16, height: thumbHeight + 30 };
  const MOST_WORN = 14;
  const wall = document.getElementById("wall");
  const inner = wall.firstElementChild;
  const search = document.getElementById("search");
  const count = document.getElementById("count");
  const chosen = document.getElementById("chosen");
  const names = data.names.map((name) => name.toLowerCase());
  const cells = data.cells.map((name) => name.toLowerCase());
  let found = names.map((_, photo) => photo);
  let current = -1;

  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const readable = (cell) => data.cells[cell].replace("_", " ");
  const percent = (share) => (share / 10).toFixed(share < 100 ? 1 : 0) + " %";

  const thumbnail = (photo) => {
    const perSheet = sheetColumns * sheetRows;
    const number = String(Math.floor(photo / perSheet)).padStart(4, "0");
    const [column, row] = [photo % sheetColumns, Math.floor((photo % perSheet) / sheetColumns)];
    const made = element("span", "thumbnail");
    made.style.backgroundImage = `url(thumbnails/${number}.jpg)`;
    made.style.backgroundPosition = `${-column * thumbWidth}px ${-row * thumbHeight}px`;
    return made;
  };
  const tile = (photo) => {
    const made = element("button", "tile");
    made.type = "button";
    made.dataset.photo = photo;
    made.title = data.names[photo];
    made.setAttribute("aria-current", photo === current);
    made.append(thumbnail(photo), element("span", "name", data.names[photo]));
    return made;
  };

  // The wall: tiles exist only for the rows in view.
  const columns = () => Math.max(1, Math.floor(wall.clientWidth / TILE.width));
  const step = () => wall.clientWidth / columns();
  const draw = () => {
    const wide = columns();
    inner.style.height = Math.ceil(found.length / wide) * TILE.height + "px";
    const first = Math.max(0, Math.floor(wall.scrollTop / TILE.height) - 1) * wide;
    const last = Math.min(found.length, Math.ceil((wall.scrollTop + wall.clientHeight) / TILE.height + 1) * wide);
    const focused = document.activeElement && inner.contains(document.activeElement) ? document.activeElement.dataset.photo : null;
    const made = [];
    for (let at = first; at < last; at++) {
      const one = tile(found[at]);
      one.style.cssText = `left:${(at % wide) * step()}px;top:${Math.floor(at / wide) * TILE.height}px;width:${step()}px`;
      one.tabIndex = found[at] === current || (current < 0 && at === 0) ? 0 : -1;
      made.push(one);
    }
    inner.replaceChildren(...made);
    if (focused !== null) made.find((one) => one.dataset.photo === focused)?.focus({ preventScroll: true });
  };
  const show = (at) => {
    const top = Math.floor(at / columns()) * TILE.height;
    if (top < wall.scrollTop) wall.scrollTop = top;
    if (top + TILE.height > wall.scrollTop + wall.clientHeight) wall.scrollTop = top + TILE.height - wall.clientHeight;
  };

  // A photo matches if every word of the search is in its name or in one of its cells; "red dress" and "dress red" mean
  // one cell.
  const wanted = (text) => {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const tests = [];
    for (let at = 0; at < words.length; at++) {
      const named = words[at].includes("_") ? words[at].split("_") : words.slice(at, at + 2);
      const cell = named.length === 2 ? cells.findIndex((name) => name === named.join("_") || name === named.toReversed().join("_")) : -1;
      if (cell >= 0) {
        tests.push((photo) => data.worn[photo].some((value, index) => index % 2 === 0 && value === cell));
        if (!words[at].includes("_")) at++;
        continue;
      }
      const word = words[at];
      const of = new Set(cells.flatMap((name, index) => (name.split("_").includes(word) ? [index] : [])));
      tests.push((photo) => names[photo].includes(word) || data.worn[photo].some((value, index) => index % 2 === 0 && of.has(value)));
    }
    return (photo) => tests.every((test) => test(photo));
  };
  const look = () => {
    const test = wanted(search.value);
    found = names.map((_, photo) => photo).filter(test);
    const total = names.length.toLocaleString("en");
    count.textContent = found.length === names.length ? `${total} photos` : `${found.length.toLocaleString("en")} of ${total} photos`;
    wall.scrollTop = 0;
    draw();
  };

  const lookFor = (cell) => {
    search.value = cell.dataset.search.replace("_", " ");
    look();
    search.scrollIntoView({ block: "center" });
    search.focus({ preventScroll: true });
  };

  // The map of cells by keyboard: a single tab stop, arrow keys move between cells, Enter searches.
  const map = [...document.querySelectorAll("[data-search]")];
  map[0]?.closest("svg").setAttribute("role", "group");
  const corner = (cell, axis) => Number(cell.querySelector("rect").getAttribute(axis));
  map.forEach((cell, index) => {
    cell.tabIndex = index === 0 ? 0 : -1;
    cell.setAttribute("role", "button");
    cell.addEventListener("keydown", (event) => {
      const along = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const down = { ArrowUp: -1, ArrowDown: 1 }[event.key];
      const enters = event.key === "Enter" || event.key === " ";
      if (!along && !down && !enters) return;
      event.preventDefault();
      if (enters) return lookFor(cell);
      const below = (other) => down * (corner(other, "y") - corner(cell, "y"));
      const beside = (other) => Math.abs(corner(other, "x") - corner(cell, "x"));
      const nearest = () => map.filter((other) => below(other) > 0).sort((a, b) => below(a) - below(b) || beside(a) - beside(b))[0];
      const next = along ? map[index + along] : nearest();
      if (!next) return;
      [cell.tabIndex, next.tabIndex] = [-1, 0];
      next.focus();
    });
  });

  const shared = (photo, other) => {
    const shares = new Map();
    for (let at = 0; at < data.worn[photo].length; at += 2) shares.set(data.worn[photo][at], data.worn[photo][at + 1]);
    const both = [];
    for (let at = 0; at < data.worn[other].length; at += 2) {
      const cell = data.worn[other][at];
      if (shares.has(cell)) both.push([cell, Math.min(shares.get(cell), data.worn[other][at + 1])]);
    }
    return both.sort((a, b) => b[1] - a[1]).map(([cell]) => readable(cell));
  };
  const choose = (photo) => {
    current = photo;
    const own = element("div");
    const worn = element("ul", "worn");
    const shown = Math.min(data.worn[photo].length, 2 * MOST_WORN);
    for (let at = 0; at < shown; at += 2) {
      const line = element("li");
      line.append(element("span", "", readable(data.worn[photo][at])), element("span", "", percent(data.worn[photo][at + 1])));
      worn.append(line);
    }
    if (shown < data.worn[photo].length) worn.append(element("li", "soft", `and ${(data.worn[photo].length - shown) / 2} more`));
    own.append(thumbnail(photo), element("strong", "", data.names[photo]), worn.children.length ? worn : element("p", "soft", "No apparel was found."));
    const near = element("div", "near");
    const neighbours = data.near[photo];
    for (let at = 0; at < neighbours.length; at += 2) {
      const one = tile(neighbours[at]);
      const cellsInCommon = shared(photo, neighbours[at]);
      one.append(element("small", "", `r = ${(neighbours[at + 1] / 1000).toFixed(2)}`));
      one.append(element("small", "", cellsInCommon.length ? cellsInCommon.slice(0, 4).join(", ") + (cellsInCommon.length > 4 ? ", ..." : "") : "no cell in common"));
      near.append(one);
    }
    const right = element("div");
    right.append(element("h3", "", neighbours.length ? "Most similar outfits" : "No neighbours"), near);
    chosen.replaceChildren(own, right);
    chosen.hidden = false;
    draw();
  };
  const fromAddress = () => {
    const match = /^#photo=(\d+)$/.exec(location.hash);
    if (match && Number(match[1]) < names.length) choose(Number(match[1]));
  };

  document.addEventListener("click", (event) => {
    const one = event.target.closest(".tile");
    if (one) history.pushState(null, "", `#photo=${one.dataset.photo}`), choose(Number(one.dataset.photo));
    const cell = event.target.closest("[data-search]");
    if (cell) lookFor(cell);
  });
  wall.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns(), Home: -found.length, End: found.length }[event.key];
    if (!by || !found.length) return;
    event.preventDefault();
    const focused = document.activeElement.dataset.photo;
    const at = focused === undefined ? 0 : found.indexOf(Number(focused));
    const next = Math.min(found.length - 1, Math.max(0, at + by));
    show(next);
    draw();
    inner.querySelector(`[data-photo="${found[next]}"]`)?.focus({ preventScroll: true });
  });
  let waiting = false;
  wall.addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      draw();
    });
  });
  search.addEventListener("input", look);
  addEventListener("resize", draw);
  addEventListener("popstate", fromAddress);
  look();
  fromAddress();
})();
