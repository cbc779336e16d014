/* When flows began, beyond the interval that their rows are of: an answer names no flow that was there before it. */
#include "names.h"

/* So many flows further on is what is on its way from memory. */
#define AHEAD 12

static struct wm_began_flow *place_of(struct wm_began_set *set, uint32_t tag)
{
	struct wm_began_flow *oldest = &set->flows[0];

	for (int i = 0; i < WM_BEGAN_WAYS; i++) {
		struct wm_began_flow *flow = &set->flows[i];

		if (flow->seen && flow->tag == tag)
			return flow;
		if (flow->seen < oldest->seen)
			oldest = flow;
	}
	return oldest;
}

void wm_began_find(struct wm_began_set *sets, uint32_t sets_mask, uint32_t round, const uint64_t *hashes,
		   const uint64_t *first_ns, const uint8_t *is_new, size_t count, uint64_t *began_ns)
{
	for (size_t i = 0; i < count; i++) {
		if (i + AHEAD < count)
			__builtin_prefetch(&sets[hashes[i + AHEAD] & sets_mask], 1);
		uint32_t tag = (uint32_t)(hashes[i] >> 32);
		struct wm_began_flow *flow = place_of(&sets[hashes[i] & sets_mask], tag);
		int is_known = flow->seen && flow->tag == tag;

		began_ns[i] = is_known && !is_new[i] ? flow->began_ns : first_ns[i];
		if (is_known || flow->seen < round)
			*flow = (struct wm_began_flow){tag, round, began_ns[i]};
	}
}
