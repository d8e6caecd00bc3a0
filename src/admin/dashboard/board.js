// All backends, problems first, filtered by name and state.

import { h, setText } from "./dom.js";
import { Tile } from "./tile.js";

/** Above this many the tiles shrink. */
const ROOMY_MAX = 12;

export class Board {
  #list = document.getElementById("board");
  #search = document.getElementById("search");
  #form = document.getElementById("filter");
  #nothing = document.getElementById("nothing");
  #tiles = new Map();
  #order = "";

  constructor(onFilter) {
    this.#form.addEventListener("input", onFilter);
    this.#form.addEventListener("submit", (event) => event.preventDefault());
    this.#list.addEventListener("keydown", (event) => this.#walk(event));
    document.addEventListener("keydown", (event) => {
      const typing = event.target.closest("input, select, textarea, dialog");
      if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
        event.preventDefault();
        this.#search.focus();
      }
    });
  }

  update(store, selected) {
    const now = store.now();
    const all = store.sorted();
    const shown = all.filter((backend) => this.#matches(backend));
    for (const [name, tile] of this.#tiles) {
      if (!shown.some((backend) => backend.name === name)) {
        tile.destroy();
        this.#tiles.delete(name);
      }
    }
    const tiles = shown.map((backend) => this.#tile(backend));
    this.#arrange(shown, tiles);
    this.#list.classList.toggle("compact", shown.length > ROOMY_MAX);
    shown.forEach((backend, index) => tiles[index].update(backend, now, backend.name === selected));
    this.#count(all);
    this.#nothing.hidden = shown.length > 0 || all.length === 0;
  }

  tick(store) {
    const now = store.now();
    for (const [name, tile] of this.#tiles) {
      const backend = store.backends.get(name);
      if (backend?.breaker) tile.tick(backend, now);
    }
  }

  /** The keyboard goes on from the tile of this backend. */
  focus(name) {
    this.#tiles.get(name)?.link.focus({ preventScroll: true });
  }

  /** Arrows go from tile to tile, as they lie; fifty are too many for the Tab key. */
  #walk(event) {
    const links = [...this.#list.querySelectorAll("a")];
    const at = links.indexOf(event.target);
    if (at < 0 || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
    const top = links[0].offsetTop;
    const columns = links.filter((link) => link.offsetTop === top).length;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -at, End: links.length - 1 - at };
    const next = links[at + steps[event.key]];
    if (!next) return;
    event.preventDefault();
    next.focus();
  }

  #tile({ name, protocol }) {
    if (!this.#tiles.has(name)) this.#tiles.set(name, new Tile(name, protocol));
    return this.#tiles.get(name);
  }

  /** Moves tiles only when the order is another: a moved element loses the keyboard's focus. */
  #arrange(shown, tiles) {
    const order = shown.map(({ name }) => name).join("\n");
    if (order === this.#order) return;
    this.#order = order;
    const focused = document.activeElement;
    this.#list.replaceChildren(...tiles.map((tile) => tile.element));
    if (this.#list.contains(focused)) focused.focus({ preventScroll: true });
  }

  #matches({ name, state }) {
    const wanted = this.#form.elements.state.value;
    return (wanted === "all" || wanted === state) && name.toLowerCase().includes(this.#search.value.trim().toLowerCase());
  }

  #count(all) {
    for (const element of this.#form.querySelectorAll("[data-count]")) {
      const state = element.dataset.count;
      setText(element, String(state === "all" ? all.length : all.filter((backend) => backend.state === state).length));
    }
  }
}
