// The same answer from a terminal and from Python.

const shell = (text) => (/^[\w./:@%+,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);
const share = (value) => String(value); // as many digits as make the same number

function asked(page) {
  const { answer: { window: [x0, y0, x1, y1] }, kind, points, box, words } = page;
  const inside = ([x, y]) => [share((x - x0) / (x1 - x0)), share((y - y0) / (y1 - y0))];
  if (kind === "point") return { points: points.map(([x, y]) => inside([x + 0.5, y + 0.5])) };
  if (kind === "box") return { box: [...inside(box.slice(0, 2)), ...inside(box.slice(2))] };
  return { [kind]: words.trim() };
}

export function command(page, whole) {
  const { points, box, text, question } = asked(page);
  const [x0, y0, x1, y1] = page.answer.window;
  const part = whole ? page.picture.name : "part.tif";
  const cut = whole ? "" : `gdal_translate -srcwin ${x0} ${y0} ${x1 - x0} ${y1 - y0} ${shell(page.picture.name)} part.tif\n`;
  const how = points ? points.map((point) => `--point ${point.join(",")}`).join(" ")
    : box ? `--box ${box.join(",")}` : text ? `--text ${shell(text)}` : `--question ${shell(question)}`;
  return `${cut}unigeoseg predict --model ${shell(page.about.model)} --image ${shell(part)} ${how} --out out`;
}

export function python(page, whole) {
  const { points, box, text, question } = asked(page);
  const [x0, y0, x1, y1] = page.answer.window;
  const how = points ? `points=[${points.map((point) => `(${point.join(", ")})`).join(", ")}]`
    : box ? `box=(${box.join(", ")})` : text ? `text=${JSON.stringify(text)}` : `question=${JSON.stringify(question)}`;
  const name = JSON.stringify(page.picture.name);
  const load = ["import unigeoseg"];
  if (!whole) load.push("from pipelines.door import read");
  load.push("", `model = unigeoseg.load(${JSON.stringify(page.about.model)})`);
  const picture = whole ? name : `read(${name})[${y0}:${y1}, ${x0}:${x1}]`;
  return [...load, `found = model.segment(${picture}, ${how})`, "print(found.score, found.polygons)"].join("\n");
}
