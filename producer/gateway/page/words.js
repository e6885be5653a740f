const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const calendar = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });
const UNITS = [["day", 86_400], ["hour", 3_600], ["minute", 60]];

/** "85 ms", "1.4 s", "12 s", "3 min", "2 h" */
export function duration(seconds) {
  if (seconds < 0.9995) return `${Math.round(seconds * 1_000)} ms`;
  if (seconds < 9.95) return `${Number(seconds.toFixed(1))} s`;
  if (seconds < 99.5) return `${Math.round(seconds)} s`;
  if (seconds < 5_970) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3_600)} h`;
}

/** "850 kB", "1.3 GB" */
export function bytes(count) {
  if (count < 999_500) return `${Math.round(count / 1e3)} kB`;
  if (count < 999_500_000) return `${Math.round(count / 1e6)} MB`;
  return `${(count / 1e9).toFixed(count < 1e10 ? 1 : 0)} GB`;
}

/** "2 min. ago" */
export function when(seconds) {
  const ago = Math.max(0, Date.now() / 1_000 - seconds);
  const [unit, size] = UNITS.find(([, size]) => ago >= size) ?? [];
  return unit ? relative.format(-Math.floor(ago / size), unit) : "just now";
}

export const fullTime = (seconds) => calendar.format(seconds * 1_000);

/** Returns a job's title: its best caption, or its prompt. */
export function title(job) {
  return job.result?.captions[0]?.text ?? job.params.prompt ?? `${job.task} of a picture`;
}

/** Returns all captions but the best. */
export const otherCaptions = (job) => (job.result?.captions ?? []).slice(1).map(({ text }) => text);

/** Describes a job's state; `place` has its position, estimated wait and `waits_for`, if known. */
export function progress(job, place) {
  switch (job.state) {
    case "queued": return queued(job, place);
    case "running": return running(job);
    case "succeeded": return `Done in ${duration(job.finished_at - job.created_at)}`;
    case "failed": return job.attempt > 1 ? `Failed after ${job.attempt} attempts` : "Failed";
    case "canceled": return "Canceled";
    case "expired": return "Expired: no worker started it in time";
    default: return job.state;
  }
}

/** Explains the duration that `progress` gives for a succeeded job, or returns "". */
export function measured(job) {
  const timings = job.result?.timings;
  if (!timings) return "";
  const waited = duration(timings.queued_s);
  return `From submission to the stored result; ${waited} of it in the queue`;
}

function queued(job, place) {
  const parts = [job.attempt ? `Waiting for attempt ${job.attempt + 1}` : "Queued"];
  if (place?.position === 0) parts.push("next in line");
  if (place?.position > 0) parts.push(`${place.position} ahead of it`);
  if (place?.waits_for?.startsWith("loading")) parts.push(place.waits_for);
  else if (place?.waits_for) parts.push(`waits for ${place.waits_for}`);
  else if (place?.estimated_wait_s != null) parts.push(`about ${duration(place.estimated_wait_s)}`);
  return parts.join(", ");
}

function running(job) {
  const parts = [job.attempt > 1 ? `Running, attempt ${job.attempt}` : "Running"];
  if (job.progress) {
    parts.push(`step ${job.progress.step} of ${job.progress.of}`);
    parts.push(`about ${duration(job.progress.left_s)} left`);
  }
  return parts.join(", ");
}

const SHOWN_ELSEWHERE = ["prompt", "image", "model", "seed"];

/** Returns the facts of a job and of one of its pictures; `isCopied` adds a copy button. */
export function factsOf(job, picture) {
  const { params, result, failure } = job;
  const seed = picture?.seed ?? params.seed ?? null;
  const given = Object.entries(params).filter(([name, value]) =>
    !SHOWN_ELSEWHERE.includes(name) && value !== null && value !== "");
  return [
    { name: "Model", value: result?.model ?? params.model },
    { name: "Seed", value: seed, isCopied: true },
    { name: "Size", value: picture?.size },
    ...given.map(([name, value]) => ({ name: labelOf(name), value: wordsOf(value) })),
    { name: "Submitted", value: moment.format(job.created_at * 1_000) },
    { name: "Waited", value: result && duration(result.timings.queued_s) },
    { name: "Error", value: failure?.code },
    { name: "Job", value: job.id, isCopied: true },
  ];
}

/** Returns "Embed metadata" for "embed_metadata". */
export function labelOf(name) {
  const words = name.replaceAll("_", " ").trim();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function wordsOf(value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return value.join(", ");
  return typeof value === "object" ? Object.entries(value).map((pair) => pair.join(": ")).join(", ") : value;
}
