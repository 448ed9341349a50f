/* Runs a program again and again and prints the milliseconds and the KiB of memory that each run took. It is small
 * itself: a program's peak memory counts from that of whoever started it.
 *
 *   start_up RUNS PROGRAM [ARGUMENT…]
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

int main(int argc, char **argv) {
    if (argc < 3)
        return 2;
    posix_spawn_file_actions_t quiet;
    posix_spawn_file_actions_init(&quiet);
    posix_spawn_file_actions_addopen(&quiet, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&quiet, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    for (int left = atoi(argv[1]); left > 0; left--) {
        struct timespec start, end;
        struct rusage used;
        pid_t pid;
        int status;
        clock_gettime(CLOCK_MONOTONIC, &start);
        if (posix_spawnp(&pid, argv[2], &quiet, NULL, argv + 2, environ) || wait4(pid, &status, 0, &used) < 0)
            return 1;
        clock_gettime(CLOCK_MONOTONIC, &end);
        if (status) {
            fprintf(stderr, "%s: status %d\n", argv[2], status);
            return 1;
        }
        double ms = (end.tv_sec - start.tv_sec) * 1e3 + (end.tv_nsec - start.tv_nsec) / 1e6;
        printf("%.3f %ld\n", ms, used.ru_maxrss);
    }
    return 0;
}
