// Every text that people read, in their language. A key that a catalogue lacks does not compile.

import { en } from "./en";
import { zh } from "./zh";

export type Key = keyof typeof en;
export type Language = "en" | "zh";

const catalogues: Record<Language, Record<Key, string>> = { en, zh };
const key = "wiremeter.language";
const kept = localStorage.getItem(key);
let chosen = $state<Language>(
  kept === "en" || kept === "zh" ? kept : navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en",
);

export const language = (): Language => chosen;

export function speak(which: Language): void {
  chosen = which;
  localStorage.setItem(key, which);
}

/** The text of a key, with what stands in braces put in. */
export function t(which: Key, parts: Record<string, string | number> = {}): string {
  return catalogues[chosen][which].replace(/\{(\w+)\}/g, (_, name: string) => String(parts[name] ?? ""));
}

/** The text of a key that is made of a word of the API; the word itself where there is none. */
export function named(kind: string, word: string): string {
  const text = (catalogues[chosen] as Record<string, string>)[`${kind}.${word}`];
  return text ?? word;
}
