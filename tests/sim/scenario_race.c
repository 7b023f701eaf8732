/*
 * scenario_race.c - the smallest races, over and over: one host reads what another deletes, and uses its place again at once.
 *
 * Both sides of P3 and P5 (FORMAT.md) begin at the same moment, so that the adversary needs to do little to bring each pair of their
 * steps into any order. There is no background work: what must happen between two hosts happens in these calls.
 */
#include "scenario.h"

#define ROUNDS 24u
#define LOOK_NS 200u

static struct scene scene;
static uint32_t sides;

static void owner(struct sim_process *self, void *argument) {
    const size_t n = *(const size_t *)argument;
    scene_open(self);
    scene_put(self, &scene, n, SCENE_PUT);
    scene_meet(&scene, sides, 1, LOOK_NS);
    for (uint32_t round = 2; round < ROUNDS; round++) {
        struct scene_object *old = scene_any(&scene);
        if (old)
            scene_delete(self, old);
        scene_put(self, &scene, n, SCENE_PUT); /* in the same place, if it was free */
        if (sim_random(2)) {                   /* CLEAR, and what comes of it */
            self->doing = "tick";
            gismo_tick(self->store);
        }
        scene_meet(&scene, sides, round, LOOK_NS);
    }
    scene.over = true;
    scene_close(self);
}

static void reader(struct sim_process *self, void *argument) {
    (void)argument;
    scene_open(self);
    scene_meet(&scene, sides, 1, LOOK_NS);
    for (uint32_t round = 2; round < ROUNDS; round++) {
        struct scene_object *o = scene_any(&scene);
        if (o)
            scene_get(self, o, (uint32_t)sim_random(12));
        if (sim_random(3) == 0) {
            self->doing = "tick";
            gismo_tick(self->store);
        }
        scene_meet(&scene, sides, round, LOOK_NS);
    }
    scene_close(self);
}

static void body(struct sim_process *self, void *argument) {
    (void)self, (void)argument;
    static const size_t sizes[] = {30000, 33000}; /* two cells of a chunk, or pages of its own */
    scene_begin(&scene);
    sides = 2 + (sim_random(3) == 0);
    sim_spawn(0, owner, (void *)(uintptr_t)&sizes[sim_random(2)]);
    for (uint32_t i = 1; i < sides; i++)
        sim_spawn(1, reader, NULL);
}

const struct scenario scenario_race = {
    .name = "race",
    .what = "one host reads what another deletes and puts anew, in small steps",
    .size_bytes = 1 << 20,
    .hosts = 2,
    .body = body,
};
