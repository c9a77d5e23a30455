import { assert, assertEquals } from "@std/assert";
import { CR0, CR4, EFER } from "../../abi/x86/cr.ts";
import { checkById } from "../checks.ts";
import { breaksRule, type RuleOperand, RULES } from "./control_rules.ts";
import { CPU, V } from "../state.ts";
import { flatMachine } from "../testing.ts";

/** Bits that the rules ask for, each drawn like a coin. */
const DRAWN = {
  cr0: [CR0.PE, CR0.NW, CR0.CD, CR0.PG],
  cr4: [CR4.PSE, CR4.PAE, CR4.PCIDE],
  efer: [EFER.LME, EFER.LMA],
  cr3: [1, 0x4000],
  /** CS.L, at its place in the attributes. */
  cs: [0x2000],
} as const;
const WRITES = { cr0: "writeCr0", cr4: "writeCr4", efer: "writeEfer" } as const;

for (const register of ["cr0", "cr4", "efer"] as const) {
  Deno.test(`the processor and the hypervisor refuse the same writes of ${register}`, () => {
    const { cpu } = flatMachine("hlt"), { i32 } = cpu;
    const system = cpu.system as unknown as Record<string, (value: bigint) => void>;
    let seed = 7;
    const draw = (from: keyof typeof DRAWN) =>
      DRAWN[from].reduce<number>((bits, bit) => {
        seed = Math.imul(seed, 1_103_515_245) + 12345 | 0;
        return seed >>> 16 & 1 ? (bits | bit) >>> 0 : bits;
      }, 0);
    const met = new Set<string>();
    let passed = 0;
    for (let round = 0; round < 2000; round++) {
      const state = { cr0: draw("cr0"), cr3: draw("cr3"), cr4: draw("cr4"), efer: draw("efer") };
      const now = draw(register), cs = 0xc09b | draw("cs");
      for (const name of ["cr0", "cr3", "cr4", "efer"] as const) cpu.set(name, BigInt(state[name]));
      i32[CPU["cs.attributes"] >> 2] = cs;
      i32[V.abort >> 2] = 0;
      system[WRITES[register]](BigInt(now));
      const fault = i32[V.abort >> 2] ? checkById(i32[V.check >> 2]).name : undefined;
      const values: Record<RuleOperand, number> = { ...state, now, old: state[register], cs };
      assertEquals(
        breaksRule(register, (of) => values[of]),
        fault !== undefined,
        `${JSON.stringify(values)}: ${fault}`,
      );
      if (fault) met.add(fault);
      else passed++;
    }
    assertEquals(met, new Set(RULES[register].map(({ name }) => name)));
    assert(passed > 200);
  });
}
