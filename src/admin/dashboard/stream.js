// The event stream, for ever: connects, parses, connects again.
//
// Not an EventSource, because that cannot send a token.

import { request } from "./api.js";

/** Snapshots come every second; after this long without one the connection is dead, whatever TCP thinks. */
const SILENCE_MAX = 8_000;
const RETRY_MIN = 500;
const RETRY_MAX = 8_000;

/** Calls `onEvent(name, data)` for each event and `onLink("live" | "lost", why)` for changes of the connection. */
export async function follow(path, onEvent, onLink) {
  let pause = RETRY_MIN;
  for (;;) {
    try {
      await read(path, (name, data) => {
        pause = RETRY_MIN;
        onLink("live");
        onEvent(name, data);
      });
      onLink("lost", "fusewire has ended the stream");
    } catch (error) {
      onLink("lost", error.name === "AbortError" ? "no news from fusewire" : error.message);
    }
    await new Promise((resume) => setTimeout(resume, pause));
    pause = Math.min(pause * 2, RETRY_MAX);
  }
}

async function read(path, onEvent) {
  const abort = new AbortController();
  let watchdog;
  const awake = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(() => abort.abort(), SILENCE_MAX);
  };
  try {
    const response = await request("GET", path, { signal: abort.signal });
    if (!response.ok) throw new Error((await response.json().catch(() => ({}))).error ?? `status ${response.status}`);
    awake();
    const parser = new Parser(onEvent);
    const chunks = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let chunk = await chunks.read(); !chunk.done; chunk = await chunks.read()) {
      awake();
      parser.push(chunk.value);
    }
  } finally {
    clearTimeout(watchdog);
    abort.abort();
  }
}

/** The part of the event-stream format that fusewire writes: one `event` and one `data` line, then a blank one. */
class Parser {
  #rest = "";
  #onEvent;

  constructor(onEvent) {
    this.#onEvent = onEvent;
  }

  push(text) {
    const blocks = (this.#rest + text).split("\n\n");
    this.#rest = blocks.pop();
    for (const block of blocks) this.#block(block);
  }

  #block(block) {
    let name = "message";
    let data = null;
    for (const line of block.split("\n")) {
      if (line.startsWith("event: ")) name = line.slice(7);
      if (line.startsWith("data: ")) data = line.slice(6);
    }
    if (data !== null) this.#onEvent(name, JSON.parse(data));
  }
}
