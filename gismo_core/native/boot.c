/*
 * boot.c - which boot of which machine this is: what is in its caches, and in its state directories, is not older than that.
 * And random bytes, to tell things apart that are made at the same moment.
 */
#include "internal.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

void host_read_boot_id(uint8_t out[16]) {
    char text[64] = {0};
    memset(out, 0, 16);
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    int digit = 0;
    for (ssize_t i = 0; i < n && digit < 32; i++) {
        char c = text[i];
        int v = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (v < 0)
            continue;
        out[digit / 2] = (uint8_t)(out[digit / 2] << 4 | v);
        digit++;
    }
}

int host_random(void *out, uint64_t bytes) {
    int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd >= 0 ? read(fd, out, bytes) : -1;
    int status = got == (ssize_t)bytes ? GISMO_OK : fail_errno(GISMO_ESYS, "cannot read /dev/urandom");
    if (fd >= 0)
        close(fd);
    return status;
}
