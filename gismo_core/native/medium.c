/*
 * medium.c - a file or a device-DAX character device: naming, measuring, locking and formatting it. mapping.c maps it.
 */
#include "internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#ifndef F_OFD_SETLK
#define F_OFD_GETLK 36
#define F_OFD_SETLK 37
#endif
#define HUGETLBFS 0x958458f6 /* HUGETLBFS_MAGIC of linux/magic.h */

/*
 * A process that was started with its standard streams closed gets their numbers for the next files it opens, and whatever
 * prints to "standard error" then writes over the store.
 */
int above_stdio(int fd) {
    if (LIKELY(fd < 0 || fd > 2))
        return fd;
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, 3), saved = errno;
    close(fd);
    errno = saved;
    return moved;
}

int medium_parse(const char *path, const char **bare, int *kind) {
    *kind = 0;
    *bare = path;
    if (path == NULL || path[0] == 0)
        return fail(GISMO_EINVAL, "no store was named: use file:PATH, dax:PATH or a bare path, or set GISMO_STORE");
    if (strncmp(path, "file:", 5) == 0) {
        *kind = 1;
        *bare = path + 5;
    } else if (strncmp(path, "dax:", 4) == 0) {
        *kind = 2;
        *bare = path + 4;
    }
    if ((*bare)[0] == 0)
        return fail(GISMO_EINVAL, "%s names no path", path);
    if (strlen(*bare) >= sizeof(((struct gismo_store *)0)->path))
        return fail(GISMO_EINVAL, "the path of the store is longer than %zu characters",
                    sizeof(((struct gismo_store *)0)->path) - 1);
    return GISMO_OK;
}

static uint64_t sysfs_number(dev_t device, const char *what) {
    char name[128], text[64] = {0};
    snprintf(name, sizeof name, "/sys/dev/char/%u:%u/%s", major(device), minor(device), what);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    return n > 0 ? strtoull(text, NULL, 0) : 0;
}

int medium_bytes(int fd, const char *bare, uint64_t *bytes, uint64_t *align, int *is_dax) {
    struct statx st;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &st) != 0)
        return fail_errno(GISMO_ESYS, "cannot look at %s", bare);
    *is_dax = 0;
    *align = FMT_PAGE;
    if (S_ISREG(st.stx_mode)) {
        *bytes = st.stx_size;
        struct statfs fs;
        if (fstatfs(fd, &fs) == 0 && (uint32_t)fs.f_type == HUGETLBFS) /* no part of a page can be protected there */
            *align = (uint64_t)fs.f_bsize;
        return GISMO_OK;
    }
    if (!S_ISCHR(st.stx_mode))
        return fail(GISMO_ENOTSTORE, "%s is neither a file nor a device-DAX device", bare);
    dev_t device = makedev(st.stx_rdev_major, st.stx_rdev_minor);
    *is_dax = 1;
    *bytes = sysfs_number(device, "size");
    *align = sysfs_number(device, "align");
    if (*align == 0)
        *align = sysfs_number(device, "device/align");
    if (*align == 0)
        *align = 2u << 20;
    if (*bytes == 0)
        return fail(GISMO_ENOTSTORE,
                    "%s is a character device, but not a device-DAX one with a size in sysfs (`daxctl list -M`)", bare);
    return GISMO_OK;
}

/* An OFD lock on one byte, far beyond any content. Works between processes of one kernel, in any PID namespace. */
int medium_lock(int fd, int64_t byte, int exclusive, uint64_t wait_ns) {
    struct flock lock = {.l_type = (short)(exclusive ? F_WRLCK : F_RDLCK),
                         .l_whence = SEEK_SET,
                         .l_start = (int64_t)1 << 60,
                         .l_len = 1};
    lock.l_start += byte;
    uint64_t end = now_ns() + wait_ns;
    while (fcntl(fd, F_OFD_SETLK, &lock) != 0) {
        if (errno != EAGAIN && errno != EACCES)
            return fail_errno(GISMO_ESYS, "cannot lock the medium");
        if (now_ns() >= end)
            return fail(GISMO_EBUSY, "the store is in use");
        sleep_ns(1000000);
    }
    return GISMO_OK;
}

int64_t medium_first_lock(int fd, int64_t byte, int64_t bytes) {
    const int64_t base = (int64_t)1 << 60;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = base + byte, .l_len = bytes};
    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK ? lock.l_start - base : -1;
}

void medium_unlock(int fd, int64_t byte) {
    struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET, .l_start = ((int64_t)1 << 60) + byte, .l_len = 1};
    fcntl(fd, F_OFD_SETLK, &lock);
}

int superblock_read(const void *first, const void *last, uint64_t medium_size, struct fmt_superblock *out) {
    const char *why = "";
    for (int which = 0; which < 2; which++) {
        const void *from = which == 0 ? first : last;
        if (from == NULL)
            continue;
        prim_read(out, from, sizeof *out);
        if (out->magic != FMT_MAGIC)
            continue;
        if (out->format_version != FMT_VERSION)
            return fail(GISMO_EINCOMPAT,
                        "the store has format version %u, this build knows %u: use the gismo that made it",
                        out->format_version, FMT_VERSION);
        if (fmt_superblock_crc(out) != out->crc) {
            why = "its checksum is wrong";
            continue;
        }
        if (out->feature_incompat & ~FMT_KNOWN_INCOMPAT)
            return fail(GISMO_EINCOMPAT,
                        "the store uses features (0x%llx) that this build does not know: use a newer gismo",
                        (unsigned long long)(out->feature_incompat & ~FMT_KNOWN_INCOMPAT));
        if (fmt_superblock_check(out, medium_size, &why) != 0)
            continue;
        return GISMO_OK;
    }
    if (why[0])
        return fail(GISMO_ECORRUPT,
                    "the superblock and its copy cannot be used: %s. Put the medium back as it was, or `gismo format "
                    "--force` makes a new store there",
                    why);
    return fail(GISMO_ENOTSTORE, "there is no Gismo store here: `gismo format` makes one");
}

/* A bare path that is meant as a device: where that is absent, no file of memory is to be made in /dev instead. */
static bool names_dax_device(const char *path) {
    unsigned region, device;
    int end = 0;
    return sscanf(path, "/dev/dax%u.%u%n", &region, &device, &end) == 2 && path[end] == 0;
}

static int open_checked(const char *path, const char **bare, int *kind, int flags) {
    int status = medium_parse(path, bare, kind);
    if (status)
        return status;
    /* O_NONBLOCK: a FIFO someone put there must not hang us. No symlink is followed at the last step. */
    int fd = above_stdio(open(*bare, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (fd >= 0)
        return fd;
    if (errno == ENOENT && (*kind == 2 || names_dax_device(*bare)))
        return fail_errno(GISMO_ENOTSTORE,
                          "there is no device %s: `daxctl list` and `gismo doctor` show which there are", *bare);
    if (errno == ENOENT)
        return fail_errno(GISMO_ENOTSTORE, "%s is not there: `gismo format --size SIZE %s` makes a store", *bare,
                          *bare);
    if (errno == EISDIR)
        return fail_errno(GISMO_EINVAL, "%s is a directory: name a file in it", *bare);
    if (errno == ELOOP)
        return fail(GISMO_EPERM, "%s is a symbolic link: name the file itself", *bare);
    if (errno == EACCES || errno == EPERM)
        return fail_errno(GISMO_EPERM,
                          "%s belongs to another user or is not yours to open: ask its owner to format it with --mode",
                          *bare);
    if (errno == EROFS)
        return fail_errno(GISMO_ESYS, "%s can only be looked at (`gismo ls`, `info`, `fsck`)", *bare);
    return fail_errno(GISMO_ESYS, "cannot open %s", *bare);
}

int medium_open(struct gismo_store *s, const char *path, int read_only) {
    const char *bare;
    int kind;
    int fd = open_checked(path, &bare, &kind, read_only ? O_RDONLY : O_RDWR);
    if (fd < 0)
        return fd;
    s->fd = fd;
    snprintf(s->path, sizeof s->path, "%s", bare);
    uint64_t bytes, align;
    int status = medium_bytes(fd, bare, &bytes, &align, &s->is_dax);
    if (status)
        return status;
    if (kind == 2 && !s->is_dax)
        return fail(GISMO_EINVAL, "%s is a file, not a device: use file:%s", bare, bare);
    if (kind == 1 && s->is_dax)
        return fail(GISMO_EINVAL, "%s is a device, not a file: use dax:%s", bare, bare);
    if (bytes < FMT_SUPERBLOCK_BYTES)
        return fail(GISMO_ENOTSTORE, "there is no Gismo store in %s: `gismo format` makes one", bare);
    s->mapped_bytes = s->is_dax ? bytes / align * align : bytes;
    s->protect_bytes = s->is_dax ? 2u << 20 : align;
    struct statx st;
    s->sparse =
        !s->is_dax && !read_only && statx(fd, "", AT_EMPTY_PATH, STATX_BLOCKS, &st) == 0 && st.stx_blocks < bytes / 512;
    return GISMO_OK;
}

/* ---- format -------------------------------------------------------------------------------- */

static int populate(int fd, uint8_t *base, uint64_t bytes, int is_dax, gismo_progress progress, void *ctx) {
    const uint64_t step = 64u << 20;
    for (uint64_t at = 0; at < bytes; at += step) {
        uint64_t n = bytes - at < step ? bytes - at : step;
        if (!is_dax && fallocate(fd, 0, (off_t)at, (off_t)n) != 0 && errno != EOPNOTSUPP)
            return fail_errno(GISMO_EMEDIA, "no room for the store on this file system: %llu of %llu MiB were there",
                              (unsigned long long)(at >> 20), (unsigned long long)(bytes >> 20));
        for (uint64_t page = at; page < at + n; page += FMT_PAGE)
            (void)*(volatile uint8_t *)(base + page);
        if (progress && progress(at + n, bytes, ctx) != 0)
            return fail(GISMO_EINVAL, "stopped");
    }
    return GISMO_OK;
}

/* Always flushed, whatever the coherence: what was cached of an older store must not come back. */
#define ALWAYS_FLUSH 1

static void zero_and_flush(uint8_t *p, uint64_t bytes) {
    const uint64_t piece = 64u << 10;
    for (uint64_t at = 0; at < bytes; at += piece) {
        uint64_t n = bytes - at < piece ? bytes - at : piece;
        GISMO_SITE(SHARED);
        prim_zero(p + at, n);
        prim_flush(ALWAYS_FLUSH, p + at, n);
    }
    prim_fence_store();
}

/* Word 0, the magic, goes first of all and is on the medium before the rest: what is left is no superblock. */
static void erase_superblock(struct fmt_superblock *at) {
    prim_store64(&at->magic, 0);
    prim_publish(ALWAYS_FLUSH, at, FMT_LINE);
    zero_and_flush((uint8_t *)at, sizeof *at);
}

/* The magic comes last: a superblock is there as a whole, or it is none. */
static void write_superblock(struct fmt_superblock *at, const struct fmt_superblock *sb) {
    uint64_t words[FMT_SUPERBLOCK_BYTES / 8], *to = &at->magic;
    memcpy(words, sb, sizeof words);
    for (uint32_t i = 1; i < FMT_SUPERBLOCK_BYTES / 8; i++)
        prim_store64(&to[i], words[i]);
    prim_publish(ALWAYS_FLUSH, at, sizeof *at);
    prim_store64(&to[0], words[0]);
    prim_publish(ALWAYS_FLUSH, at, FMT_LINE);
}

int medium_write_superblock(struct gismo_store *s, uint64_t offset) {
    int status = medium_make_writable(s, offset, FMT_SUPERBLOCK_BYTES);
    if (status == GISMO_OK)
        write_superblock((void *)(s->base + offset), &s->sb);
    return status;
}

/* In this order a format that dies leaves the old store, none, or the new one; never half of one (FORMAT.md). */
static int write_store(uint8_t *base, uint64_t mapped, const struct fmt_superblock *sb) {
    struct fmt_superblock *first = (void *)base, *last = (void *)(base + sb->size - FMT_SUPERBLOCK_BYTES);
    erase_superblock(first);
    erase_superblock(last);
    /* Of an older store that filled the device, which this one does not: open looks for a copy there. */
    if (mapped > sb->size)
        erase_superblock((void *)(base + mapped - FMT_SUPERBLOCK_BYTES));
    zero_and_flush(base + sb->lanes_offset, sb->data_offset - sb->lanes_offset);
    write_superblock(last, sb);
    write_superblock(first, sb);
    return GISMO_OK;
}

static bool is_zero(const uint8_t *p, uint64_t bytes) {
    return bytes == 0 || (p[0] == 0 && memcmp(p, p + 1, bytes - 1) == 0);
}

/* Is there anything but zeroes in the file? All of it is looked at; holes are passed by. -1 = it cannot be read. */
static int file_content(int fd, uint64_t bytes) {
    uint8_t piece[16384];
    for (uint64_t at = 0; at < bytes;) {
        off_t data = lseek(fd, (off_t)at, SEEK_DATA);
        if (data < 0 && errno == ENXIO)
            return 0; /* a hole up to the end */
        if (data >= 0 && (uint64_t)data > at)
            at = (uint64_t)data;
        ssize_t n = at < bytes ? pread(fd, piece, sizeof piece, (off_t)at) : 0;
        if (n < 0)
            return -1;
        if (n == 0)
            return 0;
        if (!is_zero(piece, (uint64_t)n))
            return 1;
        at += (uint64_t)n;
    }
    return 0;
}

static int existing_is_harmless(const char *bare, int fd, int is_dax, const void *head, uint64_t bytes,
                                uint64_t file_bytes, uint32_t force) {
    if (force)
        return GISMO_OK;
    const struct fmt_superblock *sb = head;
    if (bytes >= sizeof sb->magic && sb->magic == FMT_MAGIC)
        return fail(GISMO_EEXIST,
                    "%s already holds a Gismo store: open it, or format it with --force and lose its objects", bare);
    int content = is_dax ? !is_zero(head, bytes) : file_content(fd, file_bytes);
    if (content < 0)
        return fail_errno(GISMO_ESYS, "cannot read %s", bare);
    if (content)
        return fail(GISMO_EEXIST,
                    "%s holds something that is not a Gismo store: format it with --force to overwrite it", bare);
    return GISMO_OK;
}

/* What a device's end holds counts, too: the copy of a superblock whose first is lost, the label of a pool. */
static int dax_tail_is_empty(int fd, const char *bare, uint64_t bytes, uint64_t align) {
    uint64_t end = bytes / align * align, n = ((2u << 20) + align - 1) / align * align;
    n = n < end ? n : end;
    void *tail = mmap(NULL, n, PROT_READ, MAP_SHARED, fd, (off_t)(end - n));
    if (tail == MAP_FAILED)
        return fail_errno(GISMO_ESYS, "cannot map the end of %s", bare);
    int status =
        GUARDED(NULL, is_zero(tail, n) ? GISMO_OK
                                       : fail(GISMO_EEXIST,
                                              "the end of %s is not empty (a store's second superblock, a pool's "
                                              "label): format it with --force to overwrite it",
                                              bare));
    munmap(tail, n);
    return status;
}

static int format_opened(int fd, const char *bare, int made, const gismo_format_options *o, gismo_progress progress,
                         void *ctx, uint8_t uuid_out[16]) {
    uint64_t bytes, align;
    int is_dax, status = medium_bytes(fd, bare, &bytes, &align, &is_dax);
    if (status)
        return status;
    uint64_t size = o->size_bytes ? o->size_bytes : bytes;
    if (is_dax && size > bytes)
        return fail(GISMO_EINVAL, "%s has %llu bytes, not %llu", bare, (unsigned long long)bytes,
                    (unsigned long long)size);
    if (size == 0)
        return fail(GISMO_EINVAL, "%s is new: say how large the store shall be (--size)", bare);
    size = size / FMT_PAGE * FMT_PAGE;
    struct fmt_shape shape = {size, o->max_objects, o->max_hosts, o->coherence};
    struct fmt_superblock sb;
    const char *why;
    if (o->coherence > 1)
        return fail(GISMO_EINVAL, "coherence is hardware (0) or software (1)");
    if (fmt_layout(&shape, &sb, &why) != 0)
        return fail(GISMO_EINVAL, "cannot make such a store: %s", why);
    status = medium_lock(fd, MEDIUM_LOCK_USE, 1, 0);
    if (status == GISMO_EBUSY)
        return fail(GISMO_EBUSY, "%s is open in a process of this machine: close it first", bare);
    if (status)
        return status;
    /* Look before anything is changed, the size included. */
    if (!made && bytes > 0) {
        uint64_t look = bytes < (64 << 10) ? bytes : (64 << 10);
        uint64_t map_bytes = is_dax ? align : look;
        void *head = mmap(NULL, map_bytes, PROT_READ, MAP_SHARED, fd, 0);
        if (head == MAP_FAILED)
            return fail_errno(GISMO_ESYS, "cannot map %s", bare);
        status = GUARDED(
            NULL, existing_is_harmless(bare, fd, is_dax, head, look < map_bytes ? look : map_bytes, bytes, o->force));
        munmap(head, map_bytes);
        if (status == GISMO_OK && is_dax && !o->force)
            status = dax_tail_is_empty(fd, bare, bytes, align);
        if (status)
            return status;
    }
    GISMO_SITE(SHARED);
    if (!is_dax && bytes != size && ftruncate(fd, (off_t)size) != 0)
        return fail_errno(GISMO_EMEDIA, "cannot give %s a size of %llu bytes", bare, (unsigned long long)size);
    uint64_t map_bytes = is_dax ? bytes / align * align : size;
    if (size > map_bytes)
        return fail(GISMO_EINVAL, "%s has %llu bytes that can be mapped, not %llu", bare, (unsigned long long)map_bytes,
                    (unsigned long long)size);
    uint8_t *base = mmap(NULL, map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | (is_dax ? 0 : MAP_NORESERVE), fd, 0);
    if (base == MAP_FAILED)
        return fail_errno(GISMO_ESYS, "cannot map %s", bare);
    if (!is_dax)
        (void)madvise(base, map_bytes, MADV_HUGEPAGE);
    sb.created_unix_ns = now_coarse_unix_ns();
    static const uint8_t zero[16];
    if (memcmp(o->store_uuid, zero, 16) != 0) {
        memcpy(sb.uuid, o->store_uuid, 16);
    } else {
        status = host_random(sb.uuid, sizeof sb.uuid);
        if (status) {
            munmap(base, map_bytes);
            return status;
        }
        sb.uuid[6] = (uint8_t)((sb.uuid[6] & 0x0f) | 0x40); /* RFC 9562, version 4 */
        sb.uuid[8] = (uint8_t)((sb.uuid[8] & 0x3f) | 0x80);
    }
    sb.crc = fmt_superblock_crc(&sb);
    if (o->populate)
        status = GUARDED(NULL, populate(fd, base, size, is_dax, progress, ctx));
    else if (!is_dax && fallocate(fd, 0, 0, (off_t)sb.data_offset) != 0 && errno != EOPNOTSUPP)
        status = fail_errno(GISMO_EMEDIA, "no room for the store's metadata on this file system");
    if (status == GISMO_OK)
        status = GUARDED(NULL, write_store(base, map_bytes, &sb));
    munmap(base, map_bytes);
    if (status == GISMO_OK && uuid_out)
        memcpy(uuid_out, sb.uuid, 16);
    return status;
}

int gismo_format(const char *path, const gismo_format_options *o, gismo_progress progress, void *ctx,
                 uint8_t uuid_out[16]) {
    const char *bare;
    int kind, made = 0, status = medium_parse(path, &bare, &kind);
    if (status)
        return status;
    if (o == NULL)
        return fail(GISMO_EINVAL, "no options were given");
    if (guard_install() != 0)
        return fail_errno(GISMO_ESYS, "cannot install a handler for SIGBUS");
    uint32_t mode = o->mode ? o->mode : 0600;
    int fd = -1;
    if (kind != 2 && !(kind == 0 && names_dax_device(bare))) {
        fd = above_stdio(open(bare, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode & 0777));
        if (fd >= 0) {
            made = 1;
            (void)fchmod(fd, mode & 0777);
        } else if (errno == ENOENT || errno == ENOTDIR) {
            return fail_errno(GISMO_ESYS, "cannot make %s: the directory it is to lie in must be there", bare);
        } else if (errno != EEXIST) {
            return fail_errno(errno == EACCES || errno == EPERM ? GISMO_EPERM : GISMO_ESYS, "cannot make %s", bare);
        }
    }
    if (fd < 0) {
        fd = open_checked(path, &bare, &kind, O_RDWR);
        if (fd < 0)
            return fd;
    }
    status = format_opened(fd, bare, made, o, progress, ctx, uuid_out);
    if (status != GISMO_OK && made) {
        gismo_detail detail;
        gismo_error_detail(&detail);
        unlink(bare); /* a file that we made and could not fill is of no use to anyone */
    } else if (status == GISMO_OK && !made && o->mode) {
        /* A device's permissions are its administrator's: a format by root must not take it from its group. */
        struct statx st;
        if (statx(fd, "", AT_EMPTY_PATH, STATX_TYPE, &st) == 0 && S_ISREG(st.stx_mode))
            (void)fchmod(fd, mode & 0777);
    }
    close(fd);
    return status;
}

void info_fill(const struct fmt_superblock *sb, int is_dax, gismo_info *out) {
    memset(out, 0, sizeof *out);
    memcpy(out->store_uuid, sb->uuid, 16);
    out->size_bytes = sb->size;
    out->data_bytes = sb->data_bytes;
    out->max_objects = sb->chunks * FMT_CHUNK_SLOTS;
    out->created_unix_ns = sb->created_unix_ns;
    out->arena_bytes = 1ull << sb->arena_shift;
    out->arenas = sb->arenas;
    out->slot_groups = sb->groups;
    out->max_hosts = sb->max_lanes;
    out->coherence = sb->coherence;
    out->format_version = sb->format_version;
    out->is_dax = (uint32_t)is_dax;
    out->feature_compat = sb->feature_compat;
    out->feature_ro_compat = sb->feature_ro_compat;
    out->feature_incompat = sb->feature_incompat;
}

int gismo_probe(const char *path, gismo_info *out) {
    struct gismo_store *s = calloc(1, sizeof *s);
    if (!s)
        return fail(GISMO_ESYS, "out of memory");
    s->fd = -1;
    int status = guard_install() == 0 ? medium_open(s, path, 1) : fail_errno(GISMO_ESYS, "cannot handle SIGBUS");
    if (status == GISMO_OK)
        status = medium_map(s);
    if (status == GISMO_OK) {
        const void *last = s->mapped_bytes >= 2 * FMT_SUPERBLOCK_BYTES
                               ? s->base + s->mapped_bytes / FMT_PAGE * FMT_PAGE - FMT_SUPERBLOCK_BYTES
                               : NULL;
        status = GUARDED(NULL, superblock_read(s->base, last, s->mapped_bytes, &s->sb));
    }
    if (status == GISMO_OK)
        info_fill(&s->sb, s->is_dax, out);
    medium_unmap(s);
    if (s->fd >= 0)
        close(s->fd);
    free(s);
    return status;
}
