import { assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { decodePlain, encodePlain, type Plain, RecordError } from "./record.ts";
import { like, record, u32 } from "./shape.ts";
import { refuse, StateRegistry } from "./state_block.ts";

/** Two owners' blocks, in the order asked for. */
function made(values: { a: number; b: number }, order: readonly ("a" | "b")[] = ["a", "b"]) {
  const blocks = new StateRegistry();
  for (const name of order) {
    blocks.part(`part ${name}`).register<{ value: number }>({
      name: "",
      version: 1,
      configuration: () => ({ size: 4 }),
      shape: record({ value: u32 }),
      save: () => ({ value: values[name] }),
      check: ({ value }, beside) => {
        if (value === 13) refuse(`${name} is unlucky`);
        assertEquals(beside(""), { value });
      },
      load: ({ value }) => values[name] = value,
    });
  }
  return blocks;
}
const saved = (blocks: StateRegistry) => decodePlain(encodePlain(blocks.save()));

Deno.test("StateRegistry saves, loads and hashes what is registered, in whatever order", () => {
  const values = { a: 1, b: 2 }, blocks = made(values), state = saved(blocks), { hash } = blocks;
  assertEquals(made({ a: 1, b: 2 }, ["b", "a"]).hash, hash);
  assertNotEquals(made({ a: 2, b: 1 }).hash, hash);
  Object.assign(values, { a: 3, b: 4 });
  assertNotEquals(blocks.hash, hash);
  blocks.prepare(state)();
  assertEquals([values, blocks.hash], [{ a: 1, b: 2 }, hash]);
  // What only says how somebody looks at it is saved, and not hashed.
  const look = { name: "look", version: 1, shape: u32, hashed: false, save: () => 5 } as const;
  blocks.register({ ...look, load: () => {} });
  assertEquals(blocks.hash, hash);
  assertEquals(Object.keys(blocks.save()), ["part a", "part b", "look"]);
});

Deno.test("StateRegistry checks all before it changes anything, and says what was expected", () => {
  const values = { a: 1, b: 2 }, blocks = made(values), state = saved(blocks);
  type Parts = Record<string, Record<string, unknown>>;
  const changed = (change: (state: Parts) => unknown) => {
    const copy = structuredClone(state) as Parts;
    change(copy);
    return copy as unknown as Plain;
  };
  const cases: [change: (state: Parts) => unknown, text: string][] = [
    [(s) => delete s["part b"], 'has no block "part b"'],
    [(s) => s.more = s["part b"], 'a block "more", unknown here'],
    [(s) => s["part b"].version = 2, 'block "part b" has version 2; this xvm reads version 1'],
    [(s) => s["part b"].configuration = { size: 5 }, "part b has size 5 there, and 4 here"],
    [(s) => s["part b"].record = { value: -1 }, "part b.value is -1, expected a whole number"],
    [(s) => s["part b"].record = {}, "part b.value is missing"],
    [(s) => s["part b"].record = { value: 13 }, "b is unlucky"],
    [(s) => s["part b"].more = 1, "more is unknown"],
  ];
  values.a = 9;
  for (const [change, text] of cases) {
    assertThrows(() => blocks.prepare(changed(change)), RecordError, text);
    assertEquals(values, { a: 9, b: 2 });
  }
});

Deno.test("StateRegistry has one block of a name, and a part's go together", () => {
  const blocks = made({ a: 1, b: 2 });
  const block = { name: "part a", version: 1, shape: u32, save: () => 1, load: () => {} };
  assertThrows(() => blocks.register(block), Error, 'a block "part a" is registered already');
  blocks.register({ ...block, name: "part ab" });
  blocks.part("part a").register({ ...block, name: "more" });
  blocks.drop("part a");
  assertEquals(Object.keys(blocks.save()), ["part b", "part ab"]);
  blocks.replace({ ...block, name: "part b" });
  assertEquals(blocks.save()["part b"].record, 1);
});

Deno.test("like() takes a state's members by their kinds, sizes and ranges", () => {
  const state = {
    byte: 1,
    wide: 2,
    list: [1, 2],
    queue: [],
    text: "x",
    big: 1n,
    inner: { wide: 0 },
  };
  const shape = like({ state, queues: ["queue"], ranges: { wide: [-1, Infinity] } });
  const taken = (change: object) => shape({ ...state, ...change } as Plain, "it");
  taken({ byte: 255, wide: Infinity, queue: [1, 2, 3], inner: { wide: 2 ** 52 } });
  for (
    const [change, text] of [
      [{ byte: 256 }, "it.byte is 256, expected a whole number from 0 to 255"],
      [{ byte: Infinity }, "it.byte is Infinity"],
      [{ wide: 0.5 }, "it.wide is 0.5"],
      [{ list: [1] }, "it.list is a list of 1, expected 2 entries"],
      [{ queue: [256] }, "it.queue[0] is 256"],
      [{ text: 1 }, "it.text is 1, expected a string"],
      [{ big: 1n << 64n }, "it.big is 0x10000000000000000, expected 64 bits"],
      [{ inner: {} }, "it.inner.wide is missing"],
      [{ more: 1 }, "it.more is unknown"],
    ] as const
  ) assertThrows(() => taken(change), RecordError, text);
});
