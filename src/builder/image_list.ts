/** The tables of images in words: for messages, help and the README. */
import {
  type Boot,
  type BootName,
  BOOTS,
  type Companion,
  GUEST_TYPES,
  type GuestType,
  type Image,
  type ImageBoot,
  type ImageName,
  IMAGES,
} from "../abi/boot/images.ts";

/** The kinds of image, in the order in which a file is held against them. */
export const IMAGE_NAMES = Object.keys(IMAGES) as readonly ImageName[];
const BOOT_NAMES = Object.keys(BOOTS) as readonly BootName[];

/** How an image boots in a type of domain; undefined where that type does not look for it. */
export const bootOf = (image: ImageName, type: GuestType): ImageBoot | undefined =>
  (IMAGES[image] as Image).boots[type];

const takes = (boot: BootName, what: Companion) => (BOOTS[boot] as Boot).takes.includes(what);

/** What a domain of one of these types boots: `a bzImage, an ELF with a PVH note, or …`. */
export function imageList(types: readonly GuestType[] = GUEST_TYPES): string {
  return alternatives(
    IMAGE_NAMES.filter((name) => types.some((type) => typeof bootOf(name, type) === "string"))
      .map((name) => IMAGES[name].text),
  );
}

/** The ways of entry that take a companion. */
export const takers = (what: Companion): string =>
  alternatives(BOOT_NAMES.filter((boot) => takes(boot, what)));

/** The tables in Markdown, as the README has them. */
export function imageTables(): string {
  const row = (...cells: string[]) => `| ${cells.join(" | ")} |`;
  const cell = (image: ImageName, type: GuestType) => {
    const boot = bootOf(image, type);
    return typeof boot === "string" ? boot : "refused";
  };
  const types = GUEST_TYPES.filter((type) => IMAGE_NAMES.some((image) => bootOf(image, type)));
  const companions = (boot: BootName) => BOOTS[boot].takes.join(", ") || "nothing";
  return [
    row("A kernel that is", "by", ...types.map((type) => `\`${type}\``)),
    row(...["", "", ...types].map(() => "-")),
    ...IMAGE_NAMES.map((image) =>
      row(IMAGES[image].text, IMAGES[image].sign, ...types.map((type) => cell(image, type)))
    ),
    "",
    row("Way", "entered", "finds", "takes"),
    row("-", "-", "-", "-"),
    ...BOOT_NAMES.map((boot) => row(boot, BOOTS[boot].entry, BOOTS[boot].finds, companions(boot))),
  ].join("\n");
}

function alternatives(texts: readonly string[]): string {
  if (texts.length < 3) return texts.join(" or ");
  return `${texts.slice(0, -1).join(", ")}, or ${texts.at(-1)}`;
}
