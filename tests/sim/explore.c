/*
 * explore.c - all schedules with few preemptions, one after the other (Musuvathi and Qadeer, PLDI 2007).
 *
 * Most races need one or two preemptions at the right step. Memory is as lazy or as eager as it can be meanwhile, so a run is
 * determined by where processes are preempted, and for whom. A run says at which steps others could have gone on; each of those after its last
 * preemption, with each of those others, is a schedule with one more.
 *
 * Only steps at which a preemption could be seen count: an access to a line that more than one process came to (in any run so far: a first
 * pass, of one preemption at every step, finds them), and fences, after which what waited before is seen by others.
 */
#include "explore.h"

#include <stdlib.h>
#include <string.h>

#define LINES (64u << 10) /* of the medium of a small scenario, at most */

static uint8_t comers[LINES]; /* 0: nobody, n + 1: process n, 255: several */
static struct sim_schedule schedule;

static void note(void) {
    for (uint32_t i = 0; i < schedule.steps && i < SIM_SCHEDULE_STEPS; i++) {
        const struct sim_point *p = &schedule.point[i];
        if (p->line == 0 || p->line >= LINES)
            continue;
        uint8_t me = (uint8_t)(p->process + 1);
        if (comers[p->line] != me)
            comers[p->line] = comers[p->line] == 0 ? me : 255;
    }
}

static bool matters(const struct sim_point *p) { return p->line == 0 || p->line >= LINES || comers[p->line] == 255; }

/* The schedule as it stands, and those with up to `more` preemptions after its last one. */
static bool descend(struct run *run, struct exploration *x, uint32_t more, bool all_steps, struct sim_result *result) {
    if (x->until > 0 && seconds() > x->until) {
        x->unfinished = true;
        return true;
    }
    stage_run(run, false, result);
    x->runs++;
    x->steps += result->steps;
    note();
    if (result->failed)
        return false;
    const uint32_t n = schedule.count;
    if (n == more)
        return true;
    const uint32_t steps = schedule.steps < SIM_SCHEDULE_STEPS ? schedule.steps : SIM_SCHEDULE_STEPS;
    struct sim_point *points = malloc(steps * sizeof *points + 1);
    if (points == NULL)
        abort();
    memcpy(points, schedule.point, steps * sizeof *points);
    bool fine = true, may_kill = x->kills;
    for (uint32_t i = 0; i < n; i++)
        may_kill &= schedule.at[i].process != SIM_KILLED;
    schedule.count = n + 1;
    for (uint32_t step = n ? schedule.at[n - 1].step + 1 : 0; step < steps && fine && !x->unfinished; step++) {
        const bool seen = all_steps || matters(&points[step]);
        for (uint32_t other = 0; other <= SIM_KILLED && fine && !x->unfinished; other++) {
            if (other == SIM_KILLED ? !may_kill : (points[step].others >> other & 1) == 0 || !seen)
                continue;
            schedule.at[n].step = step;
            schedule.at[n].process = other;
            fine = descend(run, x, more, all_steps, result);
        }
    }
    free(points);
    if (fine)
        schedule.count = n;
    return fine;
}

/* A death matters at any step: what was stored and not flushed before it stays where it is. */
bool explore(struct run *run, struct exploration *x, struct sim_result *result) {
    x->runs = x->steps = 0;
    x->unfinished = false;
    memset(comers, 0, sizeof comers);
    run->schedule = &schedule;
    for (uint32_t n = 1; n <= x->preemptions; n++) {
        schedule.count = 0;
        if (!descend(run, x, n, n == 1, result))
            return false;
    }
    return true;
}
