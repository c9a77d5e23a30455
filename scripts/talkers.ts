/**
 * Two small guests that talk: one grants the other a page and sends it an event for each number it
 * writes there; the other maps the page, answers beside the number, and sends an event back. Both wait
 * by SCHEDOP_poll, so neither has an interrupt. What the scripts about events and grants share.
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import { type Domain, Hypervisor } from "xvm";
import { assemble } from "../src/machine/isa/encode.ts";
import { offsetOf, sizeOf } from "../src/abi/layout.ts";
import { HYPERCALLS } from "../src/abi/xen/hypercalls.ts";
import { EVTCHNOP } from "../src/abi/xen/event_channel.ts";
import { GNTMAP, GNTTABOP, GTF } from "../src/abi/xen/grant_table.ts";
import { XENMAPSPACE, XENMEM } from "../src/abi/xen/memory.ts";
import { SCHEDOP, SHUTDOWN } from "../src/abi/xen/sched.ts";
import { DOMID, SHARED_INFO } from "../src/abi/xen/xen.ts";

const LOAD = 0x100000;
/** Guest frames: shared_info, the grant table, the page that is granted, and where it is mapped. */
const INFO = 0x161, TABLE = 0x160, PAGE = 0x170, MAPPED = 0x4000;
export const REF = 8;
/** What the script tells a guest before it runs, and what the guest counts. */
const PEER = 0x7000,
  PEER_PORT = 0x7004,
  ROUNDS = 0x7008,
  PORT = 0x700c,
  DONE = 0x7010,
  REFUSED = 0x7014;
/** Arguments of calls. */
const ARG = 0x7100;
const PENDING = INFO * 4096 + offsetOf(SHARED_INFO, "evtchn_pending", 32);
const MAP_SIZE = sizeOf(GNTTABOP.map_grant_ref.arg, 32);

/** A hypercall with up to three arguments; its result is in EAX. */
const call = (cpu: string, name: keyof typeof HYPERCALLS, ...args: (number | string)[]) =>
  `${args.map((value, n) => `mov ${["ebx", "ecx", "edx"][n]}, ${value}`).join("\n")}
  mov eax, ${HYPERCALLS[name].number}
  ${cpu === "intel" ? "vmcall" : "vmmcall"}`;

/** Maps one of the hypervisor's pages. */
const map = (cpu: string, space: number, frame: number) =>
  `mov dword [${ARG}], ${DOMID.SELF}
  mov dword [${ARG + 4}], ${space}
  mov dword [${ARG + 8}], 0
  mov dword [${ARG + 12}], ${frame}
  ${call(cpu, "memory_op", XENMEM.add_to_physmap.number, ARG)}
  test eax, eax
  jnz failed`;
const send = (cpu: string) =>
  `mov eax, [${PORT}]
  mov [${ARG}], eax
  ${call(cpu, "event_channel_op", EVTCHNOP.send.number, ARG)}`;
/** Waits until the port is pending, and takes the event. */
const wait = (cpu: string) =>
  `mov dword [${ARG}], ${PORT}
  mov dword [${ARG + 4}], 1
  mov dword [${ARG + 8}], 0
  mov dword [${ARG + 12}], 0
  ${call(cpu, "sched_op", SCHEDOP.poll.number, ARG)}
  mov eax, [${PORT}]
  lock btr dword [${PENDING}], eax`;
const end = (cpu: string, reason: number) =>
  `mov dword [${ARG}], ${reason}
  ${call(cpu, "sched_op", SCHEDOP.shutdown.number, ARG)}
  hlt`;

const kernel = (source: string) =>
  assemble(
    `bits 32
    org ${LOAD}
    header: dd 0x1badb002, 0x10000, ${-(0x1badb002 + 0x10000) >>> 0}
    dd header, header, 0, 0, start
    start:
    ${source}`,
    { mode: 32 },
  ).bytes;

/** The one that grants: `hasty` sends each event twice, and the second finds the first still there. */
const asking = (cpu: string, hasty: boolean) =>
  kernel(`
    ${map(cpu, XENMAPSPACE.shared_info, INFO)}
    ${map(cpu, XENMAPSPACE.grant_table, TABLE)}
    mov eax, [${PEER}]
    shl eax, 16
    or eax, ${GTF.permit_access}
    mov dword [${TABLE * 4096 + 8 * REF + 4}], ${PAGE}
    mov [${TABLE * 4096 + 8 * REF}], eax
    mov eax, [${PEER}]
    shl eax, 16
    or eax, ${DOMID.SELF}
    mov [${ARG}], eax
    ${call(cpu, "event_channel_op", EVTCHNOP.alloc_unbound.number, ARG)}
    test eax, eax
    jnz failed
    mov eax, [${ARG + 4}]
    mov [${PORT}], eax
    ${wait(cpu)}                     ; the other has bound its end
  round:
    mov eax, [${DONE}]
    inc eax
    mov [${PAGE * 4096}], eax
    ${send(cpu)}
    ${hasty ? send(cpu) : ""}
    ${wait(cpu)}
    mov eax, [${PAGE * 4096}]
    add eax, eax
    cmp eax, [${PAGE * 4096 + 4}]    ; the answer is twice the number
    jne failed
    inc dword [${DONE}]
    mov eax, [${DONE}]
    cmp eax, [${ROUNDS}]
    jne round
    mov dword [${PAGE * 4096}], 0    ; the end
    ${send(cpu)}
    ${end(cpu, SHUTDOWN.poweroff)}
  failed:
    ${end(cpu, SHUTDOWN.crash)}`);

/** The one that maps, for each answer anew. */
const answering = (cpu: string) =>
  kernel(`
    ${map(cpu, XENMAPSPACE.shared_info, INFO)}
    mov eax, [${PEER}]
    mov [${ARG}], eax
    mov eax, [${PEER_PORT}]
    mov [${ARG + 4}], eax
    ${call(cpu, "event_channel_op", EVTCHNOP.bind_interdomain.number, ARG)}
    test eax, eax
    jnz failed
    mov eax, [${ARG + 8}]
    mov [${PORT}], eax
    lock btr dword [${PENDING}], eax ; it is pending from the beginning
    ${send(cpu)}
  round:
    ${wait(cpu)}
  again:
    mov edi, ${ARG}
    mov ecx, ${MAP_SIZE / 4}
    xor eax, eax
    rep stosd
    mov dword [${ARG}], ${MAPPED * 4096}
    mov dword [${ARG + 8}], ${GNTMAP.host_map}
    mov dword [${ARG + 12}], ${REF}
    mov eax, [${PEER}]
    mov [${ARG + 16}], ax
    ${call(cpu, "grant_table_op", GNTTABOP.map_grant_ref.number, ARG, 1)}
    cmp word [${ARG + 18}], 0
    je mapped
    inc dword [${REFUSED}]           ; once more
    jmp again
  mapped:
    mov eax, [${MAPPED * 4096}]
    add eax, eax
    mov [${MAPPED * 4096 + 4}], eax
    mov esi, eax
    mov eax, [${ARG + 20}]
    mov [${ARG + 16}], eax
    mov dword [${ARG + 8}], 0
    mov dword [${ARG + 12}], 0
    ${call(cpu, "grant_table_op", GNTTABOP.unmap_grant_ref.number, ARG, 1)}
    test esi, esi
    jz over
    inc dword [${DONE}]
    ${send(cpu)}
    jmp round
  over:
    ${end(cpu, SHUTDOWN.poweroff)}
  failed:
    ${end(cpu, SHUTDOWN.crash)}`);

/** How the two are made. */
export interface TalkersOptions {
  readonly cpu: "intel" | "amd";
  readonly paging: "hap" | "shadow";
  /** Numbers that are sent and answered. */
  readonly rounds: number;
  /** Each event is sent twice. */
  readonly hasty?: boolean;
}

/** Both domains, the one that answers ready to run; the other has opened its port and waits. */
export interface Talkers extends AsyncDisposable {
  readonly hv: Hypervisor;
  readonly asks: Domain;
  readonly answers: Domain;
  /** What a guest has counted: answers that it has seen or given, and mappings that it was refused. */
  counts(dom: Domain): { readonly done: number; readonly refused: number };
  /** Lets both run to their ends. */
  run(): Promise<void>;
}

export async function talkers(
  { cpu, paging, rounds, hasty = false }: TalkersOptions,
): Promise<Talkers> {
  const hv = await Hypervisor.start({ cpu, memory: "64M" });
  const make = (name: string, kernel: Uint8Array) =>
    hv.createDomain({ name, type: "hvm", paging, xen: true, kernel, memory: "4M" });
  const asks = await make("asks", asking(cpu, hasty)),
    answers = await make("answers", answering(cpu));
  asks.memory.write(PEER, words(answers.id, 0, rounds));
  // Until it waits for the other: its port is there then.
  await asks.until("hypercall", { name: "sched_op", sub: "poll" });
  const [port] = new Uint32Array(asks.memory.read(PORT, 4).buffer);
  answers.memory.write(PEER, words(asks.id, port, rounds));
  return {
    hv,
    asks,
    answers,
    counts: (dom) => {
      const [done, refused] = new Uint32Array(dom.memory.read(DONE, 8).buffer);
      return { done, refused };
    },
    run: async () => {
      asks.unpause();
      answers.unpause();
      for (
        const { name, ended } of [asks, answers].map((dom) => ({
          name: dom.name,
          ended: dom.ended,
        }))
      ) {
        const { reason, detail } = await ended;
        if (reason !== "poweroff") throw new Error(`${name} ended by ${reason}: ${detail}`);
      }
    },
    [Symbol.asyncDispose]: () => hv.close(),
  };
}
const words = (...values: number[]) => new Uint8Array(Uint32Array.from(values).buffer);

/** The options that all scripts with talkers have, and more; `--help` prints `usage` and ends. */
export function talkersOptions<K extends string = never>(
  usage: string,
  more: Readonly<Record<K, string>> = {} as Record<K, string>,
  args: readonly string[] = Deno.args,
): TalkersOptions & { readonly own: Readonly<Partial<Record<K, string>>> } {
  const all = {
    rounds: "numbers that are sent and answered (1000)",
    cpu: "intel or amd (intel)",
    paging: "hap or shadow (hap)",
    ...more,
  };
  const given = parseArgs([...args], { string: Object.keys(all), boolean: ["help"] }) as Readonly<
    Record<string, unknown>
  >;
  if (given.help) {
    const lines = Object.entries(all).map(([name, text]) => `  --${name.padEnd(8)}  ${text}`);
    console.log(`${usage}\n\n${lines.join("\n")}`);
    Deno.exit(0);
  }
  const oneOf = <T extends string>(name: string, ...words: readonly T[]): T => {
    const word = (given[name] ?? words[0]) as T;
    if (words.includes(word)) return word;
    throw new TypeError(`--${name}: ${words.join(" or ")} was expected, ${word} was given`);
  };
  return {
    rounds: wholeOf(given.rounds, "rounds", 1000),
    cpu: oneOf("cpu", "intel", "amd"),
    paging: oneOf("paging", "hap", "shadow"),
    own: given as Partial<Record<K, string>>,
  };
}
/** A number above 0 of an option's text. */
export function wholeOf(text: unknown, name: string, otherwise: number): number {
  const value = text === undefined ? otherwise : Number(text);
  if (Number.isSafeInteger(value) && value > 0) return value;
  throw new RangeError(`--${name}: a whole number above 0 was expected, ${text} was given`);
}
