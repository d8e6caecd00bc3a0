// Questions to the operator. Both end with null when the answer is "no", Escape included.

import { h } from "./dom.js";

/** Asks for a confirmation. Resolves to the choice's value (`""` without choices), or null. */
export function confirmAction({ title, text, action, danger, choices }) {
  const select = choices && h("select", { id: "choice" }, choices.map(([value, label]) => h("option", { value }, label)));
  const body = [h("p", {}, text), select && h("label", { class: "field", for: "choice" }, "How long", select)];
  return open(title, body, action, danger, () => select?.value ?? "");
}

/** Asks for the admin token. Resolves to it, or null. */
export function askToken(wasRefused) {
  const input = h("input", { id: "token", type: "password", autocomplete: "off", required: true, spellcheck: "false" });
  const body = [
    h("p", {}, "This admin API is protected. The token stays in this tab and is forgotten when it is closed."),
    wasRefused && h("p", { class: "refusal", role: "alert" }, "That token was refused."),
    h("label", { class: "field", for: "token" }, "Token", input),
  ].filter(Boolean);
  return open("Token needed", body, "Continue", false, () => input.value.trim() || undefined);
}

/** `read` gives the answer; undefined keeps the dialog open. */
function open(title, body, action, danger, read) {
  return new Promise((resolve) => {
    const cancel = h("button", { type: "button", class: "quiet", value: "cancel" }, "Cancel");
    const proceed = h("button", { type: "submit", class: danger ? "danger" : "primary", value: "proceed" }, action);
    const form = h("form", {}, h("h2", { id: "dialog-title" }, title), body, h("div", { class: "buttons" }, cancel, proceed));
    const dialog = h("dialog", { "aria-labelledby": "dialog-title" }, form);
    let answer = null;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const value = read();
      if (value === undefined) return;
      answer = value;
      dialog.close();
    });
    cancel.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(answer);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
