/*
 * scenario_move.c - a lane that was left in order is taken by another machine, which had read what lay there before.
 *
 * What a host has in its cache of its own lane it believes, so that it need not look at the device for what it wrote itself. That is right only if
 * nothing old is in its cache when it takes a lane.
 */
#include "scenario.h"

#define TURNS 3u
#define LOOK_NS 20000u

static struct scene scene;

static void machine(struct sim_process *self, void *argument) {
    static const size_t sizes[] = {40, 200, 900, 30000, 33000};
    (void)argument;
    for (uint32_t turn = 0; turn < TURNS; turn++) {
        scene_open(self);
        scene_meet(&scene, 2, 2 * turn + 1, LOOK_NS);
        for (uint64_t n = 4 + sim_random(10); n > 0; n--) {
            struct scene_object *o = scene_any(&scene);
            uint64_t dice = sim_random(8);
            if (o == NULL || dice < 3)
                scene_put(self, &scene, sizes[sim_random(sizeof sizes / sizeof *sizes)],
                          sim_random(3) ? SCENE_PUT : SCENE_NAMED);
            else if (dice < 5)
                scene_get(self, o, 1);
            else if (dice < 6 && o->named)
                scene_lookup(self, o);
            else if (dice < 7)
                scene_delete(self, o);
            else
                gismo_tick(self->store);
        }
        if (turn + 1 == TURNS)
            break;
        scene_meet(&scene, 2, 2 * turn + 2, LOOK_NS); /* both at work until here: requests to the other are answered */
        for (int i = 0; i < 20; i++) {
            gismo_tick(self->store);
            sleep_ns(100000);
        }
        scene_close(self);
        self->lane = 1 - self->lane;
        while (world_store_of(self->lane))
            sleep_ns(LOOK_NS);
        (void)scene_lose_state(self);
    }
    scene_meet(&scene, 2, 2 * TURNS, LOOK_NS);
    if (self->lane == 0) {
        scene_drain(self, &scene);
        scene.over = true;
    }
    while (!scene.over) {
        gismo_tick(self->store);
        sleep_ns(200000);
    }
    scene_close(self);
}

static void body(struct sim_process *self, void *argument) {
    (void)self, (void)argument;
    scene_begin(&scene);
    sim_spawn(0, machine, NULL);
    sim_spawn(1, machine, NULL);
}

const struct scenario scenario_move = {
    .name = "move",
    .what = "a lane is taken by another machine, which had read what lay there",
    .size_bytes = 1 << 20,
    .hosts = 2,
    .body = body,
};
