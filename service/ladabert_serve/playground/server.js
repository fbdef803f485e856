// One request to this server: with the API key, and with an error that says what the server said.

let key = "";

// Send this key from now on; it is kept nowhere but in this variable.
export function useKey(value) {
  key = value;
}

// An answer that is no 200: its status, and the server's own words.
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// Return the answer to a GET, or to a POST where there is a body; throws Refusal.
export async function ask(path, { body, accept = "application/json", signal } = {}) {
  const headers = { accept };
  if (key) headers.authorization = `Bearer ${key}`;
  if (body) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method: body ? "POST" : "GET", headers, body: JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "The server cannot be reached.");
  }
  if (!response.ok) throw new Refusal(response.status, await reason(response));
  return response;
}

async function reason(response) {
  const problem = await response.json().catch(() => null); // a proxy's page is no JSON
  const parts = [`${response.status} ${problem?.title ?? response.statusText}`.trim()];
  if (problem?.errors) parts.push(...problem.errors.map(({ path, message }) => `${path} ${message}`));
  else if (problem?.detail) parts.push(problem.detail);
  const seconds = response.headers.get("retry-after");
  return parts.join(": ") + (seconds ? ` (try again in ${seconds} s)` : "");
}
