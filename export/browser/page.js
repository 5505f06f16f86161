// The page: a picture or the camera in, labels or a mask and milliseconds out. Text is only ever set as text, so a
// label cannot become markup.

import { Tensor, loadAndCompile, loadLiteRt } from "@litertjs/core";
import { mask, painted, ranked, shares } from "./answers.js";
import { box, render } from "./pixels.js";

const SHOWN = 5; // labels
const LARGEST = 1280; // side of the picture as it is shown, and of its mask, in pixels
const SMALLEST = 320; // side that smaller pictures are enlarged to, in pixels of the page
const TALLEST = 62; // of the picture, in hundredths of the window's height, so that the answer is in sight
const LONG = 40; // milliseconds that the runs on one picture take together, since browsers' clocks tick every 0.1
const [FEWEST, MOST] = [3, 50]; // runs on one picture
const REMEMBERED = 30; // frames of the camera that times are the mean of

const at = (id) => document.getElementById(id);
const scratch = document.createElement("canvas");
const pen = scratch.getContext("2d", { willReadFrequently: true });
const video = document.createElement("video");
let about, model, stream = null, watching = Promise.resolve();

await start();

async function start() {
  try {
    const found = await fetch("model.json", { cache: "no-cache" });
    if (!found.ok) throw new Error(`model.json: ${found.status} ${found.statusText}`);
    about = await found.json();
    describe();
    await loadLiteRt("litert/wasm/");
    const file = `${encodeURIComponent(about.file)}?${about.sha256.slice(0, 16)}`; // never an older file from a cache
    model = await loadAndCompile(file, { accelerator: "wasm", cpuOptions: { numThreads: 1 } });
    const [input] = model.getInputDetails();
    if (input.dtype !== "uint8") throw new Error(`the file takes ${input.dtype}, expected uint8`);
    await run(new Uint8Array(about.image_size ** 2 * 3)); // the first run prepares what the others use
  } catch (error) {
    say(`The model does not run in this browser: ${error?.message ?? error}`, "bad");
    return;
  }
  at("file").addEventListener("change", choose);
  at("camera").addEventListener("click", () => (stream ? stop() : watch()));
  document.addEventListener("visibilitychange", () => document.hidden && stop());
  at("file").disabled = at("camera").disabled = false;
  say("Ready.");
}

function describe() {
  const megabytes = (about.bytes / 1e6).toFixed(2);
  at("title").textContent = document.title = about.run;
  at("facts").textContent =
    `${about.file}, ${megabytes} MB, ${about.precision}, ${about.image_size}×${about.image_size} pixels, ` +
    `${about.labels.length} classes`;
  const split = about.scores.test ? "test" : "validation";
  const score = about.scores[split];
  const reached = `${(100 * score[about.metric.key].value).toFixed(1)} % ${about.metric.title}`;
  at("quality").textContent = `On ${score.images} ${split} images it reached ${reached}.`;
}

function say(text, kind = "") {
  at("status").textContent = text;
  at("status").className = kind;
}

/** What the file answers to RGB bytes, and how long it took in milliseconds. */
async function run(pixels) {
  const side = about.image_size;
  const input = new Tensor(pixels, [1, side, side, 3]);
  const began = performance.now();
  const [output] = await model.run(input);
  const ms = performance.now() - began;
  const values = output.toTypedArray().slice();
  const shape = Array.from(output.type.layout.dimensions);
  input.delete();
  output.delete();
  return { values, shape, ms };
}

async function choose(event) {
  const [file] = event.target.files;
  event.target.value = ""; // so that the same picture can be chosen again
  if (!file) return;
  stop();
  await watching;
  say(`Reading ${file.name} …`);
  let picture;
  try {
    // As it is stored: Python does not apply colour profiles either. Turned by its EXIF orientation, as browsers do.
    picture = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    say(`${file.name} is no picture that this browser can read.`, "bad");
    return;
  }
  try {
    await look(picture, picture.width, picture.height);
    say(file.name);
  } catch (error) {
    say(`${file.name}: ${error?.message ?? error}`, "bad");
  } finally {
    picture.close();
  }
}

async function watch() {
  if (!navigator.mediaDevices) {
    say("Browsers give the camera to pages by https or from this device alone. A picture can be chosen.", "bad");
    return;
  }
  try {
    const wanted = { facingMode: { ideal: "environment" }, width: { ideal: 640 }, height: { ideal: 480 } };
    stream = await navigator.mediaDevices.getUserMedia({ audio: false, video: wanted });
  } catch (error) {
    const why = { NotAllowedError: "it was not allowed", NotFoundError: "there is none" }[error.name];
    say(`No camera: ${why ?? error.message}. A picture can be chosen.`, "bad");
    return;
  }
  watching = follow(stream);
}

/** Look at one frame after another until the camera is stopped. */
async function follow(mine) {
  const times = { model: [], scaling: [], frames: [] };
  at("camera").textContent = "Stop camera";
  at("camera").setAttribute("aria-pressed", "true");
  mine.getVideoTracks()[0].addEventListener("ended", stop); // unplugged, or taken by another app
  try {
    video.srcObject = mine;
    video.muted = video.playsInline = true;
    await video.play();
    say("");
    while (stream === mine) {
      await look(video, video.videoWidth, video.videoHeight, times);
      await new Promise((resolve) => requestAnimationFrame(resolve));
    }
  } catch (error) {
    if (stream === mine) say(`The camera stopped: ${error?.message ?? error}`, "bad");
  } finally {
    mine.getTracks().forEach((track) => track.stop());
    if (stream === mine) stop();
  }
}

function stop() {
  if (!stream) return;
  stream.getTracks().forEach((track) => track.stop());
  stream = null;
  at("camera").textContent = "Start camera";
  at("camera").setAttribute("aria-pressed", "false");
}

/** Show a picture and what the model says about it; a frame of the camera where `times` of earlier ones are given. */
async function look(picture, width, height, times) {
  const began = performance.now();
  const seen = box(width, height, about.resize);
  const pixels = render({ width, height, read: reader(picture) }, seen, about.image_size);
  const scaled = performance.now();
  let answer;
  const taken = [];
  const enough = () => (times ? 1 : performance.now() - scaled < LONG ? MOST : FEWEST);
  do {
    answer = await run(pixels);
    taken.push(answer.ms);
  } while (taken.length < enough());
  const scale = show(picture, width, height, seen);
  const { values, shape } = answer;
  if (about.task === "segmentation") {
    const [, rows, columns] = shape;
    const size = [seen.width, seen.height].map((side) => Math.max(1, Math.round(side * scale)));
    const found = mask(values, { rows, columns, classes: about.labels.length }, about.output, ...size);
    paint(found, ...size, seen, width, height);
    list(shares(found, about.labels.length), true);
  } else {
    list(ranked(values, about.output).slice(0, SHOWN), false);
  }
  if (times) {
    remember(times.model, taken[0]);
    remember(times.scaling, scaled - began);
    remember(times.frames, began);
  }
  at("times").textContent = summary(times ?? { model: taken, scaling: [scaled - began], frames: [] });
  at("result").hidden = false;
}

/** Reads RGBA of parts of a picture, laid over white. */
function reader(picture) {
  return (left, top, width, height) => {
    scratch.width = width; // also clears it
    scratch.height = height;
    pen.fillStyle = "white";
    pen.fillRect(0, 0, width, height);
    pen.drawImage(picture, left, top, width, height, 0, 0, width, height);
    return pen.getImageData(0, 0, width, height).data;
  };
}

/** Draw the picture and mark what the model sees of it. Returns by how much it was made smaller. */
function show(picture, width, height, seen) {
  const scale = Math.min(1, LARGEST / Math.max(width, height));
  const canvas = at("picture");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
  canvas.classList.toggle("small", Math.max(width, height) < SMALLEST);
  const wide = Math.max(canvas.width, Math.round(SMALLEST * Math.min(1, width / height)));
  at("view").style.width = `min(100%, ${wide}px, ${(TALLEST * width) / height}vh)`;
  at("seen").hidden = seen.width === width && seen.height === height;
  place(at("seen"), seen, width, height);
  return scale;
}

function paint(found, wide, high, seen, width, height) {
  const canvas = at("mask");
  canvas.width = wide;
  canvas.height = high;
  canvas.getContext("2d").putImageData(new ImageData(painted(found, about.colors, about.clear), wide, high), 0, 0);
  canvas.classList.toggle("small", at("picture").classList.contains("small"));
  canvas.hidden = false;
  place(canvas, seen, width, height);
}

/** Lay an element over a part of the picture. */
function place(element, part, width, height) {
  element.style.left = `${(100 * part.left) / width}%`;
  element.style.top = `${(100 * part.top) / height}%`;
  element.style.width = `${(100 * part.width) / width}%`;
  element.style.height = `${(100 * part.height) / height}%`;
}

function list(entries, colored) {
  at("labels").replaceChildren(
    ...entries.map(({ place, share }) => {
      const [line, name, percent, bar, part] = ["li", "span", "span", "div", "div"].map((tag) => document.createElement(tag));
      line.dataset.place = place;
      name.className = "name";
      name.textContent = about.labels[place];
      percent.textContent = `${(100 * share).toFixed(1)} %`;
      bar.className = "bar"; // drawn only: the number is there as text
      part.style.width = `${100 * share}%`;
      bar.append(part);
      if (colored) line.append(swatch(place));
      line.classList.toggle("colored", colored);
      line.append(name, percent, bar);
      return line;
    }),
  );
}

/** A class's colour; a line for the class that stays clear. */
function swatch(place) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [1, 1];
  canvas.setAttribute("aria-hidden", "true");
  canvas.getContext("2d").putImageData(new ImageData(painted([place], about.colors, about.clear), 1, 1), 0, 0);
  return canvas;
}

function remember(times, ms) {
  times.push(ms);
  if (times.length > REMEMBERED) times.shift();
}

function summary({ model, scaling, frames }) {
  const runs = model.length > 1 ? ` (mean of ${model.length} runs)` : "";
  const times = `model ${brief(mean(model))} ms${runs}, scaling ${brief(mean(scaling))} ms`;
  if (frames.length < 2) return times;
  const rate = (1000 * (frames.length - 1)) / (frames.at(-1) - frames[0]);
  return `${times}, ${rate.toFixed(0)} pictures a second`;
}

function mean(values) {
  return values.reduce((a, b) => a + b) / values.length;
}

function brief(ms) {
  return ms.toFixed(ms < 10 ? 2 : 0);
}
