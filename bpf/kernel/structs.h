/* What the programs read of the kernel's own structures, relocated to the running kernel (CO-RE). */
#ifndef WM_KERNEL_STRUCTS_H
#define WM_KERNEL_STRUCTS_H

#include <bpf/bpf_core_read.h>
#include "../lib/platform.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct sk_buff___wm {
	unsigned char *head;
	unsigned char *data;
	__u32 end; /* an offset from head where pointers have 64 bits (NET_SKBUFF_DATA_USES_OFFSET) */
	__u16 mac_header;
	__u16 transport_header;
	__u16 inner_transport_header;
};

struct skb_shared_info___wm {
	unsigned int gso_type;
};

struct xdp_buff___wm {
	__u32 flags;
};

#pragma clang attribute pop

#define XDP_FLAGS_HAS_FRAGS (1 << 0) /* include/net/xdp.h, enum xdp_buff_flags */

/* include/linux/skbuff.h, an anonymous enum; these bits have stood since 4.18. */
#define SKB_GSO_TCPV4		(1 << 0)
#define SKB_GSO_TCPV6		(1 << 4)
#define SKB_GSO_GRE		(1 << 6)
#define SKB_GSO_GRE_CSUM	(1 << 7)
#define SKB_GSO_IPXIP4		(1 << 8)
#define SKB_GSO_IPXIP6		(1 << 9)
#define SKB_GSO_UDP_TUNNEL	(1 << 10)
#define SKB_GSO_UDP_TUNNEL_CSUM (1 << 11)
#define SKB_GSO_UDP		(1 << 16) /* UFO: the segments are IP fragments */
#define SKB_GSO_ENCAPSULATED                                                                     \
	(SKB_GSO_GRE | SKB_GSO_GRE_CSUM | SKB_GSO_IPXIP4 | SKB_GSO_IPXIP6 | SKB_GSO_UDP_TUNNEL | \
	 SKB_GSO_UDP_TUNNEL_CSUM)
#define PACKET_LOOPBACK 5      /* include/uapi/linux/if_packet.h */
#define GSO_BY_FRAGS	0xFFFF /* SCTP: a list of buffers, each one segment */

/* The skb behind a program's context, and reads through a pointer of a named type: Linux 6.2 (fd264ca02094,
 * a35b9af4ec2c). Python sets `wm_kernel_skb` where they exist; elsewhere the calls are dead code. */
extern void *bpf_cast_to_kern_ctx(void *ctx) __ksym __weak;
extern void *bpf_rdonly_cast(const void *object, __u32 btf_id) __ksym __weak;

#endif
