import { labelOf } from "./words.js";

const LONG_TEXT = 200; // max characters of a single-line input
const LONG_RANGE = 40; // min steps of a slider
const TOO_WIDE = 1e6; // a larger limit is not shown

/** Describes the form field of a schema property; `control` is null if the page has none for it. */
export function fieldOf(name, property, isRequired) {
  const { isNullable, schema } = withoutNull(property);
  const initial = property.default ?? null;
  const field = { name, label: chosenLabel(name, schema.title ?? property.title), isRequired, isNullable, initial };
  return {
    ...field,
    ...controlOf(schema, field),
    description: property.description ?? schema.description ?? "",
  };
}

/** Returns the fields of all properties, required ones first. */
export function fieldsOf(schema) {
  const required = schema.required ?? [];
  const all = Object.entries(schema.properties).map(([name, property]) =>
    fieldOf(name, property, required.includes(name)));
  return all.sort((a, b) => b.isRequired - a.isRequired);
}

function withoutNull(property) {
  const some = property.anyOf ?? [];
  const rest = some.filter(({ type }) => type !== "null");
  if (rest.length === some.length || rest.length !== 1) return { isNullable: false, schema: property };
  return { isNullable: true, schema: rest[0] };
}

function controlOf(schema, field) {
  if (schema.$ref?.endsWith("/BlobRef")) return { control: "picture" };
  if ("const" in schema) return { control: "choice", options: [schema.const] };
  if (schema.enum) return { control: "choice", options: schema.enum };
  if (schema.type === "boolean" && !field.isNullable) return { control: "switch" };
  if (schema.type === "boolean") return { control: "choice", options: [true, false] };
  if (schema.type === "integer" || schema.type === "number") return numberOf(schema, field);
  if (schema.type === "string") return textOf(schema);
  if (schema.type === "array") return listOf(schema);
  return { control: null };
}

function numberOf(schema, { initial, isNullable }) {
  const isWhole = schema.type === "integer";
  const step = schema.multipleOf ?? (isWhole ? 1 : "any");
  const [min, max] = limits(schema, isWhole, schema.multipleOf);
  const isBounded = min !== null && max !== null && !isNullable && typeof initial === "number";
  if (isWhole || !isBounded) return { control: "number", isWhole, min, max, step };
  return { control: "range", min, max, step: step === "any" ? fineStep(min, max, initial) : step };
}

/** Rounds the limits to multiples: a browser counts steps from the min, a schema from zero. */
function limits(schema, isWhole, multiple) {
  let min = schema.minimum ?? schema.exclusiveMinimum ?? null;
  let max = schema.maximum ?? schema.exclusiveMaximum ?? null;
  if (isWhole && schema.minimum === undefined && min !== null) min += 1;
  if (isWhole && schema.maximum === undefined && max !== null) max -= 1;
  if (multiple && min !== null) min = Math.ceil(min / multiple) * multiple;
  if (multiple && max !== null) max = Math.floor(max / multiple) * multiple;
  return [min, max];
}

/** Returns a power of ten as step, if the initial value lies on it; else "any". */
function fineStep(min, max, initial) {
  const step = 10 ** Math.floor(Math.log10((max - min) / LONG_RANGE));
  const steps = (initial - min) / step;
  return Math.abs(steps - Math.round(steps)) < 1e-6 ? Number(step.toPrecision(1)) : "any";
}

function textOf({ minLength, maxLength, pattern }) {
  const control = (maxLength ?? Infinity) > LONG_TEXT ? "long" : "text";
  return { control, minLength, maxLength, pattern };
}

function listOf({ items = {}, minItems, maxItems }) {
  if (!["string", "integer", "number"].includes(items.type)) return { control: null };
  return { control: "list", isOfNumbers: items.type !== "string", minItems, maxItems };
}

/** Prefers an explicit title; one that Pydantic made from the name is ignored. */
function chosenLabel(name, title) {
  const made = labelOf(name);
  return !title || title.toLowerCase() === made.toLowerCase() ? made : title;
}

/** Describes the limits of a field, or returns "". */
export function limitsOf({ control, min, max, step, maxLength, minItems, maxItems }) {
  const number = (value) => value.toLocaleString("en");
  if (control === "number") {
    const by = step > 1 ? `, in steps of ${step}` : "";
    if (max > TOO_WIDE) return "";
    if (min !== null && max !== null) return `${number(min)} to ${number(max)}${by}.`;
    if (min !== null) return `At least ${number(min)}${by}.`;
    return max === null ? "" : `At most ${number(max)}${by}.`;
  }
  if (maxLength) return `Up to ${number(maxLength)} characters.`;
  if (control !== "list") return "";
  const many = maxItems ? ` ${minItems ?? 0} to ${maxItems} of them.` : "";
  return `Separated by commas.${many}`;
}
