type Pairs = Map<object, Set<object>>;
type Properties = Record<PropertyKey, unknown>;

const sameValueZero = (a: unknown, b: unknown) => a === b || (a !== a && b !== b);

/**
 * Whether two values are deeply equal: own enumerable properties (symbols too), array items, bytes
 * of typed arrays, entries of maps and sets, time of dates, source of regular expressions. The
 * constructors have to be the same. `0` equals `-0`, `NaN` equals `NaN`.
 */
export function equal(a: unknown, b: unknown): boolean {
  return compare(a, b, new Map());
}

function compare(a: unknown, b: unknown, seen: Pairs): boolean {
  if (sameValueZero(a, b)) return true;
  if (typeof a !== "object" || typeof b !== "object" || !a || !b) return false;
  if (a.constructor !== b.constructor && a.constructor && b.constructor) return false;
  if (seen.get(a)?.has(b)) return true; // a cycle: equal unless something else differs
  seen.set(a, (seen.get(a) ?? new Set()).add(b));

  if (a instanceof Date) return sameValueZero(a.getTime(), (b as Date).getTime());
  if (a instanceof RegExp || a instanceof URL) return String(a) === String(b);
  if (a instanceof WeakMap || a instanceof WeakSet || a instanceof WeakRef) return false;
  if (ArrayBuffer.isView(a)) return sameBytes(a, b as ArrayBufferView);
  if (a instanceof ArrayBuffer) {
    return sameBytes(new Uint8Array(a), new Uint8Array(b as ArrayBuffer));
  }
  if (a instanceof Error && (a.message !== (b as Error).message || a.name !== (b as Error).name)) {
    return false;
  }
  if (a instanceof Set) return sameSets(a, b as Set<unknown>, seen);
  if (a instanceof Map) return sameMaps(a, b as Map<unknown, unknown>, seen);
  return sameProperties(a as Properties, b as Properties, seen);
}

function sameProperties(
  a: Properties,
  b: Properties,
  seen: Pairs,
): boolean {
  if (Array.isArray(a) && a.length !== (b as unknown as unknown[]).length) return false;
  const keys = ownKeys(a);
  return keys.length === ownKeys(b).length &&
    keys.every((key) => Object.hasOwn(b, key) && compare(a[key], b[key], seen));
}

function ownKeys(value: object): PropertyKey[] {
  return Reflect.ownKeys(value).filter((key) =>
    Object.prototype.propertyIsEnumerable.call(value, key)
  );
}

function sameBytes(a: ArrayBufferView, b: ArrayBufferView): boolean {
  if (a.byteLength !== b.byteLength) return false;
  if (a instanceof Float32Array || a instanceof Float64Array) {
    return a.every((value, i) => sameValueZero(value, (b as Float64Array)[i]));
  }
  const left = new Uint8Array(a.buffer, a.byteOffset, a.byteLength);
  const right = new Uint8Array(b.buffer, b.byteOffset, b.byteLength);
  for (let i = 0; i < left.length; i++) if (left[i] !== right[i]) return false;
  return true;
}

function sameSets(a: Set<unknown>, b: Set<unknown>, seen: Pairs): boolean {
  if (a.size !== b.size) return false;
  const rest = new Set(b);
  for (const item of a) {
    if (rest.delete(item)) continue;
    const match = [...rest].find((other) => compare(item, other, seen));
    if (match === undefined || !rest.delete(match)) return false;
  }
  return true;
}

function sameMaps(a: Map<unknown, unknown>, b: Map<unknown, unknown>, seen: Pairs): boolean {
  if (a.size !== b.size) return false;
  const rest = new Map(b);
  for (const [key, value] of a) {
    const match = rest.has(key) ? key : [...rest.keys()].find((k) => compare(key, k, seen));
    if (!rest.has(match) || !compare(value, rest.get(match), seen)) return false;
    rest.delete(match);
  }
  return true;
}
