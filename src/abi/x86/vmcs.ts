/**
 * Fields of the virtual-machine control structure: encoding, name, width and access
 * (Intel SDM vol. 3, appendix B; the meaning of each in chapter 24).
 *
 * One row a field: `ENCODING NAME`. The encoding itself says the rest: bit 0 selects the upper half
 * of a 64-bit field, bits 9:1 are an index, bits 11:10 the kind, bits 14:13 the width (table 24-21).
 * Names are the manual's, shortened as camel case.
 * @module
 */

/** What a field belongs to: bits 11:10 of its encoding. */
export type VmcsFieldKind = "control" | "exit-information" | "guest" | "host";
/** Bits 14:13 of the encoding; natural is 64 bits on processors with Intel 64. */
export type VmcsFieldWidth = "16" | "64" | "32" | "natural";

/** One field of the VMCS. */
export interface VmcsField {
  readonly name: string;
  /** The encoding that VMREAD and VMWRITE take (full access). */
  readonly encoding: number;
  readonly kind: VmcsFieldKind;
  readonly width: VmcsFieldWidth;
  /** VMWRITE refuses it (VM-instruction error 13); the VM-exit information fields. */
  readonly readOnly: boolean;
  /** Size in bits: 16, 32 or 64. */
  readonly bits: 16 | 32 | 64;
}

const kinds = ["control", "exit-information", "guest", "host"] as const;
const widths = ["16", "64", "32", "natural"] as const;

const rows = `
0000 vpid

0800 guestEsSelector
0802 guestCsSelector
0804 guestSsSelector
0806 guestDsSelector
0808 guestFsSelector
080a guestGsSelector
080c guestLdtrSelector
080e guestTrSelector

0c00 hostEsSelector
0c02 hostCsSelector
0c04 hostSsSelector
0c06 hostDsSelector
0c08 hostFsSelector
0c0a hostGsSelector
0c0c hostTrSelector

2000 ioBitmapA
2002 ioBitmapB
2004 msrBitmap
2006 exitMsrStoreAddress
2008 exitMsrLoadAddress
200a entryMsrLoadAddress
200c executiveVmcsPointer
2010 tscOffset
2012 virtualApicAddress
201a eptPointer
202c xssExitingBitmap

2400 guestPhysicalAddress

2800 vmcsLinkPointer
2802 guestDebugctl
2804 guestPat
2806 guestEfer
280a guestPdpte0
280c guestPdpte1
280e guestPdpte2
2810 guestPdpte3

2c00 hostPat
2c02 hostEfer

4000 pinBasedControls
4002 processorBasedControls
4004 exceptionBitmap
4006 pageFaultErrorCodeMask
4008 pageFaultErrorCodeMatch
400a cr3TargetCount
400c exitControls
400e exitMsrStoreCount
4010 exitMsrLoadCount
4012 entryControls
4014 entryMsrLoadCount
4016 entryInterruptionInformation
4018 entryExceptionErrorCode
401a entryInstructionLength
401c tprThreshold
401e secondaryControls

4400 instructionError
4402 exitReason
4404 exitInterruptionInformation
4406 exitInterruptionErrorCode
4408 idtVectoringInformation
440a idtVectoringErrorCode
440c exitInstructionLength
440e exitInstructionInformation

4800 guestEsLimit
4802 guestCsLimit
4804 guestSsLimit
4806 guestDsLimit
4808 guestFsLimit
480a guestGsLimit
480c guestLdtrLimit
480e guestTrLimit
4810 guestGdtrLimit
4812 guestIdtrLimit
4814 guestEsAccessRights
4816 guestCsAccessRights
4818 guestSsAccessRights
481a guestDsAccessRights
481c guestFsAccessRights
481e guestGsAccessRights
4820 guestLdtrAccessRights
4822 guestTrAccessRights
4824 guestInterruptibility
4826 guestActivity
4828 guestSmbase
482a guestSysenterCs
482e preemptionTimer

4c00 hostSysenterCs

6000 cr0Mask
6002 cr4Mask
6004 cr0ReadShadow
6006 cr4ReadShadow
6008 cr3Target0
600a cr3Target1
600c cr3Target2
600e cr3Target3

6400 exitQualification
6402 ioRcx
6404 ioRsi
6406 ioRdi
6408 ioRip
640a guestLinearAddress

6800 guestCr0
6802 guestCr3
6804 guestCr4
6806 guestEsBase
6808 guestCsBase
680a guestSsBase
680c guestDsBase
680e guestFsBase
6810 guestGsBase
6812 guestLdtrBase
6814 guestTrBase
6816 guestGdtrBase
6818 guestIdtrBase
681a guestDr7
681c guestRsp
681e guestRip
6820 guestRflags
6822 guestPendingDebug
6824 guestSysenterEsp
6826 guestSysenterEip

6c00 hostCr0
6c02 hostCr3
6c04 hostCr4
6c06 hostFsBase
6c08 hostGsBase
6c0a hostTrBase
6c0c hostGdtrBase
6c0e hostIdtrBase
6c10 hostSysenterEsp
6c12 hostSysenterEip
6c14 hostRsp
6c16 hostRip
`;

function parse(row: string): VmcsField {
  const [hex, name] = row.split(" ");
  const encoding = parseInt(hex, 16);
  const kind = kinds[encoding >> 10 & 3], width = widths[encoding >> 13 & 3];
  return {
    name,
    encoding,
    kind,
    width,
    readOnly: kind === "exit-information",
    bits: width === "16" ? 16 : width === "32" ? 32 : 64,
  };
}

/** Every field, in order of encoding within its width. */
export const vmcsFields: readonly VmcsField[] = rows.trim().split(/\n+/).map(parse);

const byName = new Map(vmcsFields.map((f) => [f.name, f]));
const byEncoding = new Map(vmcsFields.map((f) => [f.encoding, f]));

/** Encodings by name: `VMCS.guestRip` is 0x681e. */
export const VMCS: Readonly<Record<string, number>> = Object.fromEntries(
  vmcsFields.map((f) => [f.name, f.encoding]),
);

/**
 * The field called `name`, or of that encoding (an odd encoding names the field whose upper half it
 * is).
 *
 * @throws {RangeError} There is no such field.
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { vmcsField } from "./vmcs.ts";
 * assertEquals(vmcsField("guestRip").encoding, 0x681e);
 * assertEquals(vmcsField(0x2011).name, "tscOffset");
 * ```
 */
export function vmcsField(name: string | number): VmcsField {
  const found = typeof name === "string" ? byName.get(name) : byEncoding.get(name) ?? halfOf(name);
  if (found) return found;
  throw new RangeError(
    typeof name === "string"
      ? `no VMCS field is called "${name}"`
      : `0x${name.toString(16)} is not the encoding of a VMCS field`,
  );
}

function halfOf(encoding: number): VmcsField | undefined {
  const whole = encoding & 1 ? byEncoding.get(encoding - 1) : undefined;
  return whole?.width === "64" ? whole : undefined;
}
