const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** An element; attributes that are null are left out, children may be text. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** What is to stand in a list, a text a line. */
export const lines = (texts = []) => texts.map((text) => element("li", {}, text));

/** A button with a symbol; where there is no room for what it does, the pointer shows that. */
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

/** Sets the text only if it is another one, so that screen readers hear of changes only. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** One child for each value, in their order; those that were there before are kept. */
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
  parent.replaceChildren(...nodes); // or focus would be lost
}
