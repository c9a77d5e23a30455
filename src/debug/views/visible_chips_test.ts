import { assertEquals } from "@std/assert";
import { Board } from "../../builder/board.ts";
import { register } from "../../machine/apic/registers.ts";
import { chipSections } from "./visible_chips.ts";

function made(vcpus: number): Board {
  const nothing = () => {};
  return new Board({
    now: () => 0,
    changed: nothing,
    stall: nothing,
    output: nothing,
    end: nothing,
    post: nothing,
    a20: nothing,
    signalled: nothing,
    priority: nothing,
    timeOfTsc: () => 0,
    has: () => true,
  }, { unixTime: 0, memory: 4 << 20, vcpus, e820: [] });
}
/** Names of the sections of two boards that differ, with the first line that does. */
function differences(a: Board, b: Board): string[] {
  const [one, other] = [a, b].map(chipSections);
  return one.flatMap(({ name, lines }, n) => {
    const line = lines.find((text, i) => text !== other[n].lines[i]);
    return line === undefined ? [] : [`${name}: ${line}`];
  });
}

Deno.test("chipSections() has a section for each processor's local APIC", () => {
  const names = chipSections(made(3)).map(({ name }) => name);
  assertEquals(names.slice(-4), ["ioapic", "lapic0", "lapic1", "lapic2"]);
  assertEquals(chipSections(made(1)).at(-1)!.lines.length, 27, "what one has always had");
  assertEquals(chipSections(made(2)).map(({ lines }) => lines.length).slice(-2), [27, 29]);
});

Deno.test("chipSections() tells what one processor has done to another, and where", () => {
  const plain = made(3), board = made(3);
  const send = (low: number) => {
    board.mmioWrite(0xfee00310, 4, 2 << 24, 0);
    board.mmioWrite(0xfee00300, 4, low, 0);
    board.localApics[0].state.icrHigh = board.localApics[0].state.icrLow = 0;
  };
  send(0x4500);
  assertEquals(differences(board, plain), ["lapic2: INIT 1"]);
  board.ports[2].signals.init = false;
  send(0x4612);
  assertEquals(differences(board, plain), ["lapic2: start-up 12"]);
  board.mmioWrite(0xfee00000 + register.tpr * 16, 4, 0x20, 1);
  assertEquals(differences(board, plain), ["lapic1: TPR 20", "lapic2: start-up 12"]);
});
