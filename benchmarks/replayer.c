/* Sends the frames of a file out of a device at a rate, again and again: `bench-replayer DEVICE FILE RATE SECONDS`.
 *
 * The file has frames one behind another, each behind its length (32 bits, this machine's byte order). RATE is in
 * frames a second; they go in groups of 64, each at its time, or as fast as they can where that has passed. Prints the
 * frames sent.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <net/if.h>
#include <linux/if_packet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define BATCH 64

static int fail(const char *what)
{
	fprintf(stderr, "bench-replayer: %s: %s\n", what, strerror(errno));
	return 1;
}

static int open_socket(const char *device)
{
	struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(device)};
	int fd = socket(AF_PACKET, SOCK_RAW, 0); /* protocol 0: it receives nothing */

	return fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) ? -1 : fd;
}

/* The whole file; `frames` gets a piece for each. Returns how many, or 0. */
static size_t read_frames(const char *path, struct iovec **frames)
{
	FILE *file = fopen(path, "rb");
	size_t count = 0, room = 0;
	uint32_t length;

	if (!file)
		return 0;
	while (fread(&length, sizeof(length), 1, file) == 1) {
		if (count == room)
			*frames = realloc(*frames, (room += 65536) * sizeof(**frames));
		(*frames)[count].iov_base = malloc(length);
		(*frames)[count].iov_len = length;
		if (fread((*frames)[count++].iov_base, 1, length, file) != length)
			return 0;
	}
	fclose(file);
	return count;
}

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static int send_batch(int fd, struct iovec *frames)
{
	struct mmsghdr messages[BATCH] = {0};
	int sent = 0, now;

	for (int i = 0; i < BATCH; i++)
		messages[i].msg_hdr = (struct msghdr){.msg_iov = &frames[i], .msg_iovlen = 1};
	while (sent < BATCH) {
		now = sendmmsg(fd, messages + sent, BATCH - sent, 0);
		if (now < 0 && errno != ENOBUFS && errno != EINTR)
			return -1;
		if (now > 0)
			sent += now;
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct iovec *frames = NULL;
	uint64_t sent = 0, wanted;
	int64_t started, due;
	size_t count, at = 0;
	double rate;
	int fd;

	if (argc != 5)
		return fprintf(stderr, "usage: bench-replayer DEVICE FILE RATE SECONDS\n"), 2;
	fd = open_socket(argv[1]);
	if (fd < 0)
		return fail(argv[1]);
	count = read_frames(argv[2], &frames) / BATCH * BATCH;
	if (!count)
		return fail(argv[2]);
	rate = atof(argv[3]);
	wanted = rate * atof(argv[4]);
	started = now_ns();
	while (sent < wanted) {
		due = started + (int64_t)(sent / rate * 1e9);
		if (due > now_ns()) {
			struct timespec until = {due / 1000000000, due % 1000000000};

			clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
		}
		if (send_batch(fd, &frames[at]))
			return fail("sendmmsg");
		at = (at + BATCH) % count;
		sent += BATCH;
	}
	printf("%llu %.6f\n", (unsigned long long)sent, (now_ns() - started) / 1e9);
	return 0;
}
