/**
 * Rows of MMX and SSE to SSE4.2 (SDM vol. 2, appendix A; format in encodings.ts).
 * @module
 */

/** An MMX instruction and its SSE2 form with the 66 prefix. */
function both(names: string): string {
  return names.trim().split("\n").map((line) => {
    const [name, opcode] = line.split(/ +/);
    return `${name}  np 0f ${opcode}  Pq,Qq  mmx\n${name}  66 0f ${opcode}  Vx,Wx  sse2\n`;
  }).join("");
}

/** An SSSE3 instruction: MMX and XMM forms in map 0F 38. */
function ssse3(names: string): string {
  return names.trim().split("\n").map((line) => {
    const [name, opcode] = line.split(/ +/);
    return `${name}  np 0f 38 ${opcode}  Pq,Qq  ssse3\n${name}  66 0f 38 ${opcode}  Vx,Wx  ssse3\n`;
  }).join("");
}

/** The four forms (ps, pd, ss, sd) of an arithmetic instruction. */
function four(name: string, opcode: string, immediate = ""): string {
  return `${name}ps  np 0f ${opcode}  Vx,Wx${immediate}  sse inout:mxcsr
${name}pd  66 0f ${opcode}  Vx,Wx${immediate}  sse2 inout:mxcsr
${name}ss  f3 0f ${opcode}  Vx,Wd${immediate}  sse inout:mxcsr
${name}sd  f2 0f ${opcode}  Vx,Wq${immediate}  sse2 inout:mxcsr
`;
}

/** The MMX and XMM forms of a shift by register and by immediate. */
function packedShift(name: string, opcode: string, group: string): string {
  return both(`${name} ${opcode}`) +
    `${name}  np 0f ${group}  Nq,Ib  mmx\n${name}  66 0f ${group}  Ux,Ib  sse2\n`;
}

const packedRows = both(`
packsswb 63
pcmpgtb 64
pcmpgtw 65
pcmpgtd 66
packuswb 67
punpckhbw 68
punpckhwd 69
punpckhdq 6a
packssdw 6b
pcmpeqb 74
pcmpeqw 75
pcmpeqd 76
paddq d4
pmullw d5
psubusb d8
psubusw d9
pminub da
pand db
paddusb dc
paddusw dd
pmaxub de
pandn df
pavgb e0
pavgw e3
pmulhuw e4
pmulhw e5
psubsb e8
psubsw e9
pminsw ea
por eb
paddsb ec
paddsw ed
pmaxsw ee
pxor ef
pmuludq f4
pmaddwd f5
psadbw f6
psubb f8
psubw f9
psubd fa
psubq fb
paddb fc
paddw fd
paddd fe
`) + [
  packedShift("psrlw", "d1", "71 /2"),
  packedShift("psrld", "d2", "72 /2"),
  packedShift("psrlq", "d3", "73 /2"),
  packedShift("psraw", "e1", "71 /4"),
  packedShift("psrad", "e2", "72 /4"),
  packedShift("psllw", "f1", "71 /6"),
  packedShift("pslld", "f2", "72 /6"),
  packedShift("psllq", "f3", "73 /6"),
].join("");

const ssse3Rows = ssse3(`
pshufb 00
phaddw 01
phaddd 02
phaddsw 03
pmaddubsw 04
phsubw 05
phsubd 06
phsubsw 07
psignb 08
psignw 09
psignd 0a
pmulhrsw 0b
pabsb 1c
pabsw 1d
pabsd 1e
`);

const floatRows = [
  four("sqrt", "51"),
  four("add", "58"),
  four("mul", "59"),
  four("sub", "5c"),
  four("min", "5d"),
  four("div", "5e"),
  four("max", "5f"),
  four("cmp", "c2", ",Ib"),
].join("");

const moveRows = `
punpcklbw  np 0f 60  Pq,Qd  mmx
punpcklwd  np 0f 61  Pq,Qd  mmx
punpckldq  np 0f 62  Pq,Qd  mmx
punpcklbw  66 0f 60  Vx,Wx  sse2
punpcklwd  66 0f 61  Vx,Wx  sse2
punpckldq  66 0f 62  Vx,Wx  sse2
emms  np 0f 77  -  mmx inout:x87
movd  np 0f 6e  Pq,Ey  mmx
movq  np rexw 0f 6e  Pq,Ey  mmx
movd  66 0f 6e  Vx,Ey  sse2
movq  66 rexw 0f 6e  Vx,Ey  sse2
movd  np 0f 7e  Ey,Pq  mmx
movq  np rexw 0f 7e  Ey,Pq  mmx
movd  66 0f 7e  Ey,Vx  sse2
movq  66 rexw 0f 7e  Ey,Vx  sse2
movq  np 0f 6f  Pq,Qq  mmx
movq  np 0f 7f  Qq,Pq  mmx
movdqa  66 0f 6f  Vx,Wx  sse2
movdqu  f3 0f 6f  Vx,Wx  sse2
movdqa  66 0f 7f  Wx,Vx  sse2
movdqu  f3 0f 7f  Wx,Vx  sse2
movq  f3 0f 7e  Vx,Wq  sse2
movq  66 0f d6  Wq,Vx  sse2
movups  np 0f 10  Vx,Wx  sse
movupd  66 0f 10  Vx,Wx  sse2
movss  f3 0f 10  Vx,Wd  sse
movsd  f2 0f 10  Vx,Wq  sse2
movups  np 0f 11  Wx,Vx  sse
movupd  66 0f 11  Wx,Vx  sse2
movss  f3 0f 11  Wd,Vx  sse
movsd  f2 0f 11  Wq,Vx  sse2
movlps  np 0f 12  Vx,Mq  sse
movhlps  np 0f 12  Vx,Ux  sse
movlpd  66 0f 12  Vx,Mq  sse2
movsldup  f3 0f 12  Vx,Wx  sse3
movddup  f2 0f 12  Vx,Wq  sse3
movlps  np 0f 13  Mq,Vx  sse
movlpd  66 0f 13  Mq,Vx  sse2
movhps  np 0f 16  Vx,Mq  sse
movlhps  np 0f 16  Vx,Ux  sse
movhpd  66 0f 16  Vx,Mq  sse2
movshdup  f3 0f 16  Vx,Wx  sse3
movhps  np 0f 17  Mq,Vx  sse
movhpd  66 0f 17  Mq,Vx  sse2
movaps  np 0f 28  Vx,Wx  sse
movapd  66 0f 28  Vx,Wx  sse2
movaps  np 0f 29  Wx,Vx  sse
movapd  66 0f 29  Wx,Vx  sse2
movntps  np 0f 2b  Mx,Vx  sse
movntpd  66 0f 2b  Mx,Vx  sse2
movntq  np 0f e7  Mq,Pq  sse
movntdq  66 0f e7  Mx,Vx  sse2
movntdqa  66 0f 38 2a  Vx,Mx  sse41
movmskps  np 0f 50  Gy,Ux  sse
movmskpd  66 0f 50  Gy,Ux  sse2
pmovmskb  np 0f d7  Gy,Nq  sse
pmovmskb  66 0f d7  Gy,Ux  sse2
maskmovq  np 0f f7  Pq,Nq  sse in:rdi
maskmovdqu  66 0f f7  Vx,Ux  sse2 in:rdi
movq2dq  f3 0f d6  Vx,Nq  sse2
movdq2q  f2 0f d6  Pq,Ux  sse2
lddqu  f2 0f f0  Vx,Mx  sse3
unpcklps  np 0f 14  Vx,Wx  sse
unpcklpd  66 0f 14  Vx,Wx  sse2
unpckhps  np 0f 15  Vx,Wx  sse
unpckhpd  66 0f 15  Vx,Wx  sse2
punpcklqdq  66 0f 6c  Vx,Wx  sse2
punpckhqdq  66 0f 6d  Vx,Wx  sse2
pshufw  np 0f 70  Pq,Qq,Ib  sse
pshufd  66 0f 70  Vx,Wx,Ib  sse2
pshufhw  f3 0f 70  Vx,Wx,Ib  sse2
pshuflw  f2 0f 70  Vx,Wx,Ib  sse2
pslldq  66 0f 73 /7  Ux,Ib  sse2
psrldq  66 0f 73 /3  Ux,Ib  sse2
shufps  np 0f c6  Vx,Wx,Ib  sse
shufpd  66 0f c6  Vx,Wx,Ib  sse2
pinsrw  np 0f c4  Pq,Rd/Mw,Ib  sse
pinsrw  66 0f c4  Vx,Rd/Mw,Ib  sse2
pextrw  np 0f c5  Gd,Nq,Ib  sse
pextrw  66 0f c5  Gd,Ux,Ib  sse2
`;

const convertRows = `
cvtpi2ps  np 0f 2a  Vx,Qq  sse inout:mxcsr
cvtpi2pd  66 0f 2a  Vx,Qq  sse2 inout:mxcsr
cvtsi2ss  f3 0f 2a  Vx,Ey  sse inout:mxcsr
cvtsi2sd  f2 0f 2a  Vx,Ey  sse2 inout:mxcsr
cvttps2pi  np 0f 2c  Pq,Wq  sse inout:mxcsr
cvttpd2pi  66 0f 2c  Pq,Wx  sse2 inout:mxcsr
cvttss2si  f3 0f 2c  Gy,Wd  sse inout:mxcsr
cvttsd2si  f2 0f 2c  Gy,Wq  sse2 inout:mxcsr
cvtps2pi  np 0f 2d  Pq,Wq  sse inout:mxcsr
cvtpd2pi  66 0f 2d  Pq,Wx  sse2 inout:mxcsr
cvtss2si  f3 0f 2d  Gy,Wd  sse inout:mxcsr
cvtsd2si  f2 0f 2d  Gy,Wq  sse2 inout:mxcsr
ucomiss  np 0f 2e  Vx,Wd  sse w:oszapc inout:mxcsr
ucomisd  66 0f 2e  Vx,Wq  sse2 w:oszapc inout:mxcsr
comiss  np 0f 2f  Vx,Wd  sse w:oszapc inout:mxcsr
comisd  66 0f 2f  Vx,Wq  sse2 w:oszapc inout:mxcsr
cvtps2pd  np 0f 5a  Vx,Wq  sse2 inout:mxcsr
cvtpd2ps  66 0f 5a  Vx,Wx  sse2 inout:mxcsr
cvtss2sd  f3 0f 5a  Vx,Wd  sse2 inout:mxcsr
cvtsd2ss  f2 0f 5a  Vx,Wq  sse2 inout:mxcsr
cvtdq2ps  np 0f 5b  Vx,Wx  sse2 inout:mxcsr
cvtps2dq  66 0f 5b  Vx,Wx  sse2 inout:mxcsr
cvttps2dq  f3 0f 5b  Vx,Wx  sse2 inout:mxcsr
cvttpd2dq  66 0f e6  Vx,Wx  sse2 inout:mxcsr
cvtdq2pd  f3 0f e6  Vx,Wq  sse2
cvtpd2dq  f2 0f e6  Vx,Wx  sse2 inout:mxcsr
rsqrtps  np 0f 52  Vx,Wx  sse
rsqrtss  f3 0f 52  Vx,Wd  sse
rcpps  np 0f 53  Vx,Wx  sse
rcpss  f3 0f 53  Vx,Wd  sse
andps  np 0f 54  Vx,Wx  sse
andpd  66 0f 54  Vx,Wx  sse2
andnps  np 0f 55  Vx,Wx  sse
andnpd  66 0f 55  Vx,Wx  sse2
orps  np 0f 56  Vx,Wx  sse
orpd  66 0f 56  Vx,Wx  sse2
xorps  np 0f 57  Vx,Wx  sse
xorpd  66 0f 57  Vx,Wx  sse2
haddpd  66 0f 7c  Vx,Wx  sse3 inout:mxcsr
haddps  f2 0f 7c  Vx,Wx  sse3 inout:mxcsr
hsubpd  66 0f 7d  Vx,Wx  sse3 inout:mxcsr
hsubps  f2 0f 7d  Vx,Wx  sse3 inout:mxcsr
addsubpd  66 0f d0  Vx,Wx  sse3 inout:mxcsr
addsubps  f2 0f d0  Vx,Wx  sse3 inout:mxcsr
`;

const sse4Rows = `
palignr  np 0f 3a 0f  Pq,Qq,Ib  ssse3
palignr  66 0f 3a 0f  Vx,Wx,Ib  ssse3
pblendvb  66 0f 38 10  Vx,Wx,XMM0  sse41
blendvps  66 0f 38 14  Vx,Wx,XMM0  sse41
blendvpd  66 0f 38 15  Vx,Wx,XMM0  sse41
ptest  66 0f 38 17  Vx,Wx  sse41 w:oszapc
pmovsxbw  66 0f 38 20  Vx,Wq  sse41
pmovsxbd  66 0f 38 21  Vx,Wd  sse41
pmovsxbq  66 0f 38 22  Vx,Ww  sse41
pmovsxwd  66 0f 38 23  Vx,Wq  sse41
pmovsxwq  66 0f 38 24  Vx,Wd  sse41
pmovsxdq  66 0f 38 25  Vx,Wq  sse41
pmuldq  66 0f 38 28  Vx,Wx  sse41
pcmpeqq  66 0f 38 29  Vx,Wx  sse41
packusdw  66 0f 38 2b  Vx,Wx  sse41
pmovzxbw  66 0f 38 30  Vx,Wq  sse41
pmovzxbd  66 0f 38 31  Vx,Wd  sse41
pmovzxbq  66 0f 38 32  Vx,Ww  sse41
pmovzxwd  66 0f 38 33  Vx,Wq  sse41
pmovzxwq  66 0f 38 34  Vx,Wd  sse41
pmovzxdq  66 0f 38 35  Vx,Wq  sse41
pcmpgtq  66 0f 38 37  Vx,Wx  sse42
pminsb  66 0f 38 38  Vx,Wx  sse41
pminsd  66 0f 38 39  Vx,Wx  sse41
pminuw  66 0f 38 3a  Vx,Wx  sse41
pminud  66 0f 38 3b  Vx,Wx  sse41
pmaxsb  66 0f 38 3c  Vx,Wx  sse41
pmaxsd  66 0f 38 3d  Vx,Wx  sse41
pmaxuw  66 0f 38 3e  Vx,Wx  sse41
pmaxud  66 0f 38 3f  Vx,Wx  sse41
pmulld  66 0f 38 40  Vx,Wx  sse41
phminposuw  66 0f 38 41  Vx,Wx  sse41
roundps  66 0f 3a 08  Vx,Wx,Ib  sse41 inout:mxcsr
roundpd  66 0f 3a 09  Vx,Wx,Ib  sse41 inout:mxcsr
roundss  66 0f 3a 0a  Vx,Wd,Ib  sse41 inout:mxcsr
roundsd  66 0f 3a 0b  Vx,Wq,Ib  sse41 inout:mxcsr
blendps  66 0f 3a 0c  Vx,Wx,Ib  sse41
blendpd  66 0f 3a 0d  Vx,Wx,Ib  sse41
pblendw  66 0f 3a 0e  Vx,Wx,Ib  sse41
pextrb  66 0f 3a 14  Rd/Mb,Vx,Ib  sse41
pextrw  66 0f 3a 15  Rd/Mw,Vx,Ib  sse41
pextrd  66 0f 3a 16  Ey,Vx,Ib  sse41
pextrq  66 rexw 0f 3a 16  Ey,Vx,Ib  sse41
extractps  66 0f 3a 17  Rd/Md,Vx,Ib  sse41
pinsrb  66 0f 3a 20  Vx,Rd/Mb,Ib  sse41
insertps  66 0f 3a 21  Vx,Wd,Ib  sse41
pinsrd  66 0f 3a 22  Vx,Ey,Ib  sse41
pinsrq  66 rexw 0f 3a 22  Vx,Ey,Ib  sse41
dpps  66 0f 3a 40  Vx,Wx,Ib  sse41 inout:mxcsr
dppd  66 0f 3a 41  Vx,Wx,Ib  sse41 inout:mxcsr
mpsadbw  66 0f 3a 42  Vx,Wx,Ib  sse41
pcmpestrm  66 0f 3a 60  Vx,Wx,Ib  sse42 w:oszapc in:rax,rdx out:xmm
pcmpestri  66 0f 3a 61  Vx,Wx,Ib  sse42 w:oszapc in:rax,rdx out:rcx
pcmpestrm  66 rexw 0f 3a 60  Vx,Wx,Ib  sse42 w:oszapc as:pcmpestrmq in:rax,rdx out:xmm
pcmpestri  66 rexw 0f 3a 61  Vx,Wx,Ib  sse42 w:oszapc as:pcmpestriq in:rax,rdx out:rcx
pcmpistrm  66 0f 3a 62  Vx,Wx,Ib  sse42 w:oszapc out:xmm
pcmpistri  66 0f 3a 63  Vx,Wx,Ib  sse42 w:oszapc out:rcx
`;

/** The rows of this group. */
export const simdRows: string = packedRows + ssse3Rows + floatRows + moveRows + convertRows +
  sse4Rows;
