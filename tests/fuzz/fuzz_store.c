/*
 * fuzz_store.c - a libFuzzer target: a valid, populated store is damaged as the input says, opened, and used.
 *
 * Whatever the medium holds, the core answers with an object or a typed error: no crash, no access outside its
 * mappings, no wait without end, no descriptor or mapping left behind.
 *
 * An input: image, flags, number of mutations, mutations, operations. Built by test_fuzz.py (see there) with the
 * sources of the core under AddressSanitizer and UBSan and with simulated.h. With -DFUZZ_SELFTEST the target itself
 * believes one offset that it reads from the medium, which the fuzzer has to find.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "crc32c.h"
#include "format.h"
#include "gismo.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#undef mmap
#undef munmap
#undef nanosleep
#undef clock_gettime

#define STORE_BYTES (1u << 20)
#define IMAGES 4
#define MUTATIONS 24
#define OPERATIONS 40
#define HANDLES 64
#define LONGEST_WAIT_NS 300000000000ull /* of simulated time, per input */

#define MUST(condition, ...)                                                                                           \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition);                                            \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            fputc('\n', stderr);                                                                                       \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* ---- mappings with walls, time without waiting ------------------------------------------------- */

#define WALL (1ull << 32)
#define PLACES 64

static uint8_t *walled; /* PLACES times a wall and room for a mapping, and a wall */
static size_t place_bytes[PLACES];

static uint8_t *place_at(int i) { return walled + (2 * (uint64_t)i + 1) * WALL; }

void *fuzz_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset);
void *fuzz_mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    MUST(address == NULL && length > 0, "only plain mappings are known here");
    if (length > WALL)
        return mmap(NULL, length, protection, flags, fd, offset);
    int i = 0;
    while (place_bytes[i]) {
        i++;
        MUST(i < PLACES, "the core has %d mappings: it leaves some behind", i);
    }
    void *p = mmap(place_at(i), length, protection, flags | MAP_FIXED, fd, offset);
    if (p != MAP_FAILED)
        place_bytes[i] = (length + 4095) & ~4095ull;
    else
        (void)mmap(place_at(i), length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    return p;
}

int fuzz_munmap(void *address, size_t length);
int fuzz_munmap(void *address, size_t length) {
    uint64_t at = (uint64_t)((uint8_t *)address - walled);
    if ((uint8_t *)address < walled || at >= (2 * PLACES + 1) * WALL)
        return munmap(address, length);
    int i = (int)((at / WALL - 1) / 2);
    MUST(address == place_at(i) && ((length + 4095) & ~4095ull) == place_bytes[i], "munmap of a part");
    place_bytes[i] = 0;
    void *p = mmap(address, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    return p == MAP_FAILED ? -1 : 0;
}

static int mappings(void) {
    int n = 0;
    for (int i = 0; i < PLACES; i++)
        n += place_bytes[i] != 0;
    return n;
}

static uint64_t waited_ns;

int fuzz_nanosleep(const struct timespec *wanted, struct timespec *left);
int fuzz_nanosleep(const struct timespec *wanted, struct timespec *left) {
    (void)left;
    waited_ns += 10 * ((uint64_t)wanted->tv_sec * 1000000000u + (uint64_t)wanted->tv_nsec); /* a busy machine */
    MUST(waited_ns < LONGEST_WAIT_NS, "the core waits for ever");
    return 0;
}

int fuzz_clock_gettime(clockid_t clock, struct timespec *out);
int fuzz_clock_gettime(clockid_t clock, struct timespec *out) {
    uint64_t base = clock == CLOCK_MONOTONIC ? 1000000000000ull : 1800000000000000000ull, now = base + waited_ns;
    out->tv_sec = (time_t)(now / 1000000000u);
    out->tv_nsec = (long)(now % 1000000000u);
    waited_ns += 1000; /* what looks at the clock until it has moved on must not look for ever */
    return 0;
}

/* ---- the stack, looked up once ------------------------------------------------------------------- */

/*
 * AddressSanitizer asks where the stack is at each jump out of the middle, that is at each access beyond a truncated medium, and glibc
 * reads all of /proc/self/maps for that: a tenth of all the time. Only the thread of libFuzzer asks, whose stack stays where it is.
 */
int pthread_getattr_np(pthread_t thread, pthread_attr_t *attributes) {
    static void *stack;
    static size_t bytes;
    static pthread_t of;
    if (stack == NULL || of != thread) {
        int (*really)(pthread_t, pthread_attr_t *) = (int (*)(pthread_t, pthread_attr_t *))dlsym(RTLD_NEXT, __func__);
        int failed = really(thread, attributes);
        if (failed == 0 && pthread_attr_getstack(attributes, &stack, &bytes) == 0)
            of = thread;
        return failed;
    }
    int failed = pthread_attr_init(attributes);
    return failed ? failed : pthread_attr_setstack(attributes, stack, bytes);
}

/* ---- images ------------------------------------------------------------------------------------ */

static uint8_t *image[IMAGES];
static struct fmt_superblock shape; /* of an undamaged store */
static gismo_handle known[HANDLES];
static uint32_t known_count;
static char folder[256], store_path[300], state_path[300];
static int disk_fd;
static uint8_t *disk; /* the file under test, mapped for us */

static void remove_tree(const char *path) {
    DIR *d = opendir(path);
    if (d == NULL)
        return;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (unlinkat(dirfd(d), e->d_name, 0) != 0) {
            char inner[600];
            snprintf(inner, sizeof inner, "%s/%s", path, e->d_name);
            remove_tree(inner);
        }
    }
    closedir(d);
    rmdir(path);
}

static void must_be_ok(int status, const char *what) {
    MUST(status == GISMO_OK, "%s: %s", what, gismo_error_message());
}

static gismo_handle put_one(gismo_store *s, uint64_t bytes, const char *name, uint32_t parts) {
    static uint8_t payload[128 << 10];
    for (uint64_t i = 0; i < bytes; i++)
        payload[i] = (uint8_t)(i * 7 + bytes);
    gismo_buffer buffers[8];
    for (uint32_t i = 0; i < parts; i++)
        buffers[i] = (gismo_buffer){payload, bytes / parts};
    gismo_create_options o = {.name = name, .name_bytes = name ? (uint32_t)strlen(name) : 0, .tag = bytes};
    gismo_handle h;
    must_be_ok(gismo_put(s, buffers, parts, &o, &h), "put");
    if (known_count < HANDLES)
        known[known_count++] = h;
    return h;
}

static uint8_t *snapshot(void) {
    uint8_t *copy = malloc(STORE_BYTES);
    memcpy(copy, disk, STORE_BYTES);
    return copy;
}

static void make_quiet(uint8_t *base) {
    struct fmt_identity *lanes = (void *)(base + shape.lanes_offset);
    for (uint32_t i = 0; i < shape.max_lanes; i++)
        if (FMT_STATE(lanes[i].state_word) == GISMO_LANE_ACTIVE)
            lanes[i].state_word = FMT_WORD(FMT_GENERATION(lanes[i].state_word), GISMO_LANE_QUIET);
}

/* 0: two hosts at work; 1: the first has left; 2: both were killed, their lanes can be taken; 3: 2 as if incoherent. */
static void make_images(void) {
    gismo_format_options f = {
        .size_bytes = STORE_BYTES, .max_hosts = 4, .max_objects = 2048, .store_uuid = {1, 2, 3, 4, 5, 6, 7, 8}};
    must_be_ok(gismo_format(store_path, &f, NULL, NULL, NULL), "format");
    disk_fd = open(store_path, O_RDWR | O_CLOEXEC);
    disk = mmap(NULL, STORE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, disk_fd, 0);
    MUST(disk_fd >= 0 && disk != MAP_FAILED, "cannot map %s", store_path);
    memcpy(&shape, disk, sizeof shape);

    char other_state[320];
    snprintf(other_state, sizeof other_state, "%s/other", folder);
    gismo_store *a, *b;
    gismo_open_options oa = {.state_dir = state_path, .host_id = -1, .no_thread = 1};
    gismo_open_options ob = {.state_dir = other_state, .host_id = -1, .no_thread = 1};
    must_be_ok(gismo_open(store_path, &oa, &a), "open");
    must_be_ok(gismo_open(store_path, &ob, &b), "open");
    for (uint64_t n = 1; n <= 9; n++)
        put_one(a, n * n * 20, NULL, 1);
    gismo_handle named = put_one(a, 100, "first", 1);
    put_one(a, 5000, "second", 3);
    gismo_handle large = put_one(a, 70000, "large", 4);
    put_one(b, 64, "of the other", 1);
    put_one(b, 40000, NULL, 2);
    gismo_handle asked = put_one(a, 64, NULL, 1), held = put_one(a, 64, NULL, 1), gone = put_one(a, 640, NULL, 1);
    gismo_view view;
    must_be_ok(gismo_get(b, &named, &view), "get");
    must_be_ok(gismo_get(b, &held, &view), "get");
    must_be_ok(gismo_get(a, &large, &view), "get");
    must_be_ok(gismo_delete(a, &held), "delete");  /* waits for the other host: CLEAR in the ring */
    must_be_ok(gismo_delete(b, &asked), "delete"); /* asked of the owner: DELETE in the ring */
    must_be_ok(gismo_delete(a, &gone), "delete");
    gismo_object unsealed;
    must_be_ok(gismo_create(a, 300, NULL, &unsealed), "create");
    must_be_ok(gismo_tick(a) < 0 ? GISMO_ECORRUPT : GISMO_OK, "tick");
    image[0] = snapshot();
    must_be_ok(gismo_release(a, large.slot), "release");
    must_be_ok(gismo_close(a), "close");
    gismo_free(a);
    image[1] = snapshot();
    for (int i = 2; i < IMAGES; i++) {
        image[i] = malloc(STORE_BYTES);
        memcpy(image[i], image[0], STORE_BYTES);
        make_quiet(image[i]);
    }
    struct fmt_superblock *software = (void *)image[3];
    software->coherence = GISMO_COHERENCE_SOFTWARE;
    software->crc = fmt_superblock_crc(software);
    memcpy(image[3] + STORE_BYTES - sizeof *software, software, sizeof *software);
    must_be_ok(gismo_release(b, named.slot), "release");
    must_be_ok(gismo_release(b, held.slot), "release");
    must_be_ok(gismo_close(b), "close");
    gismo_free(b);
    remove_tree(state_path);
    remove_tree(other_state);
}

static void clean_up(void) { remove_tree(folder); }

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    walled = mmap(NULL, (2 * PLACES + 1) * WALL, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    MUST(walled != MAP_FAILED, "no address space");
    const char *given = getenv("FUZZ_FOLDER"); /* removed by who gave it: libFuzzer ends without atexit */
    if (given) {
        snprintf(folder, sizeof folder, "%s", given);
    } else {
        snprintf(folder, sizeof folder, "%s/gismo-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        MUST(mkdtemp(folder), "cannot make %s", folder);
        atexit(clean_up);
    }
    snprintf(store_path, sizeof store_path, "%s/store", folder);
    snprintf(state_path, sizeof state_path, "%s/state", folder);
    make_images();
    return 0;
}

/* ---- reading the input -------------------------------------------------------------------------- */

struct input {
    const uint8_t *at;
    size_t left;
};

static uint8_t u8(struct input *in) {
    if (in->left == 0)
        return 0;
    in->left--;
    return *in->at++;
}

static uint16_t u16(struct input *in) {
    uint8_t low = u8(in);
    return (uint16_t)(low | u8(in) << 8);
}

/* A number that is likely to be just wrong: small, huge, near a border, or anything. */
static uint64_t number(struct input *in) {
    uint8_t how = u8(in);
    uint64_t v = u16(in);
    switch (how % 10) {
    case 0:
        return v;
    case 1:
        return ~v;
    case 2:
        return v << 6;
    case 3:
        return v << 12;
    case 4:
        return shape.data_offset + (v << 6);
    case 5:
        return shape.data_offset + shape.data_bytes - (v << 6);
    case 6:
        return STORE_BYTES - v;
    case 7:
        return v << (how / 10 * 2 + 8) % 64;
    case 8:
        return 1ull << (v % 64);
    default:
        return v << 48 | (uint64_t)u16(in) << 32 | (uint64_t)u16(in) << 16 | u16(in);
    }
}

/* ---- damage -------------------------------------------------------------------------------------- */

static void fix_superblock(uint8_t how) {
    struct fmt_superblock *sb = (void *)disk;
    if (how & 1)
        sb->crc = fmt_superblock_crc(sb);
    if (how & 2)
        memcpy(disk + STORE_BYTES - sizeof *sb, sb, sizeof *sb);
}

static void poke(uint64_t region, uint64_t bytes, struct input *in) {
    uint64_t at = region + (uint64_t)u16(in) * 8 % bytes;
    uint64_t value = number(in), old;
    memcpy(&old, disk + at, 8);
    switch (u8(in) % 4) {
    case 0:
        break;
    case 1:
        value ^= old;
        break;
    case 2:
        value += old;
        break;
    default:
        value = (old & ~0xffull) | (value & 0xff); /* a state, a kind */
        break;
    }
    memcpy(disk + at, &value, 8);
}

/* Any field of a record of 64 bytes that is in use, if one can be found from where the input points. */
static uint64_t record_in_use(uint64_t region, uint64_t count, struct input *in) {
    uint64_t from = u16(in) % count;
    for (uint64_t n = 0; n < count; n++) {
        uint64_t i = (from + n) % count;
        if (disk[region + i * 64])
            return i;
    }
    return from;
}

static void mutate(struct input *in) {
    static const uint8_t fields_4[] = {8, 12, 72, 76, 152, 156, 160, 164};
    static const uint8_t fields_8[] = {16, 24, 32, 56, 80, 88, 96, 104, 112, 120, 128, 136, 144, 168, 176};
    uint64_t slots = shape.chunks * FMT_CHUNK_SLOTS;
    switch (u8(in) % 16) {
    case 0: { /* a field of the superblock */
        uint8_t field = u8(in), how = u8(in);
        uint64_t value = number(in), old = 0;
        uint8_t at = field % 2 ? fields_4[field / 2 % sizeof fields_4] : fields_8[field / 2 % sizeof fields_8];
        memcpy(&old, disk + at, field % 2 ? 4 : 8);
        value = how & 4 ? old + value : how & 8 ? old - value : value;
        memcpy(disk + at, &value, field % 2 ? 4 : 8);
        fix_superblock(how | (how & 16 ? 0 : 1));
        break;
    }
    case 1: /* whatever else stands in it */
        disk[u16(in) % FMT_SUPERBLOCK_BYTES] ^= (uint8_t)(1u << (u8(in) % 8));
        fix_superblock(u8(in));
        break;
    case 2: /* lanes: states, identities, roots of name tables, maps */
        poke(shape.lanes_offset, shape.registers_offset - shape.lanes_offset, in);
        break;
    case 3: { /* a register with the right checksum */
        uint64_t halves = (shape.chunks_offset - shape.registers_offset) / sizeof(struct fmt_register_half);
        uint64_t at = shape.registers_offset + u16(in) % halves * sizeof(struct fmt_register_half);
        poke(at, 24, in);
        struct fmt_register_half *h = (void *)(disk + at);
        if (h->sequence == 0)
            h->sequence = u8(in);
        h->crc = crc32c(0, h, offsetof(struct fmt_register_half, crc));
        break;
    }
    case 4:
        poke(shape.registers_offset, shape.chunks_offset - shape.registers_offset, in);
        break;
    case 5: { /* a chunk header with the right checksum */
        uint64_t at = shape.chunks_offset + record_in_use(shape.chunks_offset, shape.chunks, in) * 64;
        poke(at, 32, in);
        struct fmt_chunk *h = (void *)(disk + at);
        h->crc = fmt_chunk_crc(h, h->word);
        break;
    }
    case 6:
        poke(shape.chunks_offset, shape.chunks * 64, in);
        break;
    case 7:
    case 8:
    case 9: { /* a slot with the right checksum */
        uint64_t at = shape.slots_offset + record_in_use(shape.slots_offset, slots, in) * 64;
        poke(at, 60, in);
        struct fmt_slot *slot = (void *)(disk + at);
        slot->crc = fmt_slot_crc(slot, FMT_GENERATION(slot->word));
        break;
    }
    case 10:
        poke(shape.slots_offset, slots * 64, in);
        break;
    case 11: /* pin bytes */
        disk[shape.pins_offset + u16(in) % (shape.max_lanes * shape.chunks * FMT_LINE)] = u8(in);
        break;
    case 12: { /* rings: messages with the right check, or heads and tails */
        uint64_t from = u8(in) % shape.max_lanes, to = u8(in) % shape.max_lanes;
        struct fmt_ring *ring = (void *)(disk + shape.rings_offset + (from * shape.max_lanes + to) * FMT_RING_BYTES);
        uint8_t how = u8(in);
        if (how % 4 == 0)
            ring->tail += number(in);
        else if (how % 4 == 1)
            ring->head += number(in);
        else {
            struct fmt_ring_cell *cell = &ring->cell[ring->tail % FMT_RING_CELLS];
            cell->sequence = ring->tail + 1;
            cell->what = number(in) % 16 << 32 | (number(in) & 0xffffffff);
            cell->value = number(in);
            cell->check = crc32c(0, cell, 3 * sizeof(uint64_t));
            ring->tail++;
        }
        break;
    }
    case 13: /* data: name tables, tables of buffers, names, payloads */
        poke(shape.data_offset, shape.data_bytes, in);
        break;
    case 14: { /* a whole page of one byte, or of another page */
        uint64_t to = u16(in) % (STORE_BYTES / 4096), from = u16(in) % (STORE_BYTES / 4096);
        if (u8(in) % 2)
            memcpy(disk + to * 4096, image[0] + from * 4096, 4096);
        else
            memset(disk + to * 4096, u8(in), 4096);
        break;
    }
    default: { /* a bit of the metadata, anywhere */
        uint64_t at = ((uint64_t)u16(in) << 8 | u8(in)) % shape.data_offset;
        disk[at] ^= (uint8_t)(1u << (u8(in) % 8));
        break;
    }
    }
}

static uint64_t disk_bytes; /* what the file has now */

static void truncate_to(uint64_t bytes) {
    if (ftruncate(disk_fd, (off_t)bytes) == 0)
        disk_bytes = bytes;
}

/* ---- use ------------------------------------------------------------------------------------------ */

struct session {
    gismo_store *s;
    gismo_handle handle[HANDLES];
    uint32_t handles;
    gismo_view view[HANDLES];
    uint32_t views;
    gismo_object object[8];
    uint32_t objects;
};

static volatile uint64_t sink; /* reading is the point */

static void remember(struct session *t, const gismo_handle *h) { t->handle[t->handles++ % HANDLES] = *h; }

static const gismo_handle *some_handle(struct session *t, uint8_t which) {
    uint32_t n = t->handles < HANDLES ? t->handles : HANDLES;
    return &t->handle[n ? which % n : 0];
}

static int status_ok(int status) {
    MUST(status >= GISMO_EUNSUPPORTED, "an unknown status: %d", status);
    MUST(status >= 0 || status == GISMO_ENOTFOUND || gismo_error_message()[0], "an error without words: %d", status);
    return status;
}

static void inside(const uint8_t *p, uint64_t bytes) {
    for (int i = 0; i < PLACES; i++)
        if (place_bytes[i] && p >= place_at(i) && bytes <= place_bytes[i] &&
            (uint64_t)(p - place_at(i)) <= place_bytes[i] - bytes)
            return;
    MUST(false, "a view of %llu bytes that is in no mapping", (unsigned long long)bytes);
}

static void look_at(struct session *t, const gismo_view *view) {
    inside(view->data, view->length);
    MUST(view->buffers >= 1 && view->buffers <= GISMO_BUFFERS_MAX && view->name_bytes <= GISMO_NAME_MAX, "view");
    if (disk_bytes == STORE_BYTES && view->length) { /* the reader's own loads have no guard */
        const uint8_t *bytes = view->data;
        sink += bytes[0] + bytes[view->length / 2] + bytes[view->length - 1];
    }
    uint64_t *lengths = malloc(8ull * view->buffers);
    char name[GISMO_NAME_MAX];
    if (lengths && status_ok(gismo_view_buffers(t->s, view, lengths)) == GISMO_OK) {
        uint64_t total = 0;
        for (uint32_t i = 0; i < view->buffers; i++)
            total = ((total + 63) & ~63ull) + lengths[i];
        MUST(total <= view->length, "buffers beyond the payload");
    }
    free(lengths);
    int got = status_ok(gismo_view_name(t->s, view, name));
    MUST(got <= (int)GISMO_NAME_MAX, "a name too long");
    status_ok(gismo_view_verify(t->s, view));
}

static void count_report(uint32_t severity, const char *code, const char *message, uint64_t slot, void *ctx) {
    (void)slot;
    MUST(severity <= GISMO_FSCK_REPAIRED && code[0] && message[0], "an empty report");
    ++*(uint64_t *)ctx;
}

static void list(struct session *t) {
    uint64_t cursor = 0;
    gismo_object_info info;
    uint32_t n = 0;
    while (status_ok(gismo_next(t->s, &cursor, &info)) == GISMO_OK) {
        MUST(++n <= shape.chunks * FMT_CHUNK_SLOTS * 64 && info.name_bytes <= GISMO_NAME_MAX, "a list without end");
        remember(t, &info.handle);
    }
}

static void fsck(struct session *t, uint32_t flags) {
    gismo_fsck_result result;
    uint64_t reports = 0;
    status_ok(gismo_fsck(t->s, flags, count_report, &reports, &result));
}

static void operate(struct session *t, struct input *in) {
    static const char *names[] = {"first", "second", "large", "of the other", "new", "x"};
    static const uint8_t payload[96 << 10];
    uint8_t kind = u8(in), which = u8(in);
    switch (kind % 22) {
    case 0:
        list(t);
        break;
    case 1:
    case 2: {
        gismo_view view;
        if (status_ok(gismo_get(t->s, some_handle(t, which), &view)) != GISMO_OK)
            break;
        look_at(t, &view);
        if (t->views < HANDLES)
            t->view[t->views++] = view;
        else
            status_ok(gismo_release(t->s, view.slot));
        break;
    }
    case 3:
        if (t->views) {
            uint32_t i = which % t->views;
            status_ok(gismo_release(t->s, t->view[i].slot));
            t->view[i] = t->view[--t->views];
        }
        break;
    case 4: {
        gismo_handle h;
        const char *name = names[which % 6];
        if (status_ok(gismo_lookup(t->s, name, (uint32_t)strlen(name), 0, &h)) == GISMO_OK)
            remember(t, &h);
        break;
    }
    case 5:
    case 6:
        status_ok(gismo_delete(t->s, some_handle(t, which)));
        break;
    case 7:
    case 8:
    case 9: { /* put */
        uint64_t bytes = u16(in);
        gismo_buffer buffers[3] = {{payload, bytes}, {payload, bytes / 3}, {payload, which}};
        const char *name = which % 4 == 0 ? names[which / 4 % 6] : NULL;
        gismo_create_options o = {.name = name, .name_bytes = name ? (uint32_t)strlen(name) : 0, .tag = which};
        gismo_handle h;
        if (status_ok(gismo_put(t->s, buffers, which % 3 + 1, &o, &h)) == GISMO_OK)
            remember(t, &h);
        break;
    }
    case 10: { /* create, written in full */
        uint64_t bytes = (uint64_t)u16(in) << (which % 6);
        gismo_object object;
        if (status_ok(gismo_create(t->s, bytes, NULL, &object)) != GISMO_OK)
            break;
        inside(object.data, bytes);
        if (disk_bytes == STORE_BYTES)
            memset(object.data, which, bytes);
        if (t->objects < 8)
            t->object[t->objects++] = object;
        else
            status_ok(gismo_abort(t->s, &object));
        break;
    }
    case 11:
    case 12:
        if (t->objects) {
            gismo_object *o = &t->object[which % t->objects];
            gismo_handle h = o->handle;
            if (kind % 22 == 12)
                status_ok(gismo_abort(t->s, o));
            else if (status_ok(gismo_seal(t->s, o, which & 1)) == GISMO_OK)
                remember(t, &h);
            *o = t->object[--t->objects];
        }
        break;
    case 13: {
        gismo_stats stats;
        status_ok(gismo_get_stats(t->s, &stats));
        break;
    }
    case 14: {
        gismo_host_info host;
        for (uint32_t i = 0; status_ok(gismo_host(t->s, i, &host)) == GISMO_OK; i++)
            MUST(i < FMT_MAX_LANES, "hosts without end");
        gismo_evict_result evicted; /* called again while it says busy, as a user would; force counts from the first */
        for (int tries = 0; tries < 3; tries++)
            status_ok(gismo_evict_host(t->s, which % 5, NULL, which / 5 % 4, &evicted));
        break;
    }
    case 15: {
        uint32_t cursor = 0, n = 0;
        gismo_process_info process;
        while (status_ok(gismo_process(t->s, &cursor, &process)) == GISMO_OK)
            MUST(++n <= 1024, "processes without end");
        break;
    }
    case 16:
        fsck(t, which % 4);
        break;
    case 17:
        status_ok(gismo_tick(t->s));
        break;
    case 18: { /* a handle with one damaged field */
        gismo_handle h = *some_handle(t, which);
        uint64_t value = number(in);
        memcpy((uint8_t *)&h + u8(in) % 6 * 8, &value, 8);
        remember(t, &h);
        break;
    }
    case 19: /* the file shrinks, and perhaps grows again, full of zeroes, under the mapping */
        truncate_to((uint64_t)(which % 128) * STORE_BYTES / 128);
        if (which >= 128)
            truncate_to(STORE_BYTES);
        break;
    case 20: /* somebody writes to the medium meanwhile */
        if (disk_bytes == STORE_BYTES)
            mutate(in);
        break;
    default:
        if (t->views) {
            gismo_handle h;
            const gismo_view *view = &t->view[which % t->views];
            status_ok(gismo_find_pinned(t->s, (const uint8_t *)view->data + which, &h));
            if (status_ok(gismo_retain(t->s, view->slot)) == GISMO_OK)
                status_ok(gismo_release(t->s, view->slot));
        }
        break;
    }
}

#ifdef FUZZ_SELFTEST
/* What the core must never do: believe the slot. */
static void believe(void) {
    for (uint64_t i = 0; i < shape.chunks * FMT_CHUNK_SLOTS; i++) {
        const struct fmt_slot *slot = (const void *)(disk + shape.slots_offset + i * 64);
        if (FMT_STATE(slot->word) == GISMO_SEALED && slot->length && slot->offset != 0 &&
            fmt_slot_crc(slot, FMT_GENERATION(slot->word)) == slot->crc)
            sink += disk[slot->offset + slot->length - 1];
    }
}
#endif

static int lowest_descriptor(void) {
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    close(fd);
    return fd;
}

static void name_descriptors(void) {
    char link[64], target[300];
    for (int fd = 0; fd < 64; fd++) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(link, target, sizeof target - 1);
        if (n > 0)
            fprintf(stderr, "descriptor %d: %.*s\n", fd, (int)n, target);
    }
    fprintf(stderr, "last error: %s\n", gismo_error_message());
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct input in = {data, size};

    int descriptors = lowest_descriptor();
    waited_ns = 0;
    uint8_t which = u8(&in), flags = u8(&in);
    if (disk_bytes != STORE_BYTES)
        truncate_to(STORE_BYTES);
    memcpy(disk, image[which % IMAGES], STORE_BYTES);
    for (uint32_t n = u8(&in) % (MUTATIONS + 1); n; n--)
        mutate(&in);
    if (flags % 32 == 1)
        truncate_to((uint64_t)u16(&in) * STORE_BYTES / 65536);
#ifdef FUZZ_SELFTEST
    if (disk_bytes == STORE_BYTES)
        believe();
#endif
    gismo_info info;
    if (flags & 64)
        status_ok(gismo_probe(store_path, &info));
    struct session t;
    t.s = NULL;
    t.handles = t.views = t.objects = 0;
    for (uint32_t i = 0; i < known_count; i++)
        remember(&t, &known[i]);
    gismo_open_options o = {
        .state_dir = state_path, .host_id = flags % 8 == 2 ? u8(&in) % 5 : -1, .read_only = flags >> 7, .no_thread = 1};
    if (status_ok(gismo_open(store_path, &o, &t.s)) == GISMO_OK) {
        status_ok(gismo_get_info(t.s, &info));
        if (in.left == 0)
            list(&t);
        for (uint32_t n = 0; in.left && n < OPERATIONS; n++)
            operate(&t, &in);
        if (flags & 8)
            fsck(&t, flags & 16 ? GISMO_FSCK_REPAIR | GISMO_FSCK_VERIFY : 0);
        bool late = flags & 32; /* views outlive the store */
        if (late)
            status_ok(gismo_close(t.s));
        while (t.views)
            status_ok(gismo_release(t.s, t.view[--t.views].slot));
        status_ok(gismo_close(t.s));
        gismo_free(t.s);
    }
    remove_tree(state_path);
    if (lowest_descriptor() != descriptors || mappings() != 0)
        name_descriptors();
    MUST(lowest_descriptor() == descriptors, "a descriptor was left open");
    MUST(mappings() == 0, "%d mappings were left behind", mappings());
    return 0;
}
