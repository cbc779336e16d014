/* Sends packets of many flows out of a device, as fast as one CPU can: `bench-sender DEVICE SIZE < orders`.
 *
 * An order is a line `random FLOWS PACKETS PAUSE_NS` or `sweep FIRST PACKETS PAUSE_NS`: packets whose flow is drawn
 * at random among FLOWS, or one packet of each flow from FIRST on. PAUSE_NS is waited after every batch. Each order is
 * answered with a line: the packets sent. Ethernet, IPv4, TCP, SIZE bytes; the destination address is nobody's, so
 * that the receiver drops the packet right behind the meter.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define BATCH	  64 /* messages in one sendmmsg() */
#define FRAME_MAX 1514
#define FLOW_BITS 24

struct frame {
	struct ethhdr eth;
	struct iphdr ip;
	struct tcphdr tcp;
} __attribute__((packed));

static unsigned char frames[BATCH][FRAME_MAX];
static struct mmsghdr messages[BATCH];
static struct iovec pieces[BATCH];

static int fail(const char *what)
{
	fprintf(stderr, "bench-sender: %s: %s\n", what, strerror(errno));
	return -1;
}

static uint16_t checksum(const void *data, size_t bytes)
{
	const uint16_t *words = data;
	uint32_t sum = 0;

	for (size_t i = 0; i < bytes / 2; i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	return ~(uint16_t)(sum + (sum >> 16));
}

static void build_frame(unsigned char *at, size_t size)
{
	static const unsigned char nobody[ETH_ALEN] = {0x02, 0, 0, 0, 0, 0xfe};
	struct frame *frame = (struct frame *)at;

	memset(at, 0, size);
	memcpy(frame->eth.h_dest, nobody, ETH_ALEN);
	frame->eth.h_source[0] = 0x02;
	frame->eth.h_proto = htons(ETH_P_IP);
	frame->ip.version = 4;
	frame->ip.ihl = 5;
	frame->ip.tot_len = htons(size - sizeof(frame->eth));
	frame->ip.ttl = 64;
	frame->ip.protocol = IPPROTO_TCP;
	frame->ip.daddr = htonl(0xc6120001); /* 198.18.0.1: RFC 2544, for benchmarks */
	frame->tcp.source = htons(40000);
	frame->tcp.dest = htons(443);
	frame->tcp.doff = 5;
	frame->tcp.ack = 1;
}

static void set_flow(unsigned char *at, uint32_t flow)
{
	struct frame *frame = (struct frame *)at;

	frame->ip.saddr = htonl(10U << FLOW_BITS | (flow & ((1U << FLOW_BITS) - 1)));
	frame->ip.check = 0;
	frame->ip.check = checksum(&frame->ip, sizeof(frame->ip));
}

/* xorshift64* (Vigna 2016): the order of flows must not be one that a prefetcher guesses. */
static uint32_t draw(uint32_t below)
{
	static uint64_t state = 0x9e3779b97f4a7c15ULL;

	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return (uint64_t)(uint32_t)(state * 0x2545f4914f6cdd1dULL >> 32) * below >> 32;
}

static int open_socket(const char *device)
{
	struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(device)};
	int fd;

	if (!address.sll_ifindex)
		return fail(device);
	fd = socket(AF_PACKET, SOCK_RAW, 0); /* protocol 0: it receives nothing */
	if (fd < 0)
		return fail("socket");
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)))
		return fail("bind");
	return fd;
}

static int send_batch(int fd, unsigned int count)
{
	unsigned int sent = 0;
	int now;

	while (sent < count) {
		now = sendmmsg(fd, messages + sent, count - sent, 0);
		if (now < 0 && errno != ENOBUFS && errno != EINTR)
			return fail("sendmmsg");
		if (now > 0)
			sent += now;
	}
	return 0;
}

static int carry_out(int fd, int random, uint32_t flows, uint64_t packets, long pause_ns)
{
	struct timespec pause = {pause_ns / 1000000000, pause_ns % 1000000000};
	uint32_t next = flows;

	for (uint64_t left = packets; left;) {
		unsigned int count = left < BATCH ? left : BATCH;

		for (unsigned int i = 0; i < count; i++)
			set_flow(frames[i], random ? draw(flows) : next++);
		if (send_batch(fd, count))
			return -1;
		left -= count;
		if (pause_ns)
			nanosleep(&pause, NULL);
	}
	return 0;
}

int main(int argc, char **argv)
{
	unsigned long long packets;
	unsigned int flows;
	long pause_ns;
	char order[16];
	int fd, size;

	if (argc != 3)
		return fprintf(stderr, "usage: bench-sender DEVICE SIZE < orders\n"), 2;
	size = atoi(argv[2]);
	if (size < (int)sizeof(struct frame) || size > FRAME_MAX)
		return fprintf(stderr, "bench-sender: a size of %d bytes; from %zu to %d\n", size, sizeof(struct frame),
			       FRAME_MAX),
		       2;
	fd = open_socket(argv[1]);
	if (fd < 0)
		return 1;
	for (int i = 0; i < BATCH; i++) {
		build_frame(frames[i], size);
		pieces[i] = (struct iovec){frames[i], size};
		messages[i].msg_hdr = (struct msghdr){.msg_iov = &pieces[i], .msg_iovlen = 1};
	}
	while (scanf("%15s %u %llu %ld", order, &flows, &packets, &pause_ns) == 4) {
		if (carry_out(fd, order[0] == 'r', flows, packets, pause_ns))
			return 1;
		printf("%llu\n", packets);
		fflush(stdout);
	}
	return 0;
}
