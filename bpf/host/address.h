/* Addresses as users see them. */
#ifndef WM_ADDRESS_H
#define WM_ADDRESS_H

#include <stdint.h>
#include <string.h>

/* IPv4 as v4-mapped (RFC 4291, 2.5.5.2), 16 bytes. */
static inline void address_from_v4(uint8_t *to, uint32_t addr_be)
{
	memset(to, 0, 10);
	memset(to + 10, 0xff, 2);
	memcpy(to + 12, &addr_be, sizeof(addr_be));
}

#endif
