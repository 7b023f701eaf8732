/*
 * scenario_told.c - two hosts by turns: what one has done and told the other (by a message outside of the store), the other sees at once.
 *
 * Where the core only gives advice, or looks again later, a flush that is missing does no harm to any byte: it makes hosts slow, or shows what is
 * long past. So here nobody has time: what is told must be seen by the next look, and what is asked must be done by the next tick, or the next
 * but one, long before anything is asked again.
 */
#include "scenario.h"

#include <string.h>

#define ROUNDS 3u
#define LOOK_NS 300u
#define ASK_AGAIN_NS 10000000u
#define TICKS 2u /* that another may take to do what it was asked: far less time than until it is asked again */

static struct scene scene;
static uint32_t turn;
static size_t bytes;
static struct scene_object x, y, z;
static gismo_view view;
static uint64_t heartbeat;

static void must(int status, int wanted, const char *what) {
    if (status != wanted)
        sim_violation("%s: %s, not %s: %s", what, gismo_status_name(status), gismo_status_name(wanted),
                      gismo_error_message());
}

static void tick(struct sim_process *self) {
    self->doing = "tick";
    if (gismo_tick(self->store) < 0)
        sim_violation("tick: %s", gismo_error_message());
}

static void put(struct sim_process *self, struct scene_object *o, enum scene_way way) {
    scene_put(self, &scene, bytes, way);
    *o = scene.object[0];
    scene.object[0].live = false; /* of this scenario alone: nobody chooses it at random */
    if (!o->live)
        sim_violation("the store is full");
}

/* What a walk over all objects says of it; FREE if it is not there. */
static gismo_object_info found(struct sim_process *self, const struct scene_object *o) {
    gismo_object_info info, none = {0};
    self->doing = "next";
    for (uint64_t cursor = 0; gismo_next(self->store, &cursor, &info) == GISMO_OK;)
        if (memcmp(&info.handle, &o->handle, sizeof info.handle) == 0)
            return info;
    return none;
}

static bool listed(struct sim_process *self, const struct scene_object *o) {
    gismo_brief briefs[8];
    self->doing = "list";
    int n;
    for (uint64_t cursor = 0; (n = gismo_list(self->store, &cursor, 0, 0, briefs, 8)) > 0;)
        for (int i = 0; i < n; i++)
            if (memcmp(&briefs[i].handle, &o->handle, sizeof o->handle) == 0)
                return true;
    return false;
}

/* By one who looks for the first time; a second look finds nothing changed. */
static bool followed(struct sim_process *self, const struct scene_object *o) {
    static uint64_t seen[1 << 16];
    gismo_brief briefs[8];
    gismo_info info;
    bool found = false;
    self->doing = "follow";
    must(gismo_get_info(self->store, &info), GISMO_OK, "info");
    if (info.max_objects > sizeof seen / sizeof *seen)
        sim_violation("there are %llu slots", (unsigned long long)info.max_objects);
    memset(seen, 0, info.max_objects * sizeof *seen);
    for (int round = 0; round < 2; round++)
        for (uint64_t cursor = 0; cursor < info.max_objects;) {
            int n = gismo_follow(self->store, &cursor, 0, 0, seen, briefs, 8);
            if (n < 0)
                sim_violation("follow gives %d", n);
            for (int i = 0; i < n; i++) {
                if (round == 1 && briefs[i].change != GISMO_UNCHANGED)
                    sim_violation("a second look finds slot %u changed", briefs[i].handle.slot);
                found |= memcmp(&briefs[i].handle, &o->handle, sizeof o->handle) == 0;
            }
        }
    return found;
}

static void sees(struct sim_process *self, const struct scene_object *o) {
    gismo_object_info info = found(self, o);
    uint8_t is[64], want[64];
    const size_t n = o->handle.length < sizeof is ? o->handle.length : sizeof is;
    if (info.state != GISMO_SEALED || info.owner_lane != o->host)
        sim_violation("object %llu is told of and not seen by a walk: state %u, of host %u", (unsigned long long)o->id,
                      info.state, info.owner_lane);
    if (o->named && info.name_bytes == 0)
        sim_violation("a walk does not see the name of object %llu", (unsigned long long)o->id);
    if (!listed(self, o))
        sim_violation("object %llu is told of and not listed", (unsigned long long)o->id);
    if (!followed(self, o))
        sim_violation("object %llu is told of and not found new", (unsigned long long)o->id);
    self->doing = "peek";
    scene_fill(want, n, o->id);
    must(gismo_peek(self->store, &o->handle, 0, n, is), GISMO_OK, "peek of an object that is told of");
    if (memcmp(is, want, n) != 0)
        sim_violation("peek gives wrong bytes of object %llu", (unsigned long long)o->id);
    if (o->named) {
        gismo_handle h;
        self->doing = "lookup";
        must(gismo_lookup(self->store, info.name, info.name_bytes, 0, &h), GISMO_OK,
             "lookup of a name that is told of");
    }
}

static void is_gone(struct sim_process *self, const struct scene_object *o, const char *when) {
    uint8_t byte;
    if (listed(self, o))
        sim_violation("%s: object %llu is listed", when, (unsigned long long)o->id);
    if (followed(self, o))
        sim_violation("%s: object %llu is found new", when, (unsigned long long)o->id);
    self->doing = "peek";
    must(gismo_peek(self->store, &o->handle, 0, 1, &byte), GISMO_EGONE, when);
    self->doing = "get";
    gismo_view v;
    must(gismo_get(self->store, &o->handle, &v), GISMO_EGONE, when);
}

static void is_free(struct sim_process *self, const struct scene_object *o, const char *when) {
    gismo_object_info info = found(self, o);
    if (info.state != GISMO_FREE)
        sim_violation("%s: the room of object %llu did not come back: state %u, pinned by hosts %#llx", when,
                      (unsigned long long)o->id, info.state, (unsigned long long)info.pinned_lanes);
}

static void counts(struct sim_process *self, uint32_t host, uint64_t objects, const char *when) {
    gismo_host_info info;
    gismo_stats stats;
    self->doing = "host";
    must(gismo_host(self->store, host, &info), GISMO_OK, "host");
    if (info.state != GISMO_LANE_ACTIVE || info.objects != objects)
        sim_violation("%s: host %u is in state %u and has %llu objects, not %llu", when, host, info.state,
                      (unsigned long long)info.objects, (unsigned long long)objects);
    self->doing = "stats";
    must(gismo_get_stats(self->store, &stats), GISMO_OK, "stats");
    if (stats.sealed_objects != objects)
        sim_violation("%s: there are %llu objects, not %llu", when, (unsigned long long)stats.sealed_objects,
                      (unsigned long long)objects);
}

static void beats(struct sim_process *self, uint32_t host) {
    gismo_host_info info;
    self->doing = "host";
    must(gismo_host(self->store, host, &info), GISMO_OK, "host");
    if (host == self->host)
        heartbeat = info.heartbeat;
    else if (info.heartbeat < heartbeat)
        sim_violation("the heartbeat of host %u is %llu, and was told to be %llu", host,
                      (unsigned long long)info.heartbeat, (unsigned long long)heartbeat);
}

/* ---- the turns: even ones of host 0, odd ones of host 1 ------------------------------------------------------------ */

static void t0(struct sim_process *self) {
    put(self, &x, SCENE_NAMED);
    put(self, &y, SCENE_CREATE);
    counts(self, 0, 2, "just put");
    tick(self);
    beats(self, 0);
}

static void t1(struct sim_process *self) {
    beats(self, 0);
    sees(self, &x);
    sees(self, &y);
    counts(self, 0, 2, "told of two");
    self->doing = "get";
    must(gismo_get(self->store, &x.handle, &view), GISMO_OK, "get of an object that is told of");
    scene_verify(&view, x.id, "after get");
}

static void t2(struct sim_process *self) {
    if ((found(self, &x).pinned_lanes & 2) == 0)
        sim_violation("the pin of host 1 on object %llu is not seen", (unsigned long long)x.id);
    self->doing = "delete";
    must(gismo_delete(self->store, &x.handle), GISMO_OK, "delete");
    is_gone(self, &x, "deleted here");
    tick(self);
}

static void t3(struct sim_process *self) {
    is_gone(self, &x, "told that it is deleted");
    if (found(self, &x).state != GISMO_DELETED)
        sim_violation("object %llu is deleted and pinned, and its state is not", (unsigned long long)x.id);
    tick(self); /* CLEAR: not yet */
    scene_verify(&view, x.id, "deleted, and pinned");
    self->doing = "release";
    must(gismo_release(self->store, view.slot), GISMO_OK, "release");
    self->doing = "delete";
    must(gismo_delete(self->store, &y.handle), GISMO_OK, "delete");
    is_gone(self, &y, "deleted here, of another host");
    tick(self);
}

static void t4(struct sim_process *self) {
    for (uint32_t i = 0; i < TICKS; i++)
        tick(self);
    is_gone(self, &y, "another host asked for its deletion");
    is_free(self, &y, "another host asked for its deletion");
    sleep_ns(ASK_AGAIN_NS); /* who pinned it is asked again, but not all the time */
    tick(self);
}

static void t5(struct sim_process *self) {
    tick(self); /* CLEAR, once more */
    is_free(self, &y, "told that it is free");
    counts(self, 0, 0, "all deleted");
}

static void t6(struct sim_process *self) {
    tick(self);
    is_free(self, &x, "the last reader let go");
}

static void t7(struct sim_process *self) {
    is_free(self, &x, "told that it is free");
    put(self, &z, SCENE_NAMED);
    tick(self);
    beats(self, 1);
}

static void t8(struct sim_process *self) {
    beats(self, 1);
    sees(self, &z);
    counts(self, 1, 1, "told of one");
    self->doing = "delete";
    must(gismo_delete(self->store, &z.handle), GISMO_OK, "delete");
    tick(self);
}

static void t9(struct sim_process *self) {
    for (uint32_t i = 0; i < TICKS; i++)
        tick(self);
    is_gone(self, &z, "another host asked for its deletion");
    is_free(self, &z, "another host asked for its deletion");
}

static void (*const turns[])(struct sim_process *) = {t0, t1, t2, t3, t4, t5, t6, t7, t8, t9};
#define TURNS ((uint32_t)(sizeof turns / sizeof *turns))

static void play(struct sim_process *self, void *argument) {
    (void)argument;
    scene_open(self);
    for (uint32_t at = self->host; at < ROUNDS * TURNS; at += 2) {
        while (turn < at)
            sleep_ns(LOOK_NS);
        sim_receive();
        turns[at % TURNS](self);
        self->doing = "";
        sim_send();
        turn++;
    }
    scene_close(self);
}

static void body(struct sim_process *self, void *argument) {
    (void)self, (void)argument;
    static const size_t sizes[] = {40, 300, 3000, 33000};
    scene_begin(&scene);
    turn = 0;
    bytes = sizes[scene_seed() % 4];
    sim_spawn(0, play, NULL);
    sim_spawn(1, play, NULL);
}

const struct scenario scenario_told = {
    .name = "told",
    .what = "by turns: what one host has done and told another of, that one sees at once",
    .size_bytes = 1 << 20,
    .hosts = 2,
    .body = body,
};
