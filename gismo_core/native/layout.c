/*
 * layout.c - pure arithmetic of the format: where the parts of a store lie, size classes, checksums.
 * Touches no memory but its arguments.
 */
#include "crc32c.h"
#include "format.h"

#include <string.h>

static uint64_t align_up(uint64_t value, uint64_t to) { return (value + to - 1) / to * to; }

static uint64_t floor_power_of_two(uint64_t value) {
    uint64_t result = 1;
    while (result <= value / 2)
        result *= 2;
    return result;
}

static uint64_t clamp64(uint64_t value, uint64_t low, uint64_t high) {
    return value < low ? low : value > high ? high : value;
}

int fmt_layout(const struct fmt_shape *shape, struct fmt_superblock *sb, const char **why) {
    memset(sb, 0, sizeof *sb);
    uint64_t size = shape->size_bytes / FMT_PAGE * FMT_PAGE;
    if (size < (1u << 20)) {
        *why = "a store needs at least 1 MiB";
        return -1;
    }
    if (size > (1ull << 48)) {
        *why = "a store can have at most 256 TiB";
        return -1;
    }
    /* A small store has few hosts and few objects: its metadata would else be larger than its data. */
    uint32_t lanes = shape->max_lanes;
    if (lanes == 0)
        lanes = size >= (1ull << 30) ? 64 : size >= (128ull << 20) ? 16 : size >= (16ull << 20) ? 8 : 4;
    if (lanes > FMT_MAX_LANES) {
        *why = "at most 64 hosts can share a store";
        return -1;
    }
    uint64_t segment = clamp64(floor_power_of_two(size / 4096), 64 << 10, 1 << 20);
    uint64_t objects = shape->max_objects;
    if (objects == 0)
        objects = size / (16 << 10);
    uint64_t least = (size / segment) * FMT_CHUNK_SLOTS; /* else chunks run out before pages do */
    if (shape->max_objects == 0 && objects < least)
        objects = least;
    if (shape->max_objects == 0 && objects > 1ull << 31)
        objects = 1ull << 31;
    if (objects < 32 * FMT_CHUNK_SLOTS) /* each size class in use takes a chunk at least */
        objects = 32 * FMT_CHUNK_SLOTS;
    uint64_t chunks = objects / FMT_CHUNK_SLOTS + (objects % FMT_CHUNK_SLOTS != 0); /* no sum that can wrap */
    if (chunks > (1u << 25)) {
        *why = "at most 2^31 objects fit a store";
        return -1;
    }
    uint64_t group_chunks = (chunks + FMT_MAX_GROUPS - 1) / FMT_MAX_GROUPS;
    if (group_chunks < 2)
        group_chunks = 2;
    uint32_t groups = (uint32_t)((chunks + group_chunks - 1) / group_chunks);

    /* Leases in pieces of 1/512, of a small store 1/128: what an arena's border cuts off must stay small. */
    uint64_t arena = clamp64(floor_power_of_two(size / (size >= (4ull << 30) ? 512 : 128)), 64 << 10, 1ull << 48);
    while (size / arena > FMT_MAX_ARENAS - 1)
        arena *= 2;
    uint32_t shift = (uint32_t)__builtin_ctzll(arena);
    uint32_t most_arenas = (uint32_t)((size + arena - 1) / arena);

    sb->magic = FMT_MAGIC;
    sb->format_version = FMT_VERSION;
    sb->line_bytes = FMT_LINE;
    sb->size = size;
    sb->coherence = shape->coherence;
    sb->max_lanes = lanes;
    sb->chunks = chunks;
    sb->groups = groups;
    sb->group_chunks = (uint32_t)group_chunks;
    sb->arena_shift = shift;
    sb->small_max = FMT_SMALL_MAX;
    sb->segment_max = segment;

    uint64_t at = FMT_SUPERBLOCK_BYTES;
    sb->lanes_offset = at;
    at = align_up(at + (uint64_t)lanes * FMT_LANE_BYTES, FMT_PAGE);
    sb->registers_offset = at;
    at = align_up(at + ((uint64_t)most_arenas + groups + lanes) * lanes * FMT_LINE, FMT_PAGE);
    sb->chunks_offset = at;
    at = align_up(at + chunks * sizeof(struct fmt_chunk), FMT_PAGE);
    sb->slots_offset = at;
    at += chunks * FMT_CHUNK_SLOTS * sizeof(struct fmt_slot);
    sb->pins_offset = at;
    at = align_up(at + lanes * chunks * FMT_LINE, FMT_PAGE);
    sb->rings_offset = at;
    at += (uint64_t)lanes * lanes * FMT_RING_BYTES;
    /* Payloads begin on a huge page where that wastes little: less than 1 %, or a store of 140 MB has no 90 % for data. */
    uint64_t border = clamp64(floor_power_of_two(size / 128), FMT_PAGE, 2 << 20);
    at = align_up(at, border);
    sb->data_offset = at;
    if (at + FMT_SUPERBLOCK_BYTES + (64 << 10) > size) {
        *why = "too small for that many hosts and objects: no room for data is left";
        return -1;
    }
    sb->data_bytes = (size - FMT_SUPERBLOCK_BYTES - at) / FMT_PAGE * FMT_PAGE;
    sb->arenas = (uint32_t)((sb->data_bytes + arena - 1) / arena);
    return 0;
}

uint32_t fmt_superblock_crc(const struct fmt_superblock *sb) {
    struct fmt_superblock copy = *sb;
    copy.crc = 0;
    return crc32c(0, &copy, sizeof copy);
}

/* One region: on a page border, inside the store, and after the one before it. */
static int region_ok(uint64_t offset, uint64_t bytes, uint64_t *end, uint64_t size) {
    if (offset % FMT_PAGE != 0 || offset < *end || offset > size || bytes > size - offset)
        return 0;
    *end = offset + bytes;
    return 1;
}

int fmt_superblock_check(const struct fmt_superblock *sb, uint64_t medium_bytes, const char **why) {
    *why = "the medium is shorter than the store: it was cut";
    if (sb->size > medium_bytes && sb->size <= (1ull << 48))
        return -1;
    *why = "a superblock field is out of range";
    if (sb->line_bytes != FMT_LINE || sb->size > medium_bytes || sb->size < (1u << 20) || sb->size % FMT_PAGE)
        return -1;
    if (sb->max_lanes == 0 || sb->max_lanes > FMT_MAX_LANES || sb->coherence > 1)
        return -1;
    if (sb->arenas == 0 || sb->arenas > FMT_MAX_ARENAS || sb->arena_shift < 16 || sb->arena_shift > 48)
        return -1;
    if (sb->groups == 0 || sb->groups > FMT_MAX_GROUPS || sb->group_chunks == 0 || sb->chunks == 0)
        return -1;
    if (sb->chunks > (1u << 25) || (uint64_t)sb->groups * sb->group_chunks < sb->chunks ||
        (uint64_t)(sb->groups - 1) * sb->group_chunks >= sb->chunks)
        return -1;
    if (sb->small_max != FMT_SMALL_MAX || sb->segment_max < (64 << 10) || sb->segment_max > (1 << 20) ||
        (sb->segment_max & (sb->segment_max - 1)))
        return -1;
    uint64_t lanes = sb->max_lanes, end = FMT_SUPERBLOCK_BYTES, size = sb->size - FMT_SUPERBLOCK_BYTES;
    if (!region_ok(sb->lanes_offset, lanes * FMT_LANE_BYTES, &end, size) ||
        !region_ok(sb->registers_offset, ((uint64_t)sb->arenas + sb->groups + lanes) * lanes * FMT_LINE, &end, size) ||
        !region_ok(sb->chunks_offset, sb->chunks * sizeof(struct fmt_chunk), &end, size) ||
        !region_ok(sb->slots_offset, sb->chunks * FMT_PAGE, &end, size) ||
        !region_ok(sb->pins_offset, lanes * sb->chunks * FMT_LINE, &end, size) ||
        !region_ok(sb->rings_offset, lanes * lanes * FMT_RING_BYTES, &end, size) ||
        !region_ok(sb->data_offset, sb->data_bytes, &end, size))
        return -1;
    uint64_t arena = 1ull << sb->arena_shift;
    if (sb->data_bytes == 0 || sb->data_bytes % FMT_PAGE || (sb->data_bytes + arena - 1) / arena != sb->arenas)
        return -1;
    return 0;
}

/* Classes 0..7 are 64, 128 .. 512; then eight a doubling: 576, 640 .. 1024, 1152 .. 32768. */
uint32_t fmt_class_of(uint64_t bytes) {
    if (bytes <= 512)
        return bytes <= 64 ? 0 : (uint32_t)((bytes + 63) / 64 - 1);
    uint32_t doubling = 63 - (uint32_t)__builtin_clzll(bytes - 1); /* 512 < bytes <= 1024: 9 */
    uint32_t step = doubling - 3;
    uint32_t eighth = (uint32_t)((bytes - 1 - (1ull << doubling)) >> step);
    return 8 + (doubling - 9) * 8 + eighth;
}

uint32_t fmt_class_bytes(uint32_t size_class) {
    if (size_class < 8)
        return (size_class + 1) * 64;
    uint32_t doubling = 9 + (size_class - 8) / 8, eighth = (size_class - 8) % 8;
    return (1u << doubling) + ((eighth + 1) << (doubling - 3));
}

uint32_t fmt_class_cells(uint32_t size_class, uint64_t segment_max) {
    uint64_t cells = segment_max / fmt_class_bytes(size_class);
    return cells > FMT_CHUNK_SLOTS ? FMT_CHUNK_SLOTS : cells == 0 ? 1 : (uint32_t)cells;
}

uint64_t fmt_name_entries(uint32_t level) { return 4096ull << (2 * level); }

uint32_t fmt_slot_crc(const struct fmt_slot *slot, uint64_t generation) {
    uint32_t crc = crc32c(0, &generation, sizeof generation);
    return crc32c(crc, (const uint8_t *)slot + 8, 52);
}

uint32_t fmt_chunk_crc(const struct fmt_chunk *chunk, uint64_t word) {
    struct fmt_chunk copy = *chunk;
    copy.word = word;
    return crc32c(0, &copy, 32);
}
