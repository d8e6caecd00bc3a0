// Elements without a framework. Text only ever becomes text: no markup is parsed, so no name can inject any.

/** An element: `h("p", { class: "note", onclick: f }, "text", child)`. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child != null));
  return element;
}

/** Sets a text if it is another, so that nothing is laid out for nothing. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets an attribute if it is another; null removes it. */
export function setAttribute(element, name, value) {
  if (value == null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

const LEVERS = { closed: "M9 12H31", half_open: "M9 12 30 7", open: "M9 12 27 2" };

/** The switch of a circuit diagram: its lever shows the state to those who do not see the colour. */
export function switchGlyph() {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [name, value] of Object.entries({ viewBox: "0 0 40 18", class: "switch", "aria-hidden": "true" })) {
    svg.setAttribute(name, value);
  }
  const draw = (tag, attributes) => {
    const shape = document.createElementNS(svg.namespaceURI, tag);
    for (const [name, value] of Object.entries(attributes)) shape.setAttribute(name, value);
    svg.append(shape);
    return shape;
  };
  draw("path", { d: "M1 12H6M34 12H39" });
  draw("circle", { cx: 8, cy: 12, r: 2.4 });
  draw("circle", { cx: 32, cy: 12, r: 2.4 });
  const lever = draw("path", { class: "lever", d: LEVERS.closed });
  return { svg, show: (state) => setAttribute(lever, "d", LEVERS[state] ?? LEVERS.closed) };
}
