import { assert, assertEquals } from "@std/assert";
import { assemble } from "./isa/encode.ts";
import type { Machine } from "./machine.ts";
import { flatMachine, register, stateText, word } from "./testing.ts";

/** Runs exactly `count` instructions. */
function run(machine: Machine, count: number): void {
  const before = machine.cpu.count;
  assertEquals(machine.cpu.run(count), "budget");
  assertEquals(machine.cpu.count - before, count);
}

/** Loops, calls, REP, flags and stores to code: something of everything, for ever. */
const MIXED = `
start:  mov ecx, 37
        mov esi, 0x20ff0
        mov edi, 0x30ff8
        cld
outer:  push ecx
        mov ecx, 13
        rep movsd
        mov ecx, 7
        rep stosb
        pop ecx
        call work
        mov eax, ecx
        mul ecx
        add [0x20000+ecx*4], eax
        adc dword ptr [0x20ff8], 0
        inc dword ptr [patch+1]
patch:  mov eax, 0x12345678
        xor ebx, eax
        rol ebx, 3
        sbb edx, ebx
        cmp edx, 0x40000000
        jb lower
        bt ebx, 4
        setc dl
        cmovs eax, edx
lower:  mov al, [esi]
        repne scasb
        sub esi, 40
        and esi, 0x20fff
        or esi, 0x20000
        and edi, 0x3ffff
        or edi, 0x30000
        mov ecx, [esp-4]
        dec dword ptr [counter]
        jnz outer
        mov dword ptr [counter], 11
        jmp start
work:   lea eax, [ecx+ecx*2+5]
        shrd eax, edx, 5
        neg eax
        imul ecx, ecx, 77
        and ecx, 0x3f
        or ecx, 1
        ret
counter: dd 11
`;

Deno.test("any split of a run into budgets gives the same state", () => {
  for (const hot of [true, false]) {
    const whole = flatMachine(MIXED, { hot });
    run(whole, 20_000);
    const expected = stateText(whole);
    let seed = 12345;
    for (const most of [1, 2, 7, 100, 3000]) {
      const pieces = flatMachine(MIXED, { hot });
      for (let done = 0; done < 20_000;) {
        seed = (seed * 1103515245 + 12345) & 0x7fffffff;
        const next = Math.min(1 + (seed >> 8) % most, 20_000 - done);
        run(pieces, next);
        done += next;
      }
      assertEquals(stateText(pieces), expected, `pieces of at most ${most}, hot ${hot}`);
      assertEquals(pieces.ram, whole.ram);
    }
  }
});

Deno.test("hot and general handlers do the same", () => {
  const hot = flatMachine(MIXED), cold = flatMachine(MIXED, { hot: false });
  for (let i = 0; i < 300; i++) {
    run(hot, 61);
    run(cold, 61);
    assertEquals(stateText(hot), stateText(cold), `after ${61 * (i + 1)} instructions`);
  }
  assertEquals(hot.ram, cold.ram);
});

/** A random straight piece of code with forward jumps; memory operands stay in [0x20000, 0x21010). */
function randomProgram(seed: number, long: boolean): string {
  const random = (n: number) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) | 0;
    return (seed >>> 8) % n;
  };
  const pick = <T>(list: readonly T[]) => list[random(list.length)];
  const r64 = ["rax", "rcx", "rdx", "rbx", "rbp", "rdi", "r8", "r9", "r12", "r13", "r15"];
  const r32 = [
    ...["eax", "ecx", "edx", "ebx", "ebp", "edi"],
    ...long ? ["r8d", "r11d", "r14d"] : [],
  ];
  const r16 = ["ax", "cx", "dx", "bx", "bp", "di"];
  const r8 = ["al", "cl", "dl", "bl", ...long ? ["bpl", "r9b", "r12b"] : ["ah", "ch", "dh", "bh"]];
  const cc = "o no b ae e ne be a s ns p np l ge le g".split(" ");
  const memory = (size: string) => {
    const places = ["0x20000+esi", "esi+0x20004", "esi+esi+0x20000", "esi*4+0x20000"];
    const place = long ? pick(places).replaceAll("esi", "rsi") : pick(places);
    return `${size} ptr ${pick(["", "", "", "fs:", "gs:", "ss:"])}[${place}]`;
  };
  const number = () =>
    pick([0, 1, 2, 0x7f, 0x80, 0xff, 0x8000, 0x7fffffff, 0x80000000, random(1 << 24)]);
  const lines: string[] = [];
  for (let i = 0; i < 120; i++) {
    const [registers, size] = pick(
      [
        [r32, "dword"],
        long ? [r64, "qword"] : [r32, "dword"],
        [r16, "word"],
        [r8, "byte"],
      ] as const,
    );
    const full = long && random(2) ? r64 : r32, fullSize = full === r64 ? "qword" : "dword";
    const r = () => pick(registers), m = () => memory(size);
    const constant = () => {
      if (size === "byte") return number() & 0x7f;
      return size === "word" ? number() & 0x7fff : size === "qword" ? number() | 0 : number();
    };
    const alu = pick("add sub cmp and or xor test adc sbb mov".split(" "));
    const either = () => pick([r, m])();
    lines.push(`l${i}:`);
    pick<() => void>([
      () => lines.push(`${alu} ${r()}, ${r()}`),
      () => lines.push(`${alu} ${either()}, ${constant()}`),
      () => lines.push(`${alu} ${m()}, ${r()}`),
      () => lines.push(alu === "test" ? "nop" : `${alu} ${r()}, ${m()}`),
      () => lines.push(`${pick("inc dec neg not".split(" "))} ${either()}`),
      () =>
        lines.push(
          `${pick("shl shr sar rol ror rcl rcr".split(" "))} ${either()}, ${
            pick(["1", "cl", "5", "31"])
          }`,
        ),
      () => lines.push(`j${pick(cc)} l${i + 1 + random(Math.min(4, 119 - i) || 1)}`),
      () => lines.push(`j${pick(cc)} l${i + 1}`),
      () => lines.push(`set${pick(cc)} ${pick([pick(r8), memory("byte")])}`),
      () => lines.push(`cmov${pick(cc)} ${pick(full)}, ${pick([pick(full), memory(fullSize)])}`),
      () =>
        lines.push(
          `${pick(["movzx", "movsx"])} ${pick(r32)}, ${
            pick([pick(r8), memory("byte"), memory("word")])
          }`,
        ),
      () =>
        lines.push(
          `lea ${pick(full)}, [${pick(long ? r64 : r32)}+${pick(long ? r64 : r32)}*${
            pick([1, 2, 4, 8])
          }+${random(1000)}]`,
        ),
      () => lines.push(`push ${pick(long ? r64 : r32)}`, `pop ${pick(long ? r64 : r32)}`),
      () => lines.push(`imul ${pick(full)}, ${pick([pick(full), memory(fullSize)])}`),
      () =>
        lines.push(
          `${pick(["bt", "bts", "btr", "btc"])} ${pick([pick(full), memory(fullSize)])}, ${
            random(32)
          }`,
        ),
      () =>
        lines.push(
          `${pick(["bsf", "bsr", "xadd", "xchg", "cmpxchg"])} ${pick(full)}, ${pick(full)}`,
        ),
      () =>
        lines.push(pick(["cbw", "cdq", "cwde", "clc", "stc", "cmc", "sahf", "lahf", "bswap eax"])),
      () => lines.push(`${pick(["shld", "shrd"])} ${pick(full)}, ${pick(full)}, ${random(31) + 1}`),
      () => lines.push("and esi, 0x3f8"),
    ])();
  }
  return `mov esi, 0x40\n${lines.join("\n")}\nl120: jmp l120`;
}

for (const long of [false, true]) {
  Deno.test(`random ${long ? 64 : 32}-bit programs: hot and general handlers, whole and by steps`, () => {
    for (let seed = 1; seed <= 30; seed++) {
      const text = randomProgram(seed, long);
      const [hot, steps, cold] = [true, true, false].map((h) =>
        flatMachine(text, { hot: h, long })
      );
      run(hot, 130);
      for (let i = 0; i < 130; i++) run(steps, 1);
      run(cold, 130);
      const expected = stateText(cold);
      assertEquals(stateText(hot), expected, `seed ${seed}\n${text}`);
      assertEquals(stateText(steps), expected, `seed ${seed}, steps`);
      assertEquals(hot.ram.slice(0x20000, 0x22000), cold.ram.slice(0x20000, 0x22000));
    }
  });
}

Deno.test("a store into the instruction behind it is seen", () => {
  const m = flatMachine(`
    mov byte ptr [target+1], 7
target: mov al, 1
    mov dword ptr [more], 0x90909090
more: hlt
    hlt
    hlt
    hlt
    mov ebx, 5`);
  run(m, 8);
  assertEquals(register(m, "rax") & 0xff, 7);
  assertEquals(register(m, "rbx"), 5);
});

Deno.test("a loop that rewrites its own body runs the new bytes each time", () => {
  const m = flatMachine(`
    mov ecx, 100
again: inc byte ptr [body+1]
body: mov al, 0
    movzx eax, al
    add ebx, eax
    loop again
end: jmp end`);
  run(m, 1 + 100 * 5);
  assertEquals(register(m, "rbx"), 5050);
});

Deno.test("an instruction across two pages, its second page rewritten", () => {
  // MOV EAX, imm32 at 0x1ffe: opcode and one byte in the first page, three bytes in the second.
  const m = flatMachine("mov eax, 0x44332211\nmov byte ptr [0x2000], 0x99\njmp 0x1ffe", {
    origin: 0x1ffe,
  });
  run(m, 3);
  assertEquals(register(m, "rax"), 0x44332211);
  run(m, 1);
  assertEquals(register(m, "rax"), 0x44339911);
  m.write(0x2002, Uint8Array.of(0x77));
  run(m, 3);
  assertEquals(register(m, "rax"), 0x77339911);
});

Deno.test("memory written from outside changes code that has run", () => {
  const m = flatMachine("again: mov eax, 1\njmp again");
  run(m, 10);
  m.write(0x1001, Uint8Array.of(2));
  run(m, 2);
  assertEquals(register(m, "rax"), 2);
});

/** What REP MOVS does, element by element. */
function moved(
  ram: Uint8Array,
  from: number,
  to: number,
  count: number,
  size: number,
  step: number,
) {
  for (let i = 0; i < count; i++) {
    ram.set(ram.slice(from + i * step, from + i * step + size), to + i * step);
  }
}

Deno.test("REP MOVS: overlaps, both directions, page ends, any budget", () => {
  const cases = [[0x20000, 0x20001], [0x20001, 0x20000], [0x20ff0, 0x30ff9], [0x20010, 0x20014]];
  for (const [name, size] of [["movsb", 1], ["movsd", 4]] as const) {
    for (const down of [false, true]) {
      for (const [from, to] of cases) {
        const text = `${down ? "std" : "cld"}\nrep ${name}\nend: jmp end`;
        const m = flatMachine(text);
        for (let i = 0; i < 0x2000; i++) m.ram[0x20000 + i] = (i * 7 + (i >> 8)) & 0xff;
        const expected = m.ram.slice(), count = 300;
        moved(expected, from, to, count, size, down ? -size : size);
        m.cpu.set("rsi", BigInt(from));
        m.cpu.set("rdi", BigInt(to));
        m.cpu.set("rcx", BigInt(count));
        run(m, 1 + 5);
        assertEquals(register(m, "rcx"), count - 5);
        run(m, 200);
        assertEquals(register(m, "rcx"), count - 205);
        run(m, 95);
        assertEquals(register(m, "rcx"), 0);
        assertEquals(register(m, "rsi"), from + (down ? -size : size) * count);
        assert(m.ram.every((b, i) => b === expected[i]), `${name} ${down} ${from} ${to}`);
      }
    }
  }
});

Deno.test("REP STOS fills with the element, REPNE SCAS and REPE CMPS stop where they should", () => {
  const m = flatMachine(`
    mov edi, 0x20ffe
    mov eax, 0x04030201
    mov ecx, 1000
    rep stosd
    mov edi, 0x20ffe
    mov al, 3
    mov ecx, 100
    repne scasb
    mov ebx, edi
    mov esi, 0x20ffe
    mov edi, 0x21002
    mov ecx, 5000
    repe cmpsb
end: jmp end`);
  m.cpu.run(10_000);
  assertEquals(register(m, "rbx"), 0x20ffe + 3);
  assertEquals(word(m, 0x20ffe), 0x04030201);
  assertEquals(word(m, 0x20ffe + 3996), 0x04030201);
  assertEquals(word(m, 0x20ffe + 4000), 0);
  assertEquals(register(m, "rdi"), 0x20ffe + 4001);
});

/** Paging with 4-KByte pages: the low 4 MiB map to themselves, page directory at 0x90000. */
function pagedMachine(program: string, options: { hot?: boolean } = {}): Machine {
  const m = flatMachine(program, options);
  const tables = new DataView(m.ram.buffer);
  tables.setUint32(0x90000, 0x91003, true);
  for (let page = 0; page < 256; page++) tables.setUint32(0x91000 + 4 * page, page << 12 | 3, true);
  m.cpu.set("cr3", 0x90000n);
  m.cpu.set("cr0", 0x8001_0011n);
  m.cpu.hooks.fault = () => true;
  return m;
}

for (const hot of [true, false]) {
  const how = hot ? "hot" : "general";
  Deno.test(`a changed page-table entry takes effect without INVLPG (${how})`, () => {
    const m = pagedMachine(
      `
      mov dword ptr [0x20000], 0x11111111
      mov dword ptr [0x30000], 0x22222222
      mov eax, [0x20000]
      mov dword ptr [0x91000+0x20*4], 0x30003
      mov ebx, [0x20000]
      mov dword ptr [0x20004], 0x33333333
      mov dword ptr [0x91000+0x20*4], 0x20003
      mov ecx, [0x20004]
      mov dword ptr [0x91000+0x20*4], 0x20001
      mov edx, [0x20000]
      mov [0x20000], edx`,
      { hot },
    );
    run(m, 10);
    assertEquals(register(m, "rax"), 0x11111111);
    assertEquals(register(m, "rbx"), 0x22222222);
    assertEquals(word(m, 0x30004), 0x33333333);
    assertEquals(register(m, "rcx"), 0);
    assertEquals(register(m, "rdx"), 0x11111111);
    assertEquals(m.cpu.run(1), "fault");
    assertEquals(m.cpu.lastFault?.vector, 14);
    assertEquals(m.cpu.lastFault?.errorCode, 3);
  });

  Deno.test(`accessed and dirty bits are set by the first access of each kind (${how})`, () => {
    const m = pagedMachine("mov eax, [0x20000]\nmov [0x20000], eax\nmov ecx, [0x21000]", { hot });
    const entry = (page: number) => word(m, 0x91000 + 4 * page) & 0x60;
    run(m, 1);
    assertEquals([entry(0x20), entry(0x21)], [0x20, 0]);
    run(m, 1);
    assertEquals([entry(0x20), entry(0x21)], [0x60, 0]);
    run(m, 1);
    assertEquals(entry(0x21), 0x20);
  });

  Deno.test(`code follows its page's mapping (${how})`, () => {
    const m = pagedMachine(
      `
      mov edx, 2
again: call 0x40000
      mov dword ptr [0x91000+0x40*4], 0x50003
      dec edx
      jnz again
end:  jmp end`,
      { hot },
    );
    m.write(0x40000, assemble("inc eax\nret", { mode: 32 }).bytes);
    m.write(0x50000, assemble("inc ebx\nret", { mode: 32 }).bytes);
    run(m, 1 + 2 * 6);
    assertEquals([register(m, "rax"), register(m, "rbx")], [1, 1]);
  });

  Deno.test(`an instruction across pages is fetched anew when its second page moves (${how})`, () => {
    const m = pagedMachine(
      `
      mov edx, 2
again: call 0x40ffe
      add ebx, eax
      mov dword ptr [0x91000+0x41*4], 0x50003
      dec edx
      jnz again
end:  jmp end`,
      { hot },
    );
    m.write(0x40ffe, assemble("mov eax, 0x01020304\nret", { mode: 32 }).bytes);
    m.write(0x50000, Uint8Array.of(0x10, 0x20, 0x30, 0xc3));
    run(m, 1 + 2 * 7);
    assertEquals(register(m, "rbx"), 0x01020304 + 0x30201004);
  });

  Deno.test(`REP MOVS stops exactly at a page that is not there (${how})`, () => {
    const m = pagedMachine("mov ecx, 4096\nmov esi, 0x20000\nmov edi, 0x30f00\nrep movsb", { hot });
    new DataView(m.ram.buffer).setUint32(0x91000 + 4 * 0x31, 0, true);
    assertEquals(m.cpu.run(100_000), "fault");
    assertEquals(m.cpu.count, 3 + 0x100);
    assertEquals(register(m, "rcx"), 4096 - 0x100);
    assertEquals(register(m, "rdi"), 0x31000);
    assertEquals(register(m, "rsi"), 0x20100);
    assertEquals(m.cpu.lastFault?.errorCode, 2);
  });

  Deno.test(`a fault in the middle of a run leaves the state before its instruction (${how})`, () => {
    const m = pagedMachine("mov eax, 5\nadd eax, 7\npush eax\nadd [0x31000], eax\ninc eax", {
      hot,
    });
    new DataView(m.ram.buffer).setUint32(0x91000 + 4 * 0x31, 0, true);
    assertEquals(m.cpu.run(100), "fault");
    assertEquals(m.cpu.count, 3);
    assertEquals(register(m, "rax"), 12);
    assertEquals(register(m, "rip"), 0x1000 + 5 + 3 + 1);
  });
}

/** An IDT at 0x60000 whose vectors lead to `handler`, and a GDT at 0x61000 with the flat segments. */
function withVectors(m: Machine, handler: string): void {
  const at = 0x62000, view = new DataView(m.ram.buffer);
  m.write(at, assemble(handler, { mode: 32, origin: at }).bytes);
  for (let n = 0; n < 256; n++) {
    view.setUint32(0x60000 + 8 * n, 8 << 16 | at & 0xffff, true);
    view.setUint32(0x60004 + 8 * n, (at & 0xffff0000) | 0x8e00, true);
  }
  view.setBigUint64(0x61008, 0x00cf9b000000ffffn, true);
  view.setBigUint64(0x61010, 0x00cf93000000ffffn, true);
  m.cpu.set("idtr.base", 0x60000n);
  m.cpu.set("idtr.limit", 0x7ffn);
  m.cpu.set("gdtr.base", 0x61000n);
  m.cpu.set("gdtr.limit", 0x17n);
}

/** A handler that counts in [0x70000] and notes the return addresses behind it. */
const COUNTING = `
  push eax
  push ebx
  mov ebx, [0x70000]
  inc dword ptr [0x70000]
  mov eax, [esp+8]
  mov [0x70004+ebx*4], eax
  pop ebx
  pop eax
  iretd`;

Deno.test("TF: a trap after each instruction, one for REP's every iteration", () => {
  const m = flatMachine("mov ecx, 3\nmov edi, 0x20000\nrep stosb\nnop\nend: jmp end");
  withVectors(m, COUNTING);
  m.cpu.set("rflags", 0x102n);
  // Each trapped instruction, and the handler's nine.
  run(m, 6 * 10);
  assertEquals(word(m, 0x70000), 6);
  const returns = Array.from({ length: 6 }, (_, i) => word(m, 0x70004 + 4 * i));
  assertEquals(returns, [0x1005, 0x100a, 0x100a, 0x100a, 0x100c, 0x100d]);
});

Deno.test("TF: MOV SS holds the trap back over the next instruction", () => {
  const m = flatMachine("mov ax, ss\nmov ss, ax\nnop\nnop\nend: jmp end");
  withVectors(m, COUNTING);
  m.cpu.set("rflags", 0x102n);
  run(m, 10 + 1 + 10);
  const first = assemble("mov ax, ss\nmov ss, ax", { mode: 32 }).bytes.length;
  assertEquals(word(m, 0x70000), 2);
  assertEquals(word(m, 0x70008), 0x1000 + first + 1);
});

Deno.test("STI lets one more instruction run before an interrupt", () => {
  const m = flatMachine("sti\nmov eax, 1\nmov ebx, 1\nend: jmp end");
  withVectors(m, COUNTING);
  let pending = true;
  m.bus = {
    ...m.bus,
    interruptPending: () => pending,
    acknowledge: () => {
      pending = false;
      return 0x30;
    },
  };
  run(m, 2 + 9);
  assertEquals(word(m, 0x70000), 1);
  assertEquals(word(m, 0x70004), 0x1006);
  assertEquals([register(m, "rax"), register(m, "rbx")], [1, 0]);
});
