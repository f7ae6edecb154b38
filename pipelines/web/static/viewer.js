// A picture of any size on a canvas: tiles below, masks above, marks on top. All coordinates are the picture's pixels.

import { el, speak } from "./dom.js";
import { listen } from "./gestures.js";
import { Tiles } from "./tiles.js";

const CLOSEST = 40;
const MARK = "#ff28c8";

export class Viewer {
  // mode: what a click or a drag does: "point", "box", or "pan". on: point(x, y), box(x0, y0, x1, y1), moved().
  constructor(label, on = {}) {
    this.on = on;
    this.mode = "pan";
    this.canvas = el("canvas", { tabindex: "0", role: "application", "aria-label": label, "aria-roledescription": "picture" });
    this.where = el("output", { class: "where quiet", "aria-hidden": "true" });
    this.reading = el("p", { class: "reading", hidden: true }, "Reading the picture…");
    this.box = el("div", { class: "viewer" }, this.canvas, this.buttons(), this.where, this.reading);
    this.tiles = new Tiles(() => this.later());
    this.layers = [];
    this.points = [];
    this.rectangle = null;
    this.drawing = null;
    this.cursor = null;
    this.corner = null;
    new ResizeObserver(() => this.resized()).observe(this.canvas);
    listen(this);
  }

  buttons() {
    const button = (text, label, run) => el("button", { type: "button", "aria-label": label, title: label, onclick: run }, text);
    return el("div", { class: "zoom", role: "group", "aria-label": "Zoom" },
      button("+", "Zoom in", () => this.zoom(2)), button("−", "Zoom out", () => this.zoom(0.5)),
      button("⤢", "Show the whole picture", () => this.fit()));
  }

  // picture: as /v1/images tells it; sources: more tiles over it.
  open(picture, sources = []) {
    this.picture = picture;
    const own = { ...picture, url: (level, row, column) => `/v1/images/${picture.image}/tiles/${level}/${row}/${column}`, alpha: 1 };
    this.sources = [own, ...sources];
    this.layers = [];
    this.clear();
    this.cursor = null;
    this.fit();
  }

  clear() {
    this.points = [];
    this.rectangle = null;
    this.drawing = null;
    this.corner = null;
    this.later();
  }

  size() {
    return [this.canvas.clientWidth || 1, this.canvas.clientHeight || 1];
  }

  least() {
    const [width, height] = this.size();
    return Math.min(width / this.picture.width, height / this.picture.height);
  }

  fit() {
    if (!this.picture) return;
    const [width, height] = this.size();
    this.scale = this.least();
    this.left = (this.picture.width - width / this.scale) / 2;
    this.top = (this.picture.height - height / this.scale) / 2;
    this.moved();
  }

  resized() {
    if (!this.picture) return;
    const before = this.seen || this.size();
    const [width, height] = this.size();
    if (this.scale === undefined || !before[0] || this.whole) this.fit();
    else {
      this.left += (before[0] - width) / 2 / this.scale;
      this.top += (before[1] - height) / 2 / this.scale;
    }
    this.moved();
  }

  zoom(factor, x, y) {
    if (!this.picture) return;
    const [width, height] = this.size();
    const atX = x ?? width / 2, atY = y ?? height / 2;
    const scale = Math.min(CLOSEST, Math.max(this.least() / 2, this.scale * factor));
    this.left += atX / this.scale - atX / scale;
    this.top += atY / this.scale - atY / scale;
    this.scale = scale;
    this.moved();
  }

  pan(x, y) {
    this.left -= x / this.scale;
    this.top -= y / this.scale;
    this.moved();
  }

  // Shows a part of the picture in the middle.
  show([x0, y0, x1, y1]) {
    const [width, height] = this.size();
    this.scale = Math.min(CLOSEST, 0.6 * Math.min(width / Math.max(1, x1 - x0), height / Math.max(1, y1 - y0)));
    this.left = (x0 + x1) / 2 - width / 2 / this.scale;
    this.top = (y0 + y1) / 2 - height / 2 / this.scale;
    this.moved();
  }

  moved() {
    this.whole = Math.abs(this.scale - this.least()) < 1e-9;
    this.seen = this.size();
    this.later();
    if (this.on.moved) this.on.moved();
  }

  // Where on the picture a place of the window is: the rectangle on the screen decides, whatever the browser zooms.
  place(event) {
    const rectangle = this.canvas.getBoundingClientRect();
    return [this.left + (event.clientX - rectangle.left) / this.scale, this.top + (event.clientY - rectangle.top) / this.scale];
  }

  pixel(event) {
    const [x, y] = this.place(event).map(Math.floor);
    return x >= 0 && y >= 0 && x < this.picture.width && y < this.picture.height ? [x, y] : null;
  }

  clamped([x, y]) {
    return [Math.min(this.picture.width - 1, Math.max(0, x)), Math.min(this.picture.height - 1, Math.max(0, y))];
  }

  // The part of the picture that is in view: x0, y0, x1, y1 in whole pixels.
  view() {
    const [width, height] = this.size();
    return [
      Math.max(0, Math.floor(this.left)), Math.max(0, Math.floor(this.top)),
      Math.min(this.picture.width, Math.ceil(this.left + width / this.scale)),
      Math.min(this.picture.height, Math.ceil(this.top + height / this.scale)),
    ];
  }

  // A cursor for those without a pointer: it moves by pixels of the screen, or of the picture when these are larger.
  step(dx, dy) {
    const [x0, y0, x1, y1] = this.view();
    if (!this.cursor) this.cursor = [Math.floor((x0 + x1) / 2), Math.floor((y0 + y1) / 2)];
    const size = Math.max(1, Math.round(4 / this.scale));
    this.cursor = this.clamped([this.cursor[0] + dx * size, this.cursor[1] + dy * size]);
    const [x, y] = this.cursor;
    if (x < x0 || x >= x1 || y < y0 || y >= y1) {
      this.left += x - (x0 + x1) / 2;
      this.top += y - (y0 + y1) / 2;
    }
    if (this.corner) this.drawing = spanned(this.corner, this.cursor);
    this.tell(this.cursor);
    this.moved();
    clearTimeout(this.saying);
    this.saying = setTimeout(() => speak(`x ${x}, y ${y}`), 400);
  }

  press() {
    if (!this.cursor) { this.step(0, 0); return; }
    if (this.mode === "point" && this.on.point) this.on.point(...this.cursor);
    if (this.mode !== "box" || !this.on.box) return;
    if (!this.corner) {
      this.corner = this.cursor;
      this.drawing = spanned(this.corner, this.cursor);
      speak(`First corner at x ${this.cursor[0]}, y ${this.cursor[1]}. Move, and press Enter for the other corner.`);
    } else {
      const box = spanned(this.corner, this.cursor);
      this.corner = null;
      this.drawing = null;
      this.on.box(...box);
    }
    this.later();
  }

  tell(pixel) {
    this.where.textContent = pixel ? `x ${pixel[0]}  y ${pixel[1]}` : "";
  }

  later() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.draw(); });
  }

  draw() {
    if (!this.picture || this.scale === undefined) return;
    const [width, height] = this.size();
    const ratio = window.devicePixelRatio || 1;
    const across = Math.round(width * ratio), down = Math.round(height * ratio);
    if (this.canvas.width !== across || this.canvas.height !== down) {
      this.canvas.width = across;
      this.canvas.height = down;
    }
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, across, down);
    const zoom = this.scale * ratio;
    context.setTransform(zoom, 0, 0, zoom, -this.left * zoom, -this.top * zoom);
    context.save();
    context.beginPath();
    context.rect(0, 0, this.picture.width, this.picture.height);
    context.clip();
    const wanted = [];
    for (const source of this.sources) this.drawTiles(context, source, zoom, wanted);
    this.tiles.want(wanted);
    context.imageSmoothingEnabled = false;
    for (const { canvas, window: [x0, y0, x1, y1], alpha } of this.layers) {
      context.globalAlpha = alpha;
      context.drawImage(canvas, x0, y0, x1 - x0, y1 - y0);
    }
    context.restore();
    this.drawMarks(context, ratio);
  }

  drawTiles(context, source, zoom, wanted) {
    const factor = this.picture.width / source.width, factorY = this.picture.height / source.height;
    const finest = Math.min(source.levels - 1, Math.max(0, Math.floor(-Math.log2(zoom * factor) + 0.25)));
    const [x0, y0, x1, y1] = this.view();
    context.imageSmoothingEnabled = zoom * factor < 3;
    context.globalAlpha = source.alpha;
    const missing = [];
    const stages = [];
    const coarsest = source.clear ? finest : source.levels - 1; // through clear tiles coarser ones would be seen twice
    for (let level = finest; level <= coarsest; level += 1) {
      const side = source.tile * 2 ** level;
      const here = [];
      for (let row = Math.floor(y0 / factorY / side); row * side * factorY < y1; row += 1) {
        for (let column = Math.floor(x0 / factor / side); column * side * factor < x1; column += 1) {
          const url = source.url(level, row, column);
          const bitmap = this.tiles.get(url);
          if (bitmap) here.push([bitmap, column * side * factor, row * side * factorY, bitmap.width * 2 ** level * factor, bitmap.height * 2 ** level * factorY]);
          else if (level === finest || level === coarsest) missing.push([level, Math.hypot((column + 0.5) * side * factor - (x0 + x1) / 2, (row + 0.5) * side * factorY - (y0 + y1) / 2), url]);
        }
      }
      stages.unshift(here);
      if (level === finest && !missing.length) break; // nothing coarser shows through
    }
    if (source === this.sources[0]) this.reading.hidden = stages.some((stage) => stage.length) || !missing.length;
    const seam = 0.5 / zoom;
    for (const [bitmap, x, y, w, h] of stages.flat()) context.drawImage(bitmap, x, y, w + seam, h + seam);
    missing.sort((a, b) => b[0] - a[0] || a[1] - b[1]);
    wanted.push(...missing.map(([, , url]) => url));
  }

  drawMarks(context, ratio) {
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const at = (x, y) => [(x - this.left) * this.scale, (y - this.top) * this.scale];
    const twice = (paint) => {
      for (const [colour, wide] of [["#fff", 4], [MARK, 2]]) {
        context.strokeStyle = colour;
        context.lineWidth = wide;
        paint();
      }
    };
    for (const box of [this.rectangle, this.drawing]) {
      if (!box) continue;
      const [left, top] = at(box[0], box[1]), [right, bottom] = at(box[2], box[3]);
      twice(() => context.strokeRect(left, top, right - left, bottom - top));
    }
    for (const [x, y] of this.points) {
      const [left, top] = at(x + 0.5, y + 0.5);
      context.beginPath();
      context.arc(left, top, 6, 0, 7);
      context.fillStyle = MARK;
      context.fill();
      context.strokeStyle = "#fff";
      context.lineWidth = 2;
      context.stroke();
    }
    if (this.cursor && document.activeElement === this.canvas) {
      const [left, top] = at(this.cursor[0] + 0.5, this.cursor[1] + 0.5);
      twice(() => {
        context.beginPath();
        for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
          context.moveTo(left + 4 * dx, top + 4 * dy);
          context.lineTo(left + 16 * dx, top + 16 * dy);
        }
        context.stroke();
      });
    }
  }
}

// The box of two pixels, both inside it.
export function spanned([ax, ay], [bx, by]) {
  return [Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx) + 1, Math.max(ay, by) + 1];
}
