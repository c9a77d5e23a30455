import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { XS } from "../abi/xen/io/xs_wire.ts";
import { StoreClient, type StoreEvent, XenstoreError } from "./client.ts";
import { textOf } from "./text.ts";
import { TestStore } from "./testing.ts";

function made() {
  const test = new TestStore(), entered: string[] = [];
  const client = new StoreClient(test.daemon, {
    enter: (type, payload) => entered.push(`${type} ${textOf(payload)}`),
  });
  return { test, client, entered, daemon: test.daemon };
}

Deno.test("StoreClient reads, writes, lists and removes", () => {
  const { client, entered } = made();
  client.write("/a/b", "ü");
  client.write("/a/c", Uint8Array.of(0, 255));
  assertEquals([client.read("/a/b"), client.readBytes("/a/c")], ["ü", Uint8Array.of(0, 255)]);
  assertEquals([client.list("/a"), client.list("/a/b")], [["b", "c"], []]);
  assertEquals([client.exists("/a"), client.exists("/b")], [true, false]);
  client.mkdir("/a/d");
  client.remove("/a/b");
  client.remove("/a/b");
  assertEquals(client.list("/a"), ["c", "d"]);
  // What is written or read elsewhere does not change what one has.
  const bytes = Uint8Array.of(1, 2);
  client.write("/a/c", bytes);
  bytes[0] = 9;
  client.readBytes("/a/c")[1] = 9;
  assertEquals(client.readBytes("/a/c"), Uint8Array.of(1, 2));
  assertEquals(client.permissions("/a"), ["n0"]);
  client.setPermissions("/a", ["n0", "r1"]);
  assertEquals(client.permissions("/a"), ["n0", "r1"]);
  // Relative to domain 0's home.
  client.write("home", "x");
  assertEquals(client.read("/local/domain/0/home"), "x");
  assertEquals(entered.filter((it) => it.startsWith(`${XS.WRITE} /a/b`)), [
    `${XS.WRITE} /a/b\0\xc3\xbc`,
  ]);
  assertEquals(entered.some((it) => it.startsWith(`${XS.READ} `)), false);
});

Deno.test("StoreClient says what was asked for, and why it is refused", () => {
  const { client } = made();
  const error = assertThrows(() => client.read("/none"), XenstoreError);
  assertEquals([error.code, error.message], [
    "ENOENT",
    "read /none: ENOENT: there is no such node, domain or transaction",
  ]);
  assertThrows(
    () => client.write("/a//b", ""),
    XenstoreError,
    "write /a//b: EINVAL: not valid: a path",
  );
  assertThrows(() => client.write("/a", "x".repeat(4096)), XenstoreError, "E2BIG");
  assertThrows(() => client.write("/\u0141", ""), TypeError, "is no character of a byte");
  assertThrows(() => client.setPermissions("/tool", []), TypeError, "expected at least one of");
  assertThrows(() => client.setPermissions("/tool", ["r" as "r1"]), TypeError, "permissions r:");
  assertThrows(() => client.watch("/a b"), XenstoreError, "watch /a b: EINVAL");
});

Deno.test("StoreClient.watch() calls when all is done, in the order of changes", () => {
  const { client, test } = made(), seen: string[] = [];
  const domain = test.domain(1);
  client.write("/public", "");
  client.setPermissions("/public", ["b0"]);
  using _watch = client.watch("/public", ({ path }) => {
    seen.push(`${path} ${client.exists(path) ? client.read(path) : "-"}`);
    // Writes of its own are told when this one has been.
    if (path === "/public/a") client.write("/public/b", "2");
  });
  assertEquals(seen.splice(0), ["/public "]);
  const order: string[] = [];
  using _other = client.watch("/public", ({ path }) => order.push(path));
  assertEquals(domain.write("/public/a", "1"), "OK");
  assertEquals(seen.splice(0), ["/public/a 1", "/public/b 2"]);
  assertEquals(order, ["/public", "/public/a", "/public/b"]);
  const transaction = client.begin();
  transaction.write("/public/c", "3");
  transaction.remove("/public/a");
  assertEquals(seen, []);
  assertEquals(transaction.commit(), true);
  assertEquals(seen.splice(0), ["/public/c 3", "/public/a -", "/public/b 2"]);
});

Deno.test("StoreClient.watch() is a loop over events, until it is closed", async () => {
  const { client, daemon } = made(), seen: StoreEvent[] = [];
  const watch = client.watch("/x");
  const loop = (async () => {
    for await (const event of watch) {
      seen.push(event);
      if (event.path === "/x/last") break;
    }
  })();
  for (const path of ["/x", "/x/a", "/x/a", "/y", "/x/last"]) client.write(path, "");
  await loop;
  // It waited for the first one; of those that wait then, each is there once.
  assertEquals(seen.map(({ path }) => path), ["/x", "/x", "/x/a", "/x/last"]);
  client.write("/x", "");
  assertEquals(daemon.problems(), []);
  const other = client.watch("/x"),
    done = (async () => {
      for await (const _ of other) seen.length = 0;
    })();
  await Promise.resolve();
  other.close();
  other.close();
  await done;
  // Another with the same path is another watch.
  const { memory } = daemon.accounts.of(0), [one, two] = [client.watch("/x"), client.watch("/x")];
  assertEquals(daemon.accounts.of(0).memory > memory, true);
  one.close();
  two.close();
  assertEquals(daemon.accounts.of(0).memory, memory);
});

Deno.test("a transaction that somebody gets in the way of is done again", async () => {
  const { client } = made();
  client.write("/n", "1");
  let times = 0;
  const result = await client.transaction(async (nodes) => {
    const n = Number(nodes.read("/n"));
    // Somebody else comes in between, once.
    await Promise.resolve();
    if (times++ === 0) client.write("/n", "10");
    nodes.write("/n", `${n + 1}`);
    assertEquals(client.read("/n") === `${n + 1}`, false);
    return n;
  });
  assertEquals([result, times, client.read("/n")], [10, 2, "11"]);
  await assertRejects(
    () =>
      client.transaction((nodes) => {
        nodes.read("/n");
        client.write("/n", "");
      }, 3),
    XenstoreError,
    "a transaction, 3 times: EAGAIN: somebody else",
  );
  await assertRejects(() =>
    client.transaction((nodes) => {
      nodes.write("/n", "given up");
      throw new Error("no");
    })
  );
  assertEquals(client.read("/n"), "");
  const transaction = client.begin();
  transaction.write("/n", "x");
  transaction.abort();
  assertThrows(() => transaction.commit(), XenstoreError, "end: ENOENT");
  assertEquals(client.read("/n"), "");
});

Deno.test("a client that is closed hears nothing more, and an error of a callback stops nobody", async () => {
  const { client, daemon, test } = made(), seen: string[] = [], errors: string[] = [];
  const caught = (event: ErrorEvent) => {
    event.preventDefault();
    errors.push(event.error.message);
  };
  globalThis.addEventListener("error", caught);
  try {
    const other = new StoreClient(daemon);
    other.watch("/x", ({ path }) => {
      throw new Error(`of ${path}`);
    });
    client.watch("/x", ({ path }) => seen.push(path));
    client.write("/x/y", "");
    assertEquals(seen, ["/x", "/x/y"]);
    other.close();
    client.write("/x/z", "");
    await new Promise((resolve) => setTimeout(resolve));
    assertEquals(errors, ["of /x", "of /x/y"]);
  } finally {
    globalThis.removeEventListener("error", caught);
  }
  assertEquals(test.domain(3).read("/x"), "EACCES");
});
