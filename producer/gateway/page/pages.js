import { getJson } from "./api.js";

const MOST_READS = 5;

/** Reads a page of jobs; adds the next ones while it is short, as with a filter. */
export async function readPage(query, cursor, signal) {
  const data = [];
  for (let reads = 0; reads < MOST_READS; reads++) {
    const wanted = new URLSearchParams(cursor ? { ...query, cursor } : query);
    const page = await getJson(`v1/jobs?${wanted}`, { signal });
    data.push(...page.data);
    cursor = page.next_cursor;
    if (!cursor || data.length >= query.limit / 2) break;
  }
  return { data, next_cursor: cursor };
}

export function isOlder(one, other) {
  if (one.created_at !== other.created_at) return one.created_at < other.created_at;
  return one.id < other.id;
}

/** Returns a job's index among others, the latest first. */
export function placeOf(job, others, jobOf) {
  let [low, high] = [0, others.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (isOlder(job, jobOf(others[middle]))) low = middle + 1;
    else high = middle;
  }
  return low;
}
