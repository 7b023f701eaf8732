/* scenario.h - what the simulated processes do, and what must hold. One file a scenario; stage.c has the table. */
#ifndef GISMO_SIM_SCENARIO_H
#define GISMO_SIM_SCENARIO_H

#include "call.h"
#include "sim.h"

struct scenario {
    const char *name;
    const char *what;
    uint64_t size_bytes;
    uint32_t hosts;
    bool small; /* all schedules with few preemptions can be tried: explore.c */
    void (*body)(struct sim_process *self, void *scene); /* the first process: spawns the others */
};

extern const struct scenario scenario_share, scenario_reuse, scenario_pressure, scenario_names, scenario_deaths,
    scenario_restarts, scenario_look, scenario_race, scenario_move, scenario_silence, scenario_litmus, scenario_pin,
    scenario_clear, scenario_ask, scenario_name, scenario_lease, scenario_leave, scenario_told;

uint64_t scene_seed(void); /* of this run */
/* Where this run's store and state directories lie. */
const char *scene_store_path(void);

/* Objects that the processes tell one another of, by other means than the store. */
#define SCENE_OBJECTS 64u
struct scene_object {
    gismo_handle handle;
    uint64_t id; /* of its content */
    uint32_t host;
    bool live; /* put has returned, delete has not been called */
    bool named;
};

struct scene {
    struct scene_object object[SCENE_OBJECTS];
    uint64_t next_id;
    uint32_t arrived; /* at meetings, so far */
    uint32_t workers; /* still at work */
    bool over;        /* the tickers may go, too */
    bool fences;      /* hosts may be fenced: then calls may say so */
    bool orphans;     /* some were killed: objects may be there that nobody knows of, or are half deleted */
};

void scene_begin(struct scene *scene);
/* The call said Fenced, which this scenario allows; the process is to close the store. */
bool scene_fenced(struct sim_process *self, int status);
/* All `sides` go on together; called by each for the n-th time. How often it looks is a scenario's own affair. */
void scene_meet(struct scene *scene, uint32_t sides, uint32_t n, uint64_t look_ns);
/* Opens the store as this process of its host; a violation if that fails, NULL if the host was fenced. */
struct gismo_store *scene_open(struct sim_process *self);
/* Ends the run: a call could not have an object that is there. */
__attribute__((noreturn)) void scene_missing(const char *what, const struct scene_object *o, int status);
void scene_fill(uint8_t *bytes, size_t n, uint64_t id);
/* Reads all of a view and compares; a violation if a byte is wrong. */
void scene_verify(const gismo_view *view, uint64_t id, const char *when);
enum scene_way { SCENE_PUT, SCENE_CREATE, SCENE_NAMED };
void scene_put(struct sim_process *self, struct scene *scene, size_t n, enum scene_way way);
void scene_get(struct sim_process *self, struct scene_object *o, uint32_t pauses);
void scene_lookup(struct sim_process *self, struct scene_object *o);
void scene_delete(struct sim_process *self, struct scene_object *o);
struct scene_object *scene_any(struct scene *scene); /* a live one, at random; NULL if there is none */
/* Everything deleted, nobody reads: all of it must become free, and fsck must find nothing. */
void scene_drain(struct sim_process *self, struct scene *scene);
void scene_close(struct sim_process *self);
/* The host's state directory, as after the machine was cleaned up: only while no process of the host has the store open. */
bool scene_lose_state(struct sim_process *self);
void remove_state(uint32_t host); /* stage.c */

#endif
