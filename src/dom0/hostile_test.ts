import { assert, assertEquals } from "@std/assert";
import { XS } from "../abi/xen/io/xs_wire.ts";
import { StoreClient } from "./client.ts";
import { encodeMessage } from "./messages.ts";
import { XENSTORE_PAGE } from "./pages.ts";
import { drawing, shownMessage, type TestDomain, TestStore } from "./testing.ts";
import { bytesOfText } from "./text.ts";
import { EVENT_PATIENCE } from "./connection.ts";

const INDICES = [XENSTORE_PAGE.requests.indices, XENSTORE_PAGE.replies.indices];

function made(ids: readonly number[]) {
  const test = new TestStore(), client = new StoreClient(test.daemon);
  const domains = ids.map((id) => {
    const domain = test.domain(id);
    client.mkdir(`/local/domain/${id}`);
    client.setPermissions(`/local/domain/${id}`, [`r${id}`]);
    return domain;
  });
  return { test, client, daemon: test.daemon, domains };
}

const errorOf = (domain: TestDomain) => domain.page.word(XENSTORE_PAGE.error);

Deno.test("xenstore: messages wrap at every place of both rings, in parts of every size", () => {
  const { domains: [a], daemon } = made([1]);
  a.write("long", "x".repeat(900));
  for (let n = 1; n < 1100; n++) {
    const value = "v".repeat(n % 97), size = 1 + n % 41;
    const bytes = encodeMessage({
      type: XS.WRITE,
      request: n,
      transaction: 0,
      payload: bytesOfText(`w\0${value}`),
    });
    for (let at = 0; at < bytes.length; at += size) a.put(bytes.subarray(at, at + size));
    assertEquals(a.receive().map(shownMessage), [`WRITE ${n} OK|`]);
    assertEquals(a.read("w"), value);
    assertEquals(a.read("long").length, 900);
  }
  assertEquals([errorOf(a), daemon.problems()], [0, []]);
});

Deno.test("xenstore: the rings' indices wrap at 2^32", () => {
  const { domains: [a] } = made([1]), [req_cons, rsp_cons] = INDICES;
  for (const at of [req_cons, req_cons + 4, rsp_cons, rsp_cons + 4]) {
    a.page.setWord(at, 0xffff_ff00);
  }
  for (let n = 0; n < 50; n++) assertEquals([a.write("x", `${n}`), a.read("x")], ["OK", `${n}`]);
  assert(a.page.word(req_cons) < 0x1_0000 && a.page.word(rsp_cons) < 0x1_0000);
});

Deno.test("xenstore: indices that make no sense, or a message too long, end the connection", () => {
  const [req_cons, rsp_cons] = INDICES;
  const cases: [name: string, change: (domain: TestDomain) => void, error: number][] = [
    ["req_prod", (d) => d.page.setWord(req_cons + 4, d.page.word(req_cons) + 1025), 2],
    ["req_prod before", (d) => d.page.setWord(req_cons + 4, d.page.word(req_cons) - 1), 2],
    ["req_cons", (d) => d.page.setWord(req_cons, 0x8000_0000), 2],
    ["rsp_cons", (d) => {
      d.page.setWord(rsp_cons, d.page.word(rsp_cons + 4) + 1);
      d.send(XS.READ, "x\0");
    }, 2],
    ["rsp_prod", (d) => {
      d.page.setWord(rsp_cons + 4, d.page.word(rsp_cons) + 5000);
      d.send(XS.READ, "x\0");
    }, 2],
    ["length", (d) => d.put(Uint8Array.of(2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 16, 0, 0)), 3],
    ["length of 2^32", (d) => d.put(new Uint8Array(16).fill(255)), 3],
  ];
  for (const [name, change, error] of cases) {
    const { test, daemon, client, domains: [a, b] } = made([1, 2]);
    a.write("x", "1");
    a.watch("x", "t");
    const transaction = a.begin();
    a.write("y", "1", transaction);
    client.setPermissions("/local/domain/1/x", ["r1"]);
    change(a);
    const { notified } = a;
    daemon.run();
    assertEquals(errorOf(a), error, name);
    assertEquals(daemon.connection(1)!.broken, true);
    assertEquals(daemon.problems(), []);
    assert(a.notified >= notified);
    // It is over for that domain, and for nobody else.
    const page = a.bytes.slice();
    client.write("/local/domain/1/x", "2");
    daemon.run();
    assertEquals(a.bytes, page);
    assertEquals(b.read("/local/domain/1/x"), "2");
    // It may begin anew.
    a.page.setWord(XENSTORE_PAGE.connection, 1);
    daemon.run();
    a.receive();
    a.events.length = 0;
    assertEquals([errorOf(a), a.read("x"), a.read("y")], [0, "2", "ENOENT"]);
    test.destroy(1);
    assertEquals(daemon.accounts.all.map(([id]) => id), [0, 2]);
  }
});

Deno.test("xenstore: who does not read answers is not served, and loses none of them", () => {
  const { domains: [a, b], daemon } = made([1, 2]);
  a.write("x", "v".repeat(200));
  let sent = 0;
  const bytes = (request: number) =>
    encodeMessage({ type: XS.READ, request, transaction: 0, payload: bytesOfText("x\0") });
  // Until nothing more goes in.
  while (a.put(bytes(1000 + sent)) === 18) assert(++sent < 1000);
  assertEquals(daemon.accounts.of(1).outstanding, 20);
  // The ring of answers is full to the last byte.
  const [, rsp_cons] = INDICES;
  assertEquals(a.page.word(rsp_cons + 4) - a.page.word(rsp_cons), 1024);
  assertEquals(b.write("y", "1"), "OK");
  // 4 answers are in the ring, 20 wait, and 56 requests.
  assertEquals(sent, 4 + 20 + 56);
  const answers = a.receive();
  assertEquals(
    answers.map(({ request }) => request),
    Array.from({ length: sent }, (_, n) => 1000 + n),
  );
  assert(answers.every(({ text }) => text === "v".repeat(200)));
  assertEquals(daemon.accounts.of(1).outstanding, 0);
});

Deno.test("xenstore: who makes events for one that does not read waits for him, or until they are dropped", () => {
  const { domains: [a, b], daemon, test, client } = made([1, 2]);
  client.setPermissions("/local/domain/1", ["r1"]);
  b.watch("/local/domain/1", "t");
  b.heard();
  let n = 0;
  const write = () => {
    a.send(XS.WRITE, `node${n++}\0`);
    return a.receive().length;
  };
  while (write()) assert(n < 200);
  // 19 events went into the ring, one is half in it; 20 requests are not done.
  assertEquals(daemon.accounts.of(1).outstanding, 20);
  assertEquals(b.take(200).length, 200);
  daemon.run();
  assert(a.receive().length > 0);
  while (write()) assert(n < 200);
  assertEquals(daemon.deadline, EVENT_PATIENCE);
  test.now = EVENT_PATIENCE - 1;
  daemon.run();
  assertEquals(a.receive().length, 0);
  test.now = EVENT_PATIENCE;
  daemon.run();
  assert(a.receive().length > 0);
  assertEquals(daemon.problems(), []);
  // And one that dies keeps nobody waiting.
  while (write()) assert(n < 400);
  test.destroy(2);
  assert(a.receive().length > 0);
  assertEquals(daemon.accounts.of(1).outstanding, 0);
});

Deno.test("xenstore: quotas are xenstored's, to the last one", () => {
  const { domains: [a, b], daemon, client } = made([1, 2]);
  // A node has less than 2048 bytes: a header of 24, 8 for each permission, value and names.
  assertEquals(a.write("big", "x".repeat(2048 - 24 - 8)), "ENOSPC");
  assertEquals(a.write("big", "x".repeat(2048 - 24 - 8 - 1)), "OK");
  assertEquals(a.write("big", "x".repeat(2048 - 24 - 8)), "ENOSPC");
  assertEquals(a.setPermissions("big", "n1", "r0"), "ENOSPC");
  client.write("/local/domain/1/big", "x".repeat(3000));
  assertEquals(a.write("big", ""), "OK");
  // 1000 nodes: its home and "big" are two of them.
  client.setPermissions("/local/domain/2", ["r2", "b1"]);
  for (let n = 2; n < 1000; n++) {
    assertEquals(a.write(`dir/${n % 100}/${n}`, ""), n < 899 ? "OK" : "ENOSPC");
  }
  const nodes = () => daemon.accounts.of(1).nodes;
  assertEquals(nodes(), 1000);
  assertEquals(a.write("more", ""), "ENOSPC");
  assertEquals(a.write("more/and/more", ""), "ENOSPC");
  assertEquals(b.read("/local/domain/1/more/and"), "ENOENT");
  a.rm("dir/7");
  assertEquals(nodes(), 1000 - 10);
  // What does not fit whole is not made at all.
  assertEquals(a.write("m/1/2/3/4/5/6/7/8/9/10", ""), "ENOSPC");
  assertEquals([a.read("m"), nodes()], ["ENOENT", 990]);
  assertEquals(a.write("m/1/2/3/4/5/6/7/8/9", ""), "OK");
  assertEquals(nodes(), 1000);
  // Others' nodes below his are not his.
  assertEquals(a.write("/local/domain/2/of-a", ""), "ENOSPC");
  assertEquals(b.write("of-b", ""), "OK");
  // Watches, transactions: one more than the quota says.
  for (let n = 0; n < 129; n++) assertEquals(a.watch("x", `${n}`), "OK");
  assertEquals(a.watch("x", "more"), "E2BIG");
  for (let n = 1; n <= 11; n++) assertEquals(a.begin(), n);
  assertEquals(a.ask(XS.TRANSACTION_START, "\0"), "ENOSPC");
  a.commit(1);
  assertEquals(a.begin(), 12);
  assertEquals(daemon.problems(), []);
});

Deno.test("xenstore: a transaction has quotas, and fails when one was used up", () => {
  const { domains: [a, b], daemon, client } = made([1, 2]);
  for (let n = 0; n < 1100; n++) client.write(`/many/${n}`, "");
  const many = a.begin();
  let read = 0;
  while (a.read(`/many/${read}`, many) === "EACCES" && read < 1100) read++;
  // "/many" and the nodes: each is looked at.
  assertEquals([read, a.commit(many)], [1023, "ENOMEM"]);
  const big = a.begin();
  assertEquals(a.write("x", "x".repeat(2040), big), "ENOSPC");
  assertEquals([a.commit(big), a.read("x")], ["ENOMEM", "ENOENT"]);
  // Nodes are counted at its end.
  const filling = a.begin(), other = a.begin();
  for (let n = 0; n < 500; n++) assertEquals(a.write(`1/${n}`, "", filling), "OK");
  assertEquals(a.write("x", "", other), "OK");
  a.rm("x");
  assertEquals(a.ask(XS.TRANSACTION_END, "F\0", other), "OK");
  assertEquals([a.commit(filling), daemon.accounts.of(1).nodes], ["OK", 502]);
  for (const [count, answer] of [[496, "ENOSPC"], [495, "OK"]] as const) {
    const more = a.begin();
    for (let n = 0; n < count; n++) assertEquals(a.write(`${2 + n % 2}/${n}`, "", more), "OK");
    assertEquals(a.commit(more), answer);
  }
  assertEquals(daemon.accounts.of(1).nodes, 999);
  assertEquals([b.list("/local/domain/1"), daemon.problems()], ["1|2|3", []]);
});

Deno.test("xenstore: memory that is kept for a domain is bounded", () => {
  const { domains: [a, b], daemon, client } = made([1, 2]);
  client.request(XS.CONTROL, bytesOfText("quota\0set\0memory\x0050000\0"), "");
  let n = 0;
  while (a.write(`n${n}`, "x".repeat(1900)) === "OK") n++;
  assert(n > 20 && n < 26);
  assert(daemon.accounts.of(1).memory < 50_000);
  assertEquals(a.read(`n${n}`), "ENOENT");
  assertEquals(a.rm("n0"), "OK");
  // Events for one who does not read are lost when there are too many of them.
  client.write("/public", "");
  client.setPermissions("/public", ["r0"]);
  b.watch("/public", "t".repeat(2000));
  for (let n = 0; n < 100; n++) client.write(`/public/${n}`, "");
  assert(daemon.accounts.of(2).memory < 50_000);
  assert(b.heard().length < 30);
  assertEquals(daemon.problems(), []);
  assertEquals(daemon.accounts.of(2).memory < 3000, true);
});

Deno.test("xenstore: random bytes and indices, 100,000 messages, and others are served", () => {
  const { domains: [a, b], daemon, client } = made([1, 2]), draw = drawing(7);
  const { connection } = XENSTORE_PAGE, [req_cons, rsp_cons] = INDICES;
  const words = [
    "x",
    "a/b",
    "/",
    "/local/domain/2",
    "@releaseDomain",
    "",
    "T",
    "F",
    "n1",
    "r2",
    "0",
    "\xff",
  ];
  let messages = 0, broken = 0;
  daemon.onAnswer.add(({ domain }) => messages += domain === 1 ? 1 : 0);
  while (messages < 100_000) {
    const what = draw(1000);
    if (what === 0) a.page.setWord(req_cons + 4 * draw(4), draw(0xffff_ffff));
    else if (what === 1) a.put(Uint8Array.from({ length: draw(1024) }, () => draw(256)));
    else if (what === 2) { for (let n = 0; n < 4096; n++) a.bytes[n] = draw(256); }
    else {
      const strings = Array.from({ length: draw(4) }, () => words[draw(words.length)]);
      const bytes = encodeMessage({
        type: draw(8) ? draw(24) : draw(0xffff_ffff),
        request: draw(0xffff_ffff),
        transaction: draw(2) ? 0 : draw(12),
        payload: bytesOfText(strings.join("\0") + (draw(8) ? "\0" : "")),
      });
      a.put(bytes, draw(4) === 0);
    }
    if (draw(3)) a.take(draw(1024));
    daemon.run();
    if (daemon.connection(1)!.broken) {
      broken++;
      a.page.setWord(connection, 1);
      daemon.run();
    }
    if (messages % 500 === 0) assertEquals(b.write("alive", `${messages}`), "OK");
  }
  assert(broken > 10);
  a.page.setWord(rsp_cons, 0);
  assertEquals([b.read("alive") !== "", daemon.problems()], [true, []]);
  client.remove("/local/domain/1");
  assertEquals(daemon.accounts.of(1).nodes, 0);
});
