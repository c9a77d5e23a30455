/** The guided tour of `.help tour`: what to type on the demo guest, and what it shows. */
export const TOUR: readonly { readonly say: string; readonly type: readonly string[] }[] = [
  {
    say: "The domain stands before its first instruction. One step; then on to a symbol:",
    type: ["s", "until main"],
  },
  {
    say: "Where it is: the code, all registers, and how an address is translated:",
    type: ["u main 8", "r", "pt main"],
  },
  {
    say: "The guest switches between two address spaces. Stop at the next write of CR3, ask why:",
    type: ["until cr cr=3 write", "why", "bt"],
  },
  {
    say: "A watchpoint: the timer's handler counts ticks. c goes on to the next hit:",
    type: ["watch ticks 4", "c", "x/1xw ticks", "bd *"],
  },
  {
    say: "Type a key to the guest: f touches a page that nobody mapped. Stop at the page fault:",
    type: [`dom.console.write("f")`, "until exception vector=14", "pt 0xd0000000", "why"],
  },
  {
    say: "Run on to behind that instruction, and walk again: the handler has mapped the page:",
    type: ["until touch_page+0x16", "pt 0xd0000000"],
  },
  {
    say: "The guest's CPUID, answered by you; and what left the guest so far:",
    type: [
      `dom.break("cpuid", { leaf: 0 }, (x) => x.reply({ ebx: 0x206d7678 }))`,
      `dom.console.write("c")`,
      `until hlt if dom.console.text.includes("processor: xvm")`,
      "exits",
    ],
  },
  {
    say: "The vendor's own record of this virtual processor; a word chooses fields:",
    type: ["vmcs qualification"],
  },
];

/** The tour as text. */
export function tourText(): string {
  const steps = TOUR.map(({ say, type }, i) =>
    `${i + 1}. ${say}\n\n${type.map((it) => `     ${it}\n`).join("")}`
  );
  return `A tour of the demo guest: a small kernel with paging, a timer, and a console that answers keys.
Type what is indented.

${steps.join("\n")}
Then let it run, and talk to it yourself (c, m, f, d, t, q are its keys; ctrl-] comes back):

     go
     .attach
`;
}
