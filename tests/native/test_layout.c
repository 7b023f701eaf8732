/*
 * test_layout.c - layout.c: size classes at every size, layouts of every shape, and what a superblock check lets through.
 */
/* variants: plain asan */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "check.h"
#include "format.h"
#include "gismo.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LANES_MAX FMT_MAX_LANES
#define ULL(x) ((unsigned long long)(x))

/* ---- size classes ------------------------------------------------------------------------------- */

static void test_classes(void) {
    CHECK(fmt_class_bytes(0) == 64 && fmt_class_bytes(FMT_CLASSES - 1) == FMT_SMALL_MAX, "the ends");
    for (uint32_t k = 0; k + 1 < FMT_CLASSES; k++)
        CHECK(fmt_class_bytes(k) < fmt_class_bytes(k + 1), "class %u", k);
    for (uint32_t bytes = 0; bytes <= FMT_SMALL_MAX; bytes++) {
        uint32_t k = fmt_class_of(bytes);
        CHECK(k < FMT_CLASSES, "%u bytes: class %u", bytes, k);
        uint32_t cell = fmt_class_bytes(k);
        CHECK(cell >= bytes && cell % FMT_LINE == 0, "%u bytes in a cell of %u", bytes, cell);
        CHECK(k == 0 || fmt_class_bytes(k - 1) < bytes, "%u bytes: class %u is not the smallest", bytes, k);
        if (bytes > 512)
            CHECK((cell - bytes) * 8 <= cell, "%u bytes waste %u of %u", bytes, cell - bytes, cell);
    }
    for (uint64_t segment = 64 << 10; segment <= 1 << 20; segment *= 2)
        for (uint32_t k = 0; k < FMT_CLASSES; k++) {
            uint32_t cells = fmt_class_cells(k, segment);
            CHECK(cells >= 1 && cells <= FMT_CHUNK_SLOTS, "class %u: %u cells", k, cells);
            CHECK(cells == 1 || (uint64_t)cells * fmt_class_bytes(k) <= segment, "class %u: beyond the segment", k);
        }
}

/* ---- layouts -------------------------------------------------------------------------------------- */

struct region {
    uint64_t at, bytes;
};

static void regions(const struct fmt_superblock *sb, struct region out[7]) {
    uint64_t lanes = sb->max_lanes;
    out[0] = (struct region){sb->lanes_offset, lanes * FMT_LANE_BYTES};
    out[1] = (struct region){sb->registers_offset, (sb->arenas + sb->groups + lanes) * lanes * FMT_LINE};
    out[2] = (struct region){sb->chunks_offset, sb->chunks * FMT_LINE};
    out[3] = (struct region){sb->slots_offset, sb->chunks * FMT_PAGE};
    out[4] = (struct region){sb->pins_offset, lanes * sb->chunks * FMT_LINE};
    out[5] = (struct region){sb->rings_offset, lanes * lanes * FMT_RING_BYTES};
    out[6] = (struct region){sb->data_offset, sb->data_bytes};
}

/* What the rest of the core relies on, said once more and in other words than fmt_superblock_check. */
static bool is_sound(const struct fmt_superblock *sb, uint64_t medium) {
    struct region r[7];
    regions(sb, r);
    if (sb->size > medium || sb->size % FMT_PAGE || sb->max_lanes < 1 || sb->max_lanes > LANES_MAX)
        return false;
    if (sb->arenas < 1 || sb->arenas > FMT_MAX_ARENAS || sb->groups < 1 || sb->groups > FMT_MAX_GROUPS)
        return false;
    unsigned __int128 end = FMT_SUPERBLOCK_BYTES;
    for (int i = 0; i < 7; i++) {
        if (r[i].at < end || r[i].at % FMT_PAGE)
            return false;
        end = (unsigned __int128)r[i].at + r[i].bytes;
    }
    if (end > sb->size - FMT_SUPERBLOCK_BYTES)
        return false;
    unsigned __int128 arena = (unsigned __int128)1 << sb->arena_shift;
    if (sb->data_bytes % FMT_PAGE || arena * sb->arenas < sb->data_bytes || arena * (sb->arenas - 1) >= sb->data_bytes)
        return false;
    return (uint64_t)sb->groups * sb->group_chunks >= sb->chunks &&
           (uint64_t)(sb->groups - 1) * sb->group_chunks < sb->chunks && sb->small_max == FMT_SMALL_MAX;
}

static uint64_t state = 88172645463325252ull;
static uint64_t random64(void) {
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static uint32_t layouts;

static void try_shape(uint64_t size, uint64_t objects, uint32_t lanes, bool must) {
    struct fmt_shape shape = {size, objects, lanes, (uint32_t)(random64() & 1)};
    struct fmt_superblock sb;
    const char *why = NULL;
    if (fmt_layout(&shape, &sb, &why) != 0) {
        CHECK(!must && why && why[0], "%llu bytes, %llu objects, %u hosts: %s", ULL(size), ULL(objects), lanes, why);
        return;
    }
    layouts++;
    CHECK(fmt_superblock_check(&sb, size, &why) == 0, "%llu bytes, %llu objects, %u hosts: %s", ULL(size), ULL(objects),
          lanes, why);
    CHECK(is_sound(&sb, size), "%llu bytes, %llu objects, %u hosts", ULL(size), ULL(objects), lanes);
    CHECK(fmt_superblock_check(&sb, sb.size - 1, &why) != 0, "a medium one byte short");
    CHECK(sb.size <= size && size - sb.size < FMT_PAGE, "uses what is there");
    CHECK(sb.chunks * FMT_CHUNK_SLOTS >= objects, "room for the objects asked for");
    CHECK(lanes == 0 || sb.max_lanes == lanes, "the hosts asked for");
    CHECK(sb.data_offset + sb.data_bytes + FMT_SUPERBLOCK_BYTES + FMT_PAGE > sb.size, "nothing is left over");
    CHECK(sb.segment_max >= (64 << 10) && sb.segment_max <= (1 << 20), "segment");
    if (objects == 0 && lanes == 0 && size >= 8 << 20) /* by default the metadata are a small part */
        CHECK(sb.data_bytes >= size / 100 * (size >= 64 << 20 ? 90 : 75), "%llu bytes: only %llu for data", ULL(size),
              ULL(sb.data_bytes));
    uint32_t crc = fmt_superblock_crc(&sb);
    for (int i = 0; i < 8; i++) { /* every byte counts */
        struct fmt_superblock other = sb;
        uint64_t at = random64() % sizeof other;
        if (at >= offsetof(struct fmt_superblock, crc) && at < offsetof(struct fmt_superblock, crc) + 4)
            continue;
        ((uint8_t *)&other)[at] ^= (uint8_t)(1u << (random64() % 8));
        CHECK(fmt_superblock_crc(&other) != crc, "a changed byte at %llu", ULL(at));
    }
}

static void test_layouts(void) {
    for (uint64_t size = 1 << 20; size <= 1ull << 48; size *= 2)
        for (int odd = -1; odd <= 1; odd++) {
            uint64_t bytes = size + (uint64_t)(odd * 12345);
            try_shape(bytes, 0, 0, bytes >= 1 << 20 && bytes <= 1ull << 48);
            for (uint32_t lanes = 1; lanes <= LANES_MAX; lanes += lanes < 4 ? 1 : 15)
                try_shape(bytes, 0, lanes, bytes >= 64 << 20 && bytes <= 1ull << 48);
        }
    for (int i = 0; i < 20000; i++) {
        uint64_t size = random64() >> (16 + random64() % 30), objects = random64() >> (33 + random64() % 30);
        try_shape(size, random64() % 2 ? objects : 0, (uint32_t)(random64() % (LANES_MAX + 2)), false);
    }
    try_shape(64 << 20, 1000000, 4, false);
    try_shape(512 << 20, 1000000, 2, true);
    struct fmt_superblock sb;
    const char *why;
    struct fmt_shape bad[] = {{0, 0, 0, 0},
                              {(1 << 20) - 4096, 0, 0, 0},
                              {UINT64_MAX, 0, 0, 0},
                              {1 << 20, UINT64_MAX, 1, 0},
                              {1 << 20, 1 << 30, 1, 0},
                              {1ull << 40, UINT64_MAX - 60, 1, 0},
                              {1ull << 40, 0, 65, 0},
                              {1 << 20, 0, UINT32_MAX, 0}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        why = NULL;
        CHECK(fmt_layout(&bad[i], &sb, &why) != 0 && why && why[0], "shape %zu was taken", i);
    }
}

/* ---- hostile superblocks --------------------------------------------------------------------------- */

static uint64_t hostile(uint64_t old, uint64_t size) {
    switch (random64() % 9) {
    case 0:
        return random64();
    case 1:
        return random64() >> (random64() % 64);
    case 2:
        return old + FMT_PAGE;
    case 3:
        return old - FMT_PAGE;
    case 4:
        return old * 2;
    case 5:
        return size - random64() % 3 * FMT_PAGE;
    case 6:
        return 0 - (random64() & 0xfff) * FMT_PAGE;
    case 7:
        return 1ull << (random64() % 64);
    default:
        return old + random64() % 5 - 2;
    }
}

/* Whatever is accepted is sound; and the check rejects nearly all of it. */
static void test_hostile(void) {
    static const uint8_t eights[] = {56, 80, 88, 96, 104, 112, 120, 128, 136, 144, 168, 176};
    static const uint8_t fours[] = {12, 72, 76, 152, 156, 160, 164};
    uint32_t accepted = 0, refused = 0;
    for (int i = 0; i < 1000000; i++) {
        uint64_t size = (1ull << 20) << (random64() % 12);
        struct fmt_shape shape = {size, 0, (uint32_t)(random64() % 3), 0};
        static struct fmt_superblock sb;
        const char *why = NULL;
        if (i % 50 == 0 && fmt_layout(&shape, &sb, &why) != 0)
            continue;
        struct fmt_superblock damaged = sb;
        for (uint64_t n = 1 + random64() % 3; n; n--) {
            uint64_t value;
            uint8_t *base = (uint8_t *)&damaged;
            if (random64() % 2) {
                uint8_t *at = base + eights[random64() % sizeof eights];
                memcpy(&value, at, 8);
                value = hostile(value, sb.size);
                memcpy(at, &value, 8);
            } else {
                uint32_t narrow;
                uint8_t *at = base + fours[random64() % sizeof fours];
                memcpy(&narrow, at, 4);
                narrow = (uint32_t)hostile(narrow, sb.size);
                memcpy(at, &narrow, 4);
            }
        }
        if (fmt_superblock_check(&damaged, sb.size, &why) == 0) {
            accepted++;
            CHECK(is_sound(&damaged, sb.size), "accepted although unsound (try %d)", i);
        } else {
            refused++;
            CHECK(why && why[0], "refused without a word");
        }
    }
    CHECK(accepted > 0 && refused > accepted, "%u accepted, %u refused", accepted, refused);
    printf("layouts: %u tried, damaged superblocks: %u refused, %u accepted and sound\n", layouts, refused, accepted);
}

/* ---- names, slots, chunks ---------------------------------------------------------------------------- */

static void test_checksums(void) {
    for (uint32_t level = 0; level + 1 < FMT_NAME_LEVELS; level++)
        CHECK(fmt_name_entries(level + 1) == 4 * fmt_name_entries(level), "level %u", level);
    CHECK(fmt_name_entries(FMT_NAME_LEVELS - 1) <= 1u << 28, "an index must fit 28 bits");
    struct fmt_slot slot;
    memset(&slot, 0x5a, sizeof slot);
    uint32_t crc = fmt_slot_crc(&slot, 7);
    CHECK(crc != fmt_slot_crc(&slot, 8), "the generation counts");
    for (uint32_t at = 0; at < sizeof slot; at++) {
        ((uint8_t *)&slot)[at] ^= 1;
        bool covered = at >= 8 && at < offsetof(struct fmt_slot, crc);
        CHECK((fmt_slot_crc(&slot, 7) != crc) == covered, "byte %u of a slot", at);
        ((uint8_t *)&slot)[at] ^= 1;
    }
    struct fmt_chunk chunk;
    memset(&chunk, 0x5a, sizeof chunk);
    crc = fmt_chunk_crc(&chunk, 99);
    CHECK(crc != fmt_chunk_crc(&chunk, 100), "the word counts");
    for (uint32_t at = 0; at < sizeof chunk; at++) {
        ((uint8_t *)&chunk)[at] ^= 1;
        bool covered = at >= 8 && at < offsetof(struct fmt_chunk, crc);
        CHECK((fmt_chunk_crc(&chunk, 99) != crc) == covered, "byte %u of a chunk header", at);
        ((uint8_t *)&chunk)[at] ^= 1;
    }
}

int main(void) {
    test_classes();
    test_layouts();
    test_hostile();
    test_checksums();
    return 0;
}
