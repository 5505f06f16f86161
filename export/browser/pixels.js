// The picture as the model is shown it, to the bit as Python shows it (distill/data/views.py).
//
// A canvas could scale too, but each browser does it in its own way, and none as Pillow does: a model that learned from
// antialiased pictures gives other answers to pictures that were scaled otherwise.

const BITS = 22; // of the fractions that Pillow's weights are rounded to
const HALF = 1 << (BITS - 1);
const STRIP = 1 << 20; // pixels read at a time: a photo of 50 megapixels must not need 200 MB, nor a canvas that large

/**
 * What each of `wanted` cells takes from the cells of a line: a triangle as wide as two cells of the coarser grid.
 *
 * @param {number} cells of the whole line.
 * @param {number} start of the part that is scaled; cells beyond it are used where the triangle reaches them.
 * @param {number} length of that part.
 * @param {number} wanted cells of the answer.
 * @returns {{first: Int32Array, count: Int32Array, weights: Float64Array, most: number}} of cell n the weights
 *   `weights[n * most + k]` of the cells `first[n] + k`, k < `count[n]`; they add up to 1.
 */
export function taps(cells, start, length, wanted) {
  const scale = length / wanted;
  const reach = Math.max(1, scale);
  const most = Math.ceil(reach) * 2 + 1;
  const first = new Int32Array(wanted);
  const count = new Int32Array(wanted);
  const weights = new Float64Array(wanted * most);
  for (let n = 0; n < wanted; n++) {
    const center = start + (n + 0.5) * scale;
    const from = Math.max(0, Math.trunc(center - reach + 0.5));
    const to = Math.min(cells, Math.trunc(center + reach + 0.5));
    let sum = 0;
    for (let k = 0; k < to - from; k++) {
      const weight = Math.max(0, 1 - Math.abs((from + k - center + 0.5) * (1 / reach)));
      weights[n * most + k] = weight;
      sum += weight;
    }
    for (let k = 0; k < to - from; k++) weights[n * most + k] /= sum;
    first[n] = from;
    count[n] = to - from;
  }
  return { first, count, weights, most };
}

/** The part of an image that the model sees: the largest centred square, or all of it. */
export function box(width, height, resize) {
  if (resize === "squash") return { left: 0, top: 0, width, height };
  const side = Math.min(width, height);
  return { left: Math.floor((width - side) / 2), top: Math.floor((height - side) / 2), width: side, height: side };
}

/**
 * Cut a box out of an image and scale it to a square.
 *
 * @param {{width: number, height: number, read: (left: number, top: number, width: number, height: number) =>
 *   Uint8ClampedArray}} image whose `read` gives RGBA.
 * @param {{left: number, top: number, width: number, height: number}} box in its pixels.
 * @param {number} size of the square.
 * @returns {Uint8Array} RGB, [size, size, 3].
 */
export function render(image, box, size) {
  const across = rounded(taps(image.width, box.left, box.width, size));
  const down = rounded(taps(image.height, box.top, box.height, size));
  const left = across.first[0];
  const right = across.first[size - 1] + across.count[size - 1];
  const top = down.first[0];
  const bottom = down.first[size - 1] + down.count[size - 1];
  const lines = new Uint8Array((bottom - top) * size * 3);
  const step = Math.max(1, Math.floor(STRIP / (right - left)));
  for (let row = top; row < bottom; row += step) {
    const rows = Math.min(step, bottom - row);
    const strip = image.read(left, row, right - left, rows);
    for (let y = 0; y < rows; y++) {
      narrow(strip, y * (right - left) * 4, left, across, lines, (row - top + y) * size * 3, size);
    }
  }
  const pixels = new Uint8Array(size * size * 3);
  for (let y = 0; y < size; y++) {
    const { most, weights } = down;
    const from = (down.first[y] - top) * size * 3;
    for (let x = 0; x < size * 3; x++) {
      let sum = HALF;
      for (let k = 0; k < down.count[y]; k++) sum += lines[from + k * size * 3 + x] * weights[y * most + k];
      pixels[y * size * 3 + x] = clipped(sum);
    }
  }
  return pixels;
}

/** Scale one row of RGBA, whose first pixel is at `left`, to `size` pixels of RGB. */
function narrow(strip, at, left, across, lines, into, size) {
  const { first, count, weights, most } = across;
  for (let x = 0; x < size; x++) {
    let red = HALF, green = HALF, blue = HALF;
    let from = at + (first[x] - left) * 4;
    for (let k = 0; k < count[x]; k++, from += 4) {
      const weight = weights[x * most + k];
      red += strip[from] * weight;
      green += strip[from + 1] * weight;
      blue += strip[from + 2] * weight;
    }
    lines[into + x * 3] = clipped(red);
    lines[into + x * 3 + 1] = clipped(green);
    lines[into + x * 3 + 2] = clipped(blue);
  }
}

/** Weights as whole multiples of 2^-22; the sum of 255 times these stays below 2^31. */
function rounded(of) {
  return { ...of, weights: Int32Array.from(of.weights, (weight) => Math.trunc(weight * (1 << BITS) + 0.5)) };
}

function clipped(sum) {
  return Math.min(255, Math.max(0, sum >> BITS));
}
