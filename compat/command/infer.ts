// The types of options and arguments, read from their declarations:
// "-m, --max-cpus <n:integer>" is { maxCpus?: number }.

type Camel<S extends string> = S extends `${infer A}-${infer B}` ? `${A}${Capitalize<Camel<B>>}`
  : S;

type Value<Name extends string, Types> = Name extends keyof Types ? Types[Name] : string;

type NameOf<Flags extends string> = Flags extends `${string}--${infer Name}`
  ? Name extends `${infer Word}${" " | "="}${string}` ? Word : Name
  : never;

type ValueOf<Flags extends string, Types> = Flags extends `${string}<${infer Body}>`
  ? Inner<Body, Types>
  : Flags extends `${string}[${infer Body}]` ? Inner<Body, Types> | true
  : true;

type Inner<Body extends string, Types> = Body extends `...${infer Rest}` ? Inner<Rest, Types>[]
  : Body extends `${string}...:${infer Type}` ? Value<Type, Types>[]
  : Body extends `${string}:${infer Type}` ? Value<Type, Types>
  : string;

/** The record that one option adds. `default` and `required` make it always present. */
export type OptionOf<Flags extends string, Settings, Types> = Present<
  Camel<NameOf<Flags>>,
  Settings extends { collect: true } ? ValueOf<Flags, Types>[] : ValueOf<Flags, Types>,
  Settings
>;

type Present<Name extends string, V, Settings> = Settings extends { required: true }
  ? { [K in Name]: V }
  : Settings extends { default: infer D } ? { [K in Name]: V | Widen<D> }
  : { [K in Name]?: V };

type Widen<D> = D extends string ? string
  : D extends number ? number
  : D extends boolean ? boolean
  : D;

/** The tuple of "<file:string> [args...:string]". */
export type ArgumentsOf<Spec extends string, Types> = Spec extends `${infer First} ${infer Rest}`
  ? [...ArgumentOf<First, Types>, ...ArgumentsOf<Rest, Types>]
  : ArgumentOf<Spec, Types>;

type ArgumentOf<Spec extends string, Types> = Spec extends `<${infer Body}>`
  ? Body extends `${string}...${string}` ? Inner<Body, Types> & unknown[] : [Inner<Body, Types>]
  : Spec extends `[${infer Body}]`
    ? Body extends `${string}...${string}` ? Inner<Body, Types> & unknown[] : [Inner<Body, Types>?]
  : [];
