/*
 * scenario_silence.c - a host falls silent in the middle of anything, is fenced, and what becomes of it then: P10.
 *
 * It is frozen and thawed again (its calls say Fenced, it closes, its room is free), frozen and killed (it opens the store once
 * more), or its power fails (its cache loses any dirty lines; another says that it is off, or it boots again). The others go on all
 * the time. At the end everything that was sealed is there, and everything can be freed.
 */
#include "scenario.h"

#define VICTIM 1u
#define FROZEN_NS 1200000000ull /* longer than a host goes on without a look at its register */

enum fate { THAWED, KILLED_AND_BACK, OFF, REBOOTED, FATES };

static struct scene scene;
static bool calm;   /* the end is near: background work only */
static bool thawed; /* each call of the victim's that begins from now on is to say Fenced */

static void work_once(struct sim_process *self) {
    static const size_t sizes[] = {40, 200, 900, 30000, 33000};
    struct scene_object *o = scene_any(&scene);
    uint64_t dice = sim_random(12);
    if (o == NULL || dice < 5)
        scene_put(self, &scene, sizes[sim_random(sizeof sizes / sizeof *sizes)],
                  sim_random(2) ? SCENE_PUT : SCENE_CREATE);
    else if (dice < 8)
        scene_get(self, o, (uint32_t)sim_random(8));
    else if (dice < 11)
        scene_delete(self, o);
    else if (scene_fenced(self, gismo_tick(self->store)))
        return;
}

static void victim(struct sim_process *self, void *argument) {
    (void)argument;
    if (scene_open(self) == NULL)
        return;
    const bool anew = thawed; /* it came so late that it is the host's next incarnation */
    while (!scene.over && !self->fenced) {
        bool must = thawed && !anew;
        if (calm) {
            (void)scene_fenced(self, gismo_tick(self->store));
            sleep_ns(1000000);
        } else {
            work_once(self);
        }
        if (must && !self->fenced)
            sim_violation("a call of the fenced host that began after it was thawed did not say so");
    }
    scene_close(self);
}

/* On a host that nothing happens to; now and then alone with its host's background work. */
static void survivor(struct sim_process *self, void *argument) {
    (void)argument;
    scene_open(self);
    while (!scene.over) {
        if (!calm)
            work_once(self);
        if (calm || sim_random(4) == 0) {
            gismo_tick(self->store);
            sleep_ns(calm ? 1000000 : sim_random(40000000));
        }
    }
    scene_close(self);
}

static int evict(struct sim_process *self, uint32_t flags, gismo_evict_result *result) {
    self->doing = "evict";
    int status = gismo_evict_host(self->store, VICTIM, NULL, flags, result);
    self->doing = "";
    if (status != GISMO_OK && status != GISMO_EBUSY)
        sim_violation("evict: %s: %s", gismo_status_name(status), gismo_error_message());
    return status;
}

/* Everybody of the victim closes; the last one's QUIET is the proof. */
static void wait_until_it_left(struct sim_process *self, gismo_evict_result *result) {
    for (int i = 0; evict(self, GISMO_EVICT_FORCE, result) != GISMO_OK; i++) {
        if (i == 1000)
            sim_violation("the host was thawed long ago, and is not out: %s", gismo_error_message());
        gismo_tick(self->store);
        sleep_ns(5000000);
    }
}

static void back_again(struct sim_process *self, void *argument) {
    bool *back = argument;
    scene_open(self);
    for (int i = 0; i < 6; i++)
        work_once(self);
    while (!scene.over) {
        gismo_tick(self->store);
        sleep_ns(1000000);
        *back = true;
    }
    scene_close(self);
}

static void overseer(struct sim_process *self, void *argument) {
    struct sim_process **victims = argument;
    enum fate fate = (enum fate)sim_random(FATES);
    gismo_evict_result result;
    static bool back;
    back = false;
    scene_open(self);
    sleep_ns(sim_random(3000000));
    for (uint64_t steps = sim_random(400); steps > 0; steps--)
        sim_pause();
    if (fate == THAWED || fate == KILLED_AND_BACK) {
        sim_freeze(VICTIM);
        if (evict(self, GISMO_EVICT_FORCE, &result) == GISMO_OK && result.state != GISMO_LANE_QUIET)
            sim_violation("it is out of the store although nothing proves that it stopped");
        for (int i = 0; i < 4; i++)
            work_once(self);
        sleep_ns(FROZEN_NS);
        thawed = true;
    }
    scene.orphans = fate != THAWED || scene.orphans;
    switch (fate) {
    case THAWED:
        sim_thaw(VICTIM);
        wait_until_it_left(self, &result);
        break;
    case KILLED_AND_BACK:
        sim_kill(victims[0]);
        sim_kill(victims[1]);
        sim_thaw(VICTIM);
        break;
    default:
        sim_power_off(VICTIM);
        remove_state(VICTIM);
        if (fate == OFF) {
            for (int i = 0; i < 3; i++)
                work_once(self);
            if (evict(self, GISMO_EVICT_FORCE | GISMO_EVICT_CONFIRMED_OFF, &result) != GISMO_OK)
                sim_violation("evict of a host that is off: %s", gismo_error_message());
        }
    }
    thawed = false;
    if (fate == KILLED_AND_BACK || fate == REBOOTED || sim_random(2)) {
        sim_spawn(VICTIM, back_again, &back);
        while (!back)
            sleep_ns(5000000);
    }
    for (int i = 0; i < 6; i++)
        work_once(self);
    calm = true;
    sleep_ns(50000000); /* what the others were at is done */
    scene_drain(self, &scene);
    scene.over = true;
    scene_close(self);
}

static void body(struct sim_process *self, void *argument) {
    static struct sim_process *victims[2];
    (void)self, (void)argument;
    scene_begin(&scene);
    scene.fences = true;
    scene.orphans = true; /* a call that is fenced in the middle may have been done or not */
    calm = thawed = false;
    for (uint32_t i = 0; i < 2; i++)
        victims[i] = sim_spawn(VICTIM, victim, NULL);
    if (sim_random(2))
        sim_spawn(2, survivor, NULL);
    sim_spawn(0, overseer, victims);
}

const struct scenario scenario_silence = {
    .name = "silence",
    .what = "a host is frozen, killed or loses its power, is fenced, and comes back or does not",
    .size_bytes = 2 << 20,
    .hosts = 3,
    .body = body,
};
