// A mask that is drawn on: its pixels, what each tool does to them, and how it looks over the picture.

const STEPS = 30; // that can be undone, a copy of the mask each

export class Drawing {
  // canvas: has the mask's size. lines: an SVG above it for the brush's outline and unfinished polygons.
  constructor(canvas, lines, colors, clear, ignored) {
    this.canvas = canvas;
    this.lines = lines;
    this.context = canvas.getContext("2d");
    const table = new Uint8Array(256 * 4);
    colors.forEach((color, place) => table.set([...color, place === clear ? 0 : 140], place * 4));
    table.set([...ignored, 140], 255 * 4);
    this.colors = new Uint32Array(table.buffer);
    this.empty = clear ?? 255; // what the eraser leaves
    this.size = 9;
    this.tool = "brush";
    this.place = Math.min(1, colors.length - 1);
    this.points = [];
  }

  // mask: {width, height, runs}, row by row as value, length, value, length, …
  open(mask) {
    this.width = this.canvas.width = mask.width;
    this.height = this.canvas.height = mask.height;
    this.pixels = new Uint8Array(mask.width * mask.height);
    for (let n = 0, at = 0; n < mask.runs.length; n += 2) {
      this.pixels.fill(mask.runs[n], at, at + mask.runs[n + 1]);
      at += mask.runs[n + 1];
    }
    this.start = this.pixels.slice();
    this.steps = [];
    this.points = [];
    this.lines.setAttribute("viewBox", `0 0 ${mask.width} ${mask.height}`);
    this.pointer(null);
    this.paint();
  }

  get edited() {
    return this.steps.length > 0;
  }

  runs() {
    const found = [];
    for (let at = 0; at < this.pixels.length;) {
      const value = this.pixels[at];
      const first = at;
      while (at < this.pixels.length && this.pixels[at] === value) at += 1;
      found.push(value, at - first);
    }
    return found;
  }

  // Remember the mask as it is, before something changes it.
  step() {
    this.steps.push(this.pixels.slice());
    if (this.steps.length > STEPS) this.steps.splice(1, 1); // the first says that something was changed
  }

  back() {
    if (this.points.length) {
      this.points.pop();
      this.pointer(null);
      return true;
    }
    if (!this.steps.length) return false;
    this.pixels = this.steps.pop();
    this.paint();
    return true;
  }

  reset() {
    this.points = [];
    this.pointer(null);
    if (!this.edited) return;
    this.pixels = this.start.slice();
    this.steps = [];
    this.paint();
  }

  // A stretch of a stroke: every pixel whose centre is within half the brush's width of it.
  stroke(from, to) {
    const value = this.tool === "eraser" ? this.empty : this.place;
    const reach = this.size / 2;
    const [x0, y0, x1, y1] = [from.x, from.y, to.x, to.y];
    const length = (x1 - x0) ** 2 + (y1 - y0) ** 2;
    const [left, right] = [Math.min(x0, x1) - reach, Math.max(x0, x1) + reach];
    const [top, bottom] = [Math.min(y0, y1) - reach, Math.max(y0, y1) + reach];
    for (let y = Math.max(0, Math.floor(top)); y < Math.min(this.height, bottom); y += 1) {
      for (let x = Math.max(0, Math.floor(left)); x < Math.min(this.width, right); x += 1) {
        const along = length ? ((x + 0.5 - x0) * (x1 - x0) + (y + 0.5 - y0) * (y1 - y0)) / length : 0;
        const at = Math.min(1, Math.max(0, along));
        const [dx, dy] = [x + 0.5 - x0 - at * (x1 - x0), y + 0.5 - y0 - at * (y1 - y0)];
        if (dx * dx + dy * dy <= reach * reach) this.pixels[y * this.width + x] = value;
      }
    }
    this.paint();
  }

  // All pixels of one value that hang together by their sides.
  fill(point) {
    const [x, y] = [Math.floor(point.x), Math.floor(point.y)];
    if (x < 0 || y < 0 || x >= this.width || y >= this.height) return;
    const first = y * this.width + x;
    const old = this.pixels[first];
    if (old === this.place) return;
    this.step();
    const waiting = [first];
    this.pixels[first] = this.place;
    while (waiting.length) {
      const at = waiting.pop();
      const column = at % this.width;
      for (const next of [column > 0 ? at - 1 : -1, column < this.width - 1 ? at + 1 : -1, at - this.width, at + this.width]) {
        if (next >= 0 && next < this.pixels.length && this.pixels[next] === old) {
          this.pixels[next] = this.place;
          waiting.push(next);
        }
      }
    }
    this.paint();
  }

  corner(point) {
    this.points.push(point);
    this.pointer(null);
  }

  // Fill the polygon: every pixel whose centre lies in it, by the even-odd rule.
  close() {
    const corners = this.points;
    this.points = [];
    this.pointer(null);
    if (corners.length < 3) return;
    this.step();
    for (let y = 0; y < this.height; y += 1) {
      const crossings = [];
      corners.forEach((a, n) => {
        const b = corners[(n + 1) % corners.length];
        if ((a.y <= y + 0.5) !== (b.y <= y + 0.5)) crossings.push(a.x + ((y + 0.5 - a.y) / (b.y - a.y)) * (b.x - a.x));
      });
      crossings.sort((one, other) => one - other);
      for (let n = 0; n + 1 < crossings.length; n += 2) {
        const first = Math.max(0, Math.ceil(crossings[n] - 0.5));
        const last = Math.min(this.width, Math.ceil(crossings[n + 1] - 0.5));
        if (last > first) this.pixels.fill(this.place, y * this.width + first, y * this.width + last);
      }
    }
    this.paint();
  }

  paint() {
    const image = this.context.createImageData(this.width, this.height);
    const into = new Uint32Array(image.data.buffer);
    for (let n = 0; n < into.length; n += 1) into[n] = this.colors[this.pixels[n]];
    this.context.putImageData(image, 0, 0);
  }

  // The outline of the brush at a point, or none, and the polygon so far.
  pointer(point) {
    const shapes = [];
    if (point && (this.tool === "brush" || this.tool === "eraser")) {
      shapes.push(["circle", { cx: point.x, cy: point.y, r: this.size / 2 }]);
    }
    if (this.points.length) {
      const corners = point && this.tool === "polygon" ? [...this.points, point] : this.points;
      shapes.push(["polyline", { points: corners.map(({ x, y }) => `${x},${y}`).join(" ") }]);
      shapes.push(["circle", { cx: this.points[0].x, cy: this.points[0].y, r: Math.max(this.width, this.height) / 100 }]);
    }
    this.lines.replaceChildren(...shapes.flatMap(([name, values]) => ["under", "over"].map((kind) => {
      const shape = document.createElementNS("http://www.w3.org/2000/svg", name);
      shape.setAttribute("class", kind);
      Object.entries(values).forEach(([key, value]) => shape.setAttribute(key, value));
      return shape;
    })));
  }
}
