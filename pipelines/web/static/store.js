// Store: samples by filter, truth beside the answer, and what the model says to a twin's instruction.

import { get, post } from "./api.js";
import { el, fill, problem, speak } from "./dom.js";
import { filters, frame, legend, pages, press, query } from "./lists.js";
import { compared, decode } from "./masks.js";
import { merge, read } from "./state.js";
import { Viewer } from "./viewer.js";

export async function open(panel) {
  const viewer = new Viewer("The picture of the sample. Plus and minus zoom, 0 shows all, Alt with arrows moves it.");
  const status = el("p", { class: "status" });
  const side = frame(panel, el("div", { class: "stage" }, viewer.box, status));
  const card = el("div", { class: "card" });
  const list = el("div", { class: "items", role: "group", "aria-label": "Samples" });
  const turning = el("div");
  const kept = read();
  const chosen = Object.fromEntries(["task", "subtask", "category", "source", "split"].map((name) => [name, kept[`s.${name}`] || ""]));
  const { store, samples, facets } = await get("/v1/store");
  fill(status, `${store} · ${samples.toLocaleString("en")} samples`);
  const count = el("p", { class: "quiet", role: "status" });
  fill(side, el("h2", {}, "Sample"), card, el("h2", {}, "Samples"), filters(facets, chosen, (name, value) => {
    chosen[name] = value;
    merge({ [`s.${name}`]: value });
    show(0).catch((error) => problem(error.message));
  }), count, list, turning);

  async function show(page, row) {
    const found = await get(`/v1/store/samples?${query({ ...chosen, page })}`);
    fill(count, `${found.n.toLocaleString("en")} samples`);
    fill(list, found.samples.map((sample) => item(sample)));
    fill(turning, pages(found, (next) => show(next).catch((error) => problem(error.message))));
    const first = row ?? found.samples.find((one) => !one.wrong)?.row;
    if (first !== undefined) await choose(first);
    else { viewer.layers = []; fill(card, el("p", { class: "quiet" }, "No sample has all of these.")); }
  }

  function item(sample) {
    if (sample.wrong) return el("p", { class: "quiet" }, `${sample.sample_id}: ${sample.wrong}`);
    return el("button", { type: "button", class: "item", "aria-pressed": "false", "data-row": String(sample.row), onclick: () => choose(sample.row).catch((error) => problem(error.message)) },
      el("img", { src: `/v1/images/${sample.image}/thumbnail`, alt: "", loading: "lazy" }),
      el("span", {}, el("p", {}, sample.instruction), el("span", { class: "quiet" }, [sample.task, sample.category].filter(Boolean).join(" · "))));
  }

  async function choose(row) {
    const button = list.querySelector(`[data-row="${row}"]`);
    if (button) press(list, button);
    const sample = await get(`/v1/store/samples/${row}`);
    merge({ "s.row": row });
    viewer.open(await get(`/v1/images/${sample.image}`));
    viewer.rectangle = sample.box;
    viewer.points = sample.points.map(([x, y]) => [x - 0.5, y - 0.5]);
    await answer(sample, row);
  }

  async function answer(sample, of) {
    const truth = decode(sample.truth);
    const whole = [0, 0, sample.width, sample.height];
    const alpha = 0.85;
    viewer.layers = [{ canvas: compared(truth, null), window: whole, alpha }];
    viewer.later();
    tell(sample, of, null);
    const found = await post(`/v1/store/samples/${sample.row}/answer`, of === sample.row ? {} : { instruction_of: of });
    viewer.layers = [{ canvas: compared(truth, decode(found.mask)), window: whole, alpha }];
    viewer.later();
    tell(sample, of, found);
    speak(`IoU ${found.iou.toFixed(2)} with ${of === sample.row ? "its own" : "a twin's"} instruction`);
  }

  function tell(sample, of, found) {
    const asks = [[sample.row, "its own instruction", sample.instruction], ...sample.twins.map((twin) => [twin.row, "a twin's", twin.instruction])];
    const ask = el("select", { onchange: (event) => answer(sample, Number(event.target.value)).catch((error) => problem(error.message)) },
      asks.map(([row, what, text]) => el("option", { value: String(row), selected: row === of }, `${what}: ${text}`)));
    fill(card, el("p", { class: "asked" }, found ? found.instruction : sample.instruction),
      sample.answer ? el("p", { class: "quiet" }, `Expected reply: ${sample.answer}`) : null,
      el("p", { class: "big" }, found ? found.iou.toFixed(3) : "…", el("span", { class: "quiet" }, of === sample.row ? " IoU with the truth" : " IoU with the truth, asked with a twin's instruction")),
      legend(),
      found ? el("dl", {}, [["score", found.score.toFixed(2)], ["hit", found.hit], ["missed", found.missed], ["false", found.false]].map(([name, value]) => [el("dt", {}, name), el("dd", {}, typeof value === "number" ? `${value.toLocaleString("en")} pixels` : value)])) : null,
      sample.twins.length ? el("label", { class: "field" }, el("span", {}, "Asked with"), ask)
        : el("p", { class: "quiet" }, "It has no twin: no other sample of this picture has its task and category."),
      el("p", { class: "quiet" }, [sample.sample_id, sample.task, sample.subtask, sample.category, sample.split].filter(Boolean).join(" · ")));
  }

  await show(0, kept["s.row"] ? Number(kept["s.row"]) : undefined);
}
