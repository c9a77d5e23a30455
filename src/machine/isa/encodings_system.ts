/**
 * Rows of the system instructions (SDM vol. 2 and 3; APM vol. 3, chapter 4, for SVM; format in
 * encodings.ts).
 * @module
 */

/** The rows of this group. */
export const systemRows: string = `
in  e4  AL,Ib  iopl exit:io
in  e5  eAX,Ib  iopl exit:io
in  ec  AL,DX  iopl exit:io
in  ed  eAX,DX  iopl exit:io
out  e6  Ib,AL  iopl exit:io
out  e7  Ib,eAX  iopl exit:io
out  ee  DX,AL  iopl exit:io
out  ef  DX,eAX  iopl exit:io
hlt  f4  -  cpl0 exit:hlt
cli  fa  -  iopl w:i
sti  fb  -  iopl r:i w:i
arpl  63  Ew,Gw  i64 pm w:z
sldt  0f 00 /0  Rv/Mw  pm umip exit:descriptor-table
str  0f 00 /1  Rv/Mw  pm umip exit:descriptor-table
lldt  0f 00 /2  Ew  pm cpl0 exit:descriptor-table
ltr  0f 00 /3  Ew  pm cpl0 exit:descriptor-table
verr  0f 00 /4  Ew  pm w:z
verw  0f 00 /5  Ew  pm w:z
sgdt  0f 01 /0  Ms  f64 umip exit:descriptor-table
sidt  0f 01 /1  Ms  f64 umip exit:descriptor-table
lgdt  0f 01 /2  Ms  f64 cpl0 exit:descriptor-table
lidt  0f 01 /3  Ms  f64 cpl0 exit:descriptor-table
smsw  0f 01 /4  Rv/Mw  umip exit:cr
lmsw  0f 01 /6  Ew  cpl0 exit:cr
invlpg  0f 01 /7  Mb  cpl0 exit:invlpg
vmcall  0f 01 c1  -  vmx pm cpl0 exit:hypercall w:oszapc call
vmlaunch  0f 01 c2  -  vmx pm cpl0 exit:vmx w:oszapcdik
vmresume  0f 01 c3  -  vmx pm cpl0 exit:vmx w:oszapcdik
vmxoff  0f 01 c4  -  vmx pm cpl0 exit:vmx w:oszapc
monitor  0f 01 c8  -  monitor cpl0ud exit:monitor in:rax,rcx
mwait  0f 01 c9  -  monitor cpl0ud exit:mwait r:i in:rcx
clac  np 0f 01 ca  -  smap cpl0ud w:k
stac  np 0f 01 cb  -  smap cpl0ud w:k
xgetbv  np 0f 01 d0  -  xsave in:rcx,x87,xmm out:rax,rdx
xsetbv  np 0f 01 d1  -  xsave cpl0 exit:xsetbv in:rax,rcx,rdx
vmfunc  np 0f 01 d4  -  vmx jump
vmrun  0f 01 d8  -  svm pm cpl0 exit:svm w:oszapcdik in:rax
vmmcall  0f 01 d9  -  svm exit:hypercall call
vmload  0f 01 da  -  svm pm cpl0 exit:svm in:rax
vmsave  0f 01 db  -  svm pm cpl0 exit:svm in:rax
stgi  0f 01 dc  -  svm pm cpl0 exit:svm
clgi  0f 01 dd  -  svm pm cpl0 exit:svm
skinit  0f 01 de  -  svm jump
invlpga  0f 01 df  -  svm pm cpl0 exit:svm in:rax,rcx
swapgs  0f 01 f8  -  o64 cpl0
rdtscp  0f 01 f9  -  rdtscp tsd exit:rdtsc,absent out:rax,rcx,rdx
lar  0f 02  Gv,Ew  pm w:z
lsl  0f 03  Gv,Ew  pm w:z
syscall  0f 05  -  syscall pm r:oszapcdik w:oszapcdik call out:rcx,r11
clts  0f 06  -  cpl0 exit:cr
sysret  0f 07  -  syscall pm cpl0 w:oszapcdik return in:rcx,r11
invd  0f 08  -  cpl0 exit:invd
wbinvd  0f 09  -  cpl0 exit:wbinvd
mov.cr  0f 20  Ry,Cy  f64 nomod cpl0 exit:cr u:oszapc
mov.dr  0f 21  Ry,Dy  f64 nomod cpl0 exit:dr u:oszapc
mov.cr  0f 22  Cy,Ry  f64 nomod cpl0 exit:cr u:oszapc
mov.dr  0f 23  Dy,Ry  f64 nomod cpl0 exit:dr u:oszapc
wrmsr  0f 30  -  msr cpl0 exit:msr in:rax,rcx,rdx
rdtsc  0f 31  -  tsc tsd exit:rdtsc out:rax,rdx
rdmsr  0f 32  -  msr cpl0 exit:msr in:rcx out:rax,rdx
rdpmc  0f 33  -  pce exit:rdpmc in:rcx out:rax,rdx
sysenter  0f 34  -  sep pmgp w:i call out:rsp
sysexit  0f 35  -  sep pmgp cpl0 return in:rcx,rdx out:rsp
vmread  np 0f 78  Ey,Gy  f64 vmx pm cpl0 exit:vmx w:oszapc
vmwrite  np 0f 79  Gy,Ey  f64 vmx pm cpl0 exit:vmx w:oszapc
vmptrld  np 0f c7 /6  Mq  vmx pm cpl0 exit:vmx w:oszapc
vmclear  66 0f c7 /6  Mq  vmx pm cpl0 exit:vmx w:oszapc
vmxon  f3 0f c7 /6  Mq  vmx pm cpl0 exit:vmx w:oszapc
vmptrst  np 0f c7 /7  Mq  vmx pm cpl0 exit:vmx w:oszapc
invept  66 0f 38 80  Gy,Mx  f64 vmx pm cpl0 exit:vmx w:oszapc
invvpid  66 0f 38 81  Gy,Mx  f64 vmx pm cpl0 exit:vmx w:oszapc
invpcid  66 0f 38 82  Gy,Mx  f64 invpcid cpl0 exit:invpcid,absent
rdrand  nf 0f c7 /6  Rv  rdrand exit:rdrand w:oszapc
rdseed  nf 0f c7 /7  Rv  rdseed exit:rdseed w:oszapc
cpuid  0f a2  -  exit:cpuid in:rax,rcx out:rax,rcx,rdx,rbx
rsm  0f aa  -  exit:rsm jump
fxsave  np 0f ae /0  MF  fxsr in:x87,mxcsr,xmm
fxrstor  np 0f ae /1  MF  fxsr in:x87 out:x87,mxcsr,xmm
fxsave  np rexw 0f ae /0  MF  fxsr as:fxsave64 in:x87,mxcsr,xmm
fxrstor  np rexw 0f ae /1  MF  fxsr as:fxrstor64 in:x87 out:x87,mxcsr,xmm
ldmxcsr  np 0f ae /2  Md  sse out:mxcsr
stmxcsr  np 0f ae /3  Md  sse in:mxcsr
xsave  np 0f ae /4  M  xsave in:rax,rdx,x87,mxcsr,xmm
xrstor  np 0f ae /5  M  xsave in:rax,rdx,x87 out:x87,mxcsr,xmm
xsaveopt  np 0f ae /6  M  xsaveopt in:rax,rdx,x87,mxcsr,xmm
xsave  np rexw 0f ae /4  M  xsave as:xsave64 in:rax,rdx,x87,mxcsr,xmm
xrstor  np rexw 0f ae /5  M  xsave as:xrstor64 in:rax,rdx,x87 out:x87,mxcsr,xmm
xsaveopt  np rexw 0f ae /6  M  xsaveopt as:xsaveopt64 in:rax,rdx,x87,mxcsr,xmm
clflush  np 0f ae /7  Mb  clflush
clflushopt  66 0f ae /7  Mb  clflushopt
clwb  66 0f ae /6  Mb  clwb
lfence  np 0f ae /5  -  reg sse2
mfence  np 0f ae /6  -  reg sse2
sfence  np 0f ae /7  -  reg sse
rdfsbase  f3 0f ae /0  Ry  o64 fsgsbase
rdgsbase  f3 0f ae /1  Ry  o64 fsgsbase
wrfsbase  f3 0f ae /2  Ry  o64 fsgsbase
wrgsbase  f3 0f ae /3  Ry  o64 fsgsbase
xrstors  np 0f c7 /3  M  xsaves cpl0 exit:xsaves,absent in:rax,rdx,x87 out:x87,mxcsr,xmm
xsavec  np 0f c7 /4  M  xsavec in:rax,rdx,x87,mxcsr,xmm
xsaves  np 0f c7 /5  M  xsaves cpl0 exit:xsaves,absent in:rax,rdx,x87,mxcsr,xmm
xrstors  np rexw 0f c7 /3  M  xsaves cpl0 exit:xsaves,absent as:xrstors64 in:rax,rdx,x87 out:x87,mxcsr,xmm
xsavec  np rexw 0f c7 /4  M  xsavec as:xsavec64 in:rax,rdx,x87,mxcsr,xmm
xsaves  np rexw 0f c7 /5  M  xsaves cpl0 exit:xsaves,absent as:xsaves64 in:rax,rdx,x87,mxcsr,xmm
`;
