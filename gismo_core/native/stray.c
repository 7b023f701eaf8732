/*
 * stray.c - says what was hit when code outside the core touches memory of a store that is not there any more.
 *
 * A view is plain memory: who reads it after the file was cut short, the device was unbound or the memory was poisoned gets
 * SIGBUS from the kernel, and nothing can make an error of that. But the handler of guard.c knows the address, and here it
 * becomes a line on standard error, before the signal goes where it would have gone: which store, which byte, which object.
 *
 * Runs in a signal handler, of a process that may be broken: no lock, no allocation, no stdio, and the tables that it reads
 * may be gone as well, so it reads them under a guard of its own. It believes nothing of them and writes nothing.
 *
 * The mappings of this process stand in a fixed table, because a handler cannot follow a list that others change. Where it is
 * full (STRAYS stores) the signal goes on without a word. A store is taken out of it before its mapping goes. One that another
 * thread closes at this very moment may still be read here after its end, and then SIGSEGV ends the process that SIGBUS had hit.
 */
#include "guard.h"
#include "internal.h"

#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#define STRAYS 64
#define LINE_BYTES 5120 /* a path may take 4,096 of them */

static struct gismo_store *_Atomic strays[STRAYS]; /* of this process alone: no sites */

/* ---- a line, without stdio ------------------------------------------------------------------- */

struct line {
    size_t n;
    char text[LINE_BYTES];
};

static void say(struct line *line, const char *text) {
    while (*text && line->n + 1 < sizeof line->text)
        line->text[line->n++] = *text++;
}

static void say_number(struct line *line, uint64_t value) {
    char digits[21];
    size_t at = sizeof digits - 1;
    digits[at] = 0;
    do
        digits[--at] = (char)('0' + value % 10);
    while ((value /= 10) != 0);
    say(line, digits + at);
}

static void say_name(struct line *line, const uint8_t *name, size_t bytes) {
    for (size_t i = 0; i < bytes && line->n + 1 < sizeof line->text; i++)
        line->text[line->n++] = name[i] >= ' ' && name[i] < 127 ? (char)name[i] : '?';
}

/* ---- what lies there --------------------------------------------------------------------------- */

static bool holds(const struct gismo_store *s, const struct fmt_slot *slot, uint64_t offset) {
    return slot_extent_ok(s, slot) && offset >= slot->offset && offset - slot->offset < slot_extent_bytes(slot);
}

/* Without prim_refresh: who reads an object holds its slot's line as it got it, and 10^6 flushes take too long here. */
static bool find(struct gismo_store *s, uint64_t offset, uint64_t *found, struct fmt_slot *out) {
    for (uint64_t slot = 0; slot < s->slots; slot++) {
        if (slot % FMT_CHUNK_SLOTS == 0 &&
            (prim_load64(&s->chunk_headers[slot / FMT_CHUNK_SLOTS].word) & 0xff) == FMT_CHUNK_NONE) {
            slot += FMT_CHUNK_SLOTS - 1;
            continue;
        }
        uint32_t state = FMT_STATE(prim_load64(&s->slot[slot].word));
        if (state == GISMO_FREE || state > GISMO_DELETED)
            continue;
        slot_read(&s->slot[slot], out);
        if (holds(s, out, offset)) {
            *found = slot;
            return true;
        }
    }
    return false;
}

/* Behind the payload, hence under a guard of its own: it may be gone where the tables are not. */
static void say_name_of(struct line *line, struct gismo_store *s, const struct fmt_slot *slot) {
    struct gismo_guard guard;
    uint8_t name[UINT8_MAX + 1];
    if (slot->name_bytes == 0 || !GUARD_TRY(guard))
        return;
    prim_read(name, s->base + slot->offset + slot_extent_bytes(slot) - slot->name_bytes, slot->name_bytes);
    GUARD_END(guard);
    say(line, ", named '");
    say_name(line, name, slot->name_bytes);
    say(line, "'");
}

static void say_object(struct line *line, struct gismo_store *s, uint64_t offset) {
    struct gismo_guard guard;
    uint64_t number;
    struct fmt_slot slot;
    if (offset < s->sb.data_offset) {
        say(line, ", in the tables of the store");
        return;
    }
    if (!GUARD_TRY(guard)) {
        say(line, "; which object that is cannot be read any more");
        return;
    }
    bool is_found = find(s, offset, &number, &slot);
    GUARD_END(guard);
    if (!is_found) {
        say(line, ", in no object");
        return;
    }
    if (slot.flags & FMT_SLOT_INTERNAL) {
        say(line, ", in a table of the store");
        return;
    }
    say(line, ", byte ");
    say_number(line, offset - slot.offset);
    say(line, " of the ");
    say_number(line, slot.length);
    say(line, " of object slot ");
    say_number(line, number);
    say(line, " generation ");
    say_number(line, FMT_GENERATION(slot.word));
    say_name_of(line, s, &slot);
}

static void tell(const void *address, bool is_poisoned) {
    static _Atomic int told; /* once: a handler behind us may let the access repeat for ever */
    static struct line line; /* not on the stack, which may be a small one for signals; whoever is first has it alone */
    for (int i = 0; i < STRAYS; i++) {
        struct gismo_store *s = atomic_load(&strays[i]);
        uint64_t offset = s ? (uint64_t)((const uint8_t *)address - s->base) : 0;
        if (s == NULL || (const uint8_t *)address < s->base || offset >= s->mapped_bytes)
            continue;
        int never = 0;
        if (!atomic_compare_exchange_strong(&told, &never, 1))
            return;
        say(&line, "gismo: SIGBUS: ");
        say(&line, s->path);
        say(&line, is_poisoned ? " is poisoned at byte " : " has no memory any more at byte ");
        say_number(&line, offset);
        say_object(&line, s, offset);
        say(&line, is_poisoned ? ": the hardware has lost what was there\n"
                               : ": it was cut short, its device was unbound, or its file system is full\n");
        (void)!write(STDERR_FILENO, line.text, line.n);
        return;
    }
}

void stray_watch(struct gismo_store *s) {
    atomic_store(&guard_on_stray, tell);
    for (int i = 0; i < STRAYS; i++) {
        struct gismo_store *none = NULL;
        if (atomic_compare_exchange_strong(&strays[i], &none, s))
            return;
    }
}

void stray_forget(struct gismo_store *s) {
    for (int i = 0; i < STRAYS; i++) {
        struct gismo_store *ours = s;
        if (atomic_compare_exchange_strong(&strays[i], &ours, NULL))
            return;
    }
}
