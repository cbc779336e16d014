// What nearly every question of a view has: the range, the filter, and how often a flow counts.

import type { Parameters } from "./api";
import { place } from "./place.svelte";
import type { Range } from "./range";
import { isLive } from "./range";

class Scope {
  range: Range = $derived({ from: place.get("from", "-1h"), to: place.get("to", "now") });
  filter = $derived(place.get("filter"));
  once = $derived(place.get("once"));
  isLive = $derived(isLive(this.range));
  /** As the API calls them. */
  parameters: Parameters = $derived({ ...this.range, filter: this.filter, once: this.once });
}

export const scope = new Scope();
