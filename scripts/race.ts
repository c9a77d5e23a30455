/**
 * A lost update, hunted over seeds: the vCPUs of a guest add to one counter without a lock, and a watch
 * stops the one that writes over what another has added meanwhile. Who runs how long between two
 * instructions is the seed's, so what is found runs again to the same instruction.
 *
 * `deno task xvm run scripts/race.ts [--seeds N] [--turns MIN-MAX] [--vcpus N] [--cpus N] --help`
 *
 * @module
 */
import { Hypervisor } from "xvm";
import { assemble } from "../src/machine/isa/encode.ts";
import { type Found, hunt, huntOptions, number, type Turns, word } from "./hunt.ts";

const LOAD = 0x100000, EXIT = 0xf4, START = 0x8000;
/** What the vCPUs share, and the table of segments that the others begin with. */
const COUNTER = 0x7000, UP = 0x7100, DONE = 0x7104, GDT = 0x7e00, POINTER = 0x7f00;

/** A kernel whose vCPUs each work for a while and add one to the counter, so many times. */
const kernelOf = (vcpus: number, rounds: number) =>
  assemble(
    `bits 32
    org ${LOAD}
    header: dd 0x1badb002, 0x10000, ${-(0x1badb002 + 0x10000) >>> 0}
    dd header, header, 0, 0, start
    start:
      mov edi, 0xfee00000           ; INIT and start-up for all others
      mov dword [edi + 0x300], 0xc4500
      mov dword [edi + 0x300], ${0xc4600 + (START >> 12)}
      mov ebx, 1
      jmp ready
    other:
      mov ax, 16
      mov ds, ax
      mov eax, 1
      cpuid
      shr ebx, 24
      inc ebx
    ready:
      mov esi, ${rounds}
      lock inc dword [${UP}]
    await:
      cmp dword [${UP}], ${vcpus}
      jne await
    round:
      imul ebx, ebx, 1103515245     ; 50 to 305 turns of a loop
      add ebx, 12345
      mov ecx, ebx
      shr ecx, 24
      add ecx, 50
    work:
      dec ecx
      jnz work
    add:
      mov eax, [${COUNTER}]
      inc eax
      mov [${COUNTER}], eax
      dec esi
      jnz round
      lock inc dword [${DONE}]
    done:
      cmp dword [${DONE}], ${vcpus}
      jne done
      mov al, 0
      out ${EXIT}, al
      jmp done`,
    { mode: 32 },
  );

/** In real mode, where a start-up IPI has them begin. */
const startOf = (other: number) =>
  assemble(
    `xor ax, ax
    mov ds, ax
    lgdt [${POINTER}]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    db 0x66, 0xea
    dd ${other}
    dw 8`,
    { mode: 16 },
  ).bytes;

const words = (...values: number[]) => new Uint8Array(Uint32Array.from(values).buffer);

const options = huntOptions(
  "A lost update between the vCPUs of a guest, hunted over seeds:\n\n" +
    "  deno task xvm run scripts/race.ts [OPTIONS]",
  "1-20,10000",
  {
    rounds: "how often each vCPU adds to the counter (500)",
    type: "hvm or bare (hvm); a bare guest's vCPUs are the host's processors",
    paging: "hap or shadow (hap)",
  },
);
const { vcpus, cpu, own } = options;
const type = word(own.type, "type", "hvm", "bare");
const paging = word(own.paging, "paging", "hap", "shadow");
const cpus = type === "bare" ? vcpus : options.cpus;
const rounds = number(own.rounds ?? "500", "rounds", 1, 1_000_000);
const { bytes: kernel, symbols } = kernelOf(vcpus, rounds);
const named = ["await", "round", "work", "add", "done"].map((name) =>
  `${symbols.get(name)!.toString(16).padStart(8, "0")} T ${name}`
);
const symbolTable = new TextEncoder().encode(named.join("\n") + "\n");

/** One access to the counter, in one line. */
interface Access {
  readonly vcpu: { readonly id: number };
  readonly position: { readonly count: number };
  readonly write: boolean;
  readonly value: bigint;
}
const accessText = ({ vcpu, position, write, value }: Access) =>
  `${position.count.toLocaleString("en").padStart(12)}  vCPU ${vcpu.id} ${
    write ? "writes" : "reads "
  } ${value}`;

/** One guest on a host of its own, until an update is lost or all is done. */
async function run(seed: number, interleave: Turns): Promise<Found | undefined> {
  await using hv = await Hypervisor.start({ cpu, cpus, seed, interleave, memory: "32M" });
  const dom = await hv.createDomain({
    name: "adders",
    type,
    paging,
    kernel,
    memory: "4M",
    vcpus,
  });
  dom.loadSymbols(symbolTable);
  dom.memory.write(START, startOf(Number(symbols.get("other"))));
  dom.memory.write(GDT, words(0, 0, 0xffff, 0xcf9b00, 0xffff, 0xcf9300));
  dom.memory.write(POINTER, words(GDT << 16 | 23, 0));

  const accesses: string[] = [];
  const counter = { address: COUNTER, length: 4, read: true, write: true };
  const stop = await dom.tryUntil("watch", counter, (access) => {
    accesses.push(accessText(access));
    // Whoever adds to what stands there loses nothing.
    return access.write && access.value !== access.old + 1n;
  });
  if (stop instanceof Error) {
    if (dom.state !== "paused") return undefined;
    throw stop;
  }
  const { count } = stop.position;
  return {
    instruction: count,
    hash: hv.stateHash(),
    text: [
      `${accesses.slice(-6).join("\n")}: over ${stop.old}, so an update is lost`,
      Deno.inspect(hv.schedule({ last: 8 })),
      Deno.inspect(dom.vcpus),
      Deno.inspect(stop.vcpu.disassemble("add", 3)),
    ].join("\n\n"),
  };
}

if (!await hunt(options, run)) Deno.exit(1);
