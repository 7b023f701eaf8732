/*
 * format.h - the shared-memory format, version 1. The tables in gismo_core/FORMAT.md say what each field means
 * and who writes it; the assertions below hold the two together.
 *
 * Everything here lies on a medium that other hosts map, too. So: fixed widths, little-endian (x86-64 only),
 * explicit padding, offsets instead of pointers, and not one pid, path or lock.
 */
#ifndef GISMO_FORMAT_H
#define GISMO_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#define FMT_MAGIC 0x3154534F4D534947ull /* "GISMOST1" */
#define FMT_VERSION 1u
#define FMT_LINE 64u
#define FMT_PAGE 4096u
#define FMT_PAGE_SHIFT 12
#define FMT_MAX_LANES 64u
#define FMT_MAX_ARENAS 1024u
#define FMT_MAX_GROUPS 256u
#define FMT_CHUNK_SLOTS 64u
#define FMT_SMALL_MAX 32768u
#define FMT_CLASSES 56u          /* of cells; class FMT_CLASSES is LARGE */
#define FMT_CLASS_LARGE FMT_CLASSES
#define FMT_NAME_LEVELS 8u
#define FMT_RING_BYTES 4096u
#define FMT_RING_CELLS 124u
#define FMT_SUPERBLOCK_BYTES 4096u

/* Features of this build. A store with a bit we do not know in incompat is refused. */
#define FMT_KNOWN_COMPAT 0ull
#define FMT_KNOWN_RO_COMPAT 0ull
#define FMT_KNOWN_INCOMPAT 0ull

struct fmt_superblock {
    uint64_t magic;
    uint32_t format_version;
    uint32_t line_bytes;
    uint64_t feature_compat;
    uint64_t feature_ro_compat;
    uint64_t feature_incompat;
    uint8_t uuid[16];
    uint64_t size;
    uint64_t created_unix_ns;
    uint32_t coherence;
    uint32_t max_lanes;
    uint64_t lanes_offset;
    uint64_t registers_offset;
    uint64_t chunks_offset;
    uint64_t slots_offset;
    uint64_t pins_offset;
    uint64_t rings_offset;
    uint64_t data_offset;
    uint64_t data_bytes;
    uint64_t chunks;
    uint32_t arenas;
    uint32_t arena_shift;
    uint32_t groups;
    uint32_t group_chunks;
    uint64_t small_max;
    uint64_t segment_max;
    uint32_t crc;
    uint32_t pad;
    uint8_t reserved[FMT_SUPERBLOCK_BYTES - 192];
};
_Static_assert(sizeof(struct fmt_superblock) == FMT_SUPERBLOCK_BYTES, "superblock size");
_Static_assert(offsetof(struct fmt_superblock, magic) == 0, "magic");
_Static_assert(offsetof(struct fmt_superblock, format_version) == 8, "format_version");
_Static_assert(offsetof(struct fmt_superblock, line_bytes) == 12, "line_bytes");
_Static_assert(offsetof(struct fmt_superblock, feature_compat) == 16, "feature_compat");
_Static_assert(offsetof(struct fmt_superblock, feature_ro_compat) == 24, "feature_ro_compat");
_Static_assert(offsetof(struct fmt_superblock, feature_incompat) == 32, "feature_incompat");
_Static_assert(offsetof(struct fmt_superblock, uuid) == 40, "uuid");
_Static_assert(offsetof(struct fmt_superblock, size) == 56, "size");
_Static_assert(offsetof(struct fmt_superblock, created_unix_ns) == 64, "created_unix_ns");
_Static_assert(offsetof(struct fmt_superblock, coherence) == 72, "coherence");
_Static_assert(offsetof(struct fmt_superblock, max_lanes) == 76, "max_lanes");
_Static_assert(offsetof(struct fmt_superblock, lanes_offset) == 80, "lanes_offset");
_Static_assert(offsetof(struct fmt_superblock, registers_offset) == 88, "registers_offset");
_Static_assert(offsetof(struct fmt_superblock, chunks_offset) == 96, "chunks_offset");
_Static_assert(offsetof(struct fmt_superblock, slots_offset) == 104, "slots_offset");
_Static_assert(offsetof(struct fmt_superblock, pins_offset) == 112, "pins_offset");
_Static_assert(offsetof(struct fmt_superblock, rings_offset) == 120, "rings_offset");
_Static_assert(offsetof(struct fmt_superblock, data_offset) == 128, "data_offset");
_Static_assert(offsetof(struct fmt_superblock, data_bytes) == 136, "data_bytes");
_Static_assert(offsetof(struct fmt_superblock, chunks) == 144, "chunks");
_Static_assert(offsetof(struct fmt_superblock, arenas) == 152, "arenas");
_Static_assert(offsetof(struct fmt_superblock, arena_shift) == 156, "arena_shift");
_Static_assert(offsetof(struct fmt_superblock, groups) == 160, "groups");
_Static_assert(offsetof(struct fmt_superblock, group_chunks) == 164, "group_chunks");
_Static_assert(offsetof(struct fmt_superblock, small_max) == 168, "small_max");
_Static_assert(offsetof(struct fmt_superblock, segment_max) == 176, "segment_max");
_Static_assert(offsetof(struct fmt_superblock, crc) == 184, "crc");

/*
 * Who has a lane. The identities of all lanes lie side by side, because every retirement looks at the state of each
 * (P5.2): 64 lines in a row cost a few tens of ns, 64 lines at a stride of a lane would fight over one set of the cache.
 */
struct fmt_identity {
    uint64_t state_word; /* incarnation << 8 | enum gismo_lane_state; stored last */
    uint8_t boot_id[16];
    uint8_t state_dir_uuid[16];
    uint64_t joined_unix_ns;
    uint64_t crc; /* CRC32C of boot_id .. joined_unix_ns */
    uint64_t pad;
};
_Static_assert(sizeof(struct fmt_identity) == FMT_LINE, "identity size");
_Static_assert(offsetof(struct fmt_identity, state_word) == 0, "state_word");
_Static_assert(offsetof(struct fmt_identity, boot_id) == 8, "boot_id");
_Static_assert(offsetof(struct fmt_identity, state_dir_uuid) == 24, "state_dir_uuid");
_Static_assert(offsetof(struct fmt_identity, joined_unix_ns) == 40, "joined_unix_ns");
_Static_assert(offsetof(struct fmt_identity, crc) == 48, "crc");

/* What `gismo litmus` found on this host: a lane's line 3. */
#define FMT_LITMUS_TESTS 4u
struct fmt_litmus {
    uint64_t tested_unix_ns;
    uint32_t rounds[FMT_LITMUS_TESTS];
    uint32_t violations[FMT_LITMUS_TESTS];
    uint8_t partner_boot_id[16];
    uint8_t partner_lane;
    uint8_t verdict; /* enum gismo_litmus_outcome */
    uint8_t reasons; /* enum gismo_litmus_reason */
    uint8_t pad;
    uint32_t crc; /* CRC32C of bytes 0..59, then of the boot id in the lane's identity */
};
_Static_assert(sizeof(struct fmt_litmus) == FMT_LINE, "litmus size");
_Static_assert(offsetof(struct fmt_litmus, tested_unix_ns) == 0, "tested_unix_ns");
_Static_assert(offsetof(struct fmt_litmus, rounds) == 8, "rounds");
_Static_assert(offsetof(struct fmt_litmus, violations) == 24, "violations");
_Static_assert(offsetof(struct fmt_litmus, partner_boot_id) == 40, "partner_boot_id");
_Static_assert(offsetof(struct fmt_litmus, partner_lane) == 56, "partner_lane");
_Static_assert(offsetof(struct fmt_litmus, verdict) == 57, "verdict");
_Static_assert(offsetof(struct fmt_litmus, reasons) == 58, "reasons");
_Static_assert(offsetof(struct fmt_litmus, crc) == 60, "crc");

/* The rest of a lane: seven lines, written by that host alone. */
struct fmt_lane {
    /* line 0: heartbeat */
    uint64_t heartbeat;
    uint64_t heartbeat_unix_ns;
    uint64_t pad0[6];
    /* line 1: name tables */
    uint64_t name_table[FMT_NAME_LEVELS];
    /* line 2: wishes */
    uint64_t pages_wanted;
    uint64_t wishes;
    uint64_t groups_wanted; /* slot groups */
    uint64_t pad2[5];
    /* line 3: verdict of gismo litmus */
    struct fmt_litmus litmus;
    /* lines 4 and 5: arenas believed owned; line 6: slot groups */
    uint64_t arena_map[16];
    uint64_t group_map[4];
    uint64_t pad6[4];
};
_Static_assert(sizeof(struct fmt_lane) == 7 * FMT_LINE, "lane size");
_Static_assert(offsetof(struct fmt_lane, heartbeat) == 0, "heartbeat");
_Static_assert(offsetof(struct fmt_lane, heartbeat_unix_ns) == 8, "heartbeat_unix_ns");
_Static_assert(offsetof(struct fmt_lane, name_table) == 64, "lane line 1");
_Static_assert(offsetof(struct fmt_lane, pages_wanted) == 128, "lane line 2");
_Static_assert(offsetof(struct fmt_lane, wishes) == 136, "wishes");
_Static_assert(offsetof(struct fmt_lane, groups_wanted) == 144, "groups_wanted");
_Static_assert(offsetof(struct fmt_lane, litmus) == 192, "litmus");
_Static_assert(offsetof(struct fmt_lane, arena_map) == 256, "lane line 4");
_Static_assert(offsetof(struct fmt_lane, group_map) == 384, "lane line 6");
#define FMT_LANE_BYTES (sizeof(struct fmt_identity) + sizeof(struct fmt_lane))

/* One host's line of an agreed register: two halves, written in turn. */
struct fmt_register_half {
    uint64_t mbal;
    uint64_t bal;
    uint64_t value;
    uint32_t sequence;
    uint32_t crc;
};
struct fmt_register_line {
    struct fmt_register_half half[2];
};
_Static_assert(sizeof(struct fmt_register_line) == FMT_LINE, "register line size");
_Static_assert(offsetof(struct fmt_register_half, mbal) == 0, "mbal");
_Static_assert(offsetof(struct fmt_register_half, bal) == 8, "bal");
_Static_assert(offsetof(struct fmt_register_half, value) == 16, "value");
_Static_assert(offsetof(struct fmt_register_half, sequence) == 24, "sequence");
_Static_assert(offsetof(struct fmt_register_half, crc) == 28, "crc");

enum fmt_chunk_kind { FMT_CHUNK_NONE = 0, FMT_CHUNK_SMALL = 1, FMT_CHUNK_LARGE = 2 };

struct fmt_chunk {
    uint64_t word; /* kind | class << 8 | cells << 16 | cell_bytes << 32 */
    uint64_t base;
    uint64_t bytes;
    uint64_t lane_plus_1;
    uint32_t crc; /* CRC32C of word .. lane_plus_1 */
    uint32_t pad;
    uint64_t reserved[3];
};
_Static_assert(sizeof(struct fmt_chunk) == FMT_LINE, "chunk header size");
_Static_assert(offsetof(struct fmt_chunk, word) == 0, "word");
_Static_assert(offsetof(struct fmt_chunk, base) == 8, "base");
_Static_assert(offsetof(struct fmt_chunk, bytes) == 16, "bytes");
_Static_assert(offsetof(struct fmt_chunk, lane_plus_1) == 24, "lane_plus_1");
_Static_assert(offsetof(struct fmt_chunk, crc) == 32, "crc");

enum fmt_slot_flags { FMT_SLOT_HAS_CRC = 1, FMT_SLOT_INTERNAL = 2 };

struct fmt_slot {
    uint64_t word; /* generation << 8 | enum gismo_object_state */
    uint64_t offset;
    uint64_t length;
    uint64_t tag;
    uint64_t created_unix_ns;
    uint32_t payload_crc;
    uint32_t name_entry; /* level << 28 | index, + 1; 0 = none */
    uint32_t buffers;
    uint16_t creator;
    uint8_t creator_lane;
    uint8_t name_bytes;
    uint32_t flags;
    uint32_t crc; /* CRC32C of generation and of bytes 8..59 */
};
_Static_assert(sizeof(struct fmt_slot) == FMT_LINE, "slot size");
_Static_assert(offsetof(struct fmt_slot, word) == 0, "word");
_Static_assert(offsetof(struct fmt_slot, offset) == 8, "offset");
_Static_assert(offsetof(struct fmt_slot, length) == 16, "length");
_Static_assert(offsetof(struct fmt_slot, tag) == 24, "tag");
_Static_assert(offsetof(struct fmt_slot, created_unix_ns) == 32, "created_unix_ns");
_Static_assert(offsetof(struct fmt_slot, payload_crc) == 40, "payload_crc");
_Static_assert(offsetof(struct fmt_slot, name_entry) == 44, "name_entry");
_Static_assert(offsetof(struct fmt_slot, buffers) == 48, "buffers");
_Static_assert(offsetof(struct fmt_slot, creator) == 52, "creator");
_Static_assert(offsetof(struct fmt_slot, creator_lane) == 54, "creator_lane");
_Static_assert(offsetof(struct fmt_slot, name_bytes) == 55, "name_bytes");
_Static_assert(offsetof(struct fmt_slot, flags) == 56, "flags");
_Static_assert(offsetof(struct fmt_slot, crc) == 60, "crc");

enum fmt_ring_op { FMT_RING_DELETE = 1, FMT_RING_CLEAR = 2 };

struct fmt_ring_cell {
    uint64_t sequence; /* message number + 1 */
    uint64_t what;     /* op << 32 | slot or chunk */
    uint64_t value;    /* generation or mask */
    uint64_t check;    /* CRC32C of the three */
};
struct fmt_ring {
    uint64_t tail; /* line 0: written by the sender */
    uint64_t pad0[7];
    uint64_t head; /* line 1: written by the receiver */
    uint64_t pad1[7];
    struct fmt_ring_cell cell[FMT_RING_CELLS];
};
_Static_assert(sizeof(struct fmt_ring) == FMT_RING_BYTES, "ring size");
_Static_assert(sizeof(struct fmt_ring_cell) == 32, "ring cell size");
_Static_assert(offsetof(struct fmt_ring, tail) == 0, "tail");
_Static_assert(offsetof(struct fmt_ring, head) == 64, "head");
_Static_assert(offsetof(struct fmt_ring, cell) == 128, "cell");
_Static_assert(offsetof(struct fmt_ring_cell, sequence) == 0, "sequence");
_Static_assert(offsetof(struct fmt_ring_cell, what) == 8, "what");
_Static_assert(offsetof(struct fmt_ring_cell, value) == 16, "value");
_Static_assert(offsetof(struct fmt_ring_cell, check) == 24, "check");

#define FMT_STATE(word) ((uint32_t)((word) & 0xff))
#define FMT_GENERATION(word) ((word) >> 8)
#define FMT_WORD(generation, state) (((uint64_t)(generation) << 8) | (uint64_t)(state))
#define FMT_GENERATION_MASK 0x00ffffffffffffffull

/* Where a store of this shape has its parts. All inputs are plain numbers, so that it can be tested alone. */
struct fmt_shape {
    uint64_t size_bytes;
    uint64_t max_objects;
    uint32_t max_lanes;
    uint32_t coherence;
};
/* 0, or -1 with *why set to what is wrong with the shape. Leaves uuid, times and crc to the caller. */
int fmt_layout(const struct fmt_shape *shape, struct fmt_superblock *out, const char **why);
uint32_t fmt_superblock_crc(const struct fmt_superblock *sb);
/* Are all its offsets and counts possible on a medium of this size? 0, or -1 with *why. */
int fmt_superblock_check(const struct fmt_superblock *sb, uint64_t medium_bytes, const char **why);

/* Size classes: cells of this class are this large. */
uint32_t fmt_class_of(uint64_t bytes); /* bytes <= FMT_SMALL_MAX */
uint32_t fmt_class_bytes(uint32_t size_class);
uint32_t fmt_class_cells(uint32_t size_class, uint64_t segment_max);
uint64_t fmt_name_entries(uint32_t level);
uint32_t fmt_slot_crc(const struct fmt_slot *slot, uint64_t generation);
uint32_t fmt_chunk_crc(const struct fmt_chunk *chunk, uint64_t word);

#endif
