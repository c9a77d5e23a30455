// Sealed states whose contents were changed: refused by name with nothing changed, or they are a state.
import { assert, assertEquals, AssertionError } from "@std/assert";
import { type Plain, RecordError } from "../../src/machine/record.ts";
import type { Hypervisor } from "../../src/debug/hypervisor.ts";
import { advance } from "../../src/debug/lockstep.ts";
import { seal, unpackState } from "../../src/xen/state_file.ts";
import { configurations } from "../../src/debug/testing/hosts.ts";
import { Random, repacked, signature, standing } from "../../src/debug/testing/states.ts";
import { subjectOf } from "../../src/debug/domain.ts";

/** Every place in a record, as the keys that lead there. */
function places(value: Plain, path: (string | number)[] = []): (string | number)[][] {
  if (typeof value !== "object" || value === null || value instanceof Uint8Array) return [path];
  const inside = Array.isArray(value)
    ? value.slice(0, 40).map((v, i) => [i, v] as const)
    : Object.entries(value);
  return [path, ...inside.flatMap(([key, v]) => places(v, [...path, key]))];
}

type Holder = Record<string | number, unknown>;

/** Something else in place of what stands there. */
function changed(value: unknown, random: Random): unknown {
  const others: unknown[] = [
    null,
    true,
    false,
    0,
    1,
    -1,
    7,
    0.5,
    1e300,
    -1e300,
    Infinity,
    "",
    "x",
    5n,
    -5n,
    1n << 70n,
    [],
    {},
    new Uint8Array(3),
    [[[]]],
    { kind: "cpuid" },
  ];
  if (typeof value === "number" && random.below(2)) {
    return value + random.pick([1, -1, 256, 2 ** 31, 0.5]);
  }
  if (typeof value === "bigint" && random.below(2)) return value ^ 1n << BigInt(random.below(64));
  if (typeof value === "boolean" && random.below(2)) return !value;
  if (value instanceof Uint8Array && value.length && random.below(3)) {
    const bytes = value.slice(0, random.below(4) ? value.length : random.below(value.length));
    if (bytes.length) bytes[random.below(bytes.length)] ^= 1 << random.below(8);
    return bytes;
  }
  if (Array.isArray(value) && random.below(2)) {
    return random.below(2) ? value.slice(1) : [...value, 0];
  }
  return random.pick(others);
}

for (const c of configurations) {
  Deno.test(`a sealed state with other contents is refused, or is that state (${c.cpu}, ${c.paging})`, async () => {
    let host = await standing(c);
    const state = host.hv.save(), random = new Random(2026), before = signature(host);
    const { record, frames, data } = unpackState(state);
    const all = places(record);
    let refused = 0, taken = 0;
    for (let n = 0; n < 400; n++) {
      const copy = structuredClone(record) as Holder, path = random.pick(all);
      const where = path.join(".");
      if (path.length === 0) continue;
      let holder = copy;
      for (const key of path.slice(0, -1)) holder = holder[key] as Holder;
      const key = path.at(-1)!;
      const how = random.below(8);
      if (how === 0 && !Array.isArray(holder)) delete holder[key];
      else if (how === 1 && !Array.isArray(holder)) holder[`${key}x`] = holder[key];
      else if (how === 2) {
        const other = random.pick(Object.keys(holder));
        [holder[key], holder[other]] = [holder[other], holder[key]];
      } else holder[key] = changed(holder[key], random);
      const bytes = repacked(copy as Plain, frames, data);
      try {
        host.hv.load(bytes);
      } catch (error) {
        if (!(error instanceof RecordError)) throw new AssertionError(`${where}: ${error}`);
        refused++;
        if (n % 20 === 0) assertEquals(signature(host), before, where);
        continue;
      }
      taken++;
      assertTaken(host.hv, bytes, where);
      // Whatever it is, it runs, or ends.
      advance(host.dom, 3000);
      if (subjectOf(host.dom).inner.ended) {
        await host.hv.close();
        host = await standing(c);
      }
      host.hv.load(state);
      assertEquals(signature(host).replace("undefined", "msr"), before.replace("undefined", "msr"));
    }
    await host.hv.close();
    assert(refused > 200 && taken > 10, `${refused} refused, ${taken} taken`);
  });

  Deno.test(`a sealed state with bytes changed anywhere is refused, or is that state (${c.cpu}, ${c.paging})`, async () => {
    let host = await standing(c);
    const state = host.hv.save(), random = new Random(99);
    const length = new DataView(state.buffer).getUint32(12, true);
    for (let n = 0; n < 300; n++) {
      const bytes = state.slice(), inRecord = n % 4 !== 0;
      const at = inRecord ? 24 + random.below(length) : 24 + random.below(state.length - 24);
      bytes[at] ^= 1 << random.below(8);
      seal(bytes);
      try {
        host.hv.load(bytes);
      } catch (error) {
        if (!(error instanceof RecordError)) throw new AssertionError(`byte ${at}: ${error}`);
        continue;
      }
      assertTaken(host.hv, bytes, `byte ${at}`);
      advance(host.dom, 1500);
      if (subjectOf(host.dom).inner.ended) {
        await host.hv.close();
        host = await standing(c);
      }
      host.hv.load(state);
    }
    await host.hv.close();
  });
}

/**
 * The host has the state that was given. Of memory the parts that hardware keeps for itself are put in
 * order (clean bits, what is intercepted), once.
 */
function assertTaken(hv: Hypervisor, given: Uint8Array, what: string): void {
  const taken = hv.save();
  const same = (a: unknown, b: unknown) => {
    try {
      assertEquals(a, b);
      return true;
    } catch {
      return false;
    }
  };
  assert(same(unpackState(taken).record, unpackState(given).record), `${what}: another record`);
  hv.load(taken);
  assert(same(hv.save(), taken), `${what}: loaded again it is another`);
}
