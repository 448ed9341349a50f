/* The least that a reader can do: poll, read 64 KiB, count newlines. Every other reader is measured beside it.
 *
 *   minimal GPU_ID             reads for ever
 *   minimal GPU_ID latency N   N events; prints the nanoseconds from the driver's timestamp to here, one a line
 *   minimal decode FILE…       splits the files' lines with sscanf as librocm_smi64 does; prints the figure
 */
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

/* linux/kfd_ioctl.h, which needs headers of libdrm. */
struct smi_events_args {
    uint32_t gpu_id;
    int32_t event_fd;
};
#define SMI_EVENTS _IOWR('K', 0x1f, struct smi_events_args)

static uint64_t now(clockid_t clock) {
    struct timespec at;
    clock_gettime(clock, &at);
    return at.tv_sec * 1000000000ull + at.tv_nsec;
}

static int open_events(uint32_t gpu_id) {
    int kfd = open("/dev/kfd", O_RDWR | O_CLOEXEC);
    struct smi_events_args args = {.gpu_id = gpu_id};
    if (kfd < 0 || ioctl(kfd, SMI_EVENTS, &args) < 0) {
        perror("/dev/kfd");
        exit(1);
    }
    close(kfd);
    uint64_t mask = ~0ull;
    if (write(args.event_fd, &mask, sizeof mask) != sizeof mask) {
        perror("mask");
        exit(1);
    }
    return args.event_fd;
}

static uint64_t lines;

static void count(const char *buffer, ssize_t held) {
    for (const char *at = buffer, *end = buffer + held; (at = memchr(at, '\n', end - at)); at++)
        lines++;
}

/* "7 NANOSECONDS -PID …": where a line has no timestamp there is nothing to say. */
static void tell_latency(char *buffer, ssize_t held) {
    uint64_t at = now(CLOCK_BOOTTIME);
    buffer[held] = 0;
    for (char *line = buffer; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        char *stamp = strchr(line, ' ');
        if (stamp)
            printf("%lld\n", (long long)(at - strtoull(stamp, NULL, 10)));
        else
            break;
    }
}

static void read_events(uint32_t gpu_id, uint64_t latencies) {
    static char buffer[64 * 1024 + 1];
    struct pollfd file = {.fd = open_events(gpu_id), .events = POLLIN};
    for (;;) {
        poll(&file, 1, -1);
        ssize_t held = read(file.fd, buffer, sizeof buffer - 1);
        if (held == 0)
            return;
        if (held < 0)
            continue;
        count(buffer, held);
        if (latencies)
            tell_latency(buffer, held);
        if (latencies && lines >= latencies)
            return;
    }
}

static void decode(char **files) {
    static char text[1 << 20];
    size_t held = 0;
    for (; *files; files++) {
        FILE *file = fopen(*files, "r");
        if (file)
            held += fread(text + held, 1, sizeof text - 1 - held, file), fclose(file);
    }
    double best = 1e9;
    for (int run = 0; run < 50; run++) {
        uint64_t start = now(CLOCK_MONOTONIC), seen = 0;
        for (char *line = text; line < text + held; seen++) {
            char *end = memchr(line, '\n', text + held - line);
            if (!end)
                break;
            /* librocm_smi64 reads lines with fgets, which gives each its own end. */
            *end = 0;
            unsigned event;
            char message[64] = "";
            sscanf(line, "%x %63s\n", &event, message);
            *end = '\n';
            line = end + 1;
        }
        double cost = (double)(now(CLOCK_MONOTONIC) - start) / seen;
        best = cost < best ? cost : best;
    }
    printf("figure\tdecode one line\tC sscanf\t%.1f\tns\n", best);
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "decode"))
        decode(argv + 2);
    else if (argc > 1)
        read_events(strtoul(argv[1], NULL, 10), argc > 3 ? strtoull(argv[3], NULL, 10) : 0);
    return 0;
}
