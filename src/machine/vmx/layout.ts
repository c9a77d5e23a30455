/**
 * Where a VMCS keeps its fields: a 4-KByte region of machine memory, a fixed offset for each field
 * (SDM 3 24.2 leaves the format to the processor). Nothing of a VMCS lives anywhere else, so saving
 * memory saves it.
 *
 * The guest's segments and descriptor tables lie as they do in the processor's own state, so that entry
 * and exit move them as one block; the PDPTEs, too, which are moved only where they are in use.
 */
import { vmcsFields } from "../../abi/x86/vmcs.ts";
import { CPU, EXTENSION_AREA, pdpte, SEGMENT, SEGMENT_SIZE, SEGMENTS } from "../state.ts";
import { cells, span } from "../wasm/cells.ts";
import { cell, MEMORY, setCell } from "../linkage.ts";
import { type Expr, load, type Operand, toExpr } from "../wasm/expr.ts";
import type { Func, Module } from "../wasm/module.ts";

/** The VMCS revision identifier (31 bits), in IA32_VMX_BASIC and at the start of each region. */
export const VMCS_REVISION = 0x006d_7678;
export const VMCS_SIZE = 4096;

/** Head of a region: revision identifier, VMX-abort indicator, launch state (0 clear, 1 launched). */
export const HEAD = { revision: 0, abort: 4, launched: 8 } as const;

/** The block of guest state that mirrors the processor's, from es.base through idtr; the PDPTEs follow. */
export const BLOCK = {
  start: 0xa00,
  cpu: CPU["es.base"],
  size: span(CPU, "es.base", "idtr.limit").size,
} as const;

const capital = (name: string) => name[0].toUpperCase() + name.slice(1);

function blockFields(): Map<string, number> {
  const out = new Map<string, number>();
  const place = (cpu: number) => BLOCK.start + cpu - BLOCK.cpu;
  SEGMENTS.forEach((name, n) => {
    const start = place(CPU["es.base"] + n * SEGMENT_SIZE), guest = `guest${capital(name)}`;
    out.set(`${guest}Base`, start + SEGMENT.base);
    out.set(`${guest}Limit`, start + SEGMENT.limit);
    out.set(`${guest}AccessRights`, start + SEGMENT.attributes);
    out.set(`${guest}Selector`, start + SEGMENT.selector);
  });
  for (const name of ["gdtr", "idtr"] as const) {
    for (const part of ["base", "limit"] as const) {
      out.set(`guest${capital(name)}${capital(part)}`, place(CPU[`${name}.${part}`]));
    }
  }
  for (let n = 0; n < 4; n++) out.set(`guestPdpte${n}`, place(pdpte(n)));
  return out;
}

const offsets = blockFields();
let next = 0x40;
for (const field of vmcsFields) {
  if (offsets.has(field.name)) continue;
  offsets.set(field.name, next);
  next += 8;
}
if (next > BLOCK.start) throw new Error("VMCS fields run into the block of guest state");

/** Offset of a field in its region. */
export function fieldOffset(name: string): number {
  const offset = offsets.get(name);
  if (offset === undefined) throw new Error(`no VMCS field named ${name}`);
  return offset;
}

/** What a change of a field makes doubtful: groups of entry checks to be done again. */
export const GROUP = { controls: 1, host: 2, guest: 4, light: 8 } as const;
const ALL = GROUP.controls | GROUP.host | GROUP.guest | GROUP.light;

/** Fields whose change asks for other checks than the kind of field says. */
const GROUPS: Record<string, number> = {
  pinBasedControls: GROUP.controls | GROUP.guest,
  processorBasedControls: GROUP.controls | GROUP.guest,
  secondaryControls: GROUP.controls | GROUP.guest,
  entryControls: ALL,
  exitControls: GROUP.controls | GROUP.host,
  // Checked at every entry that uses them, or by nothing.
  entryInterruptionInformation: 0,
  entryExceptionErrorCode: 0,
  entryInstructionLength: 0,
  tprThreshold: 0,
  tscOffset: 0,
  exceptionBitmap: 0,
  pageFaultErrorCodeMask: 0,
  pageFaultErrorCodeMatch: 0,
  cr0Mask: 0,
  cr4Mask: 0,
  cr0ReadShadow: 0,
  cr4ReadShadow: 0,
  cr3Target0: 0,
  cr3Target1: 0,
  cr3Target2: 0,
  cr3Target3: 0,
  preemptionTimer: 0,
  executiveVmcsPointer: 0,
  guestRip: GROUP.light,
  guestRflags: GROUP.light,
  guestInterruptibility: GROUP.light,
  guestActivity: GROUP.light,
  guestPendingDebug: GROUP.light,
  guestRsp: 0,
  guestSysenterCs: 0,
  guestSmbase: 0,
};
const GROUP_OF_KIND = {
  control: GROUP.controls,
  "exit-information": 0,
  guest: GROUP.guest | GROUP.light,
  host: GROUP.host,
};

/**
 * What a VMCS has passed is remembered while others are current: entries of 8 bytes, first byte of the
 * VMCS (-1: none) and `passed`. VMCLEAR forgets it, as hardware may keep a VMCS until then.
 */
export const KNOWN = { entries: 8, base: 0, passed: 4, size: 8 } as const;

/** Entries of the field table. */
const FIELD_SLOTS = 512;

/** Cells of memory 0 that VMX keeps besides the processor's state; all can be made anew. */
export const VMXC = cells(EXTENSION_AREA.vmx, {
  /** First byte of the current VMCS in machine memory; meaningful while there is a current VMCS. */
  base: 4,
  /** The field table below is there. */
  ready: 4,
  /** Value of VMREAD and VMWRITE. */
  value: 8,
  /** Groups of checks that the current VMCS has passed and that no write has made doubtful since. */
  passed: 4,
  /** A monitor-trap-flag exit is due. */
  trapDue: 4,
  /** Instructions until the preemption timer fires, while it is active (i64). */
  timer: 8,
  /** What the TLBs hold translations of: valid, EPTP, CR3, mode bits, PDPTEs. */
  contextValid: 4,
  contextEptp: 8,
  contextCr3: 8,
  contextMode: 8,
  contextPdptes: 32,
  /** Interruption information of the exit in the making, 0 if it has none, and its error code. */
  event: 4,
  eventCode: 4,
  /** Number of entries, for tests. */
  entries: 4,
  /** The next event delivered is the one that VM entry injects. */
  injecting: 4,
  /** The virtual TPR fell below the threshold. */
  tprDue: 4,
  /** What `leaveGuest` has read for the root: see STUB. */
  stub: 24,
  /** Whose host state is in `hostBlock`: first byte of a VMCS, -1 for none. */
  hostBlockOf: 4,
  nextKnown: 4,
  /** VMCSs that were current of late: KNOWN. */
  known: KNOWN.entries * KNOWN.size,
  /** The field table. */
  fields: 4 * FIELD_SLOTS,
  /** The host's segments as a VM exit loads them, in the layout of BLOCK. */
  hostBlock: BLOCK.size,
});

/** Exit fields that the root's stub reads at once: 32-bit words from VMXC.stub. */
export const STUB = {
  reason: 0,
  length: 4,
  vectoring: 8,
  interruption: 12,
  /** Low and high halves. */
  qualification: 16,
} as const;

const WIDTH_CODE = { "16": 0, "64": 1, "32": 2, natural: 3 } as const;
/** Entry of the field table: offset, width code << 12, read-only << 14, groups << 16, 1 << 31. */
export const FIELD_ENTRY = { present: 1 << 31, readOnly: 1 << 14, groups: 16, width: 12 } as const;

/** Place in the field table of an encoding: width, kind, and the low five bits of the index. */
const fieldSlot = (encoding: number): number =>
  (encoding >>> 13 & 3) << 7 | (encoding >>> 10 & 3) << 5 | encoding >>> 1 & 31;

/** The field table; an index above 31 has no field. */
function fieldTable(): Map<number, number> {
  const table = new Map<number, number>();
  for (const field of vmcsFields) {
    if ((field.encoding >>> 1 & 0x1ff) > 31) throw new Error(`${field.name}: index above 31`);
    table.set(
      fieldSlot(field.encoding),
      fieldOffset(field.name) | WIDTH_CODE[field.width] << FIELD_ENTRY.width |
        (field.readOnly ? FIELD_ENTRY.readOnly : 0) |
        (GROUPS[field.name] ?? GROUP_OF_KIND[field.kind]) << FIELD_ENTRY.groups |
        FIELD_ENTRY.present,
    );
  }
  return table;
}

/** `vmxTables()`: writes the field table unless it is there. */
export function buildTables(m: Module): void {
  m.func("vmxTables", [], [], (f) => {
    f.if(cell(VMXC.ready), () => f.return());
    for (const [slot, entry] of fieldTable()) setCell(f, VMXC.fields + 4 * slot, entry);
    setCell(f, VMXC.ready, 1);
  });
}

const bitsOf = new Map(vmcsFields.map((f) => [f.name, f.bits]));

/** Fields of the VMCS at `base` (an i32), by name, for functions under construction. */
export class VmcsRegion {
  constructor(readonly f: Func, readonly base: Expr) {}

  /** The current VMCS; its base is read now. */
  static current(f: Func): VmcsRegion {
    return new VmcsRegion(f, f.let(cell(VMXC.base)));
  }
  /** A field in its own width: i32 for 16 and 32 bits, i64 for 64. */
  get(name: string): Expr {
    const bits = bitsOf.get(name);
    return bits === 64 ? this.wide(name) : this.low(name);
  }
  /** The low half of a field (all of a narrow one). */
  low(name: string): Expr {
    return load("i32", 32, "u", this.base, fieldOffset(name), MEMORY.ram);
  }
  wide(name: string): Expr {
    return load("i64", 64, "u", this.base, fieldOffset(name), MEMORY.ram);
  }
  set(name: string, value: Operand): void {
    const bits = bitsOf.get(name) === 64 ? 64 : 32;
    const type = bits === 64 ? "i64" : "i32";
    this.f.store(bits, this.base, toExpr(type, value), fieldOffset(name), MEMORY.ram);
  }
  head(offset: number): Expr {
    return load("i32", 32, "u", this.base, offset, MEMORY.ram);
  }
  setHead(offset: number, value: Operand): void {
    this.f.store(32, this.base, toExpr("i32", value), offset, MEMORY.ram);
  }
}
