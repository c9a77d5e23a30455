import { assert, assertEquals } from "@std/assert";
import { XS } from "../abi/xen/io/xs_wire.ts";
import { StoreClient } from "./client.ts";
import { isWithin } from "./paths.ts";
import { drawing, TestStore } from "./testing.ts";
import { type ModelRequest, ModelStore } from "./testing_model.ts";

const TYPES = {
  read: XS.READ,
  list: XS.DIRECTORY,
  mkdir: XS.MKDIR,
  rm: XS.RM,
  permissions: XS.GET_PERMS,
  write: XS.WRITE,
  setPermissions: XS.SET_PERMS,
};

function payloadOf(request: ModelRequest): string {
  if (request.kind === "write") return `${request.path}\0${request.value}`;
  const rest = request.kind === "setPermissions" ? request.permissions : [];
  return [request.path, ...rest].map((each) => `${each}\0`).join("");
}

/** Requests for few paths, so that they get in each other's way. */
function drawRequest(draw: (bound: number) => number): ModelRequest {
  const names = ["a", "b", "c"], bases = ["/local/domain/1", "/local/domain/2", "/shared", "/tool"];
  const below = Array.from({ length: draw(4) }, () => names[draw(3)]);
  const path = draw(40) === 0 ? "/" : [bases[draw(4)], ...below].join("/");
  const kinds = ["read", "list", "mkdir", "rm", "permissions", "write", "write", "write"] as const;
  if (draw(10) === 0) {
    const one = () => `${"nrwb"[draw(4)]}${draw(3)}`;
    return { kind: "setPermissions", path, permissions: Array.from({ length: 1 + draw(3) }, one) };
  }
  const kind = kinds[draw(kinds.length)];
  return kind === "write" ? { kind, path, value: `${draw(1000)}` } : { kind, path };
}

/** What the store has, as the model says it. */
function textOf(client: StoreClient): string {
  const lines: string[] = [];
  const show = (path: string) => {
    lines.push(`${path} = ${client.read(path)} (${client.permissions(path).join(" ")})`);
    for (const name of client.list(path)) show(path === "/" ? `/${name}` : `${path}/${name}`);
  };
  show("/");
  return lines.join("\n");
}

interface Open {
  readonly domain: number;
  readonly id: number;
  readonly done: { request: ModelRequest; answer: string }[];
  /** What others have changed since. */
  readonly foreign: Set<string>;
}

for (const seed of [1, 2, 3, 4]) {
  Deno.test(`xenstore is as its model, with transactions that are done at their end or not (seed ${seed})`, () => {
    const test = new TestStore(), model = new ModelStore(), draw = drawing(seed);
    const client = new StoreClient(test.daemon), told = new Set<string>();
    client.watch("/", ({ path }) => told.add(path));
    const domains = [1, 2].map((id) => test.domain(id));
    let open: Open[] = [];
    const counts = { done: 0, again: 0, refused: 0 };
    /** Others' transactions are told what has changed. */
    const note = () => {
      for (const { foreign } of open) for (const path of model.touched) foreign.add(path);
    };
    const both = (domain: number, request: ModelRequest) => {
      told.clear();
      const answer = model.run(domain, request);
      note();
      const asked = domain === 0
        ? viaClient(client, request)
        : domains[domain - 1].ask(TYPES[request.kind], payloadOf(request));
      assertEquals(asked, answer, `domain ${domain}: ${JSON.stringify(request)}`);
      if (answer.startsWith("E")) counts.refused++;
      // Who watches everything is told once: of what is at the top of what has changed.
      assertEquals([...told], model.changed.slice(-1));
    };
    for (
      const [path, ...permissions] of [["/local/domain/1", "n1"], ["/local/domain/2", "n2"], [
        "/shared",
        "b0",
      ]]
    ) {
      both(0, { kind: "mkdir", path });
      both(0, { kind: "setPermissions", path, permissions });
    }
    for (let n = 0; n < 4000; n++) {
      const what = draw(10), mine = open[draw(open.length + 1)];
      if (what === 0 && open.length < 6) {
        const domain = 1 + draw(2);
        open.push({ domain, id: domains[domain - 1].begin(), done: [], foreign: new Set() });
      } else if (what === 1 && mine) {
        open = open.filter((each) => each !== mine);
        told.clear();
        const answer = domains[mine.domain - 1].commit(mine.id);
        if (answer === "OK") {
          counts.done++;
          // All at once, now: with the same answers.
          const changed: string[] = [];
          for (const { request, answer } of mine.done) {
            const { path } = request, was = model.has(path);
            assertEquals(model.run(mine.domain, request), answer, JSON.stringify(request));
            if (model.changed.length && (was || model.has(path))) changed.push(path);
            note();
          }
          // What was there before, or is now, is told of, and nothing else.
          for (const path of changed) assert(told.has(path) || !model.has(path), path);
          for (const path of told) assert(changed.includes(path), path);
        } else {
          counts.again++;
          assertEquals(answer, "EAGAIN");
          // Somebody has changed something that it looked at, or above that, or in what it removes.
          const near = (path: string) =>
            mine.done.some(({ request }) =>
              isWithin(request.path, path) || request.kind === "rm" && isWithin(path, request.path)
            );
          assert([...mine.foreign].some(near), JSON.stringify([mine.done, ...mine.foreign]));
          assertEquals(told.size, 0);
        }
        assertEquals(textOf(client), model.text);
      } else if (mine && what < 7) {
        const request = drawRequest(draw);
        told.clear();
        const answer = domains[mine.domain - 1].ask(
          TYPES[request.kind],
          payloadOf(request),
          mine.id,
        );
        mine.done.push({ request, answer });
        assertEquals(told.size, 0);
      } else both(draw(3), drawRequest(draw));
      for (const domain of domains) domain.events.length = 0;
    }
    assertEquals(textOf(client), model.text);
    assertEquals(test.daemon.problems(), []);
    assert(counts.done > 50 && counts.again > 20 && counts.refused > 300, JSON.stringify(counts));
  });
}

function viaClient(client: StoreClient, request: ModelRequest): string {
  try {
    const bytes = new TextEncoder().encode(payloadOf(request));
    const answer = client.request(TYPES[request.kind], bytes, request.kind);
    return new TextDecoder().decode(answer).replace(/\0$/, "").replaceAll("\0", "|");
  } catch (error) {
    return (error as { code: string }).code;
  }
}
