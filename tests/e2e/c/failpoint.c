/* Ends a process, or makes it fail, at a chosen one of the calls by which it changes the files of one
 * directory, or reads at an offset. Preloaded (LD_PRELOAD) and told in the environment:
 *
 *   FAILPOINT_DIR   the directory; what is done elsewhere is not looked at
 *   FAILPOINT_LOG   a file to which each of these calls is noted before it is made: "CALL NAME\n"
 *   FAILPOINT_CALL  which calls are counted, by name
 *   FAILPOINT_AT    which of them it happens at, from 1
 *   FAILPOINT_HOW   before, after: SIGKILL, the call not made, or made
 *                   torn: SIGKILL, half of what was to be written is (as after where nothing is written)
 *                   fails: this one fails with EIO;  broken: this one and all later ones do
 *
 * strace can inject the same, but counts by thread: which call of the process the Nth of a thread is, is
 * different each time. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static const char *dir, *chosen, *how;
static size_t dir_len;
static long at;
static int log_fd = -1;
static atomic_long count;

__attribute__((constructor)) static void begin(void) {
    dir = getenv("FAILPOINT_DIR");
    const char *log = getenv("FAILPOINT_LOG"), *number = getenv("FAILPOINT_AT");
    chosen = getenv("FAILPOINT_CALL");
    how = getenv("FAILPOINT_HOW");
    if (!dir || !log || !chosen || !how || !number) {
        dir = NULL;
        return;
    }
    dir_len = strlen(dir);
    at = atol(number);
    log_fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

static void die(void) {
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}

enum act { MAKE, HALF_THEN_DIE, MAKE_THEN_DIE, FAIL };

/* What becomes of a call on a path. */
static enum act meet(const char *call, const char *path) {
    if (!dir || !path || strncmp(path, dir, dir_len) || (path[dir_len] != '/' && path[dir_len])) return MAKE;
    char line[PATH_MAX + 32];
    int len = snprintf(line, sizeof line, "%s %s\n", call, path[dir_len] ? path + dir_len + 1 : ".");
    syscall(SYS_write, log_fd, line, (size_t)len);
    if (strcmp(call, chosen)) return MAKE;
    long number = atomic_fetch_add(&count, 1) + 1;
    if (!strcmp(how, "broken")) return number >= at ? FAIL : MAKE;
    if (number != at) return MAKE;
    if (!strcmp(how, "fails")) return FAIL;
    if (!strcmp(how, "before")) die();
    return strcmp(how, "torn") ? MAKE_THEN_DIE : HALF_THEN_DIE;
}

static enum act meet_fd(const char *call, int fd) {
    if (!dir) return MAKE;
    char link[40], path[PATH_MAX];
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    errno = before;
    if (len < 0) return MAKE;
    path[len] = 0;
    return meet(call, path);
}

static long done(enum act act, long result) {
    if (act != MAKE) die();
    return result;
}

static long fail(void) {
    errno = EIO;
    return -1;
}

ssize_t write(int fd, const void *bytes, size_t len) {
    enum act act = meet_fd("write", fd);
    if (act == FAIL) return fail();
    return done(act, syscall(SYS_write, fd, bytes, act == HALF_THEN_DIE ? len / 2 : len));
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off_t offset) {
    enum act act = meet_fd("pwrite", fd);
    if (act == FAIL) return fail();
    return done(act, syscall(SYS_pwrite64, fd, bytes, act == HALF_THEN_DIE ? len / 2 : len, offset));
}

ssize_t pread64(int fd, void *bytes, size_t len, off_t offset) {
    enum act act = meet_fd("pread", fd);
    if (act == FAIL) return fail();
    return done(act, syscall(SYS_pread64, fd, bytes, len, offset));
}

int fdatasync(int fd) {
    enum act act = meet_fd("fdatasync", fd);
    if (act == FAIL) return (int)fail();
    return (int)done(act, syscall(SYS_fdatasync, fd));
}

int fsync(int fd) {
    enum act act = meet_fd("fsync", fd);
    if (act == FAIL) return (int)fail();
    return (int)done(act, syscall(SYS_fsync, fd));
}

int ftruncate64(int fd, off_t len) {
    enum act act = meet_fd("ftruncate", fd);
    if (act == FAIL) return (int)fail();
    return (int)done(act, syscall(SYS_ftruncate, fd, len));
}

int rename(const char *from, const char *to) {
    enum act act = meet("rename", to);
    if (act == FAIL) return (int)fail();
    return (int)done(act, syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}

int unlink(const char *path) {
    enum act act = meet("unlink", path);
    if (act == FAIL) return (int)fail();
    return (int)done(act, syscall(SYS_unlinkat, AT_FDCWD, path, 0));
}

int mkdir(const char *path, mode_t mode) {
    enum act act = meet("mkdir", path);
    if (act == FAIL) return (int)fail();
    return (int)done(act, syscall(SYS_mkdirat, AT_FDCWD, path, mode));
}

/* Only what may create a file. */
int open64(const char *path, int flags, ...) {
    mode_t mode = 0;
    if (flags & O_CREAT) {
        va_list more;
        va_start(more, flags);
        mode = va_arg(more, mode_t);
        va_end(more);
    }
    enum act act = flags & O_CREAT ? meet("create", path) : MAKE;
    if (act == FAIL) return (int)fail();
    return (int)done(act, syscall(SYS_openat, AT_FDCWD, path, flags | O_LARGEFILE, mode));
}
