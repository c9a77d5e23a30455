import { assert, assertEquals, assertThrows } from "@std/assert";
import { XS } from "../abi/xen/io/xs_wire.ts";
import { StoreClient, XenstoreError } from "./client.ts";
import { XENSTORE_PAGE } from "./pages.ts";
import { bytesOfText } from "./text.ts";
import { shownMessage, TestDomain, TestStore } from "./testing.ts";

/** A store with two domains that have homes, as a toolstack makes them. */
function made() {
  const test = new TestStore(), a = test.domain(1), b = test.domain(2);
  const client = new StoreClient(test.daemon);
  for (const id of [1, 2]) {
    client.mkdir(`/local/domain/${id}`);
    client.setPermissions(`/local/domain/${id}`, [`n${id}`]);
  }
  return { test, a, b, client, daemon: test.daemon };
}

const bytes = (text: string) =>
  Uint8Array.from(text.match(/../g) ?? [], (hex) => parseInt(hex, 16));

Deno.test("xenstore: a request and its answer, byte by byte", () => {
  const { a, test } = made();
  const header = (type: string, length: string) => `${type}0000002a00000000000000${length}000000`;
  // WRITE "x\0hi", then READ "x\0".
  a.put(bytes(header("0b", "04") + "78006869"));
  assertEquals(a.take(), bytes(header("0b", "03") + "4f4b00"));
  a.put(bytes(header("02", "02") + "7800"));
  assertEquals(a.take(), bytes(header("02", "02") + "6869"));
  // READ "y\0": ERROR "ENOENT\0".
  a.put(bytes(header("02", "02") + "7900"));
  assertEquals(a.take(), bytes(header("10", "07") + "454e4f454e5400"));
  assertEquals([...a.bytes.subarray(2064, 2076)], [3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
  const before = a.notified;
  test.daemon.run();
  assertEquals(a.notified, before);
});

Deno.test("xenstore: every type of request, its answer, and its errors", () => {
  const { a } = made();
  const cases: [type: keyof typeof XS | number, payload: string, answer: string][] = [
    ["WRITE", "a/b\0v", "OK"],
    ["READ", "a/b\0", "v"],
    ["READ", "/local/domain/1/a/b\0", "v"],
    ["READ", "a\0", ""],
    ["READ", "a/b", "EINVAL"],
    ["READ", "a/b\0\0", "EINVAL"],
    ["READ", "\0", "EINVAL"],
    ["READ", "a//b\0", "EINVAL"],
    ["READ", "a/\0", "EINVAL"],
    ["READ", "a b\0", "EINVAL"],
    ["READ", "@introduceDomain\0", "EINVAL"],
    ["READ", "a/c\0", "ENOENT"],
    ["READ", "/tool\0", "EACCES"],
    ["READ", "/nothing\0", "EACCES"],
    ["READ", `a/${"x".repeat(2046)}\0`, "ENOENT"],
    ["READ", `a/${"x".repeat(2047)}\0`, "EINVAL"],
    ["WRITE", "a/b", "EINVAL"],
    ["WRITE", "a/bin\0\0\xff\0", "OK"],
    ["READ", "a/bin\0", "|\xff"],
    ["WRITE", "/tool/x\0v", "EACCES"],
    ["MKDIR", "a/b\0", "OK"],
    ["READ", "a/b\0", "v"],
    ["MKDIR", "a/d/e\0", "OK"],
    ["READ", "a/d/e\0", ""],
    ["DIRECTORY", "a\0", "b|bin|d"],
    ["DIRECTORY", "a/b\0", ""],
    ["DIRECTORY", "a/z\0", "ENOENT"],
    ["DIRECTORY_PART", "a\0", "EINVAL"],
    ["RM", "a/d\0", "OK"],
    ["RM", "a/d\0", "OK"],
    ["RM", "a/d/e\0", "ENOENT"],
    ["RM", "/\0", "EACCES"],
    ["DIRECTORY", "a\0", "b|bin"],
    ["GET_PERMS", "a/b\0", "n1"],
    ["SET_PERMS", "a/b\0n1\0r2\0", "OK"],
    ["GET_PERMS", "a/b\0", "n1|r2"],
    ["SET_PERMS", "a/b\0r0x1\0w02\0b0\0", "OK"],
    ["GET_PERMS", "a/b\0", "r1|w2|b0"],
    ["SET_PERMS", "a/b\0", "EINVAL"],
    ["SET_PERMS", "a/b\0x1\0", "EINVAL"],
    ["SET_PERMS", "a/b\0r\0", "EINVAL"],
    ["SET_PERMS", "a/b\0r1x\0", "EINVAL"],
    ["SET_PERMS", "a/b\0n2\0", "EPERM"],
    ["SET_PERMS", "a/b\0n77\0", "ENOENT"],
    ["SET_PERMS", "/tool\0n1\0", "EACCES"],
    ["SET_PERMS", "a/b\0n1\0r2\0r2\0r2\0r2\0r2\0", "ENOSPC"],
    ["SET_PERMS", "@introduceDomain\0n1\0", "EACCES"],
    ["SET_PERMS", "@other\0n1\0", "EINVAL"],
    ["WATCH", "a\0", "EINVAL"],
    ["WATCH", "a\0token\0depth\0", "EINVAL"],
    ["WATCH", "a\0token\0", "OK"],
    ["WATCH", "a\0token\0", "EEXIST"],
    ["WATCH", "a/\0token\0", "EINVAL"],
    ["WATCH", "@anything at all\0token\0", "OK"],
    ["UNWATCH", "a\0other\0", "ENOENT"],
    ["UNWATCH", "a\0token\0", "OK"],
    ["UNWATCH", "a\0token\0", "ENOENT"],
    ["UNWATCH", "a\0", "EINVAL"],
    ["TRANSACTION_END", "T\0", "ENOENT"],
    ["TRANSACTION_END", "X\0", "EINVAL"],
    ["TRANSACTION_START", "\0", "1"],
    ["TRANSACTION_START", "\0", "2"],
    ["GET_DOMAIN_PATH", "7\0", "/local/domain/7"],
    ["GET_DOMAIN_PATH", "007x\0", "/local/domain/7"],
    ["GET_DOMAIN_PATH", "7", "EINVAL"],
    ["RESET_WATCHES", "\0", "OK"],
    ["INTRODUCE", "3\x001\x001\0", "EACCES"],
    ["RELEASE", "2\0", "EACCES"],
    ["IS_DOMAIN_INTRODUCED", "2\0", "EACCES"],
    ["RESUME", "2\0", "EACCES"],
    ["SET_TARGET", "1\x002\0", "EACCES"],
    ["CONTROL", "check\0", "EACCES"],
    ["WATCH_EVENT", "a\0b\0", "ENOSYS"],
    ["ERROR", "EINVAL\0", "ENOSYS"],
    [20, "1\0", "ENOSYS"],
    [23, "", "ENOSYS"],
    [0xffff, "", "ENOSYS"],
    [0xffff_ffff, "", "ENOSYS"],
  ];
  for (const [type, payload, answer] of cases) {
    const number = typeof type === "number" ? type : XS[type];
    assertEquals(a.ask(number, payload), answer, `${type} ${JSON.stringify(payload)}`);
  }
  assertEquals(a.ask(XS.READ, "a/b\0", 77), "ENOENT");
  assertEquals(a.ask(XS.WATCH, "a\0token\0", 77), "OK");
});

Deno.test("xenstore: domain 0 may send what others may not", () => {
  const { test, client, daemon } = made();
  const ask = (type: number, payload: string) => {
    try {
      const answer = client.request(type, bytesOfText(payload), "");
      return String.fromCharCode(...answer).replace(/\0$/, "");
    } catch (error) {
      assert(error instanceof XenstoreError);
      return error.code;
    }
  };
  test.create(3);
  const cases: [keyof typeof XS, string, string][] = [
    ["IS_DOMAIN_INTRODUCED", "3\0", "F"],
    ["IS_DOMAIN_INTRODUCED", "0\0", "T"],
    ["IS_DOMAIN_INTRODUCED", "32752\0", "T"],
    ["INTRODUCE", "3\x005\x00\0", "EINVAL"],
    ["INTRODUCE", "3\x005\0", "EINVAL"],
    ["INTRODUCE", "3\x005\x001001\0", "EINVAL"],
    ["INTRODUCE", "9\x005\x001\0", "EINVAL"],
    ["INTRODUCE", "0\x005\x001\0", "EINVAL"],
    ["INTRODUCE", "3\x005\x001\0", "OK"],
    ["IS_DOMAIN_INTRODUCED", "3\0", "T"],
    ["RESUME", "3\0", "OK"],
    ["RESUME", "0\0", "EINVAL"],
    ["RESUME", "9\0", "ENOENT"],
    ["SET_TARGET", "3\x009\0", "ENOENT"],
    ["SET_TARGET", "3\x001\0", "OK"],
    ["SET_TARGET", "3\0", "EINVAL"],
    ["RELEASE", "3\0", "OK"],
    ["RELEASE", "3\0", "ENOENT"],
    ["RM", "/\0", "EINVAL"],
    ["CONTROL", "check\0", "OK"],
    ["CONTROL", "nothing\0", "EINVAL"],
    ["CONTROL", "toString\0", "EINVAL"],
    ["CONTROL", "quota\0set\0nodes\x002000\0", "OK"],
    ["CONTROL", "quota\0set\0nodes\x000\0", "EINVAL"],
    ["CONTROL", "quota\0set\0none\x002\0", "EINVAL"],
    ["CONTROL", "quota\x009\0", "ENOENT"],
  ];
  for (const [type, payload, answer] of cases) {
    assertEquals(ask(XS[type], payload), answer, `${type} ${JSON.stringify(payload)}`);
  }
  assertEquals(daemon.accounts.quotas.nodes, 2000);
  assert(ask(XS.CONTROL, "quota\x001\0").includes("nodes           :        1\n"));
  assert(ask(XS.CONTROL, "quota\0").includes("watches          :      128\n"));
});

Deno.test("xenstore: many children come in parts, and not as one", () => {
  const { a, client } = made();
  client.setPermissions("/", ["r0"]);
  client.mkdir("/many");
  const names = Array.from({ length: 1000 }, (_, n) => `child-${n * 37}`);
  for (const name of names) client.write(`/many/${name}`, "");
  assertEquals(a.list("/many"), "E2BIG");
  let all = "";
  for (let ends = false; !ends;) {
    const answer = a.ask(XS.DIRECTORY_PART, `/many\0${all.length}\0`);
    const [generation, ...part] = answer.split("|");
    assertEquals(generation, answer.split("|")[0]);
    ends = part.at(-1) === "";
    all += part.filter(Boolean).map((name) => `${name}\0`).join("");
  }
  assertEquals(all.split("\0").slice(0, -1), names);
  assertEquals(client.list("/many"), names);
  const generation = a.ask(XS.DIRECTORY_PART, "/many\x000\0").split("|")[0];
  assertEquals(a.ask(XS.DIRECTORY_PART, `/many\0${all.length}\0`), `${generation}|`);
  client.mkdir("/many/more");
  assert(a.ask(XS.DIRECTORY_PART, "/many\x000\0").split("|")[0] !== generation);
});

Deno.test("xenstore: what is made has the permissions above it, and its maker's name", () => {
  const { a, b, client } = made();
  client.write("/shared", "");
  client.setPermissions("/shared", ["n0", "b1", "r2"]);
  assertEquals(a.write("/shared/of-a", "1"), "OK");
  assertEquals(a.permissions("/shared/of-a"), "n1|b1|r2");
  assertEquals(b.read("/shared/of-a"), "1");
  assertEquals(b.write("/shared/of-a", "2"), "EACCES");
  assertEquals(b.write("/shared/of-b", "2"), "EACCES");
  // Domain 0 owns nothing of what it makes below others'.
  client.write("/local/domain/1/x/y", "");
  assertEquals(client.permissions("/local/domain/1/x"), ["n1"]);
  assertEquals(a.write("x/y", "3"), "OK");
  // In the node itself one may be let do what one may not above it; what is not there is a secret.
  client.write("/secret/open", "o");
  client.setPermissions("/secret/open", ["r0"]);
  assertEquals([a.read("/secret/open"), a.read("/secret/none"), a.read("/secret")], [
    "o",
    "EACCES",
    "EACCES",
  ]);
});

Deno.test("xenstore: a domain has the rights of its target", () => {
  const { a, b, client, daemon, test } = made();
  a.write("x", "of a");
  assertEquals(b.read("/local/domain/1/x"), "EACCES");
  daemon.setTarget(2, 1);
  assertEquals(b.read("/local/domain/1/x"), "of a");
  assertEquals(b.write("/local/domain/1/y", "of b"), "OK");
  assertEquals(client.permissions("/local/domain/1/y"), ["n2"]);
  test.destroy(1);
  assertEquals(b.read("/local/domain/1/x"), "EACCES");
});

Deno.test("xenstore: watches are told of what changes below them, in the order of watches", () => {
  const { a, b, client } = made();
  a.write("dir/node", "");
  assertEquals(a.watch("dir", "t1"), "OK");
  assertEquals(a.watch("/local/domain/1/dir/node", "t2"), "OK");
  assertEquals(a.heard(), ["dir|t1|", "/local/domain/1/dir/node|t2|"]);
  a.write("dir/node", "1");
  const both = ["dir/node|t1|", "/local/domain/1/dir/node|t2|"];
  assertEquals(a.heard(), both);
  client.write("/local/domain/1/dir/node", "2");
  assertEquals(a.heard(), both);
  a.setPermissions("dir/node", "n1", "r2");
  assertEquals(a.heard(), both);
  a.write("dir/deep/er", "");
  assertEquals(a.heard(), ["dir/deep/er|t1|"]);
  a.ask(XS.MKDIR, "dir/deep/er\0");
  a.write("other", "");
  a.write("dir2", "");
  assertEquals(a.heard(), []);
  // Of a tree that is removed: who watches a node in it, by that; who watches above, once.
  a.watch("dir/deep/er", "t3");
  a.heard();
  a.rm("dir");
  assertEquals(a.heard(), ["/local/domain/1/dir/node|t2|", "dir/deep/er|t3|", "dir|t1|"]);
  a.rm("dir");
  assertEquals(a.heard(), []);
  assertEquals(b.heard(), []);
  a.ask(XS.UNWATCH, "dir\0t1\0");
  a.ask(XS.UNWATCH, "dir/deep/er\0t3\0");
  a.write("dir/deep/er", "");
  assertEquals(a.heard(), []);
});

Deno.test("xenstore: who may not read a node, nor that above it, is not told of it", () => {
  const { a, b, client } = made();
  b.watch("/", "all");
  assertEquals(b.heard(), ["/|all|"]);
  a.write("x", "1");
  assertEquals(b.heard(), []);
  a.setPermissions("x", "n1", "r2");
  a.write("x", "2");
  assertEquals(b.heard(), ["/local/domain/1/x|all|", "/local/domain/1/x|all|"]);
  // He is told that he may not any longer, and of nothing after that.
  a.setPermissions("x", "n1");
  assertEquals(b.heard(), ["/local/domain/1/x|all|"]);
  a.write("x", "3");
  assertEquals(b.heard(), []);
  // That above is enough.
  client.setPermissions("/local/domain/1", ["n1", "r2"]);
  b.heard();
  a.rm("x");
  assertEquals(b.heard(), ["/local/domain/1/x|all|"]);
});

Deno.test("xenstore: an event that waits already is not sent twice", () => {
  const { a } = made();
  a.watch("x", "t".repeat(200));
  a.heard();
  // Nobody reads: four answers and events fit into the ring, and part of a fifth, which waits.
  for (let n = 0; n < 15; n++) a.send(XS.WRITE, `x\0${n}`);
  const all = a.receive().map(shownMessage);
  assertEquals(all.filter((it) => it.startsWith("WRITE")).length, 15);
  assertEquals(all.filter((it) => it.startsWith("WATCH_EVENT")).length, 5);
  a.write("x", "");
  assertEquals(a.heard().length, 1);
});

Deno.test("xenstore: a transaction sees what it saw, and conflicts with whoever changes that", () => {
  const { a, b, client } = made();
  client.setPermissions("/local/domain/1", ["b1"]);
  const others: [name: string, change: (path: string) => unknown, answer: string][] = [
    ["nothing", () => {}, "OK"],
    ["a write elsewhere", (path) => b.write(`${path}/other`, ""), "OK"],
    ["a write", (path) => b.write(`${path}/x`, "2"), "EAGAIN"],
    ["the same again", (path) => b.write(`${path}/x`, "1"), "EAGAIN"],
    ["permissions", (path) => client.setPermissions(`${path}/x`, ["b0"]), "EAGAIN"],
    ["a child", (path) => b.write(`${path}/x/child`, ""), "EAGAIN"],
    ["removal", (path) => b.rm(`${path}/x`), "EAGAIN"],
    ["removal above", (path) => b.rm(path), "EAGAIN"],
    ["what was not there", (path) => b.write(`${path}/none`, ""), "EAGAIN"],
    ["below what was not there", (path) => b.write(`${path}/none/below`, ""), "EAGAIN"],
  ];
  for (const [n, [name, change, answer]] of others.entries()) {
    const path = `/local/domain/1/${n}`;
    for (const leaf of ["x", "other"]) a.write(`${path}/${leaf}`, "1");
    const transaction = a.begin();
    const read = () => [
      a.read(`${path}/x`, transaction),
      name === "a write elsewhere" ? "" : a.read(`${path}/none`, transaction),
      a.list(`${path}/x`, transaction),
    ];
    const seen = read();
    a.write(`${path}/mine`, "1", transaction);
    change(path);
    assertEquals(read(), seen, name);
    assertEquals([a.commit(transaction), b.read(`${path}/mine`)], [
      answer,
      answer === "OK" ? "1" : "ENOENT",
    ], name);
  }
});

Deno.test("xenstore: a transaction's changes are told at its end, and those of one given up never", () => {
  const { a, b, client } = made();
  client.setPermissions("/local/domain/1", ["n1", "r2"]);
  for (const path of ["dir/below", "old", "same"]) a.write(path, "");
  client.setPermissions("/local/domain/1/same", ["n1"]);
  b.watch("/local/domain/1", "all");
  b.watch("/local/domain/1/dir/below", "exact");
  client.write("/local/domain/1/secret/x", "");
  client.setPermissions("/local/domain/1/secret", ["n1"]);
  client.setPermissions("/local/domain/1/secret/x", ["n1"]);
  b.heard();
  for (const end of ["F", "T"]) {
    const transaction = a.begin();
    a.write("new/deep", "1", transaction);
    a.write("old", "2", transaction);
    a.write("old", "3", transaction);
    a.write("gone", "", transaction);
    a.rm("gone", transaction);
    a.rm("dir", transaction);
    a.write("secret/x", "1", transaction);
    assertEquals([b.heard(), b.read("/local/domain/1/old")], [[], ""]);
    assertEquals(a.ask(XS.TRANSACTION_END, `${end}\0`, transaction), "OK");
    assertEquals(
      b.heard(),
      end === "F" ? [] : [
        "/local/domain/1/new/deep|all|",
        "/local/domain/1/old|all|",
        "/local/domain/1/dir|all|",
        "/local/domain/1/dir/below|exact|",
      ],
    );
  }
  assertEquals([a.read("new/deep"), a.read("old"), a.list("")], ["1", "3", "EINVAL"]);
  assertEquals(b.list("/local/domain/1"), "old|same|secret|new");
});

Deno.test("xenstore: @introduceDomain and @releaseDomain", () => {
  const { a, b, test, daemon, client } = made(), told: string[] = [];
  a.watch("@introduceDomain", "i");
  a.watch("@releaseDomain", "r");
  b.watch("@releaseDomain", "r");
  client.watch("@introduceDomain", ({ path }) => told.push(path));
  client.watch("@releaseDomain", ({ path }) => told.push(path));
  assertEquals([a.heard(), b.heard()], [["@introduceDomain|i|", "@releaseDomain|r|"], [
    "@releaseDomain|r|",
  ]]);
  told.length = 0;
  test.domain(3);
  assertEquals([told.splice(0), a.heard()], [["@introduceDomain"], []]);
  client.setPermissions("@releaseDomain", ["n0", "r1"]);
  daemon.shutdown(3);
  daemon.shutdown(3);
  assertEquals([told.splice(0), a.heard(), b.heard()], [
    ["@releaseDomain"],
    ["@releaseDomain|r|"],
    [],
  ]);
  daemon.resume(3);
  daemon.shutdown(3);
  assertEquals(a.heard(), ["@releaseDomain|r|"]);
  test.destroy(3);
  assertEquals([told.splice(0), a.heard()], [["@releaseDomain", "@releaseDomain"], [
    "@releaseDomain|r|",
  ]]);
  // One that was never introduced goes without a word.
  test.create(4);
  test.destroy(4);
  assertEquals(told, []);
  // Introduced again: it begins anew, and nobody is told.
  a.write("x", "1");
  a.begin();
  daemon.introduce(1, 2);
  assertEquals(told, []);
  assertEquals([a.read("x"), a.read("x", 1), a.begin()], ["1", "ENOENT", 2]);
  a.write("x", "2");
  assertEquals(a.heard(), []);
});

Deno.test("xenstore: a domain that dies leaves no nodes and no rights", () => {
  const { a, b, client, test, daemon } = made();
  a.write("mine/below", "1");
  client.write("/local/domain/1/mine/of-dom0", "x");
  client.setPermissions("/local/domain/1/mine/of-dom0", ["n0"]);
  client.write("/shared", "s");
  client.setPermissions("/shared", ["n0", "b1", "r2"]);
  client.write("/shared/of-a", "");
  client.setPermissions("/shared/of-a", ["n1", "r2"]);
  b.watch("/shared", "t");
  b.heard();
  const transaction = b.begin();
  b.read("/shared", transaction);
  assertEquals(b.write("own", "1", transaction), "OK");
  test.destroy(1);
  assertEquals(b.heard(), ["/shared/of-a|t|"]);
  assertThrows(() => client.read("/local/domain/1"), XenstoreError, "ENOENT");
  assertThrows(() => client.read("/local/domain/1/mine/of-dom0"), XenstoreError, "ENOENT");
  assertEquals(client.list("/shared"), []);
  assertEquals(client.permissions("/shared"), ["n0", "b1", "r2"]);
  assertEquals(b.commit(transaction), "EAGAIN");
  // Another one gets its number, and nothing else.
  const again = test.domain(1);
  assertEquals(again.read("/shared"), "EACCES");
  client.setPermissions("/shared", ["n0", "b1"]);
  assertEquals(again.read("/shared"), "s");
  assertEquals(daemon.problems(), []);
});

Deno.test("xenstore: released, a domain is as one that was never introduced", () => {
  const { a, client, daemon, test } = made();
  a.write("x", "1");
  const ports = test.ports.size;
  assertEquals(daemon.release(1), undefined);
  assertEquals([test.ports.size, test.letGo], [ports - 1, [1]]);
  a.send(XS.READ, "x\0");
  assertEquals([a.receive(), daemon.isIntroduced(1)], [[], false]);
  assertThrows(() => client.read("/local/domain/1/x"), XenstoreError, "ENOENT");
  test.domain(1);
  client.mkdir("/local/domain/1");
  client.setPermissions("/local/domain/1", ["n1"]);
  assertEquals(a.write("x", "2"), "OK");
});

Deno.test("xenstore: a domain asks for a new beginning", () => {
  const { a, test } = made(), { connection } = XENSTORE_PAGE;
  a.watch("x", "t");
  const transaction = a.begin();
  a.heard();
  a.put(bytes("0200"));
  a.page.setWord(connection, 1);
  const { notified } = a;
  test.daemon.run();
  assertEquals([a.page.word(connection), a.notified], [0, notified + 1]);
  assertEquals([...a.bytes.subarray(2048, 2064)], new Array(16).fill(0));
  assertEquals([a.read("x", transaction), a.write("x", "1"), a.heard()], ["ENOENT", "OK", []]);
});

Deno.test("xenstore: who looks sees requests and answers, and may refuse one", () => {
  const { a, client, daemon } = made(), seen: string[] = [];
  const refuse = (domain: number, { type }: { type: number }) =>
    domain === 1 && type === XS.WRITE ? "EROFS" : undefined;
  daemon.onRequest.add(refuse);
  daemon.onAnswer.add(({ domain, message, payload }) =>
    seen.push(`${domain} ${message.type} ${String.fromCharCode(...payload)}`)
  );
  assertEquals(a.write("x", "1"), "EROFS");
  client.write("/y", "1");
  assertEquals(seen, [`1 ${XS.WRITE} EROFS\0`, `0 ${XS.WRITE} OK\0`]);
});

Deno.test("xenstore: a domain that is not introduced is not heard", () => {
  const { test } = made(), c = test.create(3);
  c.send(XS.READ, "/\0");
  assertEquals(c.receive(), []);
  assertEquals(c instanceof TestDomain, true);
});
