/** Asking the service: one answer at a time, stale ones dropped, and troubles put into words. */

const QUERY = "preview=true&draws=true";
const SLOW_MS = 1500;

/** Something that kept an answer from coming, as a sentence for people. */
export class Trouble extends Error {
  /**
   * @param {string} sentence what happened
   * @param {{retryAfter?: number, status?: number}} more seconds after which asking again makes
   *   sense, 0 if it does not; the status of an answer that is about the picture itself
   */
  constructor(sentence, { retryAfter = 0, status = 0 } = {}) {
    super(sentence);
    this.retryAfter = retryAfter;
    this.status = status;
  }
}

let key = ""; // kept while the page is open, and nowhere else

/** Send this key from now on; only a service that was started with MNN_REQUIRE_API_KEY asks for one. */
export function useKey(value) {
  key = value;
}

const headers = () => (key ? { Authorization: `Bearer ${key}` } : {});

/** What is being served, or null if the service does not say. */
export async function askModel() {
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
    throw new Trouble("The service does not answer, or not in whole. Is it still running?");
  }
  const problem = await response.json().catch(() => ({}));
  const detail = problem.detail || problem.title || `status ${response.status}`;
  if (response.status === 429 || response.status === 503) {
    const retryAfter = Number(response.headers.get("Retry-After")) || 2;
    throw new Trouble("The service is busy.", { retryAfter });
  }
  const { status } = response;
  if (status === 401) {
    const sentence = key ? "That is not this service's key." : "This service wants its key.";
    throw new Trouble(sentence, { status });
  }
  if (status === 413) throw new Trouble(`This picture is too large: ${detail}`, { status });
  if (status === 415 || status === 422)
    throw new Trouble(`This picture cannot be read: ${detail}`, { status });
  throw new Trouble(`No answer: ${detail}`);
}

/** Asks with the newest picture only; an older question still under way is given up. */
export class Client {
  #running = null;

  /**
   * @param {Blob} picture
   * @param {(slow: boolean) => void} onSlow told when an answer takes long, and when that is over
   * @returns {Promise<object|null>} the answer, with `milliseconds`; null if it was overtaken
   */
  async ask(picture, onSlow) {
    this.#running?.abort();
    const mine = new AbortController();
    this.#running = mine;
    const started = performance.now();
    const timer = setTimeout(() => onSlow(true), SLOW_MS);
    try {
      const answer = await post(`predict?${QUERY}`, form("file", [picture]), mine.signal);
      if (this.#running !== mine) return null;
      return { ...answer, milliseconds: performance.now() - started };
    } catch (error) {
      if (mine.signal.aborted) return null;
      throw error;
    } finally {
      clearTimeout(timer);
      if (this.#running === mine) onSlow(false);
    }
  }

  /** Give up what is under way. */
  stop() {
    this.#running?.abort();
    this.#running = null;
  }
}

/**
 * The answers for several pictures, in order; a picture without an answer gives null.
 * @param {Blob[]} pictures
 * @param {AbortSignal} signal
 */
export async function askMany(pictures, signal) {
  const { results } = await post("predict/batch", form("files", pictures), signal);
  return results.map((result) => (result.error ? null : result));
}

function form(name, pictures) {
  const body = new FormData();
  for (const picture of pictures) body.append(name, picture, "digit.png");
  return body;
}

/** The request behind an answer, as a command; a key stays out of it. */
export function curlLine() {
  const address = new URL(`predict?${QUERY}`, location.href);
  const auth = key ? '-H "Authorization: Bearer $KEY" ' : "";
  return `curl ${auth}-F file=@digit.png '${address}'`;
}
