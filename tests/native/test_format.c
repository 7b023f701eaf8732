/*
 * test_format.c - a format that is killed anywhere leaves the store that was there, none, or the new one; never half of one.
 */
/* variants: sites */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "format.h"
#include "gismo.h"
#include "sites_of.h"

#include <fcntl.h>

#define SMALL (1u << 20)
#define LARGE (4u << 20)

static const char word[] = "what was there before";

/* What a format begins with: nothing, or a store of another content and perhaps another size. */
enum before { NEW_FILE, SAME_SIZE, SMALLER, LARGER, BEFORE };
static const uint64_t old_bytes[BEFORE] = {0, SMALL, LARGE, SMALL}, new_bytes[BEFORE] = {SMALL, SMALL, SMALL, LARGE};

/* Byte 0 of the UUID: whose store it is. Byte 1: in which case, for one UUID is one store of one size. */
enum whose { OF_OLD = 1, OF_NEW = 2 };

static int format(const char *path, enum before before, enum whose whose) {
    gismo_format_options o = {.size_bytes = (whose == OF_OLD ? old_bytes : new_bytes)[before],
                              .force = 1,
                              .store_uuid = {(uint8_t)whose, (uint8_t)before}};
    return gismo_format(path, &o, NULL, NULL, NULL);
}

static gismo_store *open_it(const char *path, bool must) {
    gismo_open_options o = {.state_dir = "state", .host_id = -1, .no_thread = 1};
    gismo_store *s = NULL;
    int status = gismo_open(path, &o, &s);
    CHECK(status == GISMO_OK || (!must && (status == GISMO_ENOTSTORE || status == GISMO_ECORRUPT)), "open: %s",
          gismo_status_name(status));
    return s;
}

static void shut(gismo_store *s) {
    OK(gismo_close(s));
    gismo_free(s);
}

/* errors: the copy of the superblock may be missing, nothing else. */
static uint32_t other_errors;
static void report(uint32_t severity, const char *code, const char *message, uint64_t slot, void *ctx) {
    (void)slot;
    (void)ctx;
    if (severity == GISMO_FSCK_ERROR && strcmp(code, "superblock") != 0) {
        fprintf(stderr, "fsck: %s: %s\n", code, message);
        other_errors++;
    }
}

static void use(gismo_store *s, uint64_t objects) {
    gismo_fsck_result r;
    int status = gismo_fsck(s, GISMO_FSCK_VERIFY, report, NULL, &r);
    CHECK((status == GISMO_OK || status == GISMO_ECORRUPT) && other_errors == 0 && r.objects == objects, "fsck: %llu",
          (unsigned long long)r.objects);
    gismo_buffer buffer = {word, sizeof word};
    gismo_handle h;
    OK(gismo_put(s, &buffer, 1, NULL, &h));
    OK(gismo_delete(s, &h));
}

enum found { NOTHING, OLD, NEW, FOUND };

static enum found look(const char *path, enum before before) {
    gismo_store *s = open_it(path, false);
    if (s == NULL)
        return NOTHING;
    gismo_info info;
    OK(gismo_get_info(s, &info));
    bool is_old = info.store_uuid[0] == OF_OLD;
    CHECK((is_old || info.store_uuid[0] == OF_NEW) && info.store_uuid[1] == before, "a store that nobody made");
    CHECK(info.size_bytes == (is_old ? old_bytes : new_bytes)[before], "its size");
    use(s, is_old);
    gismo_handle h;
    int status = gismo_lookup(s, "old", 3, 0, &h);
    CHECK(status == (is_old ? GISMO_OK : GISMO_ENOTFOUND), "the object that was there: %s", gismo_status_name(status));
    if (is_old) {
        gismo_view view;
        OK(gismo_get(s, &h, &view));
        CHECK(memcmp(view.data, word, sizeof word) == 0, "its content");
        OK(gismo_release(s, view.slot));
    }
    shut(s);
    return is_old ? OLD : NEW;
}

static void prepare(const char *path, enum before before) {
    unlink(path);
    if (before == NEW_FILE)
        return;
    OK(format(path, before, OF_OLD));
    gismo_store *s = open_it(path, true);
    gismo_create_options o = {.name = "old", .name_bytes = 3};
    gismo_buffer buffer = {word, sizeof word};
    gismo_handle h;
    OK(gismo_put(s, &buffer, 1, &o, &h));
    shut(s);
}

static void format_anew(void *ctx) { OK(format("store", *(enum before *)ctx, OF_NEW)); }

static enum found killed_at(const char *path, enum before before, uint32_t site, uint64_t nth) {
    prepare(path, before);
    int status;
    run_armed(NULL, format_anew, &before, site, nth, SIGKILL, &status);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "site %u, hit %llu: not killed", site,
          (unsigned long long)nth);
    enum found found = look(path, before);
    OK(format(path, before, OF_NEW)); /* and whatever is left, it can be formatted */
    CHECK(look(path, before) == NEW, "formatted again");
    return found;
}

/* Does look() see half a store? The metadata of the old one under the superblock of the new one. */
static void test_look_can_fail(const char *path) {
    prepare(path, SAME_SIZE);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    struct fmt_superblock sb;
    CHECK(pread(fd, &sb, sizeof sb, 0) == sizeof sb, "read");
    sb.uuid[0] = OF_NEW;
    sb.crc = fmt_superblock_crc(&sb);
    CHECK(pwrite(fd, &sb, sizeof sb, 0) == sizeof sb, "write");
    close(fd);
    pid_t child = fork();
    if (child == 0) {
        CHECK(freopen("/dev/null", "w", stderr) != NULL, "freopen");
        look(path, SAME_SIZE);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 1, "half a store passed");
}

int main(void) {
    alarm(240);
    uint32_t sites = gismo_sites_count(), seen[FOUND] = {0}, places = 0;
    test_look_can_fail("store");
    for (enum before before = NEW_FILE; before < BEFORE; before++) {
        prepare("store", before);
        uint64_t *hits = count_hits(NULL, format_anew, &before);
        for (uint32_t site = 0; site < sites; site++) {
            if (hits[site] == 0)
                continue;
            places++;
            uint64_t step = hits[site] / 40 + 1; /* all of them where there are few */
            for (uint64_t nth = 1; nth < hits[site]; nth += nth == 1 ? 1 : step)
                seen[killed_at("store", before, site, nth)]++;
            seen[killed_at("store", before, site, hits[site])]++;
        }
    }
    printf("%u places; afterwards nothing %u times, the old store %u, the new one %u\n", places, seen[NOTHING],
           seen[OLD], seen[NEW]);
    CHECK(places >= 16 && seen[NOTHING] && seen[OLD] && seen[NEW], "not all ways of dying were met");
    return 0;
}
