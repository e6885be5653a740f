import { ACTIONS } from "./actions.js";
import { element, iconButton, setText } from "./dom.js";

/** The buttons of the actions on a job; `describedBy` is the id of its title. */
export class Toolbar {
  #buttons = new Map();
  #isBusy = false;

  /** `onChanged` gets the job after it was canceled; `index` returns the current picture. */
  constructor({ describedBy, onChanged, index = () => 0 }) {
    this.onChanged = onChanged;
    this.index = index;
    this.error = element("p", { class: "error" });
    for (const name of Object.keys(ACTIONS)) this.#buttons.set(name, this.#make(name, describedBy));
    this.nodes = [...this.#buttons.values()];
  }

  show(job) {
    this.job = job;
    for (const [name, button] of this.#buttons) button.hidden = !ACTIONS[name].isThere(job);
    setText(this.error, "");
  }

  #make(name, describedBy) {
    const button = iconButton(name, ACTIONS[name].does);
    if (describedBy) button.setAttribute("aria-describedby", describedBy);
    button.addEventListener("click", () => this.#act(ACTIONS[name]));
    return button;
  }

  async #act({ act }) {
    if (this.#isBusy) return;
    this.#isBusy = true;
    this.error.removeAttribute("role");
    setText(this.error, "");
    try {
      const askedAt = performance.now();
      const job = await act(this.job, this.index());
      if (job?.id === this.job.id) this.onChanged(job, askedAt);
    } catch (error) {
      this.error.setAttribute("role", "alert"); // only on an error: there may be thousands of cards
      setText(this.error, error.message);
    } finally {
      this.#isBusy = false;
    }
  }
}
