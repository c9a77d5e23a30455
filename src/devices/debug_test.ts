import { assertEquals } from "@std/assert";
import { DebugPorts } from "./debug.ts";
import { checkSaveLoad } from "./testing.ts";

Deno.test("DebugPorts lead text, exit status and POST codes out", () => {
  const text: number[] = [], exits: number[] = [], posts: [number, number][] = [];
  const debug = new DebugPorts({
    output: (byte) => text.push(byte),
    exit: (status) => exits.push(status),
    post: (code, port) => posts.push([code, port]),
    consolePorts: [0xe9, 0x12],
  });
  assertEquals(debug.read(0xe9, 1), 0xe9);
  debug.write(0xe9, 1, 72);
  debug.write(0x12, 1, 105);
  assertEquals(String.fromCharCode(...text), "Hi");
  debug.write(0xf4, 4, 0);
  debug.write(0xf4, 1, 0x10);
  assertEquals(exits, [1, 0x21]);
  debug.write(0x190, 1, 0xff);
  debug.write(0x80, 1, 0x11);
  assertEquals(posts, [[0xff, 0x190], [0x11, 0x80]]);
  assertEquals(debug.read(0x80, 1), 0x11);
  checkSaveLoad(() => new DebugPorts(), { rounds: 3 });
});
