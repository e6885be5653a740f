import { post, request } from "./api.js";
import { confirmed } from "./confirm.js";
import { asked, submit } from "./submit.js";

const gone = new EventTarget();

/** Calls `listener` with the id of each job deleted on this page. */
export function onDeleted(listener) {
  gone.addEventListener("job", ({ detail }) => listener(detail));
}

export const isActive = ({ state }) => state === "queued" || state === "running";
const hasFailed = ({ state }) => ["failed", "canceled", "expired"].includes(state);

/** The actions on a job by name: label, whether it applies (`isThere`), and function (`act`). */
export const ACTIONS = {
  cancel: { does: "Cancel", isThere: isActive, act: cancel },
  retry: { does: "Retry", isThere: hasFailed, act: (job) => asked(() => post(job.retry_url)) },
  again: { does: "Again", isThere: (job) => job.state === "succeeded", act: (job) => submit(bodyOf(job)) },
  reseed: {
    does: "Again with another seed",
    isThere: (job) => !isActive(job) && "seed" in job.params,
    act: (job) => submit({ ...bodyOf(job), seed: null, metadata: job.metadata }),
  },
  describe: {
    does: "Describe this",
    isThere: (job) => Boolean(job.result?.images.length),
    act: (job, index = 0) => submit({ task: "img2txt", image: { key: job.result.images[index].key } }),
  },
  delete: { does: "Delete", isThere: (job) => !isActive(job), act: remove },
};

/** Returns the request that submits the same job; its picture is named by key. */
function bodyOf({ task, params, metadata }) {
  const given = Object.entries(params).filter(([, value]) => value !== null);
  const body = { task, ...Object.fromEntries(given) };
  if (body.image) body.image = { key: body.image.key };
  return metadata === null ? body : { ...body, metadata };
}

/** Returns the job after the cancel; it may have ended before. */
async function cancel(job) {
  return post(job.cancel_url);
}

async function remove(job) {
  const isSure = await confirmed("Delete this job?", "Its record and its pictures are gone for good.", "Delete");
  if (!isSure) return;
  try {
    await request(job.status_url, { method: "DELETE" });
  } catch (error) {
    if (error.status !== 404) throw error; // already deleted elsewhere
  }
  gone.dispatchEvent(new CustomEvent("job", { detail: job.id }));
}
