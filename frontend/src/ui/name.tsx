/** The name of a layer or a run: long ones break where their parts do. */
export function Name({ text }: { readonly text: string }) {
  const parts = text.split(/(?<=[/._-])(?=[^/._-])/);
  return <span class="name">{parts.flatMap((part, at) => (at === 0 ? [part] : [<wbr key={at} />, part]))}</span>;
}
