/**
 * Rows of the x87 instructions with their undocumented aliases (SDM vol. 2, appendix A.5; format
 * in encodings.ts).
 * @module
 */

const names = ["fadd", "fmul", "fcom", "fcomp", "fsub", "fsubr", "fdiv", "fdivr"];
/** In DC and DE the register forms of the last four are swapped in pairs. */
const swapped = ["fadd", "fmul", "fcom", "fcomp", "fsubr", "fsub", "fdivr", "fdiv"];

const arithmeticRows = names.map((name, n) => {
  const compare = n === 2 || n === 3;
  const other = swapped[n];
  return `
${name}  d8 /${n}  Md  x87
${name}  d8 /${n}  ${compare ? "STi" : "ST0,STi"}  x87
${name}  dc /${n}  Mq  x87
${other}  dc /${n}  ${compare ? "STi" : "STi,ST0"}  x87
${name.replace("f", "fi")}  da /${n}  Md  x87
${name.replace("f", "fi")}  de /${n}  Mw  x87
` + (compare ? "" : `${other}p  de /${n}  STi,ST0  x87\n`);
}).join("");

/** The rows of this group. */
export const x87Rows: string = `${arithmeticRows}
fcomp  de /2  STi  x87
fcompp  de d9  -  x87
fld  d9 /0  Md  x87
fst  d9 /2  Md  x87
fstp  d9 /3  Md  x87
fldenv  d9 /4  Me  x87
fldcw  d9 /5  Mw  x87
fnstenv  d9 /6  Me  x87
fnstcw  d9 /7  Mw  x87 in:x87
fld  d9 /0  STi  x87
fxch  d9 /1  STi  x87
fnop  d9 d0  -  x87
fstpnce  d9 /3  STi  x87 as:fstp
fchs  d9 e0  -  x87
fabs  d9 e1  -  x87
ftst  d9 e4  -  x87
fxam  d9 e5  -  x87
fld1  d9 e8  -  x87
fldl2t  d9 e9  -  x87
fldl2e  d9 ea  -  x87
fldpi  d9 eb  -  x87
fldlg2  d9 ec  -  x87
fldln2  d9 ed  -  x87
fldz  d9 ee  -  x87
f2xm1  d9 f0  -  x87
fyl2x  d9 f1  -  x87
fptan  d9 f2  -  x87
fpatan  d9 f3  -  x87
fxtract  d9 f4  -  x87
fprem1  d9 f5  -  x87
fdecstp  d9 f6  -  x87
fincstp  d9 f7  -  x87
fprem  d9 f8  -  x87
fyl2xp1  d9 f9  -  x87
fsqrt  d9 fa  -  x87
fsincos  d9 fb  -  x87
frndint  d9 fc  -  x87
fscale  d9 fd  -  x87
fsin  d9 fe  -  x87
fcos  d9 ff  -  x87
fcmovb  da /0  ST0,STi  x87 r:c
fcmove  da /1  ST0,STi  x87 r:z
fcmovbe  da /2  ST0,STi  x87 r:cz
fcmovu  da /3  ST0,STi  x87 r:p
fucompp  da e9  -  x87
fild  db /0  Md  x87
fisttp  db /1  Md  sse3 inout:x87
fist  db /2  Md  x87
fistp  db /3  Md  x87
fld  db /5  Mt  x87
fstp  db /7  Mt  x87
fcmovnb  db /0  ST0,STi  x87 r:c
fcmovne  db /1  ST0,STi  x87 r:z
fcmovnbe  db /2  ST0,STi  x87 r:cz
fcmovnu  db /3  ST0,STi  x87 r:p
fneni  db e0  -  x87 in:-
fndisi  db e1  -  x87 in:-
fnclex  db e2  -  x87
fninit  db e3  -  x87 out:x87
fnsetpm  db e4  -  x87 in:-
fucomi  db /5  ST0,STi  x87 w:oszapc
fcomi  db /6  ST0,STi  x87 w:oszapc
fld  dd /0  Mq  x87
fisttp  dd /1  Mq  sse3 inout:x87
fst  dd /2  Mq  x87
fstp  dd /3  Mq  x87
frstor  dd /4  Mf  x87
fnsave  dd /6  Mf  x87
fnstsw  dd /7  Mw  x87 in:x87
ffree  dd /0  STi  x87
fxch  dd /1  STi  x87
fst  dd /2  STi  x87
fstp  dd /3  STi  x87
fucom  dd /4  STi  x87
fucomp  dd /5  STi  x87
fild  df /0  Mw  x87
fisttp  df /1  Mw  sse3 inout:x87
fist  df /2  Mw  x87
fistp  df /3  Mw  x87
fbld  df /4  Mt  x87
fild  df /5  Mq  x87
fbstp  df /6  Mt  x87
fistp  df /7  Mq  x87
ffreep  df /0  STi  x87
fxch  df /1  STi  x87
fstp  df /2  STi  x87
fstp  df /3  STi  x87
fnstsw  df e0  AX  x87 in:x87
fucomip  df /5  ST0,STi  x87 w:oszapc
fcomip  df /6  ST0,STi  x87 w:oszapc
fwait  9b  -  x87 in:x87
`;
