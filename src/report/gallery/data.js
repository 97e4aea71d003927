// What gallery.js holds, as typed arrays: what each photo wears, its neighbours, and its duplicates and metadata if there
// are any. Photos are identified by their row in the feature table, cells by their column.

// A column of numbers: base64 of their bytes, the lowest first.
const numbers = (Type, text) => {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let at = 0; at < raw.length; at++) bytes[at] = raw.charCodeAt(at);
  return new Type(bytes.buffer);
};

class Catalogue {
  constructor(raw) {
    this.names = raw.names;
    this.size = raw.names.length;
    this.thumbnailPx = raw.thumbnail_px;
    this.sheet = raw.sheet;
    this.outlinePx = raw.outline_px;
    this.cellNames = raw.cells;
    this.cellCount = raw.cells.length;
    this.categories = raw.categories;
    this.colors = raw.colors;
    // The category and the colour of each cell, as places in their lists.
    this.categoryOf = Uint8Array.from(raw.cells, (_, cell) => Math.floor(cell / raw.colors.length));
    this.colorOf = Uint8Array.from(raw.cells, (_, cell) => cell % raw.colors.length);
    this.starts = numbers(Uint32Array, raw.worn.starts);
    this.cells = numbers(Uint16Array, raw.worn.cells);
    this.shares = numbers(Float32Array, raw.worn.shares);
    this.measure = raw.near.measure;
    this.isRestricted = raw.near.is_restricted;
    this.nearStarts = numbers(Uint32Array, raw.near.starts);
    this.nearPhotos = numbers(Uint32Array, raw.near.photos);
    this.nearCorrelations = numbers(Float32Array, raw.near.correlations);
    this.groups =
      raw.groups && new Groups(numbers(Uint32Array, raw.groups.groups), numbers(Uint32Array, raw.groups.first));
    this.columns = (raw.metadata || []).map((column) => new MetadataColumn(column));
    this.haystacks = this.names.map((name, photo) => this.#searchable(name, photo));
  }

  // As people say it: "red dress".
  cellLabel(cell) {
    return `${this.colors[this.colorOf[cell]].name} ${this.categories[this.categoryOf[cell]]}`;
  }

  // The cells of a photo and their shares, the largest first.
  worn(photo) {
    const worn = [];
    for (let at = this.starts[photo]; at < this.starts[photo + 1]; at++)
      worn.push({ cell: this.cells[at], share: this.shares[at] });
    return worn;
  }

  // The neighbours of a photo by the similarity stage, the nearest first.
  near(photo) {
    const near = [];
    for (let at = this.nearStarts[photo]; at < this.nearStarts[photo + 1]; at++) {
      near.push({ photo: this.nearPhotos[at], correlation: this.nearCorrelations[at] });
    }
    return near;
  }

  // What a search looks through: the name, and the metadata that is text; a line each.
  #searchable(name, photo) {
    const texts = this.columns.filter((column) => column.kind !== "number").map((column) => column.text(photo));
    return [name, ...texts].join("\n").toLowerCase();
  }
}

// A column of the metadata file. `choice`: text with few values; `number`; `text`: any other text.
class MetadataColumn {
  static #NONE = 0xffff;

  constructor({ name, kind, values, places, numbers: column }) {
    this.name = name;
    this.kind = kind;
    this.values = values;
    if (kind === "choice") this.places = numbers(Uint16Array, places);
    if (kind === "number") this.numbers = numbers(Float64Array, column);
  }

  // Of a choice: the place of the photo's value among the values; their number if it has none.
  place(photo) {
    const place = this.places[photo];
    return place === MetadataColumn.#NONE ? this.values.length : place;
  }

  // For people; empty without a value.
  text(photo) {
    if (this.kind === "number") return Number.isNaN(this.numbers[photo]) ? "" : String(this.numbers[photo]);
    return (this.kind === "choice" ? this.values[this.places[photo]] : this.values[photo]) ?? "";
  }
}

// Photos that are near-duplicates of each other: a group's number for each photo, and the photo that stands for each group.
class Groups {
  constructor(of, first) {
    this.of = of;
    this.first = first;
    this.sizes = new Uint32Array(first.length);
    for (const group of of) this.sizes[group]++;
  }

  isDouble(photo) {
    return this.sizes[this.of[photo]] > 1;
  }
}
