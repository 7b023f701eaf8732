/*
 * scenario_litmus.c - the tests of the hardware (litmus.c) on hardware that keeps A1 to A3 and nothing else: none may fail.
 *
 * On coherent memory a test that lacks a flush holds all the same. Here it does not, so the mutants of litmus.c show that each of its flushes and fences
 * is needed, or what it is there for. At the end both hosts see both verdicts.
 */
#include "scenario.h"

#include <string.h>

#define ROUNDS 10u
#define SLICE_NS 200000u
#define SILENT_NS 20000000u
#define LOOK_NS 2000u

static const char *const names[] = {"A1.dekker", "A1.message", "A2.never_dirtied", "A3.tearing"};
static struct scene scene;
static gismo_handle areas[2];

static void must(int status, const char *what) {
    if (status != GISMO_OK)
        sim_violation("%s: %s: %s", what, gismo_status_name(status), gismo_error_message());
}

static void test(struct sim_process *self, void *own, const void *other, uint32_t number) {
    gismo_litmus run = {.own = own, .other = other, .rounds = ROUNDS, .test = number};
    self->doing = names[number];
    for (int status = 0; status != 1;) {
        status = gismo_litmus_run(&run, SLICE_NS);
        if (status < 0)
            must(status, names[number]);
        if (run.violations)
            sim_violation("%s: %llu violations in %llu rounds", names[number], (unsigned long long)run.violations,
                          (unsigned long long)run.done);
        if (run.idle_ns > SILENT_NS)
            sim_violation("%s: nothing arrives", names[number]);
    }
    if (run.done < ROUNDS)
        sim_violation("%s: %llu rounds only", names[number], (unsigned long long)run.done);
}

static void record(struct sim_process *self, uint32_t n) {
    gismo_litmus_verdict v = {.tested_unix_ns = n + 1, .partner_host = 1 - n, .outcome = GISMO_LITMUS_HOLDS};
    self->doing = "record";
    must(gismo_litmus_record(self->store, &v), "record");
    sim_send();
}

static void side(struct sim_process *self, void *argument) {
    (void)argument;
    const uint32_t me = self->host;
    gismo_object object;
    gismo_view view;
    scene_open(self);
    self->doing = "begin";
    must(gismo_create(self->store, GISMO_LITMUS_BYTES, NULL, &object), "create");
    must(gismo_litmus_begin(object.data), "begin");
    must(gismo_seal(self->store, &object, 0), "seal");
    areas[me] = object.handle;
    sim_send();
    scene_meet(&scene, 2, 1, LOOK_NS);
    sim_receive();
    must(gismo_get(self->store, &areas[1 - me], &view), "get");
    for (uint32_t number = 0; number < 4; number++)
        test(self, object.data, view.data, number);
    record(self, me);
    scene_meet(&scene, 2, 2, LOOK_NS);
    sim_receive();
    for (uint32_t host = 0; host < 2; host++) {
        gismo_host_info info;
        must(gismo_host(self->store, host, &info), "host");
        if (info.litmus.outcome != GISMO_LITMUS_HOLDS || info.litmus.tested_unix_ns != host + 1)
            sim_violation("host %u does not see the verdict of host %u", me, host);
    }
    must(gismo_release(self->store, view.slot), "release");
    scene_meet(&scene, 2, 3, LOOK_NS);
    must(gismo_delete(self->store, &object.handle), "delete");
    scene_close(self);
}

static void body(struct sim_process *self, void *argument) {
    (void)self, (void)argument;
    scene_begin(&scene);
    sim_spawn(0, side, NULL);
    sim_spawn(1, side, NULL);
}

const struct scenario scenario_litmus = {
    .name = "litmus",
    .what = "two hosts test the hardware, and each sees what the other found",
    .size_bytes = 1 << 20,
    .hosts = 2,
    .body = body,
};
