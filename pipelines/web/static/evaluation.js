// Evaluation: samples worst first, with what one or two models marked.

import { get } from "./api.js";
import { el, fill, problem, select, speak } from "./dom.js";
import { filters, frame, legend, pages, press, query } from "./lists.js";
import { COLOURS, compared, decode, tinted } from "./masks.js";
import { merge, read } from "./state.js";
import { Viewer } from "./viewer.js";

const ORDERS = [["worst", "worst first"], ["best", "best first"], ["gain", "second model gains most"], ["loss", "second model loses most"]];

export async function open(panel) {
  const { models, facets, n } = await get("/v1/evaluation");
  const two = models.length > 1;
  const viewers = models.map((model, number) => new Viewer(`What model ${number + 1}, ${model.model}, marked. Plus and minus zoom, 0 shows all.`));
  const heads = models.map((model) => el("h3", {}, model.model));
  const stage = el("div", { class: two ? "stage two" : "stage" },
    two ? el("div", { class: "beside" }, viewers.map((viewer, number) => el("div", {}, heads[number], viewer.box))) : viewers[0].box,
    el("p", { class: "status" }, `${models[0].data} · ${models[0].split} · ${n.toLocaleString("en")} samples`));
  const side = frame(panel, stage);
  const card = el("div", { class: "card" });
  const list = el("div", { class: "items", role: "group", "aria-label": "Samples" });
  const turning = el("div"), count = el("p", { class: "quiet", role: "status" });
  const kept = read();
  const chosen = Object.fromEntries(["task", "category", "size"].map((name) => [name, kept[`e.${name}`] || ""]));
  let order = kept["e.order"] || "worst";
  const again = () => show(0).catch((error) => problem(error.message));
  fill(side, el("h2", {}, "Sample"), card, el("h2", {}, "Results"), results(models), el("h2", {}, "Samples"),
    filters(facets, chosen, (name, value) => { chosen[name] = value; merge({ [`e.${name}`]: value }); again(); }),
    select("Order", two ? ORDERS : ORDERS.slice(0, 2), order, (value) => { order = value; merge({ "e.order": value }); again(); }),
    count, list, turning);

  async function show(page, row) {
    const found = await get(`/v1/evaluation/rows?${query({ ...chosen, order, page })}`);
    fill(count, `${found.n.toLocaleString("en")} samples`);
    fill(list, found.rows.map((line) => el("button", { type: "button", class: "item plainer", "aria-pressed": "false", "data-row": String(line.row), onclick: () => choose(line.row).catch((error) => problem(error.message)) },
      el("span", {}, el("p", {}, line.ious.map((iou) => iou.toFixed(3)).join("  →  ")), el("span", { class: "quiet" }, [line.task, line.category, line.size].join(" · "))))));
    fill(turning, pages(found, (next) => show(next).catch((error) => problem(error.message))));
    const first = row ?? found.rows[0]?.row;
    if (first !== undefined) await choose(first);
    else fill(card, el("p", { class: "quiet" }, "No sample has all of these."));
  }

  async function choose(row) {
    const button = list.querySelector(`[data-row="${row}"]`);
    if (button) press(list, button);
    merge({ "e.row": row });
    const sample = await get(`/v1/evaluation/rows/${row}`);
    const picture = await get(`/v1/images/${sample.image}`);
    const truth = decode(sample.truth);
    viewers.forEach((viewer, number) => {
      const answer = sample.answers[number];
      viewer.open(picture);
      viewer.layers = [{ canvas: answer && answer.mask ? compared(truth, decode(answer.mask)) : tinted(truth, COLOURS.truth), window: [0, 0, picture.width, picture.height], alpha: 0.85 }];
      viewer.later();
      if (two) fill(heads[number], `${models[number].model}: ${answer ? answer.iou.toFixed(3) : "not evaluated"}`);
    });
    const saved = sample.answers.length === models.length && sample.answers.every((answer) => answer.mask);
    fill(card, el("p", { class: "asked" }, sample.instruction),
      el("p", { class: "big" }, sample.answers.map((answer) => answer.iou.toFixed(3)).join(" → "), el("span", { class: "quiet" }, " IoU")), legend(),
      saved ? null : el("p", { class: "quiet" }, "Where there is no saved prediction the truth is drawn alone, in yellow (evaluate with --save-predictions)."),
      el("p", { class: "quiet" }, [sample.sample_id, sample.task, sample.category, sample.size].join(" · ")));
    speak(`${sample.instruction}. IoU ${sample.answers.map((answer) => answer.iou.toFixed(2)).join(" and ")}`);
  }

  await show(0, kept["e.row"] ? Number(kept["e.row"]) : undefined);
}

function results(models) {
  const tasks = Object.keys(models[0].tasks);
  const cell = (model, task) => (model.tasks[task] ? model.tasks[task].gIoU.toFixed(3) : "–");
  return el("table", {}, el("caption", { class: "hidden" }, "gIoU by task"),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "task"), models.map((_, number) => el("th", { scope: "col" }, models.length > 1 ? `gIoU, model ${number + 1}` : "gIoU")), el("th", { scope: "col" }, "n"))),
    el("tbody", {}, tasks.map((task) => el("tr", {}, el("th", { scope: "row" }, task), models.map((model) => el("td", {}, cell(model, task))), el("td", {}, models[0].tasks[task].n.toLocaleString("en"))))));
}
