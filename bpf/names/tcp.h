/* Connections over TCP that are being read, in bounded memory; no bytes and no order of them do harm.
 *
 * The client is who sent the request or ClientHello; else who sent the SYN; else the side with the higher port. A SYN
 * that isn't a repetition begins a new connection on the same ports, and ends the one before.
 */
#ifndef WM_TCP_H
#define WM_TCP_H

#include "names.h"
#include "../records.h"

enum wm_tcp_took {
	WM_TCP_OPAQUE, /* nothing can be read of it, and nobody reads its connection */
	WM_TCP_READ,
};

/* Takes one segment, its time since the epoch; `told` has room. */
enum wm_tcp_took wm_tcp_take(struct wm_tcp *tcp, struct wm_dns *dns, uint32_t device, const struct wm_payload *head,
			     const struct wm_ends *flow, const uint8_t *data, struct wm_told *told);

/* The ends that a record bears. */
struct wm_ends wm_payload_ends(const struct wm_payload *head);

#endif
