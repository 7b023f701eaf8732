/*
 * scenario_small.c - the smallest programs that meet: a few calls on each of two hosts, begun at the same moment.
 *
 * Small enough that all schedules with few preemptions can be tried one after the other (explore.c), and for the mutants of the
 * lines that they come to the quickest way to be found at random.
 */
#include "scenario.h"

#include <string.h>

#define SIDES 3u
#define LOOK_NS 1000u
#define WAIT_NS 1000000000u

struct program {
    uint32_t sides;
    uint32_t host[SIDES];
    void (*before)(struct sim_process *self, uint32_t side); /* one side after the other */
    void (*act)(struct sim_process *self, uint32_t side);    /* all at once */
};

static struct scene scene;
static struct scene_object known[4]; /* the first objects, as they were at the beginning */
static const struct program *program;
static uint32_t ready, done, dead;
static bool begun, ticking;
static size_t bytes; /* of an object: cells of a chunk, or pages of its own */

static void tick(struct sim_process *self) {
    self->doing = "tick";
    if (gismo_tick(self->store) < 0)
        sim_violation("tick: %s", gismo_error_message());
    self->doing = "";
}

/* Of an object that was there at the beginning: whether it was deleted meanwhile, or its place in the list taken, the reader is not told. */
static void read_again(struct sim_process *self, uint32_t i) {
    struct scene_object gone = known[i];
    gone.live = false;
    scene_get(self, scene.object[i].live && scene.object[i].id == gone.id ? &scene.object[i] : &gone, 1);
}

static void side(struct sim_process *self, void *argument) {
    const uint32_t number = (uint32_t)(uintptr_t)argument;
    while (ready < number)
        sleep_ns(LOOK_NS);
    scene_open(self);
    if (program->before)
        program->before(self, number);
    ready++;
    while (!begun)
        sleep_ns(LOOK_NS);
    program->act(self, number);
    self->doing = "";
    done++;
    while (!scene.over) {
        sleep_ns(ticking ? 200000 : 1000000);
        if (ticking)
            tick(self);
    }
    scene_close(self);
}

static void newcomer(struct sim_process *self, void *argument) {
    (void)argument;
    scene_open(self);
    while (!scene.over) {
        tick(self);
        sleep_ns(200000);
    }
    scene_close(self);
}

static void begin(struct sim_process *self, const struct program *which, bool small) {
    scene_begin(&scene);
    program = which;
    ready = done = 0;
    begun = ticking = false;
    bytes = small ? 200 : 33000;
    struct sim_process *sides[SIDES];
    for (uint32_t i = 0; i < which->sides; i++)
        sides[i] = sim_spawn(which->host[i], side, (void *)(uintptr_t)i);
    while (ready < which->sides)
        sleep_ns(LOOK_NS);
    memcpy(known, scene.object, sizeof known);
    begun = true;
    sim_explore(true);
    do {
        sleep_ns(WAIT_NS);
        for (uint32_t i = dead = 0; i < which->sides; i++)
            dead += sim_ended(sides[i]);
    } while (done + dead < which->sides);
    sim_explore(false);
    scene.orphans = dead > 0;
    for (uint32_t host = 0; dead && host < 2; host++) /* of a host that lost its only process, too */
        sim_spawn(host, newcomer, NULL);
    /* That all becomes free in the end is asked of every run but where there are thousands: it takes most of the steps. */
    if (!sim_is_scheduled() || dead || sim_steps() % 8 == 0) {
        ticking = true;
        scene_open(self);
        scene_drain(self, &scene);
        scene_close(self);
    }
    scene.over = true;
}

/* ---- pin: a get of what is just deleted, and whose place is used again ------------------------------------- */

static void pin_before(struct sim_process *self, uint32_t side) {
    if (side == 0)
        scene_put(self, &scene, bytes, SCENE_PUT);
}

static void pin_act(struct sim_process *self, uint32_t side) {
    if (side == 0) {
        scene_delete(self, &scene.object[0]);
        scene_put(self, &scene, bytes, SCENE_PUT);
    } else {
        read_again(self, 0);
    }
}

/* ---- clear: the deleter asks for a pin byte to be cleared, while its host begins to read another object --------- */

static void clear_before(struct sim_process *self, uint32_t side) {
    if (side == 0) {
        scene_put(self, &scene, bytes, SCENE_PUT);
        scene_put(self, &scene, bytes, SCENE_PUT);
    } else if (side == 1) {
        scene_get(self, &scene.object[0], 0);
    }
}

static void clear_act(struct sim_process *self, uint32_t side) {
    if (side == 0) {
        scene_delete(self, &scene.object[0]);
        tick(self);
        tick(self);
        scene_put(self, &scene, bytes, SCENE_PUT);
    } else if (side == 1) {
        tick(self);
        tick(self);
    } else {
        read_again(self, 0);
        read_again(self, 1);
    }
}

/* ---- ask: a host deletes the objects of another, which is making new ones ------------------------------------- */

static void ask_before(struct sim_process *self, uint32_t side) {
    for (uint32_t i = 0; side == 0 && i < 3; i++)
        scene_put(self, &scene, bytes, SCENE_PUT);
}

static void ask_act(struct sim_process *self, uint32_t side) {
    if (side == 0) {
        tick(self);
        scene_put(self, &scene, bytes, SCENE_PUT);
        tick(self);
        scene_put(self, &scene, bytes, SCENE_PUT);
    } else {
        scene_delete(self, &scene.object[0]);
        scene_delete(self, &scene.object[1]);
        tick(self);
        read_again(self, 2);
    }
}

/* ---- name: a name is looked up, taken and given up at once ------------------------------------------------------ */

static void name_before(struct sim_process *self, uint32_t side) {
    if (side == 0) {
        scene_put(self, &scene, bytes, SCENE_NAMED);
        scene_put(self, &scene, bytes, SCENE_NAMED);
    }
}

static void name_act(struct sim_process *self, uint32_t side) {
    if (side == 0) {
        scene_delete(self, &scene.object[0]);
        scene_put(self, &scene, bytes, SCENE_NAMED);
    } else {
        for (uint32_t i = 0; i < 2; i++) {
            struct scene_object o = known[i];
            o.live = false;
            scene_lookup(self, scene.object[i].id == o.id && scene.object[i].live ? &scene.object[i] : &o);
        }
    }
}

/* ---- lease: both need an arena and a slot group at once ---------------------------------------------------------- */

static void lease_act(struct sim_process *self, uint32_t side) {
    scene_put(self, &scene, bytes, SCENE_PUT);
    if (scene.object[1 - side].live)
        scene_get(self, &scene.object[1 - side], 1);
}

/* ---- leave: a host's last process leaves while another joins, and another host reads and deletes ------------------- */

static void leave_before(struct sim_process *self, uint32_t side) {
    if (side != 1)
        scene_put(self, &scene, bytes, SCENE_PUT);
}

static void leave_act(struct sim_process *self, uint32_t side) {
    if (side == 2) {
        scene_delete(self, &scene.object[0]);
        tick(self);
        return;
    }
    scene_close(self);
    scene_open(self);
    if (side == 0)
        scene_put(self, &scene, bytes, SCENE_PUT);
    else
        read_again(self, 1);
}

#define PROGRAM(NAME, WHAT, SMALL, ...)                                                                                \
    static void body_##NAME(struct sim_process *self, void *argument) {                                                \
        static const struct program which = {__VA_ARGS__};                                                             \
        (void)argument;                                                                                                \
        begin(self, &which, scene_seed() % 2);                                                                         \
    }                                                                                                                  \
    const struct scenario scenario_##NAME = {                                                                          \
        .name = #NAME, .what = WHAT, .size_bytes = 1 << 20, .hosts = 2, .body = body_##NAME, .small = SMALL};
#define SMALL(NAME, WHAT, ...) PROGRAM(NAME, WHAT, true, __VA_ARGS__)

SMALL(pin, "small: an object is read while it is deleted and its place used again", .sides = 2, .host = {0, 1},
      .before = pin_before, .act = pin_act)
SMALL(clear, "small: a pin byte is cleared while another process of its host reads", .sides = 3, .host = {0, 1, 1},
      .before = clear_before, .act = clear_act)
SMALL(ask, "small: objects of another host are deleted", .sides = 2, .host = {0, 1}, .before = ask_before,
      .act = ask_act)
SMALL(name, "small: a name is taken, looked up and given up", .sides = 2, .host = {0, 1}, .before = name_before,
      .act = name_act)
SMALL(lease, "small: two hosts want an arena and a slot group at once", .sides = 2, .host = {0, 1}, .act = lease_act)
/* To open a store takes thousands of steps: too many for all schedules. */
PROGRAM(leave, "the last process of a host leaves, and the next one comes", false, .sides = 3, .host = {0, 0, 1},
        .before = leave_before, .act = leave_act)
