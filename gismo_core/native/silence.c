/*
 * silence.c - hosts that say nothing, and finding out that one was itself taken for such a one: P10 of FORMAT.md.
 */
#include "internal.h"

#define SAMPLE_NS 1000000000ull

/* Who looks later than this after the last look was itself stopped, and what it remembers says nothing. */
#define PAUSED_NS (3 * SAMPLE_NS)

void silence_watch(struct gismo_store *s) {
    struct host_header *h = s->host.header;
    uint64_t now = now_ns(), since = now - loc_load(&h->watched_ns);
    if (since < SAMPLE_NS)
        return;
    loc_store(&h->watched_ns, now);
    for (uint32_t lane = 0; lane < s->sb.max_lanes; lane++) {
        struct host_silence *silence = &s->host.silence[lane];
        uint64_t samples = 0;
        if (lane != s->lane && FMT_STATE(lane_state_word(s, lane)) == GISMO_LANE_ACTIVE) {
            prim_refresh(s->software, &s->lanes[lane].heartbeat, FMT_LINE);
            uint64_t heartbeat = prim_load64(&s->lanes[lane].heartbeat);
            if (heartbeat == loc_load(&silence->heartbeat) && since < PAUSED_NS)
                samples = loc_load(&silence->samples) + 1;
            else if (heartbeat != loc_load(&silence->heartbeat))
                loc_store(&silence->heartbeat, heartbeat);
        }
        if (samples != loc_load(&silence->samples))
            loc_store(&silence->samples, samples);
    }
}

bool silence_suspect(struct gismo_store *s, uint32_t lane) {
    return loc_load(&s->host.silence[lane].samples) >= GISMO_SILENT_SAMPLES;
}

int silence_look(struct gismo_store *s) {
    struct host_header *h = s->host.header;
    uint64_t before = now_ns(); /* of the look: who is frozen behind it must not think it a young one */
    enum host_standing is = lane_standing(s), was = (enum host_standing)loc_load(&h->standing);
    if (is > was)
        loc_store(&h->standing, (uint64_t)is);
    if (is != HOST_IN_PLACE || was != HOST_IN_PLACE)
        return fail(GISMO_EFENCED,
                    "this host (id %u) was silent and has been fenced by another: close the store in all its "
                    "processes, then open it again",
                    s->lane);
    loc_store(&h->fence_seen_ns, before);
    return GISMO_OK;
}
