import { cluster, isDefault } from "./cluster.js";
import { byId, element, keep, setText } from "./dom.js";
import { prepareFiles } from "./files.js";
import { SchemaForm, schemaOfKind } from "./forms.js";
import { inOrder, verbOf } from "./kinds.js";
import { store } from "./store.js";
import { submit, submitFiles } from "./submit.js";
import { vocabularyNote } from "./vocabulary.js";

const DRAFT = "draft";

/** The form for a new job: kind, model, and the fields of the model's schema. */
class Composer {
  #draft = { kind: "txt2img", models: {}, values: {}, ...store.get(DRAFT, {}) };
  #shown = ""; // the kind and the schema of the current fields
  #form = null;
  #isBusy = false;

  constructor() {
    byId("kinds").addEventListener("change", ({ target }) => this.choose(target.value));
    byId("model").addEventListener("change", ({ target }) => this.#chooseModel(target.value));
    byId("form").addEventListener("input", () => this.#keep());
    byId("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    byId("form").addEventListener("keydown", onEnter);
    cluster.addEventListener("change", () => this.#render());
    prepareFiles((files) => this.#takeFiles(files));
    this.#render();
  }

  choose(kind) {
    this.#draft.kind = kind;
    store.set(DRAFT, this.#draft);
    setText(byId("form-error"), "");
    return this.#render();
  }

  #chooseModel(name) {
    this.#draft.models[this.#draft.kind] = name;
    store.set(DRAFT, this.#draft);
    this.#render();
  }

  get #model() {
    const { kind, models } = this.#draft;
    const serving = cluster.serving(kind);
    return serving.find(({ name }) => name === models[kind]) ?? serving[0];
  }

  async #render() {
    this.#renderKinds();
    this.#renderModels();
    if (cluster.problem) setText(byId("form-error"), cluster.problem);
    if (!cluster.isKnown) return;
    const { kind } = this.#draft;
    const told = this.#model?.kinds[kind].params;
    byId("fields").inert = !told; // the fields may be about to change
    try {
      const schema = told ?? (await schemaOfKind(kind));
      if (kind !== this.#draft.kind || told !== this.#model?.kinds[kind].params) return;
      this.#renderFields(kind, schema);
      byId("fields").inert = false;
    } catch (error) {
      setText(byId("form-error"), error.message);
    }
  }

  #renderKinds() {
    const make = (kind) => element("label", {},
      element("input", { type: "radio", name: "kind", value: kind }), verbOf(kind));
    keep(byId("kinds-choice"), inOrder(cluster.kinds), (kind) => kind, make, (node, kind) => {
      node.firstChild.checked = kind === this.#draft.kind;
    });
    setText(byId("send"), verbOf(this.#draft.kind));
  }

  #renderModels() {
    const { kind } = this.#draft;
    const serving = cluster.serving(kind);
    byId("model-field").hidden = !serving.length;
    const make = ({ name }) => element("option", { value: name });
    keep(byId("model"), serving, ({ name }) => name, make, (option, model) => {
      setText(option, optionText(model, kind));
      option.disabled = model.state === "broken";
    });
    if (this.#model) byId("model").value = this.#model.name;
    setText(byId("model-note"), this.#model ? noteOf(this.#model, kind) : "");
  }

  /** Replaces the fields only if they differ, so that no input in progress is lost. */
  #renderFields(kind, schema) {
    const shown = JSON.stringify([kind, schema]);
    if (shown === this.#shown) return;
    this.#shown = shown;
    this.#form = new SchemaForm(schema, () => this.#afterChoice());
    this.#form.fill(this.#draft.values[kind] ?? {});
    byId("fields").replaceChildren(...this.#form.nodes);
    byId("send").hidden = this.#form.isOnlyPicture;
    const { unasked } = this.#form;
    setText(byId("form-error"), unasked.length ? `This page cannot ask for ${unasked.join(", ")}: use the API.` : "");
  }

  /** Saves changed values, for a reload and for other models with such a field. */
  #keep() {
    if (!this.#form) return;
    const { kind, values } = this.#draft;
    const kept = { ...values[kind] };
    for (const field of this.#form.fields) {
      if (field.isInitial) delete kept[field.name];
      else kept[field.name] = field.value;
    }
    values[kind] = kept;
    store.set(DRAFT, this.#draft);
  }

  async #takeFiles(files) {
    if (!this.#form?.picture) await this.choose("img2txt");
    this.#form?.picture?.take(files);
    this.#afterChoice();
  }

  /** Submits a chosen picture at once if no other field is required. */
  #afterChoice() {
    if (this.#form?.isOnlyPicture) byId("form").requestSubmit();
  }

  async #submit() {
    if (this.#isBusy || !this.#form) return;
    this.#isBusy = true;
    setText(byId("form-error"), "");
    try {
      await this.#send();
    } catch (error) {
      setText(byId("form-error"), error.message);
    } finally {
      this.#isBusy = false;
    }
  }

  async #send() {
    const { picture, params } = this.#form;
    const body = { task: this.#draft.kind, ...this.#named(), ...params };
    if (!picture) return void (await submit(body));
    if (!picture.files.length) throw new Error("Choose a picture first.");
    const errors = await submitFiles(picture.files, body);
    picture.take([]);
    if (errors.length) throw new Error(errors.join("\n"));
  }

  /** Leaves out the default model, so that its jobs wait in the queue without a model name. */
  #named() {
    const model = this.#model;
    return model && !isDefault(model, this.#draft.kind) ? { model: model.name } : {};
  }
}

const noteOf = (model, kind) =>
  [model.description, vocabularyNote(model, kind)].filter(Boolean).join(" ");

function optionText({ name, state, default_for }, kind) {
  const notes = [default_for.includes(kind) ? "default" : "", state === "loaded" ? "" : state].filter(Boolean);
  return notes.length ? `${name} (${notes.join(", ")})` : name;
}

/** In a textarea, Enter submits and Shift+Enter adds a line. */
function onEnter(event) {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  if (event.target.tagName !== "TEXTAREA") return;
  event.preventDefault();
  byId("form").requestSubmit();
}

export const prepareComposer = () => new Composer();
