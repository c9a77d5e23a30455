/**
 * Rows of the integer instructions (SDM vol. 2, appendix A; format in encodings.ts).
 * @module
 */

/** The six opcodes and four immediate groups of an ALU instruction. */
function alu(name: string, n: number, attributes: string): string {
  const op = (low: number) => (n * 8 + low).toString(16).padStart(2, "0");
  const noLock = attributes.replace("lock ", "");
  return `
${name}  ${op(0)}  Eb,Gb  ${attributes}
${name}  ${op(1)}  Ev,Gv  ${attributes}
${name}  ${op(2)}  Gb,Eb  ${noLock}
${name}  ${op(3)}  Gv,Ev  ${noLock}
${name}  ${op(4)}  AL,Ib  ${noLock}
${name}  ${op(5)}  rAX,Iz  ${noLock}
${name}  80 /${n}  Eb,Ib  ${attributes}
${name}  81 /${n}  Ev,Iz  ${attributes}
${name}  82 /${n}  Eb,Ib  ${attributes} i64
${name}  83 /${n}  Ev,Ibs  ${attributes}
`;
}

/** The six forms of a shift or rotate. */
function shift(name: string, n: number, attributes: string): string {
  return `
${name}  c0 /${n}  Eb,Ib  ${attributes}
${name}  c1 /${n}  Ev,Ib  ${attributes}
${name}  d0 /${n}  Eb,1  ${attributes}
${name}  d1 /${n}  Ev,1  ${attributes}
${name}  d2 /${n}  Eb,CL  ${attributes}
${name}  d3 /${n}  Ev,CL  ${attributes}
`;
}

const aluRows = [
  alu("add", 0, "lock w:oszapc lazy:add hot:all"),
  alu("or", 1, "lock w:oszapc u:a lazy:logic hot:all"),
  alu("adc", 2, "lock r:c w:oszapc lazy:result hot:flat"),
  alu("sbb", 3, "lock r:c w:oszapc lazy:result hot:flat"),
  alu("and", 4, "lock w:oszapc u:a lazy:logic hot:all"),
  alu("sub", 5, "lock w:oszapc lazy:sub hot:all"),
  alu("xor", 6, "lock w:oszapc u:a lazy:logic hot:all"),
  alu("cmp", 7, "w:oszapc lazy:sub hot:all"),
].join("");

const shiftRows = [
  shift("rol", 0, "w:oc u:o hot:flat"),
  shift("ror", 1, "w:oc u:o hot:flat"),
  shift("rcl", 2, "r:c w:oc u:o"),
  shift("rcr", 3, "r:c w:oc u:o"),
  shift("shl", 4, "w:oszapc u:oa hot:flat"),
  shift("shr", 5, "w:oszapc u:oa hot:flat"),
  shift("shl", 6, "w:oszapc u:oa hot:flat"),
  shift("sar", 7, "w:oszapc u:oa hot:flat"),
].join("");

const dataRows = `
mov  88  Eb,Gb  hot:all
mov  89  Ev,Gv  hot:all
mov  8a  Gb,Eb  hot:all
mov  8b  Gv,Ev  hot:all
mov.sreg  8c  Rv/Mw,Sw
mov.sreg  8e  Sw,Ew
mov  a0  AL,Ob  hot:all
mov  a1  rAX,Ov  hot:all
mov  a2  Ob,AL  hot:all
mov  a3  Ov,rAX  hot:all
mov  b0+r  Zb,Ib  hot:all
mov  b8+r  Zv,Iv  hot:all
mov  c6 /0  Eb,Ib  hot:all
mov  c7 /0  Ev,Iz  hot:all
movbe  nf 0f 38 f0  Gv,Mv  movbe
movbe  nf 0f 38 f1  Mv,Gv  movbe
movnti  np 0f c3  My,Gy  sse2
movsx  0f be  Gv,Eb  hot:flat
movsx  0f bf  Gv,Ew  hot:flat
movsxd  63  Gv,Ez  o64 hot:flat
movzx  0f b6  Gv,Eb  hot:segments
movzx  0f b7  Gv,Ew  hot:segments
cmov{cc}  0f 40+cc  Gv,Ev  cmov r:cc hot:flat
set{cc}  0f 90+cc  Eb  r:cc hot:flat
lea  8d  Gv,M  hot:flat
les  c4  Gv,Mp  i64
lds  c5  Gv,Mp  i64
lss  0f b2  Gv,Mp
lfs  0f b4  Gv,Mp
lgs  0f b5  Gv,Mp
xchg  86  Eb,Gb  lock hot:flat
xchg  87  Ev,Gv  lock hot:flat
xchg  90+r  Zv,rAX  hot:flat
xlat  d7  Bb  in:rax,rbx out:rax
push  50+r  Zv  d64 hot:flat inout:rsp
push  68  Iz  d64 hot:flat inout:rsp
push  6a  Ibs  d64 hot:flat inout:rsp
push  ff /6  Ev  d64 hot:flat inout:rsp
push.sreg  06  ES  i64 inout:rsp
push.sreg  0e  CS  i64 inout:rsp
push.sreg  16  SS  i64 inout:rsp
push.sreg  1e  DS  i64 inout:rsp
push.sreg  0f a0  FS  d64 inout:rsp
push.sreg  0f a8  GS  d64 inout:rsp
pop  58+r  Zv  d64 hot:flat inout:rsp
pop  8f /0  Ev  d64 hot:flat inout:rsp
pop.sreg  07  ES  i64 inout:rsp
pop.sreg  17  SS  i64 inout:rsp
pop.sreg  1f  DS  i64 inout:rsp
pop.sreg  0f a1  FS  d64 inout:rsp
pop.sreg  0f a9  GS  d64 inout:rsp
pusha  60  -  i64 in:rax,rcx,rdx,rbx,rsp,rbp,rsi,rdi out:rsp
popa  61  -  i64 in:rsp out:rax,rcx,rdx,rbx,rsp,rbp,rsi,rdi
pushf  9c  -  d64 iopl exit:pushf r:oszapcdik inout:rsp
popf  9d  -  d64 iopl exit:popf w:oszapcdik inout:rsp
sahf  9e  -  w:szapc in:rax
lahf  9f  -  r:szapc out:rax
cbw  98  -  hot:flat inout:rax
cwd  99  -  hot:flat in:rax out:rdx
bswap  0f c8+r  Zv  hot:flat
xadd  0f c0  Eb,Gb  lock w:oszapc lazy:add hot:flat
xadd  0f c1  Ev,Gv  lock w:oszapc lazy:add hot:flat
cmpxchg  0f b0  Eb,Gb  lock w:oszapc lazy:sub hot:flat inout:rax
cmpxchg  0f b1  Ev,Gv  lock w:oszapc lazy:sub hot:flat inout:rax
cmpxchg8b  0f c7 /1  Mq  lock w:z cx8 in:rax,rcx,rdx,rbx out:rax,rdx
cmpxchg16b  rexw 0f c7 /1  Mx  lock w:z cx16 in:rax,rcx,rdx,rbx out:rax,rdx
enter  c8  Iw,Ib  d64 inout:rsp,rbp
leave  c9  -  d64 hot:flat in:rbp out:rsp,rbp
`;

const arithmeticRows = `
inc  40+r  Zv  i64 w:oszap lazy:increment hot:all
inc  fe /0  Eb  lock w:oszap lazy:increment hot:all
inc  ff /0  Ev  lock w:oszap lazy:increment hot:all
dec  48+r  Zv  i64 w:oszap lazy:decrement hot:all
dec  fe /1  Eb  lock w:oszap lazy:decrement hot:all
dec  ff /1  Ev  lock w:oszap lazy:decrement hot:all
not  f6 /2  Eb  lock hot:flat
not  f7 /2  Ev  lock hot:flat
neg  f6 /3  Eb  lock w:oszapc lazy:sub hot:flat
neg  f7 /3  Ev  lock w:oszapc lazy:sub hot:flat
mul  f6 /4  Eb  w:oszapc u:szap lazy:result hot:flat inout:rax
mul  f7 /4  Ev  w:oszapc u:szap lazy:result hot:flat in:rax out:rax,rdx
imul  f6 /5  Eb  w:oszapc u:szap lazy:result inout:rax
imul  f7 /5  Ev  w:oszapc u:szap lazy:result in:rax out:rax,rdx
imul2  0f af  Gv,Ev  as:imul w:oszapc u:szap lazy:result hot:flat
imul3  69  Gv,Ev,Iz  as:imul w:oszapc u:szap lazy:result hot:flat
imul3  6b  Gv,Ev,Ibs  as:imul w:oszapc u:szap lazy:result hot:flat
div  f6 /6  Eb  u:oszapc inout:rax
div  f7 /6  Ev  u:oszapc inout:rax,rdx
idiv  f6 /7  Eb  u:oszapc inout:rax
idiv  f7 /7  Ev  u:oszapc inout:rax,rdx
test  84  Eb,Gb  w:oszapc u:a lazy:logic hot:all
test  85  Ev,Gv  w:oszapc u:a lazy:logic hot:all
test  a8  AL,Ib  w:oszapc u:a lazy:logic hot:all
test  a9  rAX,Iz  w:oszapc u:a lazy:logic hot:all
test  f6 /0  Eb,Ib  w:oszapc u:a lazy:logic hot:all
test  f6 /1  Eb,Ib  w:oszapc u:a lazy:logic hot:all
test  f7 /0  Ev,Iz  w:oszapc u:a lazy:logic hot:all
test  f7 /1  Ev,Iz  w:oszapc u:a lazy:logic hot:all
daa  27  -  i64 r:ac w:oszapc u:o inout:rax
das  2f  -  i64 r:ac w:oszapc u:o inout:rax
aaa  37  -  i64 r:a w:oszapc u:oszp inout:rax
aas  3f  -  i64 r:a w:oszapc u:oszp inout:rax
aam  d4  Ib  i64 w:oszapc u:oac inout:rax
aad  d5  Ib  i64 w:oszapc u:oac inout:rax
salc  d6  -  i64 r:c out:rax
shld  0f a4  Ev,Gv,Ib  w:oszapc u:oa hot:flat
shld  0f a5  Ev,Gv,CL  w:oszapc u:oa hot:flat
shrd  0f ac  Ev,Gv,Ib  w:oszapc u:oa hot:flat
shrd  0f ad  Ev,Gv,CL  w:oszapc u:oa hot:flat
bt  0f a3  Ev,Gv  w:c u:osap hot:flat
bts  0f ab  Ev,Gv  lock w:c u:osap hot:flat
btr  0f b3  Ev,Gv  lock w:c u:osap hot:flat
btc  0f bb  Ev,Gv  lock w:c u:osap hot:flat
bt  0f ba /4  Ev,Ib  w:c u:osap hot:flat
bts  0f ba /5  Ev,Ib  lock w:c u:osap hot:flat
btr  0f ba /6  Ev,Ib  lock w:c u:osap hot:flat
btc  0f ba /7  Ev,Ib  lock w:c u:osap hot:flat
bsf  0f bc  Gv,Ev  w:z u:osapc lazy:logic hot:flat
bsr  0f bd  Gv,Ev  w:z u:osapc lazy:logic hot:flat
popcnt  f3 0f b8  Gv,Ev  popcnt w:oszapc
crc32  f2 0f 38 f0  Gy,Eb  sse42
crc32  f2 0f 38 f1  Gy,Ev  sse42
cmc  f5  -  r:c w:c
clc  f8  -  w:c hot:flat
stc  f9  -  w:c hot:flat
cld  fc  -  w:d hot:flat
std  fd  -  w:d
`;

const stringRows = `
movs  a4  Yb,Xb  rep r:d
movs  a5  Yv,Xv  rep r:d
cmps  a6  Xb,Yb  repz r:d w:oszapc
cmps  a7  Xv,Yv  repz r:d w:oszapc
stos  aa  Yb,AL  rep r:d
stos  ab  Yv,rAX  rep r:d
lods  ac  AL,Xb  rep r:d
lods  ad  rAX,Xv  rep r:d
scas  ae  AL,Yb  repz r:d w:oszapc
scas  af  rAX,Yv  repz r:d w:oszapc
ins  6c  Yb,DX  rep iopl exit:io r:d
ins  6d  Yz,DX  rep iopl exit:io r:d
outs  6e  DX,Xb  rep iopl exit:io r:d
outs  6f  DX,Xz  rep iopl exit:io r:d
`;

const branchRows = `
j{cc}  70+cc  Jb  f64 near r:cc hot:flat
j{cc}  0f 80+cc  Jz  f64 near r:cc hot:flat
loopne  e0  Jb  f64 near r:z inout:rcx
loope  e1  Jb  f64 near r:z inout:rcx
loop  e2  Jb  f64 near inout:rcx
jcxz  e3  Jb  f64 near in:rcx
call  e8  Jz  f64 near call hot:flat inout:rsp
call  ff /2  Ev  f64 near call hot:flat inout:rsp
jmp  e9  Jz  f64 near jump hot:flat
jmp  eb  Jb  f64 near jump hot:flat
jmp  ff /4  Ev  f64 near jump hot:flat
call.far  9a  Ap  i64 exit:task-switch call inout:rsp
call.far  ff /3  Mp  exit:task-switch call inout:rsp
jmp.far  ea  Ap  i64 exit:task-switch jump inout:rsp
jmp.far  ff /5  Mp  exit:task-switch jump inout:rsp
ret  c2  Iw  f64 near return hot:flat inout:rsp
ret  c3  -  f64 near return hot:flat inout:rsp
ret.far  ca  Iw  as:retf return inout:rsp
ret.far  cb  -  as:retf return inout:rsp
int3  cc  -  exit:task-switch w:i call inout:rsp
int  cd  Ib  iopl exit:int,task-switch w:i call inout:rsp
into  ce  -  i64 r:o exit:task-switch w:i call inout:rsp
int1  f1  -  exit:icebp,task-switch w:i call inout:rsp
iret  cf  -  iopl exit:iret,task-switch w:oszapcdik return inout:rsp
bound  62  Gv,Ma  i64
nop  90  -  hot:flat
pause  f3 90  -  exit:pause
nop  0f 18  Ev  hot:flat
prefetchnta  0f 18 /0  Mb  sse
prefetcht0  0f 18 /1  Mb  sse
prefetcht1  0f 18 /2  Mb  sse
prefetcht2  0f 18 /3  Mb  sse
nop  0f 19  Ev  hot:flat
nop  0f 1a  Ev  hot:flat
nop  0f 1b  Ev  hot:flat
nop  0f 1c  Ev  hot:flat
nop  0f 1d  Ev  hot:flat
nop  0f 1e  Ev  hot:flat
nop  f3 0f 1e fa  -  as:endbr64 hot:flat
nop  f3 0f 1e fb  -  as:endbr32 hot:flat
nop  0f 1f  Ev  hot:flat
prefetch  0f 0d  Mb  prefetchw
prefetchw  0f 0d /1  Mb  prefetchw
ud0  0f ff  Gv,Ev  jump
ud1  0f b9  Gv,Ev  jump
ud2  0f 0b  -  jump
`;

/** The rows of this group. */
export const integerRows: string = aluRows + shiftRows + dataRows + arithmeticRows + stringRows +
  branchRows;
