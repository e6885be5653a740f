const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
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

/** "2 min. ago, 14:03" */
export function when(seconds) {
  const ago = Math.max(0, Date.now() / 1_000 - seconds);
  const [unit, size] = UNITS.find(([, size]) => ago >= size) ?? [];
  const distance = unit ? relative.format(-Math.floor(ago / size), unit) : "just now";
  return `${distance}, ${(unit === "day" ? day : clock).format(seconds * 1_000)}`;
}

export const fullTime = (seconds) => calendar.format(seconds * 1_000);

/** What a job is about: its best caption, or its prompt. */
export function title(job) {
  return job.result?.captions[0]?.text ?? job.params.prompt ?? "A picture to describe";
}

/** `place` is the job's position, likely wait and what else it waits for, where that is known. */
export function progress(job, place) {
  switch (job.state) {
    case "queued": return queued(job, place);
    case "running": return running(job);
    case "succeeded": return `Done ${duration(job.finished_at - job.created_at)} after submission`;
    case "failed": return job.attempt > 1 ? `Failed after ${job.attempt} attempts` : "Failed";
    case "canceled": return "Canceled";
    case "expired": return "Expired: no worker started it in time";
    default: return job.state;
  }
}

/** Where the time of a job went that has succeeded, or "". */
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

/** Which words of the prompt the model did not know, or "". */
export function unknownWords(result) {
  const words = result?.unknown_words ?? [];
  if (!words.length) return "";
  const named = words.map((word) => {
    const near = result.suggestions?.[word];
    return near ? `${word} (did you mean ${near}?)` : word;
  });
  return `Not known to the model: ${named.join(", ")}`;
}
