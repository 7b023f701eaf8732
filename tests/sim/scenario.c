/*
 * scenario.c - the steps that scenarios are made of, each with what must hold afterwards.
 */
#include "scenario.h"

#include "prim_sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t word_at(uint64_t id, uint64_t i) {
    uint64_t z = (id << 20 ^ i) * 0x9e3779b97f4a7c15ull;
    return z ^ z >> 29;
}

void scene_fill(uint8_t *bytes, size_t n, uint64_t id) {
    for (size_t at = 0; at < n; at += 8) {
        uint64_t value = word_at(id, at / 8);
        memcpy(bytes + at, &value, n - at < 8 ? n - at : 8);
    }
}

void scene_verify(const gismo_view *view, uint64_t id, const char *when) {
    for (size_t at = 0; at < view->length; at += 8) {
        if (view->length > 2048 && at % SIM_LINE == 0 && at > 0 && at + 2 * SIM_LINE < view->length &&
            sim_random(view->length / SIM_LINE) > 2) { /* of a long one the ends, and here and there a line */
            at += SIM_LINE - 8;
            continue;
        }
        size_t n = view->length - at < 8 ? view->length - at : 8;
        uint64_t is = 0, want = word_at(id, at / 8);
        if (n < 8)
            want &= (1ull << (8 * n)) - 1;
        sim_user_read(&is, (const uint8_t *)view->data + at, n);
        if (is != want)
            sim_violation("%s: byte %zu of object %llu (slot %u, generation %llu) is %#llx, not %#llx", when, at,
                          (unsigned long long)id, view->slot, (unsigned long long)view->generation,
                          (unsigned long long)is, (unsigned long long)want);
    }
}

static uint32_t opening[SIM_HOSTS]; /* processes in the middle of it */
static const struct scene *now;

bool scene_fenced(struct sim_process *self, int status) {
    if (status != GISMO_EFENCED || !now->fences)
        return false;
    self->fenced = true;
    self->doing = "";
    return true;
}

void scene_begin(struct scene *scene) {
    *scene = (struct scene){0};
    now = scene;
    memset(opening, 0, sizeof opening);
}

void scene_meet(struct scene *scene, uint32_t sides, uint32_t n, uint64_t look_ns) {
    scene->arrived++;
    while (scene->arrived < sides * n)
        sleep_ns(look_ns);
}

void scene_missing(const char *what, const struct scene_object *o, int status) {
    sim_violation("%s of object %llu of host %u, which nobody has deleted: %s: %s", what, (unsigned long long)o->id,
                  o->host, gismo_status_name(status), gismo_error_message());
}

struct gismo_store *scene_open(struct sim_process *self) {
    char dir[128];
    snprintf(dir, sizeof dir, "%s.h%u", scene_store_path(), self->lane);
    gismo_open_options o = {.state_dir = dir, .host_id = (int32_t)self->lane, .no_thread = 1};
    self->doing = "open";
    opening[self->lane]++;
    int status = gismo_open(scene_store_path(), &o, &self->store);
    opening[self->lane]--;
    if (scene_fenced(self, status))
        return NULL;
    if (status != GISMO_OK)
        sim_violation("open: %s: %s", gismo_status_name(status), gismo_error_message());
    self->doing = "";
    return self->store;
}

struct scene_object *scene_any(struct scene *scene) {
    uint32_t start = (uint32_t)sim_random(SCENE_OBJECTS);
    for (uint32_t n = 0; n < SCENE_OBJECTS; n++)
        if (scene->object[(start + n) % SCENE_OBJECTS].live)
            return &scene->object[(start + n) % SCENE_OBJECTS];
    return NULL;
}

static gismo_create_options named(uint64_t id, char name[32]) {
    gismo_create_options o = {0};
    o.name = name;
    o.name_bytes = (uint32_t)snprintf(name, 32, "object %llu", (unsigned long long)id);
    return o;
}

void scene_put(struct sim_process *self, struct scene *scene, size_t n, enum scene_way way) {
    static uint8_t all[SIM_PROCESSES][64 << 10];
    uint8_t *bytes = all[self->index];
    char name[32];
    struct scene_object new = {.id = ++scene->next_id, .host = self->host, .live = true}, *to = NULL;
    gismo_create_options options = named(new.id, name);
    new.named = way == SCENE_NAMED;
    scene_fill(bytes, n, new.id);
    int status;
    if (way == SCENE_CREATE) {
        gismo_object object;
        self->doing = "create";
        status = gismo_create(self->store, n, NULL, &object);
        if (status == GISMO_OK) {
            new.handle = object.handle;
            sim_user_write(object.data, bytes, n);
            self->doing = "seal";
            status = gismo_seal(self->store, &object, sim_random(2) ? GISMO_SEAL_CRC : 0);
        }
    } else {
        self->doing = "put";
        gismo_buffer buffer = {bytes, n};
        status = gismo_put(self->store, &buffer, 1, new.named ? &options : NULL, &new.handle);
    }
    if (status == GISMO_EFULL || scene_fenced(self, status)) {
        self->doing = "";
        return;
    }
    if (status != GISMO_OK)
        sim_violation("%s: %s: %s", self->doing, gismo_status_name(status), gismo_error_message());
    self->doing = "";
    sim_send();
    for (uint32_t i = 0; i < SCENE_OBJECTS && to == NULL; i++)
        if (!scene->object[i].live)
            to = &scene->object[i];
    if (to)
        *to = new;
    else if ((status = gismo_delete(self->store, &new.handle)) != GISMO_OK && !scene_fenced(self, status))
        sim_violation("delete: %s", gismo_error_message());
}

void scene_get(struct sim_process *self, struct scene_object *o, uint32_t pauses) {
    const struct scene_object was = *o;
    gismo_view view;
    self->doing = "get";
    sim_receive();
    int status = gismo_get(self->store, &was.handle, &view);
    bool still = o->live && o->id == was.id;
    if ((status == GISMO_EGONE && !still) || scene_fenced(self, status))
        return;
    if (status != GISMO_OK)
        scene_missing("get", &was, status);
    self->doing = "read";
    if (view.length != was.handle.length)
        sim_violation("get: %llu bytes in the place of %llu", (unsigned long long)view.length,
                      (unsigned long long)was.handle.length);
    scene_verify(&view, was.id, "after get");
    if (pauses) {
        while (pauses-- > 0)
            sim_pause();
        scene_verify(&view, was.id, "some time after get");
    }
    self->doing = "release";
    status = gismo_release(self->store, view.slot);
    if (status != GISMO_OK)
        sim_violation("release: %s", gismo_error_message());
    self->doing = "";
}

void scene_lookup(struct sim_process *self, struct scene_object *o) {
    const struct scene_object was = *o;
    char name[32];
    gismo_handle h;
    gismo_create_options options = named(was.id, name);
    self->doing = "lookup";
    sim_receive();
    int status = gismo_lookup(self->store, options.name, options.name_bytes, 0, &h);
    bool still = o->live && o->id == was.id;
    if ((status == GISMO_ENOTFOUND && !still) || scene_fenced(self, status))
        return;
    if (status != GISMO_OK)
        scene_missing("lookup", &was, status);
    if (memcmp(&h, &was.handle, sizeof h) != 0)
        sim_violation("lookup of object %llu gives slot %u, generation %llu, not slot %u, generation %llu",
                      (unsigned long long)was.id, h.slot, (unsigned long long)h.generation, was.handle.slot,
                      (unsigned long long)was.handle.generation);
    /* A second object of the name is refused for as long as the first is there. */
    gismo_buffer buffer = {name, 8};
    self->doing = "put again";
    status = gismo_put(self->store, &buffer, 1, &options, &h);
    still = o->live && o->id == was.id;
    if (status == GISMO_OK && !still)
        status = gismo_delete(self->store, &h);
    else if (status == GISMO_OK)
        sim_violation("a second object called \"%s\" could be sealed", name);
    if (status != GISMO_OK && status != GISMO_EEXIST && status != GISMO_EFULL && !scene_fenced(self, status))
        sim_violation("put of a name that is taken: %s: %s", gismo_status_name(status), gismo_error_message());
    self->doing = "";
}

void scene_delete(struct sim_process *self, struct scene_object *o) {
    const struct scene_object was = *o; /* its place may be taken as soon as it is not live */
    const gismo_handle h = was.handle;
    o->live = false;
    self->doing = "delete";
    sim_receive();
    int status = gismo_delete(self->store, &h);
    if (scene_fenced(self, status))
        return;
    if (status != GISMO_OK)
        scene_missing("delete", &was, status);
    gismo_view view;
    self->doing = "get deleted";
    status = gismo_get(self->store, &h, &view);
    if (scene_fenced(self, status))
        return;
    if (status != GISMO_EGONE)
        sim_violation("get of a deleted object on the host that deleted it: %s", gismo_status_name(status));
    if (was.named) {
        char name[32];
        gismo_create_options options = named(was.id, name);
        gismo_handle other;
        self->doing = "lookup deleted";
        status = gismo_lookup(self->store, options.name, options.name_bytes, 0, &other);
        if (status == GISMO_OK && memcmp(&other, &h, sizeof h) == 0)
            sim_violation("lookup finds a deleted object on the host that deleted it");
    }
    self->doing = "";
}

static bool is_quiet(uint32_t lane) {
    uint64_t word;
    memory_truth(oracle_identity(lane), &word, sizeof word);
    return FMT_STATE(word) == GISMO_LANE_QUIET;
}

void scene_close(struct sim_process *self) {
    self->doing = "close";
    (void)gismo_close(self->store);
    gismo_free(self->store);
    self->store = NULL;
    self->doing = "";
    if (opening[self->lane] == 0 && !world_machine_has_store(self->host) && is_quiet(self->lane))
        sim_left();
}

bool scene_lose_state(struct sim_process *self) {
    if (opening[self->lane] || world_store_of(self->lane))
        return false;
    remove_state(self->lane);
    return true;
}

/* Warnings may be of what others are just changing: they must go away. Errors may not be there at all. */
static void found(uint32_t severity, const char *code, const char *text, uint64_t slot, void *ctx) {
    (void)slot;
    if (severity == GISMO_FSCK_ERROR || severity == GISMO_FSCK_WARNING)
        snprintf(ctx, 200, "%s: %s", code, text);
    if (severity == GISMO_FSCK_ERROR)
        sim_violation("fsck: %s", (const char *)ctx);
}

__attribute__((noreturn)) static void leak(struct gismo_store *s) {
    static const char *const states[] = {"free", "half-written", "sealed", "deleted"};
    char text[400] = "";
    gismo_object_info info;
    for (uint64_t cursor = 0; gismo_next(s, &cursor, &info) == GISMO_OK;)
        snprintf(text + strlen(text), sizeof text - strlen(text), "; slot %u %s, of host %u, pinned by hosts %#llx",
                 info.handle.slot, states[info.state % 4], info.owner_lane, (unsigned long long)info.pinned_lanes);
    sim_violation("not freed%s", text);
}

void scene_drain(struct sim_process *self, struct scene *scene) {
    for (uint32_t i = 0; i < SCENE_OBJECTS; i++)
        if (scene->object[i].live)
            scene_delete(self, &scene->object[i]);
    self->doing = "drain";
    gismo_stats stats;
    for (int i = 0;; i++) {
        gismo_object_info info;
        /* Again and again: what the dead left may be seen only when their host has cleaned up. */
        for (uint64_t cursor = 0; scene->orphans && gismo_next(self->store, &cursor, &info) == GISMO_OK;)
            if (info.state == GISMO_SEALED)
                (void)gismo_delete(self->store, &info.handle);
        gismo_tick(self->store);
        if (gismo_get_stats(self->store, &stats) != GISMO_OK)
            sim_violation("stats: %s", gismo_error_message());
        if (stats.sealed_objects + stats.deleted_objects + stats.writing_objects == 0)
            break;
        if (i ==
            2500) /* ms: requests are sent again after 100, and a lane whose taker died is looked for once a second */
            leak(self->store);
        sleep_ns(1000000);
    }
    self->doing = "fsck";
    char finding[200];
    for (int i = 0; i < 50; i++) {
        gismo_fsck_result result;
        finding[0] = 0;
        if (gismo_fsck(self->store, 0, found, finding, &result) != GISMO_OK)
            sim_violation("fsck: %s", gismo_error_message());
        if (finding[0] == 0)
            break;
        sleep_ns(1000000);
    }
    if (finding[0])
        sim_violation("fsck: %s", finding);
    self->doing = "";
}
