// Try: a picture, what should be marked, and the answer.

import { get, post, upload } from "./api.js";
import { command, python } from "./copies.js";
import { area, el, fill, percent, problem, select, slider, speak } from "./dom.js";
import { decode, tinted } from "./masks.js";
import { merge, read } from "./state.js";
import { Viewer } from "./viewer.js";

const KINDS = [["point", "Point"], ["box", "Box"], ["text", "Phrase"], ["question", "Question"]];
const HINTS = {
  point: "Click what should be marked: up to three points.",
  box: "Draw a box around it.",
  text: "Describe it: “the largest lake”.",
  question: "Ask: “where would a plane wait for its passengers?”",
};
const KEYS = "Arrows move the cursor, with Shift ten times as far, with Alt the picture. Enter sets a point or a corner. Plus and minus zoom, 0 shows all, Escape clears, Control Z undoes.";
const MOST_POINTS = 3;

export async function open(panel, about) {
  const page = { about, kind: "point", points: [], box: null, words: "", look: "auto", opacity: 0.75, past: [], answer: null };
  const viewer = new Viewer(`Picture. ${KEYS}`, {
    point: (x, y) => change(page, { points: [...page.points, [x, y]].slice(-MOST_POINTS), box: null }),
    box: (...box) => change(page, { box, points: [] }),
  });
  page.viewer = viewer;
  page.parts = build(page);
  fill(panel, el("div", { class: "split" }, el("div", { class: "stage" }, viewer.box, page.parts.status), page.parts.side));
  panel.classList.add("try");
  panel.addEventListener("keydown", (event) => {
    if (event.target.matches("input[type=text], textarea, select")) return;
    if ((event.ctrlKey || event.metaKey) && event.key === "z") { event.preventDefault(); undo(page); }
    if (event.key === "Escape") clear(page);
  });
  await restore(page);
}

function build(page) {
  const words = el("input", { type: "text", id: "words", autocomplete: "off", maxlength: "2000", oninput: (event) => { page.words = event.target.value; } });
  const ask = el("button", { class: "main", type: "submit" }, "Mark");
  const line = el("form", { class: "line", onsubmit: (event) => { event.preventDefault(); change(page, {}); } },
    el("label", { class: "hidden", for: "words" }, "What should be marked, in words"), words, ask);
  const kinds = el("div", { class: "kinds", role: "radiogroup", "aria-label": "How it is said" }, KINDS.map(([kind, text]) =>
    el("label", {}, el("input", { type: "radio", name: "kind", value: kind, onchange: () => setKind(page, kind) }), el("span", {}, text))));
  const hint = el("p", { class: "quiet", id: "hint" });
  const chips = el("div", { class: "chips", role: "group", "aria-label": "Examples of instructions" });
  const card = el("div", { class: "card", id: "answer" });
  const pictures = el("div", { class: "pictures", role: "group", "aria-label": "Example pictures" });
  const file = el("input", { type: "file", id: "file", accept: ".png,.jpg,.jpeg,.tif,.tiff,.jp2,.webp,.gif,.bmp,image/*", onchange: () => send(page, file.files[0]) });
  const status = el("p", { class: "status", "aria-hidden": "true" });
  const look = select("The model is given", [["auto", "whole picture, or around the mark"], ["whole", "the whole picture"], ["view", "what is in view"], ["around", "the window around the mark"]], "auto", (value) => { page.look = value; });
  const side = el("div", { class: "side" },
    el("h2", {}, "What should be marked?"), kinds, hint, line, chips,
    el("div", { class: "row" },
      el("button", { type: "button", id: "undo", onclick: () => undo(page) }, "Undo"),
      el("button", { type: "button", id: "clear", onclick: () => clear(page) }, "Clear"),
      slider("Opacity", page.opacity, (value) => { page.opacity = value; paint(page); merge({ opacity: value }); })),
    card, el("h2", {}, "Picture"), pictures,
    el("p", {}, el("label", { class: "button", for: "file" }, "Open a picture…"), file),
    el("p", { class: "quiet" }, `PNG, JPEG, GeoTIFF, JPEG 2000 up to ${Math.round(page.about.upload / 2 ** 20)} MB. It stays on this server, and is deleted when it is no longer used.`),
    look,
    el("details", {}, el("summary", {}, "Keys"), el("p", { class: "quiet" }, `Tab to the picture. ${KEYS} With a mouse: wheel to zoom, drag to move (with Space while a box is drawn).`)));
  side.addEventListener("dragover", (event) => event.preventDefault());
  page.viewer.box.addEventListener("dragover", (event) => event.preventDefault());
  page.viewer.box.addEventListener("drop", (event) => { event.preventDefault(); send(page, event.dataTransfer.files[0]); });
  return { words, kinds, hint, line, chips, card, pictures, status, side };
}

async function restore(page) {
  const kept = read(), { examples } = page.about;
  page.opacity = kept.opacity ? Number(kept.opacity) : page.opacity;
  page.parts.side.querySelector("input[type=range]").value = String(Math.round(100 * page.opacity));
  fill(page.parts.pictures, examples.map((example) => el("button", {
    type: "button", class: "picture", title: example.name, "aria-label": `Example ${example.name}`, "data-image": example.image, onclick: () => choose(page, example, example.asks[0]).catch((error) => problem(error.message)),
  }, el("img", { src: `/v1/images/${example.image}/thumbnail`, alt: "", loading: "lazy" }))));
  const known = examples.find((example) => example.image === kept.image);
  if (!kept.image || known) {
    const asked = kept.image ? fromAddress(kept) : null;
    await choose(page, known || examples[0], asked || (kept.image ? null : examples[0].asks[0]));
    return;
  }
  try {
    await show(page, await get(`/v1/images/${encodeURIComponent(kept.image)}`), []);
    await apply(page, fromAddress(kept));
  } catch (error) {
    problem(error.message);
    await choose(page, examples[0], examples[0].asks[0]);
  }
}

function fromAddress({ text, question, box, points }) {
  try {
    if (box) return { box: JSON.parse(box) };
    if (points) return { points: JSON.parse(points) };
  } catch { return null; }
  return text ? { text } : question ? { question } : null;
}

async function choose(page, example, asked) {
  await show(page, await get(`/v1/images/${example.image}`), example.asks);
  await apply(page, asked);
}

async function show(page, picture, asks) {
  page.picture = picture;
  page.asking?.abort();
  page.answer = null;
  page.past = [];
  page.settled = null;
  page.points = [];
  page.box = null;
  page.viewer.open(picture);
  for (const button of page.parts.pictures.children) button.setAttribute("aria-pressed", String(button.dataset.image === picture.image));
  fill(page.parts.chips, asks.map((ask) => el("button", { type: "button", class: "chip", onclick: () => apply(page, ask) }, ask.label)));
  merge({ image: picture.image, text: "", question: "", box: "", points: "" });
  const place = picture.crs ? `, ${picture.crs}` : "";
  fill(page.parts.status, `${picture.name} · ${picture.width} × ${picture.height} pixels${place}`);
  setKind(page, page.kind);
  card(page);
}

// Asks what an example or the address says.
async function apply(page, asked) {
  if (!asked) return;
  const kind = asked.box ? "box" : asked.points ? "point" : asked.question ? "question" : "text";
  setKind(page, kind);
  page.words = asked.text || asked.question || "";
  page.parts.words.value = page.words;
  await change(page, { points: asked.points || [], box: asked.box || null });
}

function setKind(page, kind) {
  page.kind = kind;
  page.viewer.mode = kind === "text" || kind === "question" ? "pan" : kind;
  page.parts.kinds.querySelector(`[value=${kind}]`).checked = true;
  const inWords = kind === "text" || kind === "question";
  page.parts.line.hidden = !inWords;
  fill(page.parts.hint, HINTS[kind]);
  page.viewer.canvas.dataset.mode = page.viewer.mode;
}

const snapshot = (page) => ({ kind: page.kind, points: page.points, box: page.box, words: page.words, answer: page.answer });

async function change(page, values) {
  const before = page.settled || snapshot(page);
  if (page.past.at(-1) !== before) page.past.push(before); // a click that came before the last answer replaces it
  Object.assign(page, values);
  await mark(page);
}

function undo(page) {
  const before = page.past.pop();
  if (!before) { speak("Nothing to undo"); return; }
  page.asking?.abort();
  Object.assign(page, before);
  page.settled = before;
  page.parts.words.value = page.words;
  setKind(page, page.kind);
  marks(page);
  paint(page);
  card(page);
  speak("Undone");
}

function clear(page) {
  page.asking?.abort();
  page.past.push(snapshot(page));
  Object.assign(page, { points: [], box: null, answer: null, words: "" });
  page.settled = snapshot(page);
  page.parts.words.value = "";
  marks(page);
  paint(page);
  card(page);
  merge({ text: "", question: "", box: "", points: "" });
  speak("Cleared");
}

function marks(page) {
  page.viewer.points = page.kind === "point" ? page.points : [];
  page.viewer.rectangle = page.kind === "box" ? page.box : null;
  page.viewer.later();
}

// What is asked, as /v1/segment takes it; null while there is nothing to ask.
export function request(page) {
  const asked = { image: page.picture.image, look: page.look === "view" ? page.viewer.view() : page.look };
  if (page.kind === "point") return page.points.length ? { ...asked, points: page.points.map(([x, y]) => [x + 0.5, y + 0.5]) } : null;
  if (page.kind === "box") return page.box ? { ...asked, box: page.box } : null;
  const words = page.words.trim();
  const { width, height } = page.picture;
  if (asked.look === "auto" && width * height > 16777216) asked.look = page.viewer.view();
  return words ? { ...asked, [page.kind]: words } : null;
}

async function mark(page) {
  marks(page);
  const asked = request(page);
  if (!asked) return;
  page.asking?.abort();
  page.asking = new AbortController();
  const { signal } = page.asking;
  page.parts.card.setAttribute("aria-busy", "true");
  page.viewer.box.classList.add("busy");
  problem("");
  merge({ text: "", question: "", box: "", points: "", ...(page.kind === "point" ? { points: JSON.stringify(page.points) } : page.kind === "box" ? { box: JSON.stringify(page.box) } : { [page.kind]: page.words }) });
  try {
    const answer = await post("/v1/segment", asked, signal);
    page.answer = { ...answer, layer: tinted(decode(answer.mask)) };
    page.settled = snapshot(page);
    paint(page);
    card(page);
    speak(spoken(page.answer));
  } catch (error) {
    if (error.name !== "AbortError") { problem(error.message); page.past.pop(); }
  } finally {
    if (page.asking.signal === signal) {
      page.parts.card.removeAttribute("aria-busy");
      page.viewer.box.classList.remove("busy");
    }
  }
}

function spoken(answer) {
  if (answer.none) return "Nothing was marked.";
  const metres = area(answer.area_m2);
  return `Marked ${percent(answer.share)} of what was looked at${metres ? `, ${metres}` : ""}. Score ${answer.score.toFixed(2)}.`;
}

function paint(page) {
  const { answer } = page;
  page.viewer.layers = answer ? [{ canvas: answer.layer, window: answer.window, alpha: page.opacity }] : [];
  page.viewer.later();
}

function card(page) {
  const { answer, picture } = page;
  if (!answer) {
    fill(page.parts.card, el("p", { class: "quiet" }, "The answer is shown here."));
    return;
  }
  const [x0, y0, x1, y1] = answer.window;
  const whole = x1 - x0 === picture.width && y1 - y0 === picture.height;
  const fact = (name, value) => (value === null ? null : [el("dt", {}, name), el("dd", {}, value)]);
  const link = (kind, text) => el("a", { class: "button", href: `/v1/answers/${answer.answer}/${kind}`, download: kind }, text);
  fill(page.parts.card,
    answer.none ? el("p", { class: "big" }, "Nothing was marked") : el("p", { class: "big" }, answer.score.toFixed(2), el("span", { class: "quiet" }, " score")),
    answer.none ? null : el("p", { class: "quiet" }, "How sure the marked pixels are, not whether it is there."),
    el("dl", {}, fact(whole ? "of the picture" : "of what was looked at", percent(answer.share)), fact("pixels", answer.area_px.toLocaleString("en")),
      fact("area", area(answer.area_m2)), answer.presence === null ? null : fact("presence", `${answer.presence.toFixed(2)}, none below ${page.about.none_below.toFixed(2)}`),
      fact("looked at", whole ? "the whole picture" : `x ${x0} to ${x1}, y ${y0} to ${y1}`), fact("asked", answer.instruction)),
    el("div", { class: "row" }, link("mask.png", "PNG"), link("mask.json", "RLE JSON"), link("objects.gpkg", "GeoPackage"), picture.crs ? link("mask.tif", "GeoTIFF") : null),
    el("div", { class: "row" },
      el("button", { type: "button", onclick: () => copy(command(page, whole)) }, "Copy as command"),
      el("button", { type: "button", onclick: () => copy(python(page, whole)) }, "Copy as Python")));
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    speak("Copied");
  } catch {
    problem(text); // no clipboard without https on other hosts: it can be copied from here
  }
}

async function send(page, file) {
  if (!file) return;
  if (file.size > page.about.upload) { problem(`${file.name} is larger than ${Math.round(page.about.upload / 2 ** 20)} MB: name it with --image when the app is started`); return; }
  problem("");
  const before = page.picture;
  try {
    const picture = await upload(file, (share) => fill(page.parts.status, `${file.name}: ${Math.round(100 * share)} % sent`));
    await show(page, picture, []);
    speak(`${picture.name}, ${picture.width} by ${picture.height} pixels`);
    if (before.image.startsWith("upload-")) await fetch(`/v1/images/${before.image}`, { method: "DELETE" });
  } catch (error) {
    problem(error.message);
    fill(page.parts.status, `${before.name} · ${before.width} × ${before.height} pixels`);
  }
}
