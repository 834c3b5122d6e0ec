/* Preloaded into an agent: its wall clock is off by the seconds that the file $CHAOS_CLOCK holds as a double. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile const double *offset;

__attribute__((constructor)) static void map_offset(void)
{
    const char *path = getenv("CHAOS_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *mapped = mmap(0, sizeof(double), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (mapped != MAP_FAILED)
        offset = mapped;
}

int clock_gettime(clockid_t clock, struct timespec *moment)
{
    int result = (int)syscall(SYS_clock_gettime, clock, moment);
    if (result == 0 && offset && clock == CLOCK_REALTIME)
        moment->tv_sec += (time_t)*offset;
    return result;
}

int gettimeofday(struct timeval *restrict moment, void *restrict zone)
{
    int result = (int)syscall(SYS_gettimeofday, moment, zone);
    if (result == 0 && offset && moment)
        moment->tv_sec += (time_t)*offset;
    return result;
}

time_t time(time_t *where)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where)
        *where = now.tv_sec;
    return now.tv_sec;
}
