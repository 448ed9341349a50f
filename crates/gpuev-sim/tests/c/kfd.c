/* Speaks to /dev/kfd as a program without any library does. Prints what it is told. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

struct version { uint32_t major, minor; };
struct events { uint32_t gpu_id, fd; };
struct clocks { uint64_t gpu, cpu, system, frequency; uint32_t gpu_id, pad; };
struct apertures { uint64_t pointer; uint32_t nodes, pad; };
struct aperture { uint64_t range[6]; uint32_t gpu_id, pad; };
struct memory { uint64_t available; uint32_t gpu_id, pad; };

#define GET_VERSION _IOR('K', 0x01, struct version)
#define GET_CLOCKS _IOWR('K', 0x05, struct clocks)
#define GET_APERTURES _IOWR('K', 0x14, struct apertures)
#define SMI_EVENTS _IOWR('K', 0x1F, struct events)
#define AVAILABLE_MEMORY _IOWR('K', 0x23, struct memory)

static int kfd;

static void tell(const char *what, int result) {
    if (result < 0)
        printf("%s: %s\n", what, strerrorname_np(errno));
    else
        printf("%s: %d\n", what, result);
}

static int open_events(uint32_t gpu_id) {
    struct events args = { .gpu_id = gpu_id };
    return ioctl(kfd, SMI_EVENTS, &args) < 0 ? -1 : (int)args.fd;
}

/* Every ioctl that has an answer. */
static void ask(uint32_t gpu_id) {
    struct version version = { 0 };
    tell("version", ioctl(kfd, GET_VERSION, &version));
    printf("version %u.%u\n", version.major, version.minor);
    struct clocks clocks = { .gpu_id = gpu_id };
    tell("clocks", ioctl(kfd, GET_CLOCKS, &clocks));
    printf("frequency %lu\n", clocks.frequency);
    struct aperture aperture[64] = { 0 };
    struct apertures apertures = { .pointer = (uintptr_t)aperture };
    tell("count", ioctl(kfd, GET_APERTURES, &apertures));
    printf("nodes %u\n", apertures.nodes);
    tell("apertures", ioctl(kfd, GET_APERTURES, &apertures));
    for (uint32_t i = 0; i < apertures.nodes; i++)
        printf("aperture of %u\n", aperture[i].gpu_id);
    struct memory memory = { .gpu_id = gpu_id };
    tell("memory", ioctl(kfd, AVAILABLE_MEMORY, &memory));
    printf("available %s\n", memory.available ? "some" : "none");
}

/* Every way to ask wrongly. */
static void err(uint32_t gpu_id) {
    struct version version;
    struct events *nowhere = (void *)8;
    struct events nobody = { .gpu_id = 0xdead };
    tell("unknown gpu", ioctl(kfd, SMI_EVENTS, &nobody));
    tell("bad address", ioctl(kfd, SMI_EVENTS, nowhere));
    tell("read-only memory", ioctl(kfd, GET_VERSION, (void *)"constant"));
    tell("no such ioctl", ioctl(kfd, _IO('K', 0x7F) | 8 << 16, &version));
    int null = open("/dev/null", O_RDWR);
    tell("not the device", ioctl(null, GET_VERSION, &version));
    tell("no descriptor", ioctl(12345, GET_VERSION, &version));
    struct rlimit limit = { .rlim_cur = null + 1, .rlim_max = null + 1 };
    setrlimit(RLIMIT_NOFILE, &limit);
    tell("no descriptor left", open_events(gpu_id));
}

/* Reads COUNT lines of events under MASK. */
static void watch(uint32_t gpu_id, uint64_t mask, int count) {
    int fd = open_events(gpu_id);
    if (fd < 0) {
        tell("open", fd);
        exit(1);
    }
    printf("cloexec %d\n", fcntl(fd, F_GETFD) & FD_CLOEXEC);
    printf("mask %zd\n", write(fd, &mask, sizeof mask));
    char buffer[8192];
    printf("empty: %s\n", read(fd, buffer, sizeof buffer) < 0 ? strerrorname_np(errno) : "?");
    puts("ready");
    while (count > 0) {
        struct pollfd wait = { .fd = fd, .events = POLLIN };
        poll(&wait, 1, -1);
        ssize_t got = read(fd, buffer, sizeof buffer);
        for (ssize_t i = 0; i < got; i++)
            count -= buffer[i] == '\n';
        if (got > 0)
            fwrite(buffer, 1, got, stdout);
    }
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    kfd = open("/dev/kfd", O_RDWR | O_CLOEXEC);
    if (kfd < 0) {
        tell("open", kfd);
        return 1;
    }
    uint32_t gpu_id = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
    if (argc == 3 && !strcmp(argv[1], "ask"))
        ask(gpu_id);
    else if (argc == 3 && !strcmp(argv[1], "err"))
        err(gpu_id);
    else if (argc == 5 && !strcmp(argv[1], "watch"))
        watch(gpu_id, strtoull(argv[3], NULL, 0), atoi(argv[4]));
    else
        return 2;
    return 0;
}
