// Requests to the admin API, and the token if it wants one.
//
// The token lives in sessionStorage: it ends with the tab, and is never part of an address.

import { askToken } from "./dialog.js";

const KEY = "fusewire-token";
let asking = null;

/** `fetch` with the token; asks for one as long as the API wants another. Rejects if the user gives up. */
export async function request(method, path, options = {}) {
  for (;;) {
    const token = sessionStorage.getItem(KEY);
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const response = await fetch(path, { method, headers, cache: "no-store", ...options });
    if (response.status !== 401) return response;
    // Another request may have asked while this one was under way.
    if (sessionStorage.getItem(KEY) === token) await replaceToken(token);
  }
}

/** JSON from the API; an error carries the API's own sentence. */
export async function json(method, path) {
  const response = await request(method, path);
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.error ?? `the API answered ${response.status}`);
  return body;
}

/** One dialog at a time, however many requests were refused. */
function replaceToken(refused) {
  asking ??= askToken(refused !== null)
    .then((token) => {
      if (token === null) throw new Error("the API wants a token");
      sessionStorage.setItem(KEY, token);
    })
    .finally(() => (asking = null));
  return asking;
}
