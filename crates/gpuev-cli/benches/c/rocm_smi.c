/* The same through Debian's librocm_smi64, in a tight loop. It is given throttling alone, with the time in the place
 * of the count: its fscanf("%x %63s") goes astray in a message with blanks and gives no event ever after.
 *
 *   rocm_smi              reads for ever
 *   rocm_smi latency N    N events; prints the nanoseconds from the driver's timestamp to here, one a line
 *   rocm_smi list         finds the GPUs and ends
 */
#include <rocm_smi/rocm_smi.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void must(rsmi_status_t status, const char *what) {
    if (status != RSMI_STATUS_SUCCESS) {
        fprintf(stderr, "%s: status %d\n", what, (int)status);
        exit(1);
    }
}

static void list(void) {
    uint32_t gpus = 0;
    must(rsmi_num_monitor_devices(&gpus), "rsmi_num_monitor_devices");
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        uint64_t address = 0;
        char name[128] = "";
        must(rsmi_dev_pci_id_get(gpu, &address), "rsmi_dev_pci_id_get");
        rsmi_dev_name_get(gpu, name, sizeof name);
        printf("%u %llx %s\n", gpu, (unsigned long long)address, name);
    }
}

static void tell_latency(const rsmi_evt_notification_data_t *event) {
    struct timespec at;
    clock_gettime(CLOCK_BOOTTIME, &at);
    uint64_t now = at.tv_sec * 1000000000ull + at.tv_nsec;
    const char *colon = strchr(event->message, ':');
    if (colon)
        printf("%lld\n", (long long)(now - strtoull(colon + 1, NULL, 16)));
}

static void read_events(uint64_t latencies) {
    must(rsmi_event_notification_init(0), "rsmi_event_notification_init");
    must(rsmi_event_notification_mask_set(0, ~0ull >> 1), "rsmi_event_notification_mask_set");
    for (uint64_t seen = 0; !latencies || seen < latencies;) {
        static rsmi_evt_notification_data_t events[256];
        uint32_t got = 256;
        rsmi_status_t status = rsmi_event_notification_get(-1, &got, events);
        if (status == RSMI_STATUS_NO_DATA)
            continue;
        must(status, "rsmi_event_notification_get");
        for (uint32_t i = 0; latencies && i < got; i++)
            tell_latency(&events[i]);
        seen += got;
    }
}

int main(int argc, char **argv) {
    must(rsmi_init(0), "rsmi_init");
    if (argc > 1 && !strcmp(argv[1], "list"))
        list();
    else
        read_events(argc > 2 ? strtoull(argv[2], NULL, 10) : 0);
    return 0;
}
