/**
 * The program of the process under test: a static ELF64 made here, without a compiler. It is written as
 * a listing (bytes, then what they mean); `stub_test.ts` holds it against objdump.
 *
 * It maps what {@linkcode syscalls} tells it to, then serves batches: for each case it patches the
 * memory, loads the state by RT_SIGRETURN with TF set, and the instruction under test runs on the
 * processor. The kernel hands the outcome (trap after one instruction, or fault) to `handler` as a
 * signal frame, which holds all registers, the XSAVE image, vector, error code and CR2. So a step
 * costs one sigreturn and one signal, not a round trip of a tracer.
 */

/** Fixed addresses in the process; all above 4 GB, where 32-bit code cannot reach them. */
export const AT = {
  stub: 0x6000_0000_0000,
  /** The arena shared with the parent: control block, signal stack, ground, background, records. */
  arena: 0x6000_1000_0000,
  signalStack: 0x6000_1000_4000,
  ground: 0x6000_1001_0000,
  background: 0x6000_1002_0000,
  records: 0x6000_1003_0000,
} as const;

/** Bytes of the signal stack; a frame with AVX-512 takes about 3,700. */
export const SIGNAL_STACK_SIZE = 0x8000;

/** Layout of an input record (2,048 bytes): a ucontext as RT_SIGRETURN takes it, then our fields. */
export const IN = {
  size: 0x800,
  stack: 0x10,
  gregs: 0x28,
  mask: 0x128,
  selectors: 0x130, // ds, es, fs, gs, 8 bytes each
  bases: 0x150, // fs, gs
  steps: 0x160,
  fx: 0x180,
  patches: 0x4c0,
} as const;

/** Layout of an output record (4,096 bytes). */
export const OUT = {
  size: 0x1000,
  gregs: 0,
  siginfo: 0x100,
  selectors: 0x120,
  bases: 0x140,
  changes: 0x150, // count of changed words
  stepsLeft: 0x158,
  fx: 0x180,
  words: 0x4c0, // {u64 offset, u64 value}
  maxWords: 176,
} as const;

/** Offsets in the kernel's `struct sigcontext` (arch/x86/include/uapi/asm/sigcontext.h). */
export const GREGS = {
  r8: 0,
  rdi: 64,
  rsi: 72,
  rbp: 80,
  rbx: 88,
  rdx: 96,
  rax: 104,
  rcx: 112,
  rsp: 120,
  rip: 128,
  eflags: 136,
  cs: 144,
  ss: 150,
  error: 152,
  trap: 160,
  cr2: 176,
  fpstate: 184,
} as const;

/** File descriptors in the process. */
export const FD = { commands: 200, reports: 201, arena: 202 } as const;

/** The listing. Columns: label; or bytes and instruction as objdump prints it. */
export const LISTING = `
; _start: the table of system calls follows the code; a result in -4095..-1 of a required one ends the process with its number
_start:
  488d1d29020000        lea rbx,[rip+0x229]
setup:
  488b03                mov rax,QWORD PTR [rbx]
  4885c0                test rax,rax
  783a                  js 49 <ready>
  488b7b08              mov rdi,QWORD PTR [rbx+0x8]
  488b7310              mov rsi,QWORD PTR [rbx+0x10]
  488b5318              mov rdx,QWORD PTR [rbx+0x18]
  4c8b5320              mov r10,QWORD PTR [rbx+0x20]
  4c8b4328              mov r8,QWORD PTR [rbx+0x28]
  4c8b4b30              mov r9,QWORD PTR [rbx+0x30]
  0f05                  syscall
  483d01f0ffff          cmp rax,0xfffffffffffff001
  7212                  jb 43 <setok>
  48837b3800            cmp QWORD PTR [rbx+0x38],0x0
  740b                  je 43 <setok>
  488b7b38              mov rdi,QWORD PTR [rbx+0x38]
  b8e7000000            mov eax,0xe7
  0f05                  syscall
setok:
  4883c340              add rbx,0x40
  ebbe                  jmp 7 <setup>
ready:
  49bf0000001000600000  movabs r15,0x600010000000
; report: tells the parent {in, out, count} and waits for the next batch; end of file ends the process
report:
  bfc9000000            mov edi,0xc9
  4c89fe                mov rsi,r15
  ba18000000            mov edx,0x18
  b801000000            mov eax,0x1
  0f05                  syscall
  bfc8000000            mov edi,0xc8
  4c89fe                mov rsi,r15
  ba18000000            mov edx,0x18
  31c0                  xor eax,eax
  0f05                  syscall
  4883f818              cmp rax,0x18
  7409                  je 87 <next>
  31ff                  xor edi,edi
  b8e7000000            mov eax,0xe7
  0f05                  syscall
next:
  49837f1000            cmp QWORD PTR [r15+0x10],0x0
  74c5                  je 53 <report>
  4d8b37                mov r14,QWORD PTR [r15]
  49bd0000011000600000  movabs r13,0x600010010000
  498db6c0040000        lea rsi,[r14+0x4c0]
; patch: {u32 offset in the ground, u32 length, bytes padded to 8}, ended by length 0
patch:
  8b4e04                mov ecx,DWORD PTR [rsi+0x4]
  e315                  jrcxz bc <arm>
  8b3e                  mov edi,DWORD PTR [rsi]
  4c01ef                add rdi,r13
  4883c608              add rsi,0x8
  f3a4                  rep movs BYTE PTR es:[rdi],BYTE PTR ds:[rsi]
  4883c607              add rsi,0x7
  4883e6f8              and rsi,0xfffffffffffffff8
  ebe6                  jmp a2 <patch>
; arm: loads segments, NT and ID (RT_SIGRETURN leaves these two), lets RT_SIGRETURN load the rest
arm:
  498b8660010000        mov rax,QWORD PTR [r14+0x160]
  49894718              mov QWORD PTR [r15+0x18],rax
  498b8650010000        mov rax,QWORD PTR [r14+0x150]
  498b9e58010000        mov rbx,QWORD PTR [r14+0x158]
  418e9e30010000        mov ds,WORD PTR [r14+0x130]
  418e8638010000        mov es,WORD PTR [r14+0x138]
  418ea640010000        mov fs,WORD PTR [r14+0x140]
  418eae48010000        mov gs,WORD PTR [r14+0x148]
  f3480faed0            wrfsbase rax
  f3480faedb            wrgsbase rbx
  418b86b0000000        mov eax,DWORD PTR [r14+0xb0]
  2500402000            and eax,0x204000
  50                    push rax
  9d                    popf
  4c89f4                mov rsp,r14
  b80f000000            mov eax,0xf
  0f05                  syscall
; handler: RDI signal, RSI siginfo, RDX ucontext; counts steps, goes on while they are single steps
handler:
  49bf0000001000600000  movabs r15,0x600010000000
  49ff4f18              dec QWORD PTR [r15+0x18]
  741d                  je 140 <record>
  83bac800000001        cmp DWORD PTR [rdx+0xc8],0x1
  7514                  jne 140 <record>
  818ab000000000010000  or DWORD PTR [rdx+0xb0],0x100
  4889d4                mov rsp,rdx
  b80f000000            mov eax,0xf
  0f05                  syscall
; record: copies state and frame to the output record
record:
  4d8b7708              mov r14,QWORD PTR [r15+0x8]
  4989d4                mov r12,rdx
  418c9e20010000        mov WORD PTR [r14+0x120],ds
  418c8628010000        mov WORD PTR [r14+0x128],es
  418ca630010000        mov WORD PTR [r14+0x130],fs
  418cae38010000        mov WORD PTR [r14+0x138],gs
  f3480faec0            rdfsbase rax
  49898640010000        mov QWORD PTR [r14+0x140],rax
  f3480faec8            rdgsbase rax
  49898648010000        mov QWORD PTR [r14+0x148],rax
  498b4718              mov rax,QWORD PTR [r15+0x18]
  49898658010000        mov QWORD PTR [r14+0x158],rax
  498dbe00010000        lea rdi,[r14+0x100]
  b904000000            mov ecx,0x4
  f348a5                rep movs QWORD PTR es:[rdi],QWORD PTR ds:[rsi]
  4c89f7                mov rdi,r14
  498d742428            lea rsi,[r12+0x28]
  b920000000            mov ecx,0x20
  f348a5                rep movs QWORD PTR es:[rdi],QWORD PTR ds:[rsi]
  498dbe80010000        lea rdi,[r14+0x180]
  498bb424e0000000      mov rsi,QWORD PTR [r12+0xe0]
  b968000000            mov ecx,0x68
  f348a5                rep movs QWORD PTR es:[rdi],QWORD PTR ds:[rsi]
  48be0000011000600000  movabs rsi,0x600010010000
  48bf0000021000600000  movabs rdi,0x600010020000
  4d8daec0040000        lea r13,[r14+0x4c0]
  31c9                  xor ecx,ecx
  31db                  xor ebx,ebx
; scan: lists the words unlike the background and restores them
scan:
  488b040e              mov rax,QWORD PTR [rsi+rcx*1]
  488b140f              mov rdx,QWORD PTR [rdi+rcx*1]
  4839d0                cmp rax,rdx
  741a                  je 202 <same>
  4889140e              mov QWORD PTR [rsi+rcx*1],rdx
  81fbb0000000          cmp ebx,0xb0
  730c                  jae 200 <full>
  49894d00              mov QWORD PTR [r13+0x0],rcx
  49894508              mov QWORD PTR [r13+0x8],rax
  4983c510              add r13,0x10
full:
  ffc3                  inc ebx
same:
  4883c108              add rcx,0x8
  81f900600000          cmp ecx,0x6000
  75cd                  jne 1db <scan>
  49899e50010000        mov QWORD PTR [r14+0x150],rbx
  49810700080000        add QWORD PTR [r15],0x800
  4981470800100000      add QWORD PTR [r15+0x8],0x1000
  49ff4f10              dec QWORD PTR [r15+0x10]
  e95afeffff            jmp 87 <next>
  0f1f00                nop DWORD PTR [rax]
`;

/** Offset of the signal handler in the code, from its label in the listing. */
export const [CODE, HANDLER] = assemble();

function assemble(): [Uint8Array<ArrayBuffer>, number] {
  const bytes: number[] = [];
  let handler = -1;
  for (const line of LISTING.split("\n")) {
    if (line.startsWith("handler:")) handler = bytes.length;
    const hex = /^ {2}([0-9a-f]+) /.exec(line)?.[1] ?? "";
    for (let i = 0; i < hex.length; i += 2) bytes.push(parseInt(hex.slice(i, i + 2), 16));
  }
  return [Uint8Array.from(bytes), handler];
}

/** A system call the stub makes before it serves; `required` is its exit status if it fails. */
export interface SystemCall {
  args: (number | bigint)[];
  required: number;
}

/** Offset of the table of system calls: where the LEA at `_start` points. */
const TABLE = 0x230;

/**
 * The ELF file: one segment, readable, writable and executable, that holds code, the table of
 * system calls, and `data` at the returned file's end (its address is {@linkcode dataAddress}).
 */
export function stubElf(calls: readonly SystemCall[], data: Uint8Array): Uint8Array<ArrayBuffer> {
  const header = 0x1000; // the code at AT.stub + 0x1000, so that file and memory offsets agree
  const size = dataAddress(calls.length) - AT.stub + data.length;
  const file = new Uint8Array(size);
  const view = new DataView(file.buffer);
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]); // ELFCLASS64, little-endian, version 1
  view.setUint16(16, 2, true); // ET_EXEC
  view.setUint16(18, 62, true); // EM_X86_64
  view.setUint32(20, 1, true);
  view.setBigUint64(24, BigInt(AT.stub + header), true); // entry
  view.setBigUint64(32, 64n, true); // program headers
  view.setUint16(52, 64, true);
  view.setUint16(54, 56, true);
  view.setUint16(56, 1, true);
  view.setUint32(64, 1, true); // PT_LOAD
  view.setUint32(68, 7, true);
  view.setBigUint64(80, BigInt(AT.stub), true);
  view.setBigUint64(88, BigInt(AT.stub), true);
  view.setBigUint64(96, BigInt(size), true);
  view.setBigUint64(104, BigInt(size), true);
  view.setBigUint64(112, 0x1000n, true);
  file.set(CODE, header);
  let at = header + TABLE;
  for (const call of calls) {
    call.args.forEach((a, i) => view.setBigInt64(at + i * 8, BigInt(a), true));
    view.setBigInt64(at + 56, BigInt(call.required), true);
    at += 64;
  }
  view.setBigInt64(at, -1n, true);
  file.set(data, at + 64);
  return file;
}

/** Address of the data of {@linkcode stubElf} for a number of system calls. */
export function dataAddress(calls: number): number {
  return AT.stub + 0x1000 + TABLE + (calls + 1) * 64;
}
