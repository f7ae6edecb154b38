// COCO's compressed run lengths, and masks as layers of a picture.

// Bytes 0 and 1, row by row. The runs go column by column; see maskApi.c of COCO for the six-bit characters.
export function decode({ size: [height, width], counts }) {
  const mask = new Uint8Array(height * width);
  const runs = [];
  for (let at = 0; at < counts.length;) {
    let value = 0, shift = 0, more = true;
    while (more) {
      const bits = counts.charCodeAt(at) - 48;
      at += 1;
      value |= (bits & 31) << shift;
      shift += 5;
      more = (bits & 32) !== 0;
      if (!more && bits & 16 && shift < 32) value |= -1 << shift;
    }
    if (runs.length > 2) value += runs[runs.length - 2];
    runs.push(value);
  }
  let place = 0, set = 0;
  for (const run of runs) {
    if (set) for (let i = place; i < place + run; i += 1) mask[(i % height) * width + Math.floor(i / height)] = 1;
    place += run;
    set ^= 1;
  }
  return { mask, width, height };
}

function canvasOf(width, height, paint) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  paint(image.data);
  context.putImageData(image, 0, 0);
  return canvas;
}

export const COLOURS = { found: [242, 120, 12], hit: [0, 158, 115], missed: [0, 114, 206], wrong: [225, 60, 20], truth: [250, 214, 40] };

// A mask in one colour with a full edge.
export function tinted({ mask, width, height }, [red, green, blue] = COLOURS.found) {
  return canvasOf(width, height, (data) => {
    for (let y = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1) {
        const at = y * width + x;
        if (!mask[at]) continue;
        const inside = x > 0 && x < width - 1 && y > 0 && y < height - 1
          && mask[at - 1] && mask[at + 1] && mask[at - width] && mask[at + width];
        data.set([red, green, blue, inside ? 150 : 255], 4 * at);
      }
    }
  });
}

// Hit full, missed hatched one way, false the other way: told apart without colours, too.
export function compared(truth, answer) {
  const { width, height } = truth;
  const step = Math.max(4, Math.round(Math.max(width, height) / 48));
  return canvasOf(width, height, (data) => {
    for (let y = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1) {
        const at = y * width + x;
        const want = truth.mask[at], have = answer ? answer.mask[at] : 0;
        if (!want && !have) continue;
        let colour = COLOURS.hit, strength = 165;
        if (want && !have) { colour = COLOURS.missed; strength = (x + y) % step < step / 2 ? 235 : 80; }
        if (!want && have) { colour = COLOURS.wrong; strength = (x - y + 65536 * step) % step < step / 2 ? 235 : 80; }
        data.set([...colour, strength], 4 * at);
      }
    }
  });
}
