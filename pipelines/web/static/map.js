// Map result: what a map found, over its raster.

import { get } from "./api.js";
import { area, el, fill, problem, select, slider, speak } from "./dom.js";
import { frame, pages, press, query } from "./lists.js";
import { merge, read } from "./state.js";
import { Viewer } from "./viewer.js";

export async function open(panel, about) {
  const viewer = new Viewer("The map over its raster. Plus and minus zoom, 0 shows all, arrows move the cursor, Alt with arrows the map.");
  const status = el("p", { class: "status" });
  const side = frame(panel, el("div", { class: "stage" }, viewer.box, status));
  const list = el("div", { class: "items", role: "group", "aria-label": "Objects" });
  const card = el("div", { class: "card" }), turning = el("div");
  const maps = await Promise.all(Array.from({ length: about.maps }, (_, number) => get(`/v1/maps/${number}`)));
  const kept = read();
  let number = Math.min(Number(kept.m) || 0, maps.length - 1), order = "area", opacity = kept.opacity ? Number(kept.opacity) : 0.6, mask = null, factor = [1, 1];
  fill(side, maps.length > 1 ? select("Raster", maps.map((map, at) => [String(at), map.input]), String(number), (value) => { number = Number(value); merge({ m: value }); start(); }) : null,
    card, el("div", { class: "row" }, slider("Opacity", opacity, (value) => { opacity = value; if (mask) mask.alpha = value; viewer.later(); merge({ opacity: value }); })),
    el("h2", {}, "Objects"), select("Order", [["area", "largest first"], ["score", "surest first"]], order, (value) => { order = value; objects(0).catch((error) => problem(error.message)); }), list, turning);

  async function begin() {
    const map = maps[number];
    const picture = await get(`/v1/images/${map.image}`);
    factor = [picture.width / map.mask.width, picture.height / map.mask.height];
    mask = { ...map.mask, alpha: opacity, clear: true, url: (level, row, column) => `/v1/maps/${number}/tiles/${level}/${row}/${column}` };
    viewer.open(picture, [mask]);
    fill(status, `${map.input} · ${picture.width} × ${picture.height} pixels · ${map.crs || "no CRS"}`);
    fill(card, el("p", { class: "asked" }, map.instruction || `prompts of ${map.prompts}`),
      el("p", { class: "big" }, map.objects.toLocaleString("en"), el("span", { class: "quiet" }, map.objects === 1 ? " object" : " objects")),
      el("ul", { class: "legend" }, [["found", "found"], ["none", "not computed"]].map(([kind, text]) => el("li", {}, el("span", { class: `swatch ${kind}`, "aria-hidden": "true" }), text))),
      map.failed ? el("p", {}, `${map.failed} parts could not be computed.`) : null,
      (map.warnings || []).map((text) => el("p", { class: "quiet" }, text)), el("p", { class: "quiet" }, `Model ${map.model}`));
    speak(`${map.objects} objects for ${map.instruction || "the prompts"}`);
    await objects(0);
  }

  async function objects(page) {
    const found = await get(`/v1/maps/${number}/objects?${query({ order, page })}`);
    fill(list, found.objects.length ? found.objects.map((one) => el("button", { type: "button", class: "item plainer", "aria-pressed": "false", onclick: (event) => go(one, event.currentTarget) },
      el("span", {}, el("p", {}, area(one.area_m2) || `${one.area_px.toLocaleString("en")} pixels`, one.cut ? ", cut at the edge" : ""), el("span", { class: "quiet" }, `score ${one.score_mean.toFixed(2)} · ${one.id}`))))
      : el("p", { class: "quiet" }, "No objects were found, or the map has no GeoPackage."));
    fill(turning, pages(found, (next) => objects(next).catch((error) => problem(error.message))));
  }

  function go(one, button) {
    press(list, button);
    const [x0, y0, x1, y1] = one.window;
    viewer.rectangle = [x0 * factor[0], y0 * factor[1], x1 * factor[0], y1 * factor[1]];
    viewer.show(viewer.rectangle);
    speak(`Shown: ${area(one.area_m2) || `${one.area_px} pixels`}, score ${one.score_mean.toFixed(2)}`);
  }

  const start = () => begin().catch((error) => problem(error.message));
  await begin();
}
