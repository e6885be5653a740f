import { element, setText } from "./dom.js";
import { limitsOf } from "./schema.js";

const NONE = "none"; // option value for null; other options are numbered

/** A control for a field of a schema, with its label and note. */
export class Field {
  constructor(about) {
    this.about = about;
    this.name = about.name;
    this.id = `field-${about.name}`;
    this.input = this.#makeInput();
    this.node = this.#assemble();
    this.value = about.initial;
  }

  /** The value of the control; null if it is not set. */
  get value() {
    const { about, input } = this;
    switch (about.control) {
      case "switch": return input.checked;
      case "choice": return input.value === NONE ? null : about.options[Number(input.value)];
      case "number": case "range": return Number.isNaN(input.valueAsNumber) ? null : input.valueAsNumber;
      case "list": return this.#items();
      default: return input.value === "" && about.isNullable ? null : input.value;
    }
  }

  set value(value) {
    const { about, input } = this;
    if (about.control === "switch") input.checked = value === true;
    else if (about.control === "choice") input.value = this.#option(value);
    else if (about.control === "list") input.value = (value ?? []).join(", ");
    else input.value = value ?? "";
    this.#showValue();
  }

  get isInitial() {
    const { initial } = this.about;
    const nothing = { text: "", long: "", list: [] }[this.about.control] ?? null;
    return JSON.stringify(this.value) === JSON.stringify(initial ?? (this.about.isNullable ? null : nothing));
  }

  #items() {
    const parts = this.input.value.split(",").map((part) => part.trim()).filter(Boolean);
    return this.about.isOfNumbers ? parts.map(Number) : parts;
  }

  #option(value) {
    const index = this.about.options.indexOf(value);
    return index < 0 ? (this.about.isNullable ? NONE : "0") : String(index);
  }

  #makeInput() {
    const { control, isRequired, minLength, maxLength, pattern, min, max, step } = this.about;
    const common = { id: this.id, name: this.name, "aria-describedby": `${this.id}-note` };
    const required = isRequired ? "" : null;
    switch (control) {
      case "choice": return this.#makeSelect(common);
      case "switch": return element("input", { ...common, type: "checkbox", role: "switch" });
      case "range": return element("input", { ...common, type: "range", min, max, step });
      case "number": return this.#makeNumber({ ...common, min, max, step });
      case "long": return element("textarea", { ...common, rows: isRequired ? "3" : "2", required,
        minlength: minLength ?? null, maxlength: maxLength ?? null });
      default: return element("input", { ...common, type: "text", required, pattern: pattern ?? null,
        minlength: minLength ?? null, maxlength: maxLength ?? null });
    }
  }

  #makeSelect(common) {
    const { options, isNullable } = this.about;
    const made = options.map((option, i) => element("option", { value: i }, wordFor(option)));
    if (isNullable) made.unshift(element("option", { value: NONE }, "not set"));
    return element("select", common, ...made);
  }

  #makeNumber(attributes) {
    const { isRequired, isNullable, initial } = this.about;
    const placeholder = this.name === "seed" ? "random" : "not set";
    const mayBeEmpty = isNullable || initial === null;
    return element("input", { ...attributes, type: "number",
      required: isRequired || !mayBeEmpty ? "" : null, placeholder: mayBeEmpty ? placeholder : null });
  }

  #assemble() {
    const { about, id, input } = this;
    const note = element("p", { class: "note", id: `${id}-note` }, noteOf(about));
    const label = element("label", { for: id }, about.label);
    if (about.control === "range") label.append(" ", (this.output = element("output", { for: id })));
    input.addEventListener("input", () => this.#showValue());
    const parts = about.control === "switch" ? [input, label, note] : [label, input, note];
    const isWide = ["long", "range", "list", "switch"].includes(about.control);
    return element("div", { class: `field ${about.control}${isWide ? " wide" : ""}` }, ...parts);
  }

  #showValue() {
    if (this.output) setText(this.output, String(Number(this.input.valueAsNumber.toPrecision(4))));
  }
}

function wordFor(option) {
  if (option === true) return "yes";
  if (option === false) return "no";
  return option === null ? "not set" : String(option);
}

function noteOf(about) {
  return [about.description.split("\n")[0], limitsOf(about)].filter(Boolean).join(" ");
}
