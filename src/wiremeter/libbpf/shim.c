/* What cffi cannot say: option structs, inline BTF readers, libbpf's messages. Compiled into the binding. */
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <linux/bpf.h>
#include <linux/magic.h>
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

/* What libbpf says while it works on this thread, kept for the error message. */
static __thread char messages[16384];
static __thread size_t messages_used;

static int keep_message(enum libbpf_print_level level, const char *format, va_list args)
{
	int n;

	if (level == LIBBPF_DEBUG || messages_used >= sizeof(messages) - 1)
		return 0;
	n = vsnprintf(messages + messages_used, sizeof(messages) - messages_used, format, args);
	if (n > 0)
		messages_used += n;
	if (messages_used > sizeof(messages) - 1)
		messages_used = sizeof(messages) - 1;
	return 0;
}

static size_t wm_messages_take(char *to, size_t size)
{
	size_t n = messages_used < size ? messages_used : size;

	memcpy(to, messages, n);
	messages_used = 0;
	return n;
}

static void wm_keep_messages(void)
{
	libbpf_set_print(keep_message);
}

static struct bpf_object *wm_object_open(const char *path)
{
	return bpf_object__open(path);
}

/* The instructions of a loaded program as another one, with `value` in place of the one immediate operand `mark`.
 * They are relocated already, so this costs a hundredth of a load. -ENOENT where the mark is not there exactly once. */
static int wm_program_copy(const struct bpf_program *prog, int mark, int value, char *log, size_t log_size)
{
	size_t count = bpf_program__insn_cnt(prog), found = 0;
	struct bpf_insn *insns = malloc(count * sizeof(*insns));
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .prog_flags = bpf_program__flags(prog),
		    .expected_attach_type = bpf_program__expected_attach_type(prog), .log_buf = log,
		    .log_size = log_size);
	int fd = -ENOENT;

	if (!insns)
		return -ENOMEM;
	memcpy(insns, bpf_program__insns(prog), count * sizeof(*insns));
	for (size_t i = 0; i < count; i++) {
		if ((BPF_OP(insns[i].code) | BPF_SRC(insns[i].code)) != (BPF_MOV | BPF_K) || insns[i].imm != mark)
			continue;
		insns[i].imm = value;
		found++;
	}
	if (found == 1)
		fd = bpf_prog_load(bpf_program__type(prog), bpf_program__name(prog), "Dual MIT/GPL", insns, count,
				   &opts);
	free(insns);
	return fd;
}

/* Records of a ring as they are taken: one behind the other in the reader's memory. */
struct wm_ring_block {
	uint8_t *data;
	size_t capacity;
	size_t used;
	uint64_t *offsets;
	size_t offsets_capacity;
	size_t count;
	size_t record_max; /* bytes that a record may have */
};

static int take_record(void *context, void *data, size_t size)
{
	struct wm_ring_block *block = context;

	/* There was room for it: the last call saw to that. */
	memcpy(block->data + block->used, data, size);
	block->offsets[block->count++] = block->used;
	block->used += (size + 7) & ~(size_t)7;
	return block->capacity - block->used < block->record_max || block->count == block->offsets_capacity ? -EAGAIN
													    : 0;
}

static struct ring_buffer *wm_block_ring_open(int map_fd, struct wm_ring_block *block)
{
	return ring_buffer__new(map_fd, take_record, block, NULL);
}

static int wm_map_create_array(const char *name, unsigned int value_size, unsigned int max_entries)
{
	return bpf_map_create(BPF_MAP_TYPE_ARRAY, name, 4, value_size, max_entries, NULL);
}

static int wm_map_create_outer(const char *name, int inner_fd)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .inner_map_fd = inner_fd);

	return bpf_map_create(BPF_MAP_TYPE_ARRAY_OF_MAPS, name, 4, 4, 1, &opts);
}

/* Attach types are numbers here: libbpf 1.1 has no names for tcx, and passes on what it does not know. */
static int wm_link_create(int prog_fd, int ifindex, int attach_type, unsigned int flags)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = flags);

	return bpf_link_create(prog_fd, ifindex, (enum bpf_attach_type)attach_type, &opts);
}

/* Puts another program in the place of a link's: no packet passes without one. */
static int wm_link_update(int link_fd, int prog_fd)
{
	return bpf_link_update(link_fd, prog_fd, NULL);
}

/* The device of an XDP or tcx link; 0 where it is gone, and the link with it but for its name. */
static int wm_link_ifindex(int link_fd)
{
	/* bpf_link_info as libbpf 1.1 has it knows no tcx: its ifindex is the first word of the union, as XDP's is. */
	struct bpf_link_info info = {};
	__u32 size = sizeof(info);
	int err = bpf_obj_get_info_by_fd(link_fd, &info, &size);

	return err ? err : (int)info.xdp.ifindex;
}

struct wm_map_shape {
	unsigned int type, key_size, value_size, max_entries, flags;
};

/* What a map that is about to be made will be. */
static void wm_map_shape(const struct bpf_map *map, struct wm_map_shape *to)
{
	*to = (struct wm_map_shape){bpf_map__type(map), bpf_map__key_size(map), bpf_map__value_size(map),
				    bpf_map__max_entries(map), bpf_map__map_flags(map)};
}

/* The same of one that is there. */
static int wm_map_shape_of(int fd, struct wm_map_shape *to)
{
	struct bpf_map_info info = {};
	__u32 size = sizeof(info);
	int err = bpf_obj_get_info_by_fd(fd, &info, &size);

	*to = (struct wm_map_shape){info.type, info.key_size, info.value_size, info.max_entries, info.map_flags};
	return err;
}

/* 1: things can be pinned there; 0: it is another file system. */
static int wm_is_bpffs(const char *path)
{
	struct statfs about;

	return statfs(path, &about) ? -errno : about.f_type == BPF_FS_MAGIC;
}

static int wm_prog_query(int ifindex, int attach_type, unsigned int *ids, unsigned int *count)
{
	LIBBPF_OPTS(bpf_prog_query_opts, opts, .prog_ids = ids, .prog_cnt = *count);
	int err = bpf_prog_query_opts(ifindex, (enum bpf_attach_type)attach_type, &opts);

	*count = opts.prog_cnt;
	return err;
}

static int wm_xdp_query(int ifindex, unsigned int *prog_id, unsigned int *generic_prog_id)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, opts);
	int err = bpf_xdp_query(ifindex, 0, &opts);

	*prog_id = opts.drv_prog_id;
	*generic_prog_id = opts.skb_prog_id;
	return err;
}

/* 1 for a new qdisc, 0 where there is one. */
static int wm_tc_make_qdisc(int ifindex)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS);
	int err = bpf_tc_hook_create(&hook);

	return err == -EEXIST ? 0 : err ? err : 1;
}

static int wm_tc_attach(int ifindex, int egress, int prog_fd, unsigned int handle, unsigned int priority, int replace)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = egress ? BPF_TC_EGRESS : BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .prog_fd = prog_fd, .handle = handle, .priority = priority,
		    .flags = replace ? BPF_TC_F_REPLACE : 0);

	return bpf_tc_attach(&hook, &opts);
}

static int wm_tc_detach(int ifindex, int egress, unsigned int handle, unsigned int priority)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = egress ? BPF_TC_EGRESS : BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = handle, .priority = priority);

	return bpf_tc_detach(&hook, &opts);
}

static int wm_tc_query(int ifindex, int egress, unsigned int handle, unsigned int priority, unsigned int *prog_id)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = egress ? BPF_TC_EGRESS : BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = handle, .priority = priority);
	int err = bpf_tc_query(&hook, &opts);

	*prog_id = opts.prog_id;
	return err;
}

static int wm_tc_remove_qdisc(int ifindex)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = ifindex, .attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS);

	return bpf_tc_hook_destroy(&hook);
}

struct wm_prog_info {
	unsigned int id;
	char name[16];
	uint64_t run_ns;
	uint64_t runs;
	unsigned int jited_bytes;
};

static int wm_prog_info(int fd, struct wm_prog_info *to)
{
	struct bpf_prog_info info = {};
	__u32 size = sizeof(info);
	int err = bpf_obj_get_info_by_fd(fd, &info, &size);

	if (err)
		return err;
	to->id = info.id;
	memcpy(to->name, info.name, sizeof(to->name));
	to->run_ns = info.run_time_ns;
	to->runs = info.run_cnt;
	to->jited_bytes = info.jited_prog_len;
	return 0;
}

struct wm_skb_context {
	uint32_t gso_size;
	uint32_t gso_segs;
};

static int wm_test_run(int prog_fd, const void *data, unsigned int size, const struct wm_skb_context *context,
		       int repeat, unsigned int *retval, unsigned int *duration_ns)
{
	struct __sk_buff skb = {};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = data, .data_size_in = size, .repeat = repeat);
	int err;

	if (context) {
		skb.gso_size = context->gso_size;
		skb.gso_segs = context->gso_segs;
		opts.ctx_in = &skb;
		opts.ctx_size_in = sizeof(skb);
	}
	err = bpf_prog_test_run_opts(prog_fd, &opts);
	*retval = opts.retval;
	*duration_ns = opts.duration;
	return err;
}

static int wm_ring_record(void *context, void *data, size_t size);

static struct ring_buffer *wm_ring_open(int map_fd, void *context)
{
	return ring_buffer__new(map_fd, wm_ring_record, context, NULL);
}

struct wm_btf_member {
	const char *name;
	unsigned int type_id;
	unsigned int bit_offset;
};
struct wm_btf_type {
	int kind;
	unsigned int size;
	unsigned int type_id;
	unsigned int count;
};

static int wm_btf_find(const struct btf *btf, const char *name, int kind)
{
	return btf__find_by_name_kind(btf, name, kind);
}

static int wm_btf_type(const struct btf *btf, unsigned int id, struct wm_btf_type *to)
{
	const struct btf_type *t = btf__type_by_id(btf, id);

	if (!t)
		return -ENOENT;
	to->kind = btf_kind(t);
	to->size = t->size;
	to->type_id = t->type;
	to->count = btf_vlen(t);
	if (to->kind == BTF_KIND_ARRAY) {
		to->type_id = btf_array(t)->type;
		to->count = btf_array(t)->nelems;
	}
	return 0;
}

/* Members of structs, values of enums (bit_offset holds the value), variables of sections (byte offset). */
static int wm_btf_member(const struct btf *btf, unsigned int id, unsigned int at, struct wm_btf_member *to)
{
	const struct btf_type *t = btf__type_by_id(btf, id);

	if (!t || at >= btf_vlen(t))
		return -ENOENT;
	switch (btf_kind(t)) {
	case BTF_KIND_STRUCT:
	case BTF_KIND_UNION:
		to->name = btf__name_by_offset(btf, btf_members(t)[at].name_off);
		to->type_id = btf_members(t)[at].type;
		to->bit_offset = btf_member_bit_offset(t, at);
		return 0;
	case BTF_KIND_ENUM:
		to->name = btf__name_by_offset(btf, btf_enum(t)[at].name_off);
		to->type_id = 0;
		to->bit_offset = btf_enum(t)[at].val;
		return 0;
	case BTF_KIND_DATASEC: {
		const struct btf_type *var = btf__type_by_id(btf, btf_var_secinfos(t)[at].type);

		to->name = btf__name_by_offset(btf, var->name_off);
		to->type_id = var->type;
		to->bit_offset = btf_var_secinfos(t)[at].offset * 8;
		return 0;
	}
	default:
		return -EINVAL;
	}
}

static struct btf *wm_btf_kernel(void)
{
	return btf__load_vmlinux_btf();
}
