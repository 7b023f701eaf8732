/*
 * verdict.c - what `gismo litmus` found on this host: the litmus line of its lane.
 *
 * The checksum goes on over the boot id in the lane's identity. So a lane that another machine has taken since, or this one after a
 * reboot, has no verdict until it was tested anew, and nobody needs to clear the line, which would be one store more that can be missed.
 */
#include "internal.h"

#include "crc32c.h"

#include <string.h>

static uint32_t checksum(const struct fmt_litmus *line, const uint8_t boot_id[16]) {
    return crc32c(crc32c(0, line, offsetof(struct fmt_litmus, crc)), boot_id, 16);
}

static bool is_possible(const struct gismo_store *s, const gismo_litmus_verdict *v) {
    const uint32_t reasons = GISMO_LITMUS_FILE | GISMO_LITMUS_ONE_MACHINE;
    return v->partner_host < s->sb.max_lanes && v->outcome >= GISMO_LITMUS_HOLDS &&
           v->outcome <= GISMO_LITMUS_NOT_MEANINGFUL && (v->reasons & ~reasons) == 0 &&
           (v->reasons != 0) == (v->outcome == GISMO_LITMUS_NOT_MEANINGFUL);
}

void verdict_read(struct gismo_store *s, uint32_t lane, const uint8_t boot_id[16], gismo_litmus_verdict *out) {
    struct fmt_litmus line;
    prim_read(&line, &s->lanes[lane].litmus, sizeof line);
    *out = (gismo_litmus_verdict){
        .tested_unix_ns = line.tested_unix_ns,
        .partner_host = line.partner_lane,
        .outcome = line.verdict,
        .reasons = line.reasons,
    };
    memcpy(out->rounds, line.rounds, sizeof out->rounds);
    memcpy(out->violations, line.violations, sizeof out->violations);
    memcpy(out->partner_boot_id, line.partner_boot_id, sizeof out->partner_boot_id);
    if (line.crc != checksum(&line, boot_id) || !is_possible(s, out))
        memset(out, 0, sizeof *out);
}

/* Two processes of this host that do it at the same moment may leave a line of which the checksum is wrong: no verdict. */
static int write_verdict(struct gismo_store *s, const struct fmt_litmus *line) {
    uint64_t words[8], *to = (uint64_t *)(void *)&s->lanes[s->lane].litmus;
    memcpy(words, line, sizeof words);
    for (int i = 0; i < 8; i++)
        prim_store64(&to[i], words[i]);
    prim_publish(s->software, to, FMT_LINE);
    return GISMO_OK;
}

int gismo_litmus_record(struct gismo_store *s, const gismo_litmus_verdict *verdict) {
    int status = store_enter(s);
    if (status)
        return status;
    if (!is_possible(s, verdict))
        return fail(GISMO_EINVAL,
                    "a verdict has an outcome, a partner that is a host of the store, and reasons just when "
                    "it is not meaningful");
    struct fmt_litmus line = {
        .tested_unix_ns = verdict->tested_unix_ns,
        .partner_lane = (uint8_t)verdict->partner_host,
        .verdict = (uint8_t)verdict->outcome,
        .reasons = (uint8_t)verdict->reasons,
    };
    memcpy(line.rounds, verdict->rounds, sizeof line.rounds);
    memcpy(line.violations, verdict->violations, sizeof line.violations);
    memcpy(line.partner_boot_id, verdict->partner_boot_id, sizeof line.partner_boot_id);
    line.crc = checksum(&line, s->host.header->boot_id);
    return GUARDED(s, write_verdict(s, &line));
}
