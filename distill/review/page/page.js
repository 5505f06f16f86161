// The page of `distill review`: an answer shows the next image at once and is sent behind its back, in order, until the
// server has said that it is on the disk.

import { Drawing } from "/drawing.js";

const UNJUDGED = "Not judged"; // pixels of value 255
const AHEAD = 12; // images that are loaded before they are asked for
const MOST_UNSAVED = 40; // answers that may wait before the page stops taking more
const BATCH = 1_000_000; // letters in one request, below what the server takes
const MOST_HELD = 900; // images that the server is told are here; it takes 1,000
const KEEPS_FOR = 60_000; // ms after which the images that wait are claimed again

const $ = (id) => document.getElementById(id);
const client = (sessionStorage.client ??= crypto.randomUUID()); // a page that is loaded again gets its images again
let about;
let drawing = null;
const items = []; // all that were given, in the order in which they are looked at
let cursor = 0;
const outbox = [];
const past = []; // [item, key] of answers of this page, the last one last
let sending = false;
let asking = false;
let over = false; // the server has nothing left for this page
let asked = 0;
let saved = 0;

history.replaceState(null, "", "/"); // the token stays in the cookie alone

async function post(path, body) {
  const answer = await fetch(path, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
  const document = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(document.error), { status: answer.status });
  return document;
}

const user = () => $("user").value.trim() || about.user;
const current = () => items[cursor];
const open = (item) => !item.done;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function trouble(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = !text;
}

function counted({ total, answered }) {
  saved = answered;
  $("bar").max = Math.max(1, total);
  $("bar").value = answered;
  about.total = total;
  $("counts").textContent = `${answered} of ${total}`;
}

// Images ahead

function prepare(item) {
  item.picture = new Image();
  item.picture.alt = "";
  item.picture.decoding = "sync";
  item.picture.addEventListener("load", () => item === current() && show());
  item.picture.addEventListener("error", () => { item.broken = true; if (item === current()) show(); });
  item.picture.src = `/image/${item.image}`;
  if (about.by_pixel) fetchMask(item);
  return item;
}

async function fetchMask(item) {
  try {
    const answer = await fetch(`/mask/${item.image}?user=${encodeURIComponent(user())}`);
    if (!answer.ok) throw new Error();
    item.mask = await answer.json();
  } catch {
    item.broken = true;
  }
  if (item === current()) show();
}

async function ask() {
  if (asking || (over && Date.now() - asked < KEEPS_FOR)) return;
  const ahead = items.slice(cursor).filter(open).length;
  if (ahead > AHEAD / 2 && Date.now() - asked < KEEPS_FOR) return;
  asking = true;
  try {
    const named = (wanted) => items.filter(wanted).map((item) => item.image).slice(-MOST_HELD);
    const held = named((item) => open(item) || !item.saved);
    const skipped = named((item) => item.done?.action === "skip" && item.saved);
    const count = Math.max(1, AHEAD - ahead);
    const found = await post("/next", { client, user: user(), count, held, skipped });
    asked = Date.now();
    trouble("");
    const known = new Set([...held, ...skipped]);
    items.push(...found.items.filter((item) => !known.has(item.image)).map(prepare));
    if (!outbox.length) counted(found);
    over = found.items.length === 0;
    elsewhere = found.elsewhere;
    if (!current() || over) show();
  } catch (error) {
    trouble(why(error));
    setTimeout(ask, 1000);
  } finally {
    asking = false;
  }
}
let elsewhere = 0;

function why(error) {
  if (error.status === 403) return `${error.message}. Start it again, or open its new address; ${waiting()}.`;
  return error.status ? `${error.message}; ${waiting()}.` : `The server does not answer; ${waiting()}.`;
}

const waiting = () => (outbox.length ? `${outbox.length} answers are not saved yet` : "all answers are saved");

// Answers on their way

async function send() {
  if (sending) return;
  sending = true;
  while (outbox.length) {
    const who = outbox[0].name;
    const entries = [];
    let letters = 0;
    for (const { name, entry, text } of outbox) {
      if (name !== who || (entries.length && letters + text.length > BATCH)) break;
      entries.push(entry);
      letters += text.length;
    }
    tell();
    try {
      const answer = await post("/answers", { user: who, entries });
      outbox.splice(0, entries.length);
      trouble(Object.values(answer.refused).join("; "));
      for (const entry of entries) {
        const item = items.find((one) => one.image === entry.image);
        if (!item) continue;
        item.saved = answer.keys.includes(entry.key);
        if (!item.saved) item.done = null;
      }
      counted(answer);
      if (answer.undone && entries.some((entry) => entry.undo === "")) bring(answer.undone);
    } catch (error) {
      trouble(why(error));
      await pause(error.status === 400 ? 5000 : 700);
    }
    tell();
  }
  sending = false;
  ask();
}

function tell() {
  $("saved").textContent = outbox.length ? `${outbox.length} to be saved` : "saved";
  document.body.dataset.unsaved = outbox.length;
}

function put(entry) {
  entry.key = crypto.randomUUID();
  outbox.push({ name: user(), entry, text: JSON.stringify(entry) });
  tell();
  send();
  return entry.key;
}

function answer(action, more, words) {
  const item = current();
  if (!ready(item) && !(item?.broken && action !== "label" && action !== "mask")) return;
  if (outbox.length >= MOST_UNSAVED) return;
  const key = put({ image: item.image, action, ...more });
  past.push([item, key]);
  item.done = { action, ...more };
  item.saved = false;
  $("announce").textContent = words;
  cursor += 1;
  while (current()?.done) cursor += 1;
  show();
  ask();
}

function undo() {
  if (ready(current()) && drawing?.back()) { marked(); return; }
  const last = past.pop();
  if (!last) {
    put({ undo: "" });
    return;
  }
  const [item, key] = last;
  put({ undo: key });
  if (item.done?.runs) item.mask = { ...item.mask, runs: item.done.runs, drawn: true }; // what was drawn is not lost
  item.done = null;
  item.saved = true;
  cursor = items.indexOf(item);
  $("announce").textContent = "Undone";
  show();
}

// An answer from before this page was opened was taken back.
function bring(item) {
  const before = items.find((one) => one.image === item.image);
  if (before) [before.done, cursor] = [null, items.indexOf(before)];
  else items.splice(cursor, 0, prepare(item));
  show();
}

function confirmed() {
  if (!about.by_pixel) {
    const item = current();
    if (item?.suggestion) answer("label", { label: item.suggestion }, item.suggestion);
    return;
  }
  const item = current();
  if (!ready(item)) return;
  if (drawing.points.length) { drawing.close(); marked(); return; }
  const changed = corrected(item);
  answer("mask", changed ? { runs: drawing.runs() } : {}, changed ? "Corrected mask" : "Mask accepted");
}

const corrected = (item) => Boolean(drawing.edited || item.mask.drawn || item.done || item.answer);

function choose(place) {
  if (about.by_pixel) {
    drawing.place = place;
    if (drawing.tool === "eraser") tool("brush");
    marked();
  } else answer("label", { label: about.classes[place].name }, about.classes[place].name);
}

// What is seen

const ready = (item) => item && !item.broken && item.picture.complete && item.picture.naturalWidth > 0 && (!about.by_pixel || item.mask);

let shown = null;
function show() {
  const item = current();
  $("desk").hidden = !item;
  $("done").hidden = Boolean(item);
  if (!item) {
    shown = null;
    const passed = items.findIndex(open);
    if (over && passed >= 0) { cursor = passed; show(); return; }
    const skipped = items.filter((one) => one.done?.action === "skip").length;
    const rest = elsewhere ? `The last ${elsewhere} images are with other people.` : "All images are answered.";
    $("done").textContent = !over ? "Loading …" : skipped && !elsewhere ? `Only what was skipped is left (${skipped}): load the page again to see it.` : rest;
    document.body.dataset.image = "";
    if (over && elsewhere) setTimeout(() => { asked = 0; over = false; ask(); }, 3000);
    return;
  }
  const isReady = Boolean(ready(item));
  document.body.dataset.image = isReady ? item.image : "";
  $("frame").style.setProperty("--ratio", item.width / item.height);
  $("mask").classList.toggle("waiting", !isReady);
  $("frame").classList.toggle("small", Math.max(item.width, item.height) <= 256);
  if (shown !== item.picture) $("photo").replaceChildren(item.picture);
  $("photo").title = item.broken ? "This image cannot be shown: skip it." : "";
  item.picture.alt = described(item);
  $("name").textContent = item.broken ? `${item.name} cannot be shown: skip it` : item.name;
  $("said").textContent = said(item);
  if (about.by_pixel && isReady && (shown !== item.picture || item.opened !== item.mask)) {
    drawing.open(item.mask);
    item.opened = item.mask;
  }
  shown = item.picture;
  marked();
}

const percent = (share) => `${Math.round(share * 100)} %`;

function said(item) {
  const words = item.others.slice();
  if (item.done || item.answer) words.unshift(`answered: ${(item.done ?? item.answer).label || (item.done ?? item.answer).action}`);
  if (item.truth && item.suggestion) words.push(`labelled ${item.suggestion}`);
  else if (item.truth) words.push("a person drew this mask");
  if (item.said.length) words.push(`teacher: ${item.said.map(([name, share]) => `${name} ${percent(share)}`).join(", ")}`);
  else if (item.sure !== null && !item.truth) words.push(`teacher: ${percent(item.sure)} sure`);
  return words.join(" · ");
}

const described = (item) => `${item.name}. ${said(item)}`;

function marked() {
  const item = current();
  const chosen = about.by_pixel ? drawing.place : null;
  const given = (item?.done ?? item?.answer)?.label;
  document.querySelectorAll("#classes button").forEach((button) => {
    const place = Number(button.dataset.place);
    const name = about.classes[place]?.name;
    const share = item?.said.find(([one]) => one === name)?.[1];
    button.classList.toggle("suggested", !about.by_pixel && name === item?.suggestion);
    button.setAttribute("aria-pressed", about.by_pixel ? place === chosen : name === given);
    button.querySelector(".share").textContent = share === undefined ? "" : percent(share);
    button.querySelector(".level").style.width = share === undefined ? "0" : percent(share).replace(" ", "");
  });
  const confirm = about.by_pixel ? (ready(item) && corrected(item) ? "Save corrected mask" : "Accept mask") : item?.suggestion ? `Confirm ${item.suggestion}` : "Confirm";
  $("confirm").querySelector(".name").textContent = confirm;
  $("confirm").disabled = !about.by_pixel && !item?.suggestion;
  if (!about.by_pixel) return;
  document.querySelectorAll("[data-tool]").forEach((button) => button.setAttribute("aria-pressed", button.dataset.tool === drawing.tool));
  $("size").textContent = `${drawing.size} px`;
}

function tool(name) {
  drawing.tool = name;
  drawing.points = [];
  drawing.pointer(null);
  marked();
}

const actions = {
  confirm: confirmed,
  reject: () => answer("reject", {}, "No use"),
  skip: () => answer("skip", {}, "Skipped"),
  undo,
  back: () => { if (cursor > 0) { cursor -= 1; show(); } },
  forward: () => { if (cursor < items.length) { cursor += 1; show(); ask(); } },
  smaller: () => { drawing.size = Math.max(1, drawing.size - (drawing.size > 20 ? 8 : 2)); marked(); },
  larger: () => { drawing.size = Math.min(301, drawing.size + (drawing.size > 19 ? 8 : 2)); marked(); },
  veil: () => {
    const on = $("mask").classList.toggle("off");
    document.querySelector("[data-do=veil]").setAttribute("aria-pressed", !on);
  },
  reset: () => { drawing.reset(); marked(); },
};

// Hands

function keyboard(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open || event.target.matches("input")) return;
  const button = event.target.closest("button");
  const key = event.key === " " ? "Space" : event.key === "ArrowLeft" ? "←" : event.key === "ArrowRight" ? "→" : event.key;
  if (event.repeat && !["←", "→", "[", "]"].includes(key)) { event.preventDefault(); return; } // a key that is held down says it once
  if (button && (key === "Space" || key === "Enter")) return; // it presses the button
  if (key === "?") { $("keys").showModal(); return; }
  const lower = key.length === 1 ? key.toLowerCase() : key === "Enter" ? "Space" : key;
  const place = about.classes.findIndex((one) => one.key && one.key === lower);
  const found = [...document.querySelectorAll("[data-key]")].find((one) => one.dataset.key === lower && !one.closest("#tools[hidden]"));
  if (place >= 0) choose(place);
  else if (about.by_pixel && lower === "i") choose(255);
  else if (found?.dataset.tool) tool(found.dataset.tool);
  else if (found) actions[found.dataset.do]();
  else if (about.by_pixel && key === "Escape") { drawing.points = []; drawing.pointer(null); }
  else return;
  event.preventDefault();
}

function clicked(event) {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.tool) tool(button.dataset.tool);
  else if (button.dataset.do) actions[button.dataset.do]();
  else if (button.dataset.place) choose(Number(button.dataset.place));
  if (event.detail > 0) button.blur(); // by hand, not by key: the space bar goes on to confirm
}

function hands(canvas) {
  let from = null;
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: ((event.clientX - box.left) / box.width) * drawing.width, y: ((event.clientY - box.top) / box.height) * drawing.height };
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !ready(current())) return;
    const point = at(event);
    if (drawing.tool === "fill") drawing.fill(point);
    else if (drawing.tool === "polygon") {
      const [first] = drawing.points;
      const near = canvas.getBoundingClientRect().width ? (12 / canvas.getBoundingClientRect().width) * drawing.width : 0;
      if (drawing.points.length > 2 && Math.hypot(first.x - point.x, first.y - point.y) < near) drawing.close();
      else drawing.corner(point);
    } else {
      canvas.setPointerCapture(event.pointerId);
      drawing.step();
      drawing.stroke(point, point);
      from = point;
    }
    marked();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (from) {
      for (const each of event.getCoalescedEvents?.().length ? event.getCoalescedEvents() : [event]) {
        const point = at(each);
        drawing.stroke(from, point);
        from = point;
      }
    }
    drawing.pointer(event.pointerType === "mouse" || from ? at(event) : null);
  });
  for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) canvas.addEventListener(name, () => { from = null; });
  canvas.addEventListener("pointerleave", () => drawing.pointer(null));
  canvas.addEventListener("dblclick", () => drawing.close());
}

// The beginning

function labelled(button, name, key, color) {
  const parts = [["key", key], ["name", name], ["share", ""]].map(([kind, text]) => {
    const part = document.createElement("span");
    part.className = kind;
    part.textContent = text;
    return part;
  });
  if (key) button.setAttribute("aria-keyshortcuts", { "←": "ArrowLeft", "→": "ArrowRight" }[key] ?? key);
  const level = document.createElement("span");
  level.className = "level";
  if (color) {
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = `rgb(${color.join()})`;
    parts.splice(1, 0, swatch);
  }
  button.replaceChildren(...parts, level);
}

function listed() {
  const rows = about.classes.filter((one) => one.key).slice(0, 12).map((one) => [one.key, one.name]);
  document.querySelectorAll("[data-key]").forEach((button) => {
    if (!button.closest("#tools[hidden]")) rows.push([button.dataset.key, button.dataset.name]);
  });
  if (about.by_pixel) rows.push(["i", UNJUDGED], ["Enter", "Close the polygon"], ["Esc", "Drop the polygon"]);
  $("list").replaceChildren(...rows.flatMap(([key, name]) => {
    const [term, text] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = key;
    text.textContent = name;
    return [term, text];
  }));
}

async function begin() {
  const answer = await fetch("/about");
  about = await answer.json();
  if (!answer.ok) { trouble(about.error); return; }
  document.title = `${about.title}: review`;
  $("title").textContent = about.title;
  $("user").value = localStorage.user ?? about.user;
  $("user").addEventListener("change", () => {
    localStorage.user = $("user").value.trim();
    over = false;
    asked = 0;
    ask();
  });
  counted(about);
  document.body.classList.toggle("pixels", about.by_pixel);
  for (const id of ["tools", "mask", "lines"]) $(id).toggleAttribute("hidden", !about.by_pixel);
  $("find").hidden = about.classes.length <= 12;
  const shownClasses = about.classes.map((one, place) => ({ ...one, place }));
  if (about.by_pixel) shownClasses.push({ name: UNJUDGED, key: "i", color: about.ignored, place: 255 });
  $("classes").replaceChildren(...shownClasses.map((one) => {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.place = one.place;
    labelled(button, one.name, one.key, about.by_pixel ? one.color : null);
    return button;
  }));
  document.querySelectorAll("[data-key]").forEach((button) => {
    button.dataset.name = button.textContent;
    labelled(button, button.textContent, button.dataset.key, null);
  });
  if (about.by_pixel) {
    drawing = new Drawing($("mask"), $("lines"), about.classes.map((one) => one.color), about.clear, about.ignored);
    hands($("mask"));
  }
  listed();
  document.addEventListener("keydown", keyboard);
  document.addEventListener("click", clicked);
  $("help").addEventListener("click", () => $("keys").showModal());
  $("close").addEventListener("click", () => $("keys").close());
  $("filter").addEventListener("input", () => {
    const wanted = $("filter").value.toLowerCase();
    document.querySelectorAll("#classes button").forEach((button) => {
      button.hidden = !button.querySelector(".name").textContent.toLowerCase().includes(wanted);
    });
  });
  $("filter").addEventListener("keydown", (event) => {
    const first = document.querySelector("#classes button:not([hidden])");
    if (event.key === "Enter" && first) { $("filter").value = ""; $("filter").dispatchEvent(new Event("input")); $("filter").blur(); choose(Number(first.dataset.place)); }
  });
  addEventListener("pagehide", () => { // others may have what this page did not answer
    const body = JSON.stringify({ client, user: user(), count: 0, held: [] });
    fetch("/next", { method: "POST", body, keepalive: true, headers: { "Content-Type": "application/json" } }).catch(() => {});
  });
  addEventListener("pageshow", (event) => { if (event.persisted) { asked = 0; ask(); } });
  addEventListener("beforeunload", (event) => { if (outbox.length) event.preventDefault(); });
  setInterval(ask, 20_000);
  tell();
  await ask();
}

begin().catch((error) => trouble(`The page cannot begin: ${error.message}`));
