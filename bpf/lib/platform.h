/* The few things that differ between a BPF program and a plain C build of the same sources. */
#ifndef WM_PLATFORM_H
#define WM_PLATFORM_H

#if defined(__bpf__)
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#else
#include <stdint.h>
#include <stddef.h>
typedef uint8_t __u8;
typedef uint16_t __u16;
typedef uint32_t __u32;
typedef uint64_t __u64 __attribute__((aligned(8))); /* on 32 bits too, or layouts would differ */
#undef __always_inline /* the C library may have one, which need not imply `inline` */
#define __always_inline inline __attribute__((always_inline))
#endif

/* Unrolled, the loops of the rare paths would push the common one out of the instruction cache. */
#if defined(__clang__)
#define wm_loop _Pragma("clang loop unroll(disable)")
#else
#define wm_loop
#endif

#define wm_likely(x)   __builtin_expect(!!(x), 1)
#define wm_unlikely(x) __builtin_expect(!!(x), 0)

/* The compiler forgets what it knows of a number, so that a check that follows is made, for the verifier to see: one
 * before Linux 6.8 learns nothing of a number's bounds from "it is not this". */
#define wm_forget(x) asm volatile("" : "+r"(x))

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define wm_be16(x) __builtin_bswap16(x) /* host to network order, and back */
#define wm_be32(x) __builtin_bswap32(x)
#else
#define wm_be16(x) ((__u16)(x))
#define wm_be32(x) ((__u32)(x))
#endif

#endif
