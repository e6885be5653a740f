import { byId } from "./dom.js";

const VIEWS = ["create", "models", "queues"];

/** Shows the view of the URL's fragment, and focuses its title; ignores other fragments. */
export function prepareViews() {
  window.addEventListener("hashchange", () => {
    if (!VIEWS.includes(named())) return;
    show(named());
    byId(`${named()}-title`).focus();
  });
  show(VIEWS.includes(named()) ? named() : "create");
}

const named = () => location.hash.slice(1) || "create";

function show(wanted) {
  for (const name of VIEWS) {
    byId(`view-${name}`).hidden = name !== wanted;
    const link = document.querySelector(`header a[href="#${name}"]`);
    if (name === wanted) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    if (name === wanted) document.title = `${link.textContent} – crossmodal`;
  }
  scrollTo(0, 0);
}
