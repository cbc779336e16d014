/* Addresses as users see them: 16 bytes, IPv4 as v4-mapped (RFC 4291, section 2.5.5.2). */
#ifndef WM_ADDRESS_H
#define WM_ADDRESS_H

#include "platform.h"

static __always_inline void address_from_v4(__u8 *to, __u32 addr_be)
{
	const __u32 words[4] = {0, 0, wm_be32(0xffff), addr_be};

	__builtin_memcpy(to, words, sizeof(words));
}

#endif
