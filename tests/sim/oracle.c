/*
 * oracle.c - who may write which line, and what a line is called.
 *
 * "One writing host per cache line" (invariant 2), checked at each store when it is issued: lanes, register lines, pin lines and ring lines
 * by their place; chunks, slots and data by the leases in the state directories of all hosts, which the simulator can
 * see at once. memory.c finds two writers by what they do to each other; this finds the first store of one who may not.
 */
#include "sim.h"

#include <stdio.h>
#include <string.h>

static struct fmt_superblock sb;

void oracle_begin(const struct fmt_superblock *superblock) { sb = *superblock; }

uint64_t oracle_identity(uint32_t lane) { return sb.lanes_offset + lane * sizeof(struct fmt_identity); }

static uint32_t arenas_before(uint64_t offset) { return (uint32_t)((offset - sb.data_offset) >> sb.arena_shift); }

const char *oracle_name(uint64_t offset, char *text, size_t n) {
    static const char *const words[] = {"word", "offset", "length", "tag", "time", "crc/name", "shape", "flags/crc"};
    uint64_t at;
    if (offset < sb.lanes_offset) {
        snprintf(text, n, "superblock +%llu", (unsigned long long)offset);
    } else if (offset < sb.registers_offset) {
        at = offset - sb.lanes_offset;
        uint64_t identities = sb.max_lanes * sizeof(struct fmt_identity);
        if (at < identities)
            snprintf(text, n, "identity %llu +%llu", (unsigned long long)(at / FMT_LINE),
                     (unsigned long long)(at % FMT_LINE));
        else
            snprintf(text, n, "lane %llu +%llu", (unsigned long long)((at - identities) / sizeof(struct fmt_lane)),
                     (unsigned long long)((at - identities) % sizeof(struct fmt_lane)));
    } else if (offset < sb.chunks_offset) {
        at = (offset - sb.registers_offset) / FMT_LINE;
        snprintf(text, n, "register %llu of host %llu", (unsigned long long)(at / sb.max_lanes),
                 (unsigned long long)(at % sb.max_lanes));
    } else if (offset < sb.slots_offset) {
        snprintf(text, n, "chunk %llu +%llu", (unsigned long long)((offset - sb.chunks_offset) / FMT_LINE),
                 (unsigned long long)((offset - sb.chunks_offset) % FMT_LINE));
    } else if (offset < sb.pins_offset) {
        at = offset - sb.slots_offset;
        snprintf(text, n, "slot %llu %s", (unsigned long long)(at / FMT_LINE), words[at % FMT_LINE / 8]);
    } else if (offset < sb.rings_offset) {
        at = offset - sb.pins_offset;
        snprintf(text, n, "pin of host %llu, slot %llu", (unsigned long long)(at / FMT_LINE / sb.chunks),
                 (unsigned long long)(at / FMT_LINE % sb.chunks * FMT_CHUNK_SLOTS + at % FMT_LINE));
    } else if (offset < sb.data_offset) {
        at = offset - sb.rings_offset;
        snprintf(text, n, "ring %llu to %llu +%llu", (unsigned long long)(at / FMT_RING_BYTES / sb.max_lanes),
                 (unsigned long long)(at / FMT_RING_BYTES % sb.max_lanes), (unsigned long long)(at % FMT_RING_BYTES));
    } else {
        snprintf(text, n, "data %#llx (arena %u)", (unsigned long long)(offset - sb.data_offset),
                 arenas_before(offset));
    }
    return text;
}

/* The host that has the lease, as its own state directory says; at most one may. -1: nobody. */
static int lessee(enum agree_unit kind, uint32_t index) {
    int found = -1;
    for (uint32_t lane = 0; lane < sb.max_lanes; lane++) {
        struct gismo_store *s = world_store_of(lane);
        if (s == NULL || !unit_is_mine(s, kind, index))
            continue;
        if (found >= 0)
            sim_violation("hosts %d and %u both have %s %u", found, lane, kind == AGREE_ARENA ? "arena" : "slot group",
                          index);
        found = (int)lane;
    }
    return found;
}

static int owner_of(uint64_t offset) {
    uint64_t at;
    if (offset < sb.lanes_offset)
        return -1;
    if (offset < sb.registers_offset) {
        at = offset - sb.lanes_offset;
        uint64_t identities = sb.max_lanes * sizeof(struct fmt_identity);
        return (int)(at < identities ? at / FMT_LINE : (at - identities) / sizeof(struct fmt_lane));
    }
    if (offset < sb.chunks_offset)
        return (int)((offset - sb.registers_offset) / FMT_LINE % sb.max_lanes);
    if (offset < sb.slots_offset)
        return lessee(AGREE_GROUP, (uint32_t)((offset - sb.chunks_offset) / FMT_LINE / sb.group_chunks));
    if (offset < sb.pins_offset)
        return lessee(AGREE_GROUP,
                      (uint32_t)((offset - sb.slots_offset) / FMT_LINE / FMT_CHUNK_SLOTS / sb.group_chunks));
    if (offset < sb.rings_offset)
        return (int)((offset - sb.pins_offset) / FMT_LINE / sb.chunks);
    if (offset < sb.data_offset) {
        at = offset - sb.rings_offset;
        uint64_t pair = at / FMT_RING_BYTES;
        return (int)(at % FMT_RING_BYTES / FMT_LINE == 1 ? pair % sb.max_lanes : pair / sb.max_lanes);
    }
    if (offset >= sb.data_offset + sb.data_bytes)
        return -1;
    return lessee(AGREE_ARENA, arenas_before(offset));
}

/* Who wrote to a lane's lines in which incarnation: nobody does in an older one once another machine has begun. */
static struct {
    uint64_t incarnation;
    uint32_t machine;
} newest[FMT_MAX_LANES];

void oracle_new_run(void) { memset(newest, 0, sizeof newest); }

static bool is_of_lane_register(uint64_t offset) {
    return offset >= sb.registers_offset && offset < sb.chunks_offset &&
           (offset - sb.registers_offset) / FMT_LINE / sb.max_lanes >= sb.arenas + sb.groups;
}

/* It has just begun to join, and has nothing to say yet but in the lane's register. */
#define JOINING UINT64_MAX

static uint64_t incarnation_of(const struct gismo_store *s) {
    if (s->claim == 0)
        return s->granted ? s->granted : JOINING;
    return s->host.header->incarnation;
}

void oracle_store(struct sim_process *self, uint64_t offset, size_t n) {
    for (uint64_t at = offset / FMT_LINE * FMT_LINE; at < offset + n; at += FMT_LINE) {
        char name[96];
        int lane = owner_of(at);
        const struct gismo_store *own = lane < 0 ? NULL : world_own_store(self, (uint32_t)lane);
        if (own == NULL)
            sim_violation("host %u stores to a line of %s%d: %s", self->host, lane < 0 ? "nobody " : "host ", lane,
                          oracle_name(at, name, sizeof name));
        uint64_t incarnation = incarnation_of(own);
        if (incarnation == JOINING || (is_of_lane_register(at) && own->taker == 0))
            continue; /* who finds out whether the lane is still his */
        if (incarnation >= newest[lane].incarnation) {
            newest[lane].incarnation = incarnation;
            newest[lane].machine = self->host;
        } else if (newest[lane].machine != self->host) {
            sim_violation("machine %u still stores to a line of lane %d, which machine %u took over: %s", self->host,
                          lane, newest[lane].machine, oracle_name(at, name, sizeof name));
        }
    }
}
