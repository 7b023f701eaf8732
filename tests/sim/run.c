/*
 * run.c - processes as coroutines of one thread, their time, and the adversary who chooses which of them goes on.
 *
 * A run is determined by its options alone: one generator of random numbers, one clock that only steps and sleeps move. Each primitive
 * of the core is a scheduling point. A violation leaves the run at once, wherever it is found.
 */
#undef _FORTIFY_SOURCE /* it forbids a longjmp to another stack */
#include "sim.h"

#include "prim_sim.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define STACK_BYTES (512u << 10)
#define STEP_NS 20u
#define STEPS_MAX 20000000u
#define TRACE 4096u

enum state { UNUSED, READY, SLEEPS, ENDED, KILLED };

struct coroutine {
    struct sim_process process;
    enum state state;
    uint64_t wake_ns;
    sim_body body;
    void *argument;
    ucontext_t begin;
    jmp_buf here; /* where it was left, once it has begun */
    bool has_begun;
    void *stack;
    struct gismo_guard *guard;
};

struct step {
    uint64_t number, offset, value;
    const struct sim_site *site;
    const char *verb, *doing;
    uint32_t process, host;
    uint64_t run;
};

static struct {
    struct coroutine all[SIM_PROCESSES];
    struct coroutine *self;
    jmp_buf here; /* where the run itself was left for a process */
    jmp_buf out;  /* of a violation found between processes */
    const struct sim_options *options;
    struct sim_result *result;
    uint64_t random, steps, clock_ns;
    bool frozen[SIM_HOSTS], exploring;
    uint64_t run; /* so that the trace of the one before need not be cleared */
    struct step trace[TRACE];
} r;

/* ---- random numbers: splitmix64 (Vigna, public domain) --------------------------------------------- */

static uint64_t next_random(void) {
    uint64_t z = r.random += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

uint64_t sim_random(uint64_t below) { return (uint64_t)(((unsigned __int128)next_random() * below) >> 64); }

/* ---- switching: by longjmp, for each swapcontext asks the kernel for the mask of signals, half of all the time ---- */

struct sim_process *sim_self(void) { return r.self ? &r.self->process : NULL; }
uint64_t sim_steps(void) { return r.steps; }

static void enter(unsigned low, unsigned high) {
    struct coroutine *c = (struct coroutine *)(((uintptr_t)high << 32) | low);
    c->body(&c->process, c->argument);
    memory_drain_all(c->process.index);
    c->state = ENDED;
    r.self = NULL;
    _longjmp(r.here, 1);
}

static void switch_to(struct coroutine *to) {
    struct coroutine *from = r.self;
    if (to == from)
        return;
    if (from)
        from->guard = gismo_guard_top;
    r.self = to;
    gismo_guard_top = to->guard;
    if (_setjmp(from ? from->here : r.here) != 0)
        return;
    if (to->has_begun)
        _longjmp(to->here, 1);
    to->has_begun = true;
    setcontext(&to->begin);
}

static bool runnable(struct coroutine *c) {
    if (r.frozen[c->process.host])
        return false;
    if (c->state == SLEEPS && c->wake_ns <= r.clock_ns)
        c->state = READY;
    return c->state == READY;
}

/* One that can go on, other than `not`: at random, or with a schedule the next in order. NULL if there is none. */
static struct coroutine *choose(const struct coroutine *not) {
    uint32_t start = r.options->schedule ? (not ? not->process.index + 1 : 0) : (uint32_t)sim_random(SIM_PROCESSES);
    for (uint32_t n = 0; n < SIM_PROCESSES; n++) {
        struct coroutine *c = &r.all[(start + n) % SIM_PROCESSES];
        if (c != not && runnable(c))
            return c;
    }
    return NULL;
}

/* The one that runs cannot go on: another, or time passes until one wakes. NULL: all have ended. */
static struct coroutine *next(void) {
    struct coroutine *c = choose(NULL);
    if (c)
        return c;
    uint64_t earliest = UINT64_MAX;
    for (uint32_t i = 0; i < SIM_PROCESSES; i++)
        if (r.all[i].state == SLEEPS && !r.frozen[r.all[i].process.host] && r.all[i].wake_ns < earliest)
            earliest = r.all[i].wake_ns;
    if (earliest == UINT64_MAX)
        return NULL;
    r.clock_ns = earliest;
    return choose(NULL);
}

/* The step of this run with this number, if it is still there. */
static const struct step *traced(uint64_t number) {
    const struct step *s = &r.trace[number % TRACE];
    return number && s->run == r.run && s->number == number ? s : NULL;
}

static void print_step(const struct step *s) {
    char where[96] = "";
    if (s->offset)
        oracle_name(s->offset, where, sizeof where);
    fprintf(stderr, "  %8llu  host %u process %u  %-12s %-10s %-28s %#llx  %s:%u %s\n", (unsigned long long)s->number,
            s->host, s->process, s->doing ? s->doing : "", s->verb, where, (unsigned long long)s->value,
            s->site ? mutant_file(s->site) : "", s->site ? s->site->line : 0, s->site ? s->site->function : "");
}

void sim_explore(bool on) {
    r.exploring = on;
    for (uint32_t i = 0; i < SIM_PROCESSES; i++) /* all that wait for it begin at once */
        if (r.all[i].state == SLEEPS)
            r.all[i].wake_ns = r.clock_ns;
}
bool sim_is_scheduled(void) { return r.options->schedule != NULL; }

static void scheduled(struct coroutine *self, const struct sim_site *site, uint64_t offset) {
    struct sim_schedule *s = r.options->schedule;
    if (!r.exploring)
        return;
    const uint32_t n = s->steps++;
    if (n >= SIM_SCHEDULE_STEPS)
        return;
    uint16_t others = 0;
    for (uint32_t i = 0; i < SIM_PROCESSES; i++)
        if (&r.all[i] != self && runnable(&r.all[i]))
            others |= (uint16_t)(1u << i);
    s->point[n] =
        (struct sim_point){site && offset ? (uint32_t)(offset / SIM_LINE) : 0, others, (uint8_t)self->process.index};
    for (uint32_t i = 0; i < s->count; i++)
        if (s->at[i].step == n && s->at[i].process == SIM_KILLED)
            sim_kill(&self->process);
        else if (s->at[i].step == n && others >> s->at[i].process & 1)
            switch_to(&r.all[s->at[i].process]);
}

void sim_step(struct sim_site *site, const char *verb, uint64_t offset, uint64_t value) {
    struct coroutine *self = r.self;
    if (site)
        site->hits++;
    r.steps++;
    r.clock_ns += STEP_NS;
    struct step *s = &r.trace[r.steps % TRACE];
    *s = (struct step){r.steps, offset, value, site, verb, self->process.doing, self->process.index, self->process.host,
                       r.run};
    if (r.options->verbose)
        print_step(s);
    if (r.steps > STEPS_MAX)
        sim_violation("no end after %u steps", STEPS_MAX);
    if (r.options->schedule) {
        scheduled(self, site, offset);
        return;
    }
    uint64_t dice = next_random();
    if (r.options->adversary == SIM_RANDOM && (dice & 1023) < r.options->move_per_1024)
        memory_move();
    if ((dice >> 10 & 1023) < r.options->switch_per_1024) {
        struct coroutine *to = choose(self);
        if (to)
            switch_to(to);
    }
}

/* ---- time ---------------------------------------------------------------------------------------------- */

uint64_t now_ns(void) { return 1000000000u + r.clock_ns; }
uint64_t now_coarse_unix_ns(void) { return 1700000000000000000ull + r.clock_ns; }
uint64_t now_coarse_ns(void) { return now_ns(); }

void sleep_ns(uint64_t ns) {
    if (r.self == NULL)
        return;
    memory_drain_stores(r.self->process.index);
    r.self->wake_ns = r.clock_ns + ns;
    r.self->state = SLEEPS;
    switch_to(next()); /* not NULL: it wakes itself */
}

void sim_pause(void) {
    r.clock_ns += STEP_NS; /* or two that wait for one that sleeps would do so for ever */
    struct coroutine *to = choose(r.self);
    if (to)
        switch_to(to);
    else
        sleep_ns(1000); /* all others sleep: time must pass for them */
}

/* ---- processes ----------------------------------------------------------------------------------------- */

struct sim_process *sim_spawn(uint32_t host, sim_body body, void *argument) {
    for (uint32_t i = 0; i < SIM_PROCESSES; i++) {
        struct coroutine *c = &r.all[i];
        if (c->state != UNUSED)
            continue;
        void *stack = c->stack;
        if (stack == NULL) {
            stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (stack == MAP_FAILED)
                abort();
        }
        *c = (struct coroutine){.process = {.index = i, .host = host, .lane = host},
                                .state = READY,
                                .body = body,
                                .argument = argument,
                                .stack = stack};
        getcontext(&c->begin);
        c->begin.uc_stack.ss_sp = stack;
        c->begin.uc_stack.ss_size = STACK_BYTES;
        c->begin.uc_link = NULL;
        makecontext(&c->begin, (void (*)(void))enter, 2, (unsigned)(uintptr_t)c, (unsigned)((uintptr_t)c >> 32));
        memory_join(i, host);
        return &c->process;
    }
    sim_violation("more than %u processes", SIM_PROCESSES);
}

static struct coroutine *of(const struct sim_process *p) { return &r.all[p->index]; }
bool sim_ended_number(uint32_t index) { return r.all[index].state == ENDED || r.all[index].state == KILLED; }
uint32_t sim_host_of(uint32_t index) { return r.all[index].process.host; }
bool sim_ended(const struct sim_process *p) { return sim_ended_number(p->index); }

void sim_kill(struct sim_process *p) {
    if (of(p)->state == ENDED || of(p)->state == KILLED)
        return;
    memory_drain_all(p->index); /* what it had issued is done before its locks are seen to be free */
    of(p)->state = KILLED;
    world_died(p->index);
    if (of(p) == r.self) {
        r.self = NULL;
        _longjmp(r.here, 1);
    }
}

void sim_freeze(uint32_t host) { r.frozen[host] = true; }
void sim_thaw(uint32_t host) {
    r.frozen[host] = false;
    for (uint32_t i = 0; i < SIM_PROCESSES; i++)
        if (r.all[i].state != UNUSED && r.all[i].process.host == host)
            memory_resumed(i);
}
bool sim_frozen(uint32_t host) { return r.frozen[host]; }

void sim_power_off(uint32_t host) {
    for (uint32_t i = 0; i < SIM_PROCESSES; i++) {
        struct coroutine *c = &r.all[i];
        if (c->process.host != host || c->state == UNUSED || c->state == ENDED || c->state == KILLED)
            continue;
        memory_lose(i);
        c->state = KILLED;
        world_died(i);
    }
    memory_power_off(host);
    world_booted(host);
    r.frozen[host] = false;
}

/* ---- a run ----------------------------------------------------------------------------------------------- */

void sim_violation(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(r.result->what, sizeof r.result->what, format, arguments);
    va_end(arguments);
    r.result->failed = true;
    r.result->steps = r.steps;
    for (uint32_t i = 0; i < SIM_PROCESSES; i++)
        if (r.all[i].state != UNUSED)
            r.all[i].state = KILLED;
    bool between = r.self == NULL;
    r.self = NULL;
    gismo_guard_top = NULL;
    if (between)
        longjmp(r.out, 1);
    _longjmp(r.here, 1);
}

void sim_print_trace(uint32_t per_host) {
    for (uint32_t host = 0; host < SIM_HOSTS; host++) {
        uint32_t count = 0;
        uint64_t from = r.steps;
        for (; from > 0 && r.steps - from < TRACE - 1 && count < per_host; from--)
            count += traced(from) && traced(from)->host == host;
        if (count == 0)
            continue;
        fprintf(stderr, "the last %u steps of host %u:\n", count, host);
        for (uint64_t at = from; at <= r.steps; at++)
            if (traced(at) && traced(at)->host == host)
                print_step(traced(at));
    }
}

/* The core touched the medium otherwise than by prim.h. */
static void on_segv(int signal_number, siginfo_t *info, void *context) {
    (void)context;
    uint64_t offset;
    char name[96];
    if (r.self && sim_is_medium(info->si_addr, &offset)) {
        fprintf(stderr, "gismo-sim: the core touches the medium without prim.h: %s; after the step\n",
                oracle_name(offset, name, sizeof name));
        print_step(&r.trace[r.steps % TRACE]);
    }
    signal(signal_number, SIG_DFL);
}

void sim_run(const struct sim_options *options, const void *image, uint64_t image_bytes, uint32_t hosts, sim_body body,
             void *argument, struct sim_result *result) {
    static uint8_t signal_stack[64 << 10];
    static bool installed;
    if (!installed) {
        stack_t stack = {.ss_sp = signal_stack, .ss_size = sizeof signal_stack};
        sigaltstack(&stack, NULL);
        struct sigaction action = {.sa_sigaction = on_segv, .sa_flags = SA_SIGINFO | SA_ONSTACK};
        sigaction(SIGSEGV, &action, NULL);
        installed = true;
    }
    *result = (struct sim_result){0};
    r.options = options;
    r.result = result;
    r.random = options->seed;
    r.steps = r.clock_ns = 0;
    memset(r.frozen, 0, sizeof r.frozen);
    r.exploring = false;
    if (options->schedule)
        options->schedule->steps = 0;
    oracle_new_run();
    r.run++;
    for (uint32_t i = 0; i < SIM_PROCESSES; i++)
        r.all[i].state = UNUSED;
    memory_begin(image, image_bytes, hosts, options);
    (void)sim_spawn(0, body, argument);
    if (setjmp(r.out) == 0) {
        struct coroutine *c;
        while (!result->failed && (c = next()) != NULL) {
            switch_to(c);
            r.self = NULL;
        }
    }
    result->steps = r.steps;
    world_end();
}
