// From what the file answers to what a person sees, as Python does it (export/isolated.py, distill/core/dense.py).

import { taps } from "./pixels.js";

const LEAST = 1e-12; // probabilities of zero become this before the logarithm

/**
 * Classes of one image, the likeliest first; of equals the one that the model has first.
 *
 * @param {Float32Array} values one a class.
 * @param {"probabilities" | "logits"} output what they are.
 * @returns {{place: number, share: number}[]}
 */
export function ranked(values, output) {
  let shares = Array.from(values);
  if (output === "logits") {
    const largest = Math.max(...shares);
    const powers = shares.map((value) => Math.exp(value - largest));
    const sum = powers.reduce((a, b) => a + b);
    shares = powers.map((power) => power / sum);
  }
  return shares.map((share, place) => ({ place, share })).sort((a, b) => b.share - a.share || a.place - b.place);
}

/**
 * The class of each pixel: the logits of the cells, or the logarithms of their probabilities, scaled bilinearly.
 *
 * @param {Float32Array | Uint8Array} values [rows, columns, classes], or the class of each cell [rows, columns].
 * @param {{rows: number, columns: number, classes: number}} grid of the model.
 * @param {"probabilities" | "logits" | "class_map"} output what the values are.
 * @param {number} width of the mask.
 * @param {number} height of the mask.
 * @returns {Uint8Array} places of classes, [height, width].
 */
export function mask(values, grid, output, width, height) {
  const { rows, columns, classes } = grid;
  const logits = asLogits(values, output, classes);
  const down = taps(rows, 0, rows, height);
  const across = taps(columns, 0, columns, width);
  const line = new Float32Array(columns * classes);
  const found = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    line.fill(0);
    for (let k = 0; k < down.count[y]; k++) {
      const weight = down.weights[y * down.most + k];
      const from = (down.first[y] + k) * columns * classes;
      for (let i = 0; i < line.length; i++) line[i] += weight * logits[from + i];
    }
    for (let x = 0; x < width; x++) {
      let best = -Infinity;
      for (let c = 0; c < classes; c++) {
        let sum = 0;
        for (let k = 0; k < across.count[x]; k++) {
          sum += across.weights[x * across.most + k] * line[(across.first[x] + k) * classes + c];
        }
        if (sum > best) {
          best = sum;
          found[y * width + x] = c;
        }
      }
    }
  }
  return found;
}

function asLogits(values, output, classes) {
  if (output === "logits") return values;
  if (output === "probabilities") return Float32Array.from(values, (value) => Math.log(Math.max(value, LEAST)));
  const logits = new Float32Array(values.length * classes).fill(Math.log(LEAST));
  values.forEach((place, cell) => (logits[cell * classes + place] = 0));
  return logits;
}

/**
 * A mask in the colours of its classes.
 *
 * @param {Uint8Array} mask places of classes.
 * @param {number[][]} colors red, green, blue of each class.
 * @param {number | null} clear the class that is left transparent.
 * @returns {Uint8ClampedArray} RGBA.
 */
export function painted(mask, colors, clear) {
  const pixels = new Uint8ClampedArray(mask.length * 4);
  mask.forEach((place, pixel) => {
    if (place !== clear) pixels.set([...colors[place], 255], pixel * 4);
  });
  return pixels;
}

/** Classes that a mask has, the largest first: `place` and `share` of its pixels. */
export function shares(mask, classes) {
  const counts = new Array(classes).fill(0);
  for (const place of mask) counts[place]++;
  return counts
    .map((count, place) => ({ place, share: count / mask.length }))
    .filter(({ share }) => share > 0)
    .sort((a, b) => b.share - a.share);
}
