const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** Creates an element; null attributes are left out, children may be text. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** Creates a list item for each text. */
export const lines = (texts = []) => texts.map((text) => element("li", {}, text));

/** Creates a button with an icon and a label, which is also its tooltip. */
export function iconButton(name, does) {
  return element("button", { class: `icon ${name}`, type: "button", title: does },
    icon(name), element("span", { class: "does" }, does));
}

export function nameButton(button, does) {
  button.setAttribute("aria-label", does);
  button.title = does;
}

function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** Sets the text only if it differs, so that screen readers announce only changes. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Renders one child a value, in order; reuses the existing children by name. */
export function keep(parent, values, nameOf, make, render) {
  const known = new Map([...parent.children].map((node) => [node.dataset.name, node]));
  const nodes = values.map((value) => {
    const node = known.get(nameOf(value)) ?? make(value);
    node.dataset.name = nameOf(value);
    render(node, value);
    return node;
  });
  const stays = nodes.length === parent.children.length;
  if (stays && nodes.every((node, i) => node === parent.children[i])) return;
  parent.replaceChildren(...nodes); // only on a change: it loses the focus
}
