/* What user space says to the programs: constants that it sets before load, and a word or two that it changes later. */
#ifndef WM_KERNEL_SETTINGS_H
#define WM_KERNEL_SETTINGS_H

#include "../records.h"

/* Set before load. */
const volatile struct wm_table_shape wm_shape;
const volatile __u32 wm_attachments;	    /* that the tables have room for */
const volatile __u32 wm_regions = 1;	    /* CPUs with a region of their own: those numbered below this */
const volatile struct wm_identity wm_whole; /* of a program that is loaded as a whole for one attachment */
const volatile __u32 wm_kernel_skb;	    /* bpf_cast_to_kern_ctx() and bpf_rdonly_cast() exist */
const volatile __u32 wm_xdp_frags;	    /* bpf_xdp_get_buff_len() and bpf_xdp_load_bytes() exist */
const volatile __u32 wm_test_runs;	    /* no device: time and length of each packet are what wm_test_packet says */
const volatile __u32 wm_payload_limit;	 /* bytes of a packet's payload to send at most; 0: none, none is looked at */
const volatile __u32 wm_payload_ring;	 /* bytes of each of the rings they go to */
const volatile __u32 wm_payload_sources; /* bits of enum wm_source: those to send */

/* 0 or 1: which half of the regions is being written. User space sets it. */
volatile __u32 wm_epoch SEC(".data.control");

/* What user space says of the packet of the next test run; captures know its time, and its length before it was cut. */
struct {
	__u64 time_ns;
	__u32 wire_bytes; /* 0: as many as there are */
} wm_test_packet SEC(".data.control");

#endif
