/*
 * scenario_work.c - workers on several hosts that do a random mixture of everything; each scenario has another mixture.
 */
#include "scenario.h"

#include <stdio.h>
#include <string.h>

struct mixture {
    uint32_t hosts, more_hosts, workers, more_workers; /* more: up to so many, now and then */
    uint64_t operations, more_operations;
    uint32_t puts, gets, deletes, lookups, ticks, looks, reopens; /* weights */
    uint32_t named;                                               /* of 16 puts */
    const size_t *sizes;
    uint32_t size_count;
    uint32_t kills; /* at most, in a run */
};

static struct scene scene;
static const struct mixture *mix;

static void look(struct sim_process *self) {
    self->doing = "look";
    uint64_t cursor = 0;
    gismo_brief briefs[4];
    while (gismo_list(self->store, &cursor, 0, 0, briefs, 4) > 0)
        ;
    struct scene_object *o = scene_any(&scene);
    if (o) { /* without a pin, in the middle of a delete perhaps: right bytes, or an error */
        const struct scene_object was = *o;
        uint8_t want[64], is[64];
        size_t n = was.handle.length < sizeof is ? was.handle.length : sizeof is;
        scene_fill(want, n, was.id);
        sim_receive();
        int status = gismo_peek(self->store, &was.handle, 0, n, is);
        bool still = o->live && o->id == was.id;
        if (status == GISMO_OK && memcmp(is, want, n) != 0)
            sim_violation("peek gives wrong bytes of object %llu", (unsigned long long)was.id);
        if (status != GISMO_OK && still)
            scene_missing("peek", &was, status);
    }
    gismo_host_info info;
    (void)gismo_host(self->store, (self->host + 1) % mix->hosts, &info);
    self->doing = "";
}

static void reopen(struct sim_process *self) {
    scene_close(self);
    if (sim_random(4) == 0)
        (void)scene_lose_state(self);
    if (sim_random(2))
        sleep_ns(sim_random(600000));
    scene_open(self);
}

static void work(struct sim_process *self) {
    uint32_t total = mix->puts + mix->gets + mix->deletes + mix->lookups + mix->ticks + mix->looks + mix->reopens;
    struct scene_object *o = scene_any(&scene);
    uint32_t dice = (uint32_t)sim_random(total);
    if (o == NULL || dice < mix->puts) {
        size_t n = mix->sizes[sim_random(mix->size_count)];
        scene_put(self, &scene, n,
                  sim_random(16) < mix->named ? SCENE_NAMED
                  : sim_random(2)             ? SCENE_CREATE
                                              : SCENE_PUT);
    } else if ((dice -= mix->puts) < mix->gets) {
        scene_get(self, o, (uint32_t)sim_random(8));
    } else if ((dice -= mix->gets) < mix->deletes) {
        scene_delete(self, o);
    } else if ((dice -= mix->deletes) < mix->lookups) {
        if (o->named)
            scene_lookup(self, o);
    } else if ((dice -= mix->lookups) < mix->ticks) {
        self->doing = "tick";
        gismo_tick(self->store);
    } else if ((dice -= mix->ticks) < mix->looks) {
        look(self);
    } else {
        reopen(self);
    }
}

/* Does its host's background work until all is over. */
static void ticker(struct sim_process *self, void *argument) {
    (void)argument;
    scene_open(self);
    while (!scene.over) {
        self->doing = "tick";
        if (gismo_tick(self->store) < 0)
            sim_violation("tick: %s", gismo_error_message());
        self->doing = "";
        sleep_ns(200000);
        if (mix->reopens && sim_random(4) == 0)
            reopen(self);
    }
    scene_close(self);
}

static void worker(struct sim_process *self, void *argument) {
    (void)argument;
    scene_open(self);
    uint64_t operations = mix->operations + sim_random(mix->more_operations);
    while (operations-- > 0)
        work(self);
    scene_close(self);
    scene.workers--;
}

/* Kills some, has others take their place; the last of all sees to it that everything can be freed. */
static void overseer(struct sim_process *self, void *argument) {
    struct sim_process **workers = argument;
    uint32_t kills = mix->kills ? (uint32_t)sim_random(mix->kills + 1) : 0, count = scene.workers, spawned = 0;
    while (scene.workers > 0) {
        sleep_ns(1000 + sim_random(400000));
        struct sim_process *victim = workers[sim_random(count)];
        if (kills == 0 || victim->store == NULL || sim_ended(victim))
            continue;
        kills--;
        scene.orphans = true;
        uint32_t host = victim->host;
        sim_kill(victim);
        scene.workers--;
        if (spawned++ < 2 && sim_random(2)) {
            scene.workers++;
            sim_spawn(host, worker, NULL);
        }
    }
    scene_open(self);
    scene_drain(self, &scene); /* the tickers go on until all is clean */
    scene.over = true;
    scene_close(self);
}

static void begin(struct sim_process *self, const struct mixture *mixture) {
    static struct sim_process *workers[SIM_PROCESSES];
    (void)self;
    mix = mixture;
    scene_begin(&scene);
    uint32_t hosts = mix->hosts + (mix->more_hosts && sim_random(4) == 0);
    uint32_t each = mix->workers + (mix->more_workers && sim_random(4) == 0);
    for (uint32_t host = 0; host < hosts; host++) {
        for (uint32_t i = 0; i < each; i++)
            workers[scene.workers++] = sim_spawn(host, worker, NULL);
        sim_spawn(host, ticker, NULL);
    }
    sim_spawn(0, overseer, workers);
}

#define SIZES(...)                                                                                                     \
    .sizes = (const size_t[]){__VA_ARGS__}, .size_count = sizeof((const size_t[]){__VA_ARGS__}) / sizeof(size_t)

#define SCENARIO(NAME, WHAT, SIZE, HOSTS, ...)                                                                         \
    static const struct mixture mixture_##NAME = {__VA_ARGS__};                                                        \
    static void body_##NAME(struct sim_process *self, void *argument) {                                                \
        (void)argument;                                                                                                \
        begin(self, &mixture_##NAME);                                                                                  \
    }                                                                                                                  \
    const struct scenario scenario_##NAME = {                                                                          \
        .name = #NAME, .what = WHAT, .size_bytes = SIZE, .hosts = HOSTS, .body = body_##NAME};

SCENARIO(share, "hosts put, read, hold and delete each other's objects", 2 << 20, 3, .hosts = 2, .more_hosts = 1,
         .workers = 1, .more_workers = 1, .operations = 6, .more_operations = 24, .puts = 5, .gets = 6, .deletes = 4,
         .ticks = 1, SIZES(1, 40, 64, 200, 300, 900, 30000))

SCENARIO(reuse, "slots and pages are used again at once, while others still read", 2 << 20, 2, .hosts = 2, .workers = 1,
         .more_workers = 1, .operations = 40, .more_operations = 80, .puts = 6, .gets = 6, .deletes = 6, .ticks = 1,
         SIZES(30000, 32000, 33000, 40000))

SCENARIO(pressure, "the store is full, arenas and slot groups change hands", 1 << 20, 3, .hosts = 2, .more_hosts = 1,
         .workers = 1, .operations = 20, .more_operations = 30, .puts = 8, .gets = 3, .deletes = 5, .ticks = 1,
         SIZES(200, 3000, 20000, 50000, 64000))

SCENARIO(names, "named objects, looked up by all", 2 << 20, 3, .hosts = 2, .more_hosts = 1, .workers = 1,
         .more_workers = 1, .operations = 10, .more_operations = 30, .puts = 5, .gets = 2, .deletes = 4, .lookups = 8,
         .ticks = 1, .named = 13, SIZES(1, 64, 200))

SCENARIO(deaths, "processes are killed anywhere", 2 << 20, 3, .hosts = 2, .more_hosts = 1, .workers = 2,
         .operations = 10, .more_operations = 30, .puts = 6, .gets = 5, .deletes = 5, .lookups = 2, .ticks = 1,
         .named = 4, .kills = 3, SIZES(40, 200, 900, 30000, 40000))

SCENARIO(restarts, "hosts leave and come back", 2 << 20, 2, .hosts = 2, .workers = 1, .more_workers = 1,
         .operations = 10, .more_operations = 20, .puts = 6, .gets = 5, .deletes = 4, .reopens = 3, .lookups = 2,
         .named = 4, SIZES(40, 900, 30000, 40000))

SCENARIO(look, "some only look: lists, hosts, peeks", 2 << 20, 2, .hosts = 2, .workers = 1, .more_workers = 1,
         .operations = 20, .more_operations = 30, .puts = 5, .gets = 1, .deletes = 4, .looks = 6, SIZES(40, 200, 33000))
