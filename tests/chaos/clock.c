// Preloaded into a process, it shifts the clock by the seconds in the file STORM_CLOCK.
// Files that are touched get the shifted time; those that are written get the kernel's.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long *offset_s;
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void open_clock(void) {
    const char *path = getenv("STORM_CLOCK");
    int descriptor = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    if (descriptor < 0) return;
    void *page = mmap(NULL, sizeof(long), PROT_READ, MAP_SHARED, descriptor, 0);
    if (page != MAP_FAILED) offset_s = page;
    close(descriptor);
}

int clock_gettime(clockid_t id, struct timespec *out) {
    if (!real) open_clock();
    int failed = real(id, out);
    if (!failed && offset_s && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        out->tv_sec += *offset_s;
    return failed;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}

// Return the times that `touch` sets: the given ones, or else the shifted clock's.
static const struct timespec *touched(const struct timespec given[2], struct timespec now[2]) {
    if (given && !(given[0].tv_nsec == UTIME_NOW && given[1].tv_nsec == UTIME_NOW)) return given;
    clock_gettime(CLOCK_REALTIME, &now[0]);
    now[1] = now[0];
    return now;
}

int utimensat(int folder, const char *path, const struct timespec given[2], int flags) {
    static int (*next)(int, const char *, const struct timespec *, int);
    struct timespec now[2];
    if (!next) next = (int (*)(int, const char *, const struct timespec *, int))dlsym(RTLD_NEXT, "utimensat");
    return next(folder, path, touched(given, now), flags);
}

int futimens(int descriptor, const struct timespec given[2]) {
    static int (*next)(int, const struct timespec *);
    struct timespec now[2];
    if (!next) next = (int (*)(int, const struct timespec *))dlsym(RTLD_NEXT, "futimens");
    return next(descriptor, touched(given, now));
}
