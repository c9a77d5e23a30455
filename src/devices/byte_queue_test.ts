import { assertEquals } from "@std/assert";
import { appended } from "./byte_queue.ts";

Deno.test("appended() gives both behind each other, and leaves what it was given as it was", () => {
  let queue = new Uint8Array(), wanted: number[] = [];
  for (let n = 0; n < 400; n++) {
    const bytes = Uint8Array.from({ length: n * 7 % 50 }, (_, i) => n + i);
    const before = queue, copy = [...queue];
    queue = appended(queue, bytes) as Uint8Array<ArrayBuffer>;
    // Another continuation of the same queue touches neither.
    const other = appended(before, Uint8Array.of(1, 2, 3));
    wanted.push(...bytes);
    assertEquals([...queue], wanted);
    assertEquals([...before], copy);
    assertEquals([...other], [...copy, 1, 2, 3]);
    const taken = n * 5 % 40;
    queue = queue.subarray(taken);
    wanted = wanted.slice(taken);
  }
});
