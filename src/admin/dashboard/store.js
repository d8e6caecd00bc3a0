// What is known of each backend, and for how long. Views read it; only events change it.

/** The window of the charts in seconds, and so the number of samples kept: fusewire keeps no more. */
export const WINDOW = 300;

const COLUMNS = ["at", "calls", "failures", "rejections", "in_flight", "p50_ms", "p99_ms"];
const SEVERITY = { open: 0, half_open: 1, closed: 2 };

export class Store {
  /** By name, in the order of the configuration. */
  backends = new Map();
  version = "";
  /** fusewire's clock minus ours, in seconds: they may be on different machines. */
  #skew = 0;

  /** fusewire's time, in Unix seconds. */
  now() {
    return Date.now() / 1e3 + this.#skew;
  }

  /** The last minutes, from `/api/v1/history`. */
  applyHistory(past) {
    this.version = past.version;
    this.#skew = past.at - Date.now() / 1e3;
    for (const story of past.backends) {
      const backend = this.#backend(story.name);
      Object.assign(backend, {
        protocol: story.protocol,
        listen: story.listen,
        upstream: story.upstream,
        threshold: story.failure_threshold,
        states: story.states,
        samples: merge(story.samples, backend.samples),
      });
    }
  }

  /** A `snapshot` event. */
  applySnapshot({ at, status, metrics, samples }) {
    this.#skew = at - Date.now() / 1e3;
    const breakers = status.details.breakers;
    for (const name of this.backends.keys()) if (!(name in breakers)) this.backends.delete(name);
    for (const [name, breaker] of Object.entries(breakers)) {
      const backend = this.#backend(name);
      backend.detail = metrics.breakers[name];
      this.#applyBreaker(backend, breaker, at);
      if (samples[name]) append(backend.samples, samples[name]);
    }
  }

  /** A `transition` event. */
  applyTransition({ name, breaker }) {
    this.#applyBreaker(this.#backend(name), breaker, this.now());
  }

  /** Problems first, otherwise in the order of the configuration. */
  sorted() {
    return [...this.backends.values()]
      .filter((backend) => backend.breaker)
      .sort((a, b) => SEVERITY[a.state] - SEVERITY[b.state]);
  }

  #backend(name) {
    let backend = this.backends.get(name);
    if (!backend) {
      backend = { name, state: "closed", mode: null, states: [], samples: emptyColumns(), breaker: null, detail: null };
      this.backends.set(name, backend);
    }
    return backend;
  }

  #applyBreaker(backend, breaker, at) {
    backend.breaker = breaker;
    backend.protocol = breaker.protocol;
    backend.state = breaker.state;
    backend.mode = breaker.mode ?? null;
    backend.since = Date.parse(breaker.since) / 1e3;
    backend.retryAt = breaker.retry_after_ms == null ? null : at + breaker.retry_after_ms / 1e3;
    const last = backend.states.at(-1);
    if (!last || (last[1] !== breaker.state && backend.since >= last[0])) {
      backend.states.push([backend.since, breaker.state]);
    }
  }
}

function emptyColumns() {
  return Object.fromEntries(COLUMNS.map((key) => [key, []]));
}

/** Older samples, then those of the newer ones that came after them. */
function merge(older, newer) {
  const end = older.at.at(-1) ?? 0;
  const from = newer.at.findIndex((at) => at > end);
  const rest = (key) => (from < 0 ? [] : newer[key].slice(from));
  return Object.fromEntries(COLUMNS.map((key) => [key, older[key].concat(rest(key))]));
}

function append(columns, sample) {
  if (sample.at <= (columns.at.at(-1) ?? 0)) return;
  for (const key of COLUMNS) {
    columns[key].push(sample[key]);
    if (columns[key].length > WINDOW) columns[key].shift();
  }
}
