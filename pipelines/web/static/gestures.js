// Mouse, pen, touch and keys on a viewer.

import { spanned } from "./viewer.js";

const STILL = 5;

export function listen(viewer) {
  const { canvas } = viewer;
  const pointers = new Map();
  let start = null, space = false, pinch = null;

  const middle = () => {
    const [a, b] = [...pointers.values()];
    return { x: (a.clientX + b.clientX) / 2, y: (a.clientY + b.clientY) / 2, gap: Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY) || 1 };
  };

  canvas.addEventListener("pointerdown", (event) => {
    if (!viewer.picture || event.button === 2) return;
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, event);
    if (pointers.size === 2) {
      pinch = middle();
      start = null;
      viewer.drawing = null;
      return;
    }
    const pans = space || event.button === 1 || viewer.mode !== "box";
    start = { event, last: event, pans, pixel: viewer.clamped(viewer.place(event).map(Math.floor)), inside: viewer.pixel(event), still: true };
  });

  canvas.addEventListener("pointermove", (event) => {
    if (!viewer.picture) return;
    if (!pointers.has(event.pointerId)) {
      viewer.tell(viewer.pixel(event));
      return;
    }
    pointers.set(event.pointerId, event);
    if (pinch && pointers.size === 2) {
      const now = middle(), rectangle = canvas.getBoundingClientRect();
      viewer.pan(now.x - pinch.x, now.y - pinch.y);
      viewer.zoom(now.gap / pinch.gap, now.x - rectangle.left, now.y - rectangle.top);
      pinch = now;
      return;
    }
    if (!start) return;
    if (Math.hypot(event.clientX - start.event.clientX, event.clientY - start.event.clientY) > STILL) start.still = false;
    if (start.still) return;
    if (start.pans) viewer.pan(event.clientX - start.last.clientX, event.clientY - start.last.clientY);
    else viewer.drawing = spanned(start.pixel, viewer.clamped(viewer.place(event).map(Math.floor)));
    start.last = event;
    viewer.tell(viewer.pixel(event));
    viewer.later();
  });

  const end = (event, cancelled) => {
    pointers.delete(event.pointerId);
    if (pointers.size < 2) pinch = null;
    if (!start || pointers.size) return;
    const begun = start;
    start = null;
    viewer.drawing = null;
    viewer.later();
    if (cancelled || event.button === 1) return;
    if (begun.still && begun.inside && viewer.mode === "point" && !space && viewer.on.point) viewer.on.point(...begun.inside);
    else if (!begun.still && !begun.pans && viewer.on.box) {
      viewer.on.box(...spanned(begun.pixel, viewer.clamped(viewer.place(event).map(Math.floor))));
    } else if (begun.still && begun.inside && viewer.on.touched) viewer.on.touched(...begun.inside);
  };
  canvas.addEventListener("pointerup", (event) => end(event, false));
  canvas.addEventListener("pointercancel", (event) => end(event, true));
  canvas.addEventListener("pointerleave", () => { if (!pointers.size) viewer.tell(null); });

  canvas.addEventListener("wheel", (event) => {
    if (!viewer.picture) return;
    event.preventDefault();
    const rectangle = canvas.getBoundingClientRect();
    const unit = event.deltaMode === 1 ? 16 : 1;
    viewer.zoom(Math.exp(-event.deltaY * unit * 0.002), event.clientX - rectangle.left, event.clientY - rectangle.top);
  }, { passive: false });

  canvas.addEventListener("keyup", (event) => { if (event.key === " ") space = false; });
  canvas.addEventListener("focus", () => viewer.later());
  canvas.addEventListener("blur", () => { space = false; viewer.later(); });
  canvas.addEventListener("keydown", (event) => {
    if (!viewer.picture || event.ctrlKey || event.metaKey) return;
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const far = event.shiftKey ? 10 : 1;
    if (event.key in arrows) {
      const [x, y] = arrows[event.key];
      if (event.altKey) viewer.pan(-60 * x, -60 * y);
      else viewer.step(x * far, y * far);
    } else if (event.key === "Enter") viewer.press();
    else if (event.key === " ") space = true;
    else if (event.key === "+" || event.key === "=") viewer.zoom(1.5);
    else if (event.key === "-") viewer.zoom(1 / 1.5);
    else if (event.key === "0") viewer.fit();
    else if (event.key === "Escape" && viewer.corner) {
      viewer.corner = null;
      viewer.drawing = null;
      viewer.later();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });
}
