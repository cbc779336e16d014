// Colours of a dimension's values: the same value has the same one in every view, as far as a list permits.

/** How many there are; app.css has them as --series-0 and so on, chosen to be told apart in light and dark. */
const count = 10;

function home(text: string): number {
  let hash = 2166136261;
  for (let at = 0; at < text.length; at += 1) hash = Math.imul(hash ^ text.charCodeAt(at), 16777619);
  return (hash >>> 0) % count;
}

/** The colour number of each: its own, or the next that is free. Those that come first choose first. */
export function colours(values: readonly string[]): Map<string, number> {
  const found = new Map<string, number>();
  const taken = new Set<number>();
  for (const value of values) {
    if (found.has(value)) continue;
    let at = home(value);
    if (taken.size < count) while (taken.has(at)) at = (at + 1) % count;
    taken.add(at);
    found.set(value, at);
  }
  return found;
}

/** As CSS has it; null is the remainder. */
export function css(number: number | null | undefined): string {
  return getComputedStyle(document.documentElement)
    .getPropertyValue(number == null ? "--remainder" : `--series-${number}`)
    .trim();
}
