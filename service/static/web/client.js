/** Requests to the service: one at a time, outdated ones cancelled, errors put into words. */

const QUERY = "preview=true&draws=true";
const SLOW_MS = 1500;

/** An error that the page shows to the user. */
export class ServiceError extends Error {
  /**
   * @param {string} message what happened
   * @param {{retryAfter?: number, status?: number}} details seconds until a retry makes sense, 0 if
   *   it does not; the HTTP status if the user can do something about it
   */
  constructor(message, { retryAfter = 0, status = 0 } = {}) {
    super(message);
    this.retryAfter = retryAfter;
    this.status = status;
  }
}

let key = ""; // kept in memory only

/** Send this API key from now on; a service with MNN_REQUIRE_API_KEY needs one. */
export function setKey(value) {
  key = value;
}

const headers = () => (key ? { Authorization: `Bearer ${key}` } : {});

/** The body of `GET /model`, or null if there is none. */
export async function fetchModel() {
  const response = await fetch("model", { headers: headers() });
  return response.ok ? response.json() : null;
}

async function post(path, form, signal) {
  let response;
  try {
    response = await fetch(path, { method: "POST", body: form, signal, headers: headers() });
    if (response.ok) return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("The service does not answer, or only in part. Is it still running?");
  }
  const problem = await response.json().catch(() => ({}));
  const detail = problem.detail || problem.title || `status ${response.status}`;
  if (response.status === 429 || response.status === 503) {
    const retryAfter = Number(response.headers.get("Retry-After")) || 2;
    throw new ServiceError("The service is busy.", { retryAfter });
  }
  const { status } = response;
  if (status === 401)
    throw new ServiceError(key ? "Wrong API key." : "The service needs an API key.", { status });
  if (status === 413) throw new ServiceError(`This picture is too large: ${detail}`, { status });
  if (status === 415 || status === 422)
    throw new ServiceError(`This picture cannot be read: ${detail}`, { status });
  throw new ServiceError(`No answer: ${detail}`);
}

/** Predicts the newest picture only; a new request cancels the one before. */
export class Client {
  #current = null;

  /**
   * @param {Blob} picture
   * @param {(slow: boolean) => void} onSlow called when an answer takes long, and when that ends
   * @returns {Promise<object|null>} the answer, with `milliseconds`; null if it was cancelled
   */
  async predict(picture, onSlow) {
    this.#current?.abort();
    const controller = new AbortController();
    this.#current = controller;
    const started = performance.now();
    const timer = setTimeout(() => onSlow(true), SLOW_MS);
    try {
      const answer = await post(`predict?${QUERY}`, formData("file", [picture]), controller.signal);
      if (this.#current !== controller) return null;
      return { ...answer, milliseconds: performance.now() - started };
    } catch (error) {
      if (controller.signal.aborted) return null;
      throw error;
    } finally {
      clearTimeout(timer);
      if (this.#current === controller) onSlow(false);
    }
  }

  /** Cancel the current request. */
  cancel() {
    this.#current?.abort();
    this.#current = null;
  }
}

/**
 * The answers for several pictures, in order; null for a picture with an error.
 * @param {Blob[]} pictures
 * @param {AbortSignal} signal
 */
export async function predictBatch(pictures, signal) {
  const { results } = await post("predict/batch", formData("files", pictures), signal);
  return results.map((result) => (result.error ? null : result));
}

function formData(name, pictures) {
  const body = new FormData();
  for (const picture of pictures) body.append(name, picture, "digit.png");
  return body;
}

/** The request behind an answer as a command, without the key. */
export function curlCommand() {
  const url = new URL(`predict?${QUERY}`, location.href);
  const auth = key ? '-H "Authorization: Bearer $KEY" ' : "";
  return `curl ${auth}-F file=@digit.png '${url}'`;
}
