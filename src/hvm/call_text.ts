/** A hypercall in one line: its name, its arguments, and what it gave. */
import { DOMID, VIRQ } from "../abi/xen/xen.ts";

type Values = Readonly<Record<string, unknown>>;

/** Numbers that have names, by the fields in which they stand. */
const NAMES: Readonly<Record<string, Readonly<Record<string, number>>>> = {
  virq: VIRQ,
  ...Object.fromEntries(
    ["dom", "domid", "remote_dom"].map((field) => [field, { self: DOMID.SELF }]),
  ),
};
const named = (field: string, value: unknown): string | undefined =>
  Object.entries(NAMES[field] ?? {}).find(([, number]) => number === value)?.[0];

/** `event_channel_op send {port: 5} = -ESRCH`. */
export function callText(call: Values): string {
  // Of a past exit nothing more is kept.
  return call.number === undefined ? "hypercall" : `hypercall ${textOf(call)}`;
}
function textOf(
  { number, name, sub, arguments: given, calls, result, error, why }: Values,
): string {
  const words = name === undefined ? `number 0x${Number(number).toString(16)}` : `${name}`;
  const inner = (calls as readonly Values[] | undefined)?.map(textOf).join("; ");
  const said = inner === undefined ? argumentsText((given ?? {}) as Values) : ` [${inner}]`;
  const gave = result === undefined ? "" : ` = ${error ? `-${error}` : valueText("", result)}`;
  const rule = why === undefined ? "" : ` (${why})`;
  return words + (sub === undefined ? "" : ` ${sub}`) + said + gave + rule;
}
const argumentsText = (given: Values): string =>
  Object.keys(given).length ? ` ${valueText("", given)}` : "";

function valueText(field: string, value: unknown): string {
  if (value === undefined) return "unreadable";
  if (typeof value === "string") return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map((each) => valueText(field, each)).join(", ")}]`;
  if (typeof value === "object" && value !== null) {
    return `{${
      Object.entries(value).map(([key, v]) => `${key}: ${valueText(key, v)}`).join(", ")
    }}`;
  }
  const number = value as number | bigint;
  const name = named(field, number);
  if (name !== undefined) return name;
  return number >= -1024 && number < 1024 ? String(number) : hex(number);
}
const hex = (value: number | bigint): string =>
  value < 0 ? `-0x${(-value).toString(16)}` : `0x${value.toString(16)}`;
