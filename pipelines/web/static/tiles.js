// Tiles of a picture: fetched as they come into view, the nearest first, some at once, the latest kept.

const AT_ONCE = 6, KEPT = 400;

export class Tiles {
  constructor(changed) {
    this.changed = changed;
    this.held = new Map();
    this.wanted = [];
    this.running = 0;
  }

  // The picture of an address, or undefined while it is not here.
  get(url) {
    const held = this.held.get(url);
    if (held) {
      this.held.delete(url);
      this.held.set(url, held);
    }
    return held && held.bitmap;
  }

  // What a view needs, in order; what was wanted before and is not here is forgotten.
  want(urls) {
    this.wanted = urls.filter((url) => !this.held.has(url));
    this.run();
  }

  run() {
    while (this.running < AT_ONCE && this.wanted.length) {
      const url = this.wanted.shift();
      if (!this.held.has(url)) this.load(url);
    }
  }

  async load(url) {
    this.running += 1;
    this.held.set(url, { bitmap: undefined });
    try {
      const response = await fetch(url);
      if (!response.ok) throw new Error(String(response.status));
      this.held.set(url, { bitmap: await createImageBitmap(await response.blob()) });
      while (this.held.size > KEPT) this.held.delete(this.held.keys().next().value);
    } catch {
      this.held.set(url, { bitmap: null }); // not asked for again: the coarser tile stays
    }
    this.running -= 1;
    this.run();
    this.changed();
  }
}
