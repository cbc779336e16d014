/* Which attachment a packet came past.
 *
 * The meter takes long to verify, so it is loaded once. What is attached, one for each device and direction, is an
 * entry: a program of some 20 instructions that bears the attachment's identity as a constant, notes it and goes on to
 * the meter. So no packet pays for looking its device up, and a device that is renamed or goes to another namespace
 * cannot be taken for another that has its ifindex.
 */
#ifndef WM_KERNEL_ENTRY_H
#define WM_KERNEL_ENTRY_H

#include "settings.h"

/* What the entry that was run last on a CPU says. Nothing comes between an entry and its meter: bottom halves are off.
 */
struct wm_entry {
	struct wm_identity identity;
} __attribute__((aligned(64)));

/* By CPU. Sized before load. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct wm_entry));
	__uint(max_entries, 1);
} wm_entries SEC(".maps");

/* The meters, one for each kind of hook: programs of one kind only may be in a map, and go on to one another. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
	__uint(max_entries, 1);
} wm_tc_meter SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
	__uint(max_entries, 1);
} wm_xdp_meter SEC(".maps");

static __always_inline struct wm_entry *entry_of(__u32 cpu)
{
	return bpf_map_lookup_elem(&wm_entries, &cpu);
}

/* The meter passes an identity on as a number: it is one read, and one argument of a function that is verified by
 * itself. */
static __always_inline struct wm_identity identity_of(__u32 word)
{
	struct wm_identity identity;

	_Static_assert(sizeof(identity) == sizeof(word), "one word");
	__builtin_memcpy(&identity, &word, sizeof(identity));
	return identity;
}

static __always_inline void entry_note(struct wm_identity identity)
{
	struct wm_entry *entry = entry_of(bpf_get_smp_processor_id());

	if (entry) /* there is one for each CPU that may ever be */
		entry->identity = identity;
}

/* Stands in an entry's instructions where user space puts the identity as it makes a copy for an attachment. */
#define WM_IDENTITY_MARK 0x574d4944
static __always_inline struct wm_identity identity_of_copy(void)
{
	__u32 word;

	asm volatile("%0 = %1" : "=r"(word) : "i"(WM_IDENTITY_MARK));
	return identity_of(word);
}

static __always_inline __u32 identity_noted(const struct wm_entry *entry)
{
	return *(const volatile __u32 *)&entry->identity;
}

static __always_inline __u32 identity_of_whole(void)
{
	return *(const volatile __u32 *)&wm_whole;
}

#endif
