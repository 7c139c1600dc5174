// world: resolver
//
// Keeps the document with the higher `rank`, whenever it was put.
//
// The interface is wit/policy.wit. Numbers of 64 bits (timestamps, hashes) arrive as JavaScript
// numbers, which are exact up to 2^53 only: do not compare timestamps here. `first` is the earlier.

export const lifecycle = {
  init(environment) {
    let settings;
    try {
      settings = JSON.parse(environment.settings);
    } catch (error) {
      throw { tag: "bad-settings", val: `settings: ${error.message}` };
    }
    for (const name of Object.keys(settings)) {
      if (name !== "field") {
        throw { tag: "bad-settings", val: `unknown setting \`${name}\`, there is \`field\`` };
      }
    }
    field = settings.field ?? "rank";
    return {
      name: "my-policy",
      version: "0.1.0",
      hooks: { resolve: true },
      needs: {},
      payloadPrefix: 0,
      routeVariesWith: {},
      counters: [],
      reasons: [],
    };
  },
};

export const conflictResolution = {
  // Every call is made on a fresh instance: it must depend on its arguments alone.
  resolve(key, first, second) {
    // A delete wins over puts that did not know of it. To leave it to the default would make the
    // answer depend on the order in which three versions meet.
    if (first.value === null) return { tag: "keep-first" };
    if (second.value === null) return { tag: "keep-second" };
    return rank(first.value) > rank(second.value) ? { tag: "keep-first" } : { tag: "keep-second" };
  },
};

let field = "rank";

/** What is no document, or has no number there, is below all that has. */
function rank(value) {
  try {
    const number = JSON.parse(text(value.payload))[field];
    return typeof number === "number" ? number : -Infinity;
  } catch {
    return -Infinity;
  }
}

/** There is no TextDecoder here; this reads UTF-8 by the functions for addresses. */
function text(bytes) {
  let encoded = "";
  for (const byte of bytes) encoded += `%${byte.toString(16).padStart(2, "0")}`;
  return decodeURIComponent(encoded);
}
