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

/** Sets the text only if it is another one, so that screen readers hear of changes only. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Says something to screen readers that the eye sees anyway. */
export function announce(text) {
  setText(byId("announcer"), text);
}
