import { getJson } from "./api.js";
import { element } from "./dom.js";
import { Field } from "./fields.js";
import { PictureField } from "./files.js";
import { fieldsOf } from "./schema.js";

const OF_FILES = ["format", "quality", "embed_metadata"];
const NO_PARAMS = [
  "task", "model", "metadata", "priority", "expires_in_s", "keep_s", "webhook_url", "webhook_events",
];
let document_ = null;

/** The controls for the fields of a schema, and the params that they give. */
export class SchemaForm {
  picture = null;

  constructor(schema, onPictures) {
    const fields = fieldsOf(schema).filter(({ name }) => !NO_PARAMS.includes(name));
    const image = fields.find(({ control }) => control === "picture");
    if (image) this.picture = new PictureField(image, onPictures);
    this.isOnlyPicture = Boolean(image) && fields.every((one) => one === image || !one.isRequired);
    this.unasked = fields.filter((one) => one.control === null && one.isRequired).map(({ name }) => name);
    this.fields = fields.filter(({ control }) => control && control !== "picture").map((one) => new Field(one));
    this.nodes = this.#lay();
  }

  /** The params, without those that equal the model's defaults. */
  get params() {
    const chosen = this.fields.filter((field) => field.about.isRequired || !field.isInitial);
    return Object.fromEntries(chosen.map((field) => [field.name, field.value]));
  }

  /** Sets values; ignores those of unknown fields. */
  fill(values) {
    for (const field of this.fields) {
      if (field.name in values) field.value = values[field.name];
    }
  }

  /** Puts the main fields first, those of the stored files into a closed section. */
  #lay() {
    const files = this.fields.filter(({ name }) => OF_FILES.includes(name));
    const main = this.fields.filter((field) => !files.includes(field));
    const nodes = main.map(({ node }) => node);
    if (this.picture) nodes.unshift(this.picture.node);
    if (files.length) nodes.push(folded("Files", files.map(({ node }) => node)));
    return nodes;
  }
}

/** A closed section that opens when a field in it is invalid. */
function folded(title, nodes) {
  const made = element("details", { class: "wide" }, element("summary", {}, title),
    element("div", { class: "fields" }, ...nodes));
  made.addEventListener("invalid", () => (made.open = true), { capture: true });
  return made;
}

/** Returns a kind's schema for any model, from the OpenAPI document. */
export async function schemaOfKind(kind) {
  document_ ??= getJson("openapi.json").catch((error) => {
    document_ = null;
    throw error;
  });
  const { schemas } = (await document_).components;
  const found = Object.values(schemas).find(({ properties }) => properties?.task?.const === kind);
  return withPicture(found);
}

/** Replaces the ways to give a picture in the API by one, which is a file on this page. */
function withPicture(schema) {
  const properties = { ...schema.properties };
  for (const [name, property] of Object.entries(properties)) {
    if (JSON.stringify(property).includes("/ByKey")) properties[name] = { $ref: "/BlobRef" };
  }
  return { ...schema, properties };
}
