import { assert, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { XS } from "../abi/xen/io/xs_wire.ts";
import { decodePlain, encodePlain, type Plain, RecordError } from "../machine/record.ts";
import { StateRegistry } from "../machine/state_block.ts";
import { StoreClient } from "./client.ts";
import { encodeMessage } from "./messages.ts";
import { XENSTORE_PAGE } from "./pages.ts";
import { drawing, TestStore } from "./testing.ts";
import { bytesOfText } from "./text.ts";

const IDS = [1, 2, 5];

/** A store whose domains send what a number says, each in its own time. */
class Busy {
  readonly test = new TestStore();
  readonly client = new StoreClient(this.test.daemon);
  readonly blocks = new StateRegistry();
  /** All that domains have read. */
  read: number[] = [];
  #rest = new Map<number, Uint8Array>();
  #request = 0;

  constructor() {
    this.test.daemon.register(this.blocks);
    this.client.write("/shared", "");
    this.client.setPermissions("/shared", ["b0"]);
    this.client.setPermissions("@releaseDomain", ["n0", "r2"]);
    for (const id of IDS) this.#home(id);
  }
  #home(id: number): void {
    this.test.domain(id);
    this.client.mkdir(`/local/domain/${id}`);
    this.client.setPermissions(`/local/domain/${id}`, [`n${id}`, "r2"]);
  }

  step(draw: (bound: number) => number): void {
    const { test } = this,
      id = IDS[draw(IDS.length)],
      domain = test.domains.get(id),
      what = draw(500);
    if (what < 2) {
      if (domain) test.destroy(id);
      else this.#home(id);
      this.#rest.delete(id);
      return;
    }
    if (!domain) return;
    if (what === 2) return test.daemon.shutdown(id);
    if (what === 3) return void test.daemon.setTarget(id, IDS[draw(IDS.length)]);
    if (what === 4 || what > 496) domain.page.setWord(XENSTORE_PAGE.requests.indices, draw(4000));
    if (what === 5 || test.daemon.connection(id)!.broken && what < 30) {
      domain.page.setWord(XENSTORE_PAGE.connection, 1);
    }
    if (what === 6) {
      test.now += 1e9 * draw(15);
      return test.daemon.run();
    }
    if (what < 20) this.client.write(`/shared/${draw(3)}`, `${draw(100)}`);
    // One of them is lazy.
    if (what < (id === 5 ? 40 : 150)) this.read.push(id, ...domain.take(draw(200)));
    // Messages in pieces, of which some are never sent.
    const rest = this.#rest.get(id) ?? this.#draw(draw);
    const put = domain.put(rest.subarray(0, 1 + draw(60)));
    if (put < rest.length) this.#rest.set(id, rest.subarray(put));
    else this.#rest.delete(id);
  }
  #draw(draw: (bound: number) => number): Uint8Array {
    const path = ["/shared", "/local/domain/1", "own", "@releaseDomain"][draw(4)] +
      ["", "/a", "/a/b", "/c"][draw(4)];
    const [type, payload] = ([
      [XS.READ, `${path}\0`],
      [XS.WRITE, `${path}\0${"v".repeat(draw(100))}`],
      [XS.WRITE, `${path}\0${draw(10)}`],
      [XS.RM, `${path}\0`],
      [XS.WATCH, `${path}\0${draw(3)}\0`],
      [XS.UNWATCH, `${path}\0${draw(3)}\0`],
      [XS.TRANSACTION_START, "\0"],
      [XS.TRANSACTION_END, draw(3) ? "T\0" : "F\0"],
      [XS.SET_PERMS, `${path}\0n${draw(3)}\0${"rwbn"[draw(4)]}${draw(6)}\0`],
    ] as const)[draw(9)];
    const transaction = type !== XS.TRANSACTION_START && draw(2) ? 1 + draw(4) : 0;
    return encodeMessage({
      type,
      request: ++this.#request,
      transaction,
      payload: bytesOfText(payload),
    });
  }

  /** All that there is, the domains' pages too. */
  save(): Plain {
    const { test, blocks } = this;
    return decodePlain(encodePlain({
      blocks: blocks.save(),
      domains: [...test.domains].map(([id, { bytes }]) => [id, bytes.slice()]),
      ports: [...test.ports],
      port: test.port,
      now: test.now,
      rest: [...this.#rest],
      request: this.#request,
    }));
  }
  load(saved: Plain): void {
    const { blocks, domains, ports, port, now, rest, request } = saved as unknown as {
      blocks: Plain;
      domains: [number, Uint8Array][];
      ports: [number, number][];
      port: number;
      now: number;
      rest: [number, Uint8Array][];
      request: number;
    };
    const { test } = this;
    test.domains.clear();
    for (const [id, bytes] of domains) test.create(id).bytes.set(bytes);
    test.ports.clear();
    for (const [port, id] of ports) test.ports.set(port, id);
    Object.assign(test, { port, now });
    this.#rest = new Map(rest);
    this.#request = request;
    this.blocks.prepare(blocks)();
  }
  /** What everybody has, worked out in two ways. */
  get accounts() {
    return this.test.daemon.accounts.all.filter(([id]) => id !== 0);
  }
}

for (const seed of [1, 2, 3]) {
  Deno.test(`xenstore: saved anywhere, and loaded elsewhere, all goes on the same (seed ${seed})`, () => {
    const here = new Busy(), draw = drawing(seed);
    const seen = { transactions: 0, parts: 0, waiting: 0, watches: 0, open: 0, broken: 0 };
    for (let n = 0; n < 40; n++) {
      for (let m = draw(300); m > 0; m--) here.step(draw);
      assertEquals(here.test.daemon.problems(), []);
      const state = here.save(), there = new Busy();
      for (let m = draw(60); m > 0; m--) there.step(draw);
      there.load(state);
      assertEquals(encodePlain(there.save()), encodePlain(state));
      assertEquals(there.blocks.hash, here.blocks.hash);
      assertEquals(there.accounts, here.accounts);
      // deno-lint-ignore no-explicit-any
      for (const each of ((state as any).blocks.xenstore.record as any).connections) {
        seen.transactions += each.transactions.length ? 1 : 0;
        seen.parts += each.incoming.length ? 1 : 0;
        seen.waiting += each.queue.length ? 1 : 0;
        seen.watches += each.watches.length ? 1 : 0;
        seen.open += each.written ? 1 : 0;
        seen.broken += each.broken ? 1 : 0;
      }
      here.read = [];
      there.read = [];
      const on = draw(1_000_000) + 1, [one, two] = [drawing(on), drawing(on)];
      for (let m = 0; m < 60; m++) {
        here.step(one);
        there.step(two);
      }
      assertEquals(there.read, here.read);
      assertEquals(encodePlain(there.save()), encodePlain(here.save()));
    }
    for (const times of Object.values(seen)) assert(times > 3, JSON.stringify(seen));
  });
}

Deno.test("xenstore: a state that is none is refused, and says why", () => {
  const busy = new Busy(), draw = drawing(9);
  for (let n = 0; n < 300; n++) busy.step(draw);
  const domain = busy.test.domain(1);
  domain.page.setWord(XENSTORE_PAGE.connection, 1);
  busy.test.daemon.run();
  domain.watch("own", "t");
  domain.write("own/x", "1", domain.begin());
  // Half a message, and answers that nobody reads.
  for (let n = 0; n < 30; n++) domain.write("x", "y".repeat(20));
  for (let n = 0; n < 70; n++) domain.send(XS.READ, "x\0");
  domain.put(Uint8Array.of(1, 0, 0, 0, 0));
  // deno-lint-ignore no-explicit-any
  type Saved = any;
  const fresh = (): Saved => structuredClone(busy.blocks.save());
  const it = (saved: Saved): Saved =>
    saved.xenstore.record.connections.find(({ id }: { id: number }) => id === 1);
  assert(it(fresh()).queue.length > 3 && it(fresh()).written > 0);
  const cases: [change: (record: Saved, mine: Saved) => unknown, text: string][] = [
    [(r) => r.nodes.shift(), "there is no root"],
    [(r) => r.nodes.pop(), "listed, and not there"],
    [(r) => r.nodes.push(["/zz", [new Uint8Array(), [[0, 0, 0]], [], 1]]), "not listed above it"],
    [(r) => r.nodes.reverse(), "out of order"],
    [(r) => r.nodes[0][1][2].push("tool"), "/tool is listed twice"],
    [(r) => r.nodes[0][1][2][0] = "a b", "listed, and not there"],
    [(r) => r.nodes[0][1][1] = [], "/ has no owner"],
    [(r) => r.nodes[0][1][3] = r.generation + 1, "/ has generation"],
    [(r) => r.nodes[0][1][3] = 0, "expected a whole number from 1"],
    [(r) => r.special[1] = [], "a special path has no owner"],
    [(r) => r.quotas.nodes = 0, "xenstore.quotas.nodes is 0"],
    [(r) => delete r.quotas.nodes, "xenstore.quotas.nodes is missing"],
    [(r, mine) => r.connections.push(mine), "domain 1: it is connected twice"],
    [(_, mine) => mine.target = 99, "domain 1: its target 99 is not connected"],
    [(_, mine) => mine.watches.push(mine.watches[0]), "a watch is there twice"],
    [(_, mine) => mine.watches.push(["x", "t", false]), 'domain 1: "x" cannot be watched so'],
    [(_, mine) => mine.watches.push(["/x", "t\0", false]), "cannot be watched so"],
    [(_, mine) => mine.watches.push(["/x", "\u0100", false]), "cannot be watched so"],
    [(_, mine) => mine.watches.push(["/x", "t", true]), "cannot be watched so"],
    [(_, mine) => mine.transactions.push(mine.transactions[0]), ": it is there twice"],
    [
      (_, mine) => mine.transactions[0].accessed.push(mine.transactions[0].accessed[0]),
      "a node is",
    ],
    [(_, mine) => mine.transactions[0].accessed[0][0] = "x", '"x" is no path'],
    [(r, mine) => mine.transactions[0].accessed[0][2] = r.generation + 1, "had generation"],
    [(_, mine) => mine.transactions[0].id = 0, "transactions[0].id is 0"],
    [(_, mine) => mine.incoming = new Uint8Array(16).fill(255), "no part of a message"],
    [(_, mine) => mine.incoming = new Uint8Array(16), "no part of a message"],
    [(_, mine) => mine.queue[0][0] = mine.queue[0][0].slice(1), "what waits is no message"],
    [(_, mine) => mine.queue[0][0] = new Uint8Array(3), "what waits is no message"],
    [(_, mine) => mine.written = 5000, "5000 bytes are written"],
    [(_, mine) => mine.queue.pop(), "has 0 messages, and not 1"],
    [(r) => r.requests.open.reverse(), "is out of order"],
    [(r) => r.requests.last = 1, "is out of order"],
    [(r) => r.requests.open.forEach((each: Saved) => each[1] = 99), "which is not connected"],
  ];
  const before = busy.blocks.hash;
  for (const [change, text] of cases) {
    const saved = fresh();
    change(saved.xenstore.record, it(saved));
    const error = assertThrows(() => busy.blocks.prepare(saved), RecordError);
    assert(error.message.includes(text), `${error.message}: expected ${text}`);
  }
  assertEquals(busy.blocks.hash, before);
  const saved = fresh();
  saved.xenstore.record.nodes[0][1][0] = Uint8Array.of(1);
  busy.blocks.prepare(saved)();
  assertNotEquals(busy.blocks.hash, before);
  assertEquals(busy.client.readBytes("/"), Uint8Array.of(1));
});
