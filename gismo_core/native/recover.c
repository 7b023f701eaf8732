/*
 * recover.c - what a dead process leaves, put right by whoever lives: P8 of FORMAT.md.
 *
 * Every step is a CAS on a claim of the dead, or looks at what is there; so it may be repeated, done in part, and done by several
 * at once, and a recoverer's own death changes nothing.
 */
#include "internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

int recover_find_dead(struct gismo_store *s) {
    int found = 0;
    for (uint32_t i = 0; i < HOST_PROCESSES; i++) {
        uint64_t word = loc_load(&s->host.process[i].word);
        if ((word & 0xff) == HOST_PROCESS_REAPING)
            found++;
        if ((word & 0xff) != HOST_PROCESS_LIVE || i == s->index || host_alive(s, i, word >> 8))
            continue;
        if (loc_cas(&s->host.process[i].word, &word, (word >> 8) << 8 | HOST_PROCESS_REAPING)) {
            loc_add(&s->host.header->reaping, 1);
            found++;
        }
    }
    if (found == 0 && loc_load(&s->host.header->reaping) != 0) {
        loc_store(&s->host.header->reaping, (uint64_t)0); /* a burier died before it counted down */
        /* an entry that became REAPING since is found by the next look, which does not go by this hint */
    }
    return found;
}

/* The bitmap of marked chunks of a dead process, mapped read-only. 0 = its file is gone (it was buried), -1 = not to be had. */
static int dead_marks(struct gismo_store *s, uint32_t index, uint64_t epoch, void **mapping, uint64_t **marks) {
    char name[64];
    snprintf(name, sizeof name, "pins.%u.%llu", index, (unsigned long long)epoch);
    int fd = openat(s->state_dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return errno == ENOENT ? 0 : -1;
    void *p = mmap(NULL, s->pins_bytes, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (p == MAP_FAILED)
        return -1;
    *mapping = p;
    *marks = host_marks(p, s->slots);
    return 1;
}

/* It may have died between giving the claim back, or leaving a request, and looking again. */
static void look_for_requests(struct gismo_store *s, uint32_t chunk) {
    chunk_restore_requests(s, chunk);
    if (loc_load(&s->host.chunk[chunk].pending) == 0)
        return;
    if (unit_is_mine(s, AGREE_GROUP, chunk_group(s, chunk)))
        retire_later(s, chunk);
    else
        bit_set(s->host.outbound, chunk);
}

/* One chunk of this dead process. 1 = did one, 0 = there is none left, -1 = cannot look now. */
static int recover_chunk(struct gismo_store *s, uint32_t index, uint64_t epoch) {
    void *mapping = NULL;
    uint64_t *marks = NULL, claim = host_claim_word(index, epoch);
    int did = 0, found = dead_marks(s, index, epoch, &mapping, &marks);
    if (found < 0)
        return -1;
    for (uint64_t w = 0; marks && w < s->host.words && !did; w++) {
        for (uint64_t bits = marks[w]; bits && !did; bits &= bits - 1) {
            uint32_t c = (uint32_t)(w * 64) + (uint32_t)__builtin_ctzll(bits);
            uint64_t seen = claim;
            if (c >= s->chunks)
                continue;
            if (loc_load(&s->host.chunk[c].claim) != claim) {
                look_for_requests(s, c);
                continue;
            }
            chunk_mark(s, c); /* before the claim, as ever */
            if (!loc_cas(&s->host.chunk[c].claim, &seen, s->claim)) {
                chunk_unmark(s, c);
                continue; /* another survivor has it */
            }
            chunk_recover_locked(s, c);
            did = 1;
        }
    }
    if (mapping)
        munmap(mapping, s->pins_bytes);
    return did;
}

static void settle_units(struct gismo_store *s, uint64_t dead_claim) {
    for (uint32_t a = 0; a < s->sb.arenas; a++)
        unit_settle(s, AGREE_ARENA, a, dead_claim);
    for (uint32_t g = 0; g < s->sb.groups; g++)
        unit_settle(s, AGREE_GROUP, g, dead_claim);
}

int recover_step(struct gismo_store *s) {
    for (uint32_t i = 0; i < HOST_PROCESSES; i++) {
        struct host_process *p = &s->host.process[i];
        uint64_t word = loc_load(&p->word), epoch = word >> 8;
        if ((word & 0xff) != HOST_PROCESS_REAPING)
            continue;
        int did = recover_chunk(s, i, epoch);
        if (did > 0)
            return 1;
        if (did < 0)
            continue;
        settle_units(s, host_claim_word(i, epoch));
        uint64_t kind = loc_load(&p->intent_kind), first = loc_load(&p->intent_first),
                 pages = loc_load(&p->intent_pages);
        if ((kind & 0xff) == HOST_INTENT_PAGES) {
            bool complete;
            page_settle(s, first, pages, 1, &complete);
            if (!complete || loc_load(&p->word) != word)
                continue; /* an arena is busy: it stays to be done; or another survivor buried it */
            (void)loc_cas(&p->intent_kind, &kind, (kind >> 8) << 8 | HOST_INTENT_NONE);
        }
        loc_store(&s->host.header->retire_hint,
                  (uint64_t)1); /* the dead one may have been a leader that had just reset it */
        lane_flush(s); /* what it stored and did not flush: nobody might ever store there again */
        host_bury(s, i, epoch);
        return 1;
    }
    return 0;
}

void recover_all(struct gismo_store *s) {
    if (recover_find_dead(s) == 0)
        return;
    while (recover_step(s))
        ;
}
