/*
 * sim.h - a simulator of hosts that share memory which is not coherent between them, with the unchanged core on top.
 *
 * Parts: memory.c (what the caches do), run.c (processes as coroutines, time, the adversary), world.c (what the core asks
 * of a system: mappings, clocks, sleeping, copies), oracle.c (who may write which line), scenario_*.c (what the
 * processes do, and what must hold), stage.c (one run), mutant.c and hunt.c (a core that is changed at one place), main.c
 * (the command gismo-sim).
 */
#ifndef GISMO_SIM_H
#define GISMO_SIM_H

#include "gismo.h"
#include "internal.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIM_HOSTS 4u
#define SIM_PROCESSES 16u
#define SIM_LINE 64u

/* ---- who decides what memory and scheduler do --------------------------------------------------- */

enum sim_adversary {
    SIM_RANDOM, /* everything that may happen happens now and then */
    SIM_LAZY, /* nothing moves unasked: what is not flushed is never seen, what is not invalidated stays as it was */
    SIM_EAGER, /* as lazy, but each line that is dropped is fetched again as early as the processor may */
    SIM_COHERENT, /* all hosts have one cache, and the store is formatted for that; only the store buffers are adverse */
    SIM_ADVERSARIES
};

/*
 * Instead of at random, processes are switched at these steps and at no others (but where one waits or ends: then the next in order
 * goes on). Steps are counted within the part of a run that is explored, sim_explore(). Filled in: what happened there.
 */
#define SIM_PREEMPTIONS 3u
#define SIM_KILLED SIM_PROCESSES
#define SIM_SCHEDULE_STEPS 4096u
struct sim_schedule {
    struct {
        uint32_t step, process; /* SIM_KILLED: the one that runs is killed there */
    } at[SIM_PREEMPTIONS];
    uint32_t count;
    uint32_t steps; /* out; those after the first 4,096 are not preempted */
    struct sim_point {
        uint32_t line; /* of the medium; 0 = none: a fence, or the state directory */
        uint16_t others; /* a bit for each process that could have gone on */
        uint8_t process;
    } point[SIM_SCHEDULE_STEPS]; /* out */
};

struct sim_options {
    enum sim_adversary adversary;
    uint64_t seed;
    uint32_t switch_per_1024; /* at each step: another process goes on */
    uint32_t move_per_1024; /* at each step: memory does something unasked (random only) */
    struct sim_schedule *schedule; /* NULL: at random */
    bool verbose; /* each step is printed */
};

/* ---- processes ------------------------------------------------------------------------------------ */

struct sim_process {
    uint32_t index, host; /* whose cache it has */
    uint32_t lane; /* whose lane: that of its host, unless a scenario says otherwise */
    struct gismo_store *store; /* set by the scenario once it is open */
    const char *doing; /* for the trace */
    bool fenced; /* a call said so */
};

typedef void (*sim_body)(struct sim_process *self, void *argument);

/* In a run: a new process of that host, which begins when it is chosen. */
struct sim_process *sim_spawn(uint32_t host, sim_body body, void *argument);
bool sim_ended(const struct sim_process *process);
bool sim_ended_number(uint32_t index); /* likewise */
uint32_t sim_host_of(uint32_t index);
void sim_kill(struct sim_process *process); /* at a step, by another: never runs again; its cache stays, its locks go */
void sim_freeze(uint32_t host); /* all its processes stand still where they are; its cache lives on */
void sim_thaw(uint32_t host);
bool sim_frozen(uint32_t host);
/* All its processes are gone, and of its cache any dirty lines reach the device or do not. Its next boot is another one. */
void sim_power_off(uint32_t host);
struct sim_process *sim_self(void);
uint64_t sim_random(uint64_t below);
void sim_explore(bool on); /* what is explored begins, or ends, here; nothing without a schedule */
bool sim_is_scheduled(void);
void sim_pause(void); /* a scheduling point at which another process goes on, if there is one */

/* Runs `body` as the first process until all have ended. */
struct sim_result {
    bool failed;
    char what[512];
    uint64_t steps;
};
void sim_run(const struct sim_options *options, const void *image, uint64_t image_bytes, uint32_t hosts, sim_body body,
             void *argument, struct sim_result *result);

/* Ends the run: a property does not hold. */
__attribute__((format(printf, 1, 2), noreturn)) void sim_violation(const char *format, ...);

/* ---- memory ----------------------------------------------------------------------------------------- */

bool sim_is_medium(const void *p, uint64_t *offset);
void *sim_map(uint64_t bytes); /* for the process that runs: addresses that nobody can touch but by primitives */
void sim_user_write(void *medium, const void *from, size_t n); /* plain stores of a user into a draft */
void sim_user_read(void *copy, const void *medium, size_t n); /* plain loads of a user through a view */

/* memory.c offers run.c */
void memory_begin(const void *image, uint64_t bytes, uint32_t hosts, const struct sim_options *options);
void memory_new_image(void);
void memory_move(void); /* random: something happens unasked */
void memory_drain_stores(uint32_t process); /* as time does */
void memory_drain_all(uint32_t process);
void memory_resumed(
    uint32_t process); /* it was not on a processor: nothing that it loads now was fetched before for it */
void memory_lose(uint32_t process); /* what it had issued was done in part */
void memory_power_off(uint32_t host);
void memory_truth(uint64_t offset, void *out, size_t n); /* of one line: what the device has, or the one cache of all */
void memory_join(uint32_t process, uint32_t host);

/* A word to another process by other means (a socket, Ray): it comes after all that a store would come after. */
void sim_send(void);
void sim_receive(void);
void sim_stream(struct sim_site *site, void *medium, const void *from, size_t n);

/* Around each call of the store: call.h. */
void sim_call_begins(void);
void sim_call_ends(void);
/* This machine has left the store, in order: nothing waits in its cache that would come back one day. */
void sim_left(void);

/* world.c */
void world_died(uint32_t process); /* what the kernel does with its descriptors */
void world_opened(struct gismo_store *s);
struct gismo_store *world_store_of(
    uint32_t lane); /* of its newest incarnation, some open one of a living process, or NULL */
struct gismo_store *world_own_store(const struct sim_process *self, uint32_t lane); /* its own of that lane, or NULL */
bool world_machine_has_store(uint32_t host); /* some living process of it has one open */
void world_booted(uint32_t host);
void world_end(void); /* what this run has left is given back */
void sim_print_trace(uint32_t per_host);

/* run.c offers memory.c: a scheduling point, before the access takes effect. */
void sim_step(struct sim_site *site, const char *verb, uint64_t offset, uint64_t value);
uint64_t sim_steps(void);

/* oracle.c: SIM_STORE and the like, at issue. */
void oracle_new_run(void);
void oracle_store(struct sim_process *self, uint64_t offset, size_t n);
const char *oracle_name(uint64_t offset, char *text, size_t n); /* "slot 12 word", for the trace */
uint64_t oracle_identity(uint32_t lane); /* where its state word lies */
void oracle_begin(const struct fmt_superblock *sb);

/* mutant.c */
enum sim_mutation {
    MUTANT_NONE,
    MUTANT_DELETE,
    MUTANT_DELETE_FENCE, /* of a refresh or publish: the lines yes, the fence no */
    MUTANT_WEAKEN, /* full fence -> store fence */
    MUTANT_DROP_FIRST, /* the first line of a range is left out */
    MUTANT_DROP_LAST,
    MUTANT_CACHED, /* streaming copy -> cached stores */
    MUTANT_SWAP, /* with the primitive that comes next */
    MUTANT_OPERATORS
};
extern struct sim_site __start_sim_sites[], __stop_sim_sites[];
uint32_t mutant_number_sites(void); /* numbers them; returns how many there are */
bool mutant_applies(const struct sim_site *site, enum sim_mutation mutation);
const char *mutant_name(enum sim_mutation mutation);
const char *mutant_file(const struct sim_site *site); /* without its folders */

#endif
