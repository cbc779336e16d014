"""Builds the cffi binding in API mode: the C compiler checks every declaration against libbpf's headers."""

from pathlib import Path

from cffi import FFI

ffi = FFI()

ffi.cdef(
    """
    struct bpf_object; struct bpf_program; struct bpf_map; struct btf; struct ring_buffer;

    int bpf_object__load(struct bpf_object *obj);
    void bpf_object__close(struct bpf_object *obj);
    struct btf *bpf_object__btf(const struct bpf_object *obj);
    struct bpf_program *bpf_object__next_program(const struct bpf_object *obj, struct bpf_program *prog);
    struct bpf_map *bpf_object__next_map(const struct bpf_object *obj, const struct bpf_map *map);

    const char *bpf_program__name(const struct bpf_program *prog);
    const char *bpf_program__section_name(const struct bpf_program *prog);
    int bpf_program__set_autoload(struct bpf_program *prog, _Bool autoload);
    void bpf_program__set_ifindex(struct bpf_program *prog, unsigned int ifindex);
    int bpf_program__type(const struct bpf_program *prog);
    unsigned int bpf_program__flags(const struct bpf_program *prog);
    int bpf_program__set_flags(struct bpf_program *prog, unsigned int flags);
    int bpf_program__set_log_buf(struct bpf_program *prog, char *log_buf, size_t log_size);
    int bpf_program__set_log_level(struct bpf_program *prog, unsigned int log_level);
    int bpf_program__fd(const struct bpf_program *prog);

    const char *bpf_map__name(const struct bpf_map *map);
    int bpf_map__fd(const struct bpf_map *map);
    int bpf_map__reuse_fd(struct bpf_map *map, int fd);
    int bpf_map__set_max_entries(struct bpf_map *map, unsigned int max_entries);
    int bpf_map__set_value_size(struct bpf_map *map, unsigned int size);
    const void *bpf_map__initial_value(struct bpf_map *map, size_t *size);

    int bpf_map_update_elem(int fd, const void *key, const void *value, uint64_t flags);
    int bpf_map_lookup_elem(int fd, const void *key, void *value);
    int bpf_obj_pin(int fd, const char *pathname);
    int bpf_obj_get(const char *pathname);

    int bpf_prog_get_fd_by_id(unsigned int id);
    int bpf_enable_stats(int type);

    struct ring_buffer *wm_ring_open(int map_fd, void *context);
    struct wm_ring_block {
        uint8_t *data; size_t capacity; size_t used;
        uint64_t *offsets; size_t offsets_capacity; size_t count;
        size_t record_max;
    };
    struct ring_buffer *wm_block_ring_open(int map_fd, struct wm_ring_block *block);
    int ring_buffer__consume(struct ring_buffer *rb);
    int ring_buffer__epoll_fd(const struct ring_buffer *rb);
    void ring_buffer__free(struct ring_buffer *rb);
    extern "Python" int wm_ring_record(void *context, void *data, size_t size);

    void wm_keep_messages(void);
    struct bpf_object *wm_object_open(const char *path);
    int wm_program_copy(const struct bpf_program *prog, int mark, int value, char *log, size_t log_size);
    int libbpf_num_possible_cpus(void);
    size_t wm_messages_take(char *to, size_t size);
    int wm_map_create_array(const char *name, unsigned int value_size, unsigned int max_entries);
    int wm_map_create_outer(const char *name, int inner_fd);
    int wm_link_create(int prog_fd, int ifindex, int attach_type, unsigned int flags);
    int wm_link_update(int link_fd, int prog_fd);
    int wm_link_ifindex(int link_fd);
    struct wm_map_shape {
        unsigned int type; unsigned int key_size; unsigned int value_size; unsigned int max_entries;
        unsigned int flags; ...;
    };
    void wm_map_shape(const struct bpf_map *map, struct wm_map_shape *to);
    int wm_map_shape_of(int fd, struct wm_map_shape *to);
    int wm_is_bpffs(const char *path);
    int wm_prog_query(int ifindex, int attach_type, unsigned int *ids, unsigned int *count);
    int wm_xdp_query(int ifindex, unsigned int *prog_id, unsigned int *generic_prog_id);
    int wm_tc_make_qdisc(int ifindex);
    int wm_tc_attach(int ifindex, int egress, int prog_fd, unsigned int handle, unsigned int priority, int replace);
    int wm_tc_detach(int ifindex, int egress, unsigned int handle, unsigned int priority);
    int wm_tc_query(int ifindex, int egress, unsigned int handle, unsigned int priority, unsigned int *prog_id);
    int wm_tc_remove_qdisc(int ifindex);
    struct wm_prog_info {
        unsigned int id; char name[16]; uint64_t run_ns; uint64_t runs; unsigned int jited_bytes; ...;
    };
    int wm_prog_info(int fd, struct wm_prog_info *to);
    struct wm_skb_context { uint32_t gso_size; uint32_t gso_segs; ...; };
    int wm_test_run(int prog_fd, const void *data, unsigned int size, const struct wm_skb_context *context,
                    int repeat, unsigned int *retval, unsigned int *duration_ns);

    struct wm_btf_member { const char *name; unsigned int type_id; unsigned int bit_offset; ...; };
    struct wm_btf_type {
        int kind; unsigned int size; unsigned int type_id; unsigned int count; ...;
    };
    int wm_btf_find(const struct btf *btf, const char *name, int kind);
    int wm_btf_type(const struct btf *btf, unsigned int id, struct wm_btf_type *to);
    int wm_btf_member(const struct btf *btf, unsigned int id, unsigned int at, struct wm_btf_member *to);
    struct btf *wm_btf_kernel(void);
    void btf__free(struct btf *btf);
    """
)

ffi.set_source(
    "wiremeter.libbpf._libbpf",
    Path(__file__).with_name("shim.c").read_text(),
    libraries=["bpf"],
    extra_compile_args=["-O2", "-g0", "-Wall", "-Wno-unused-function"],
)

if __name__ == "__main__":
    ffi.compile(verbose=True)
