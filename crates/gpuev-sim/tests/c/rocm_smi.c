/* Finds the GPUs and reads one event of each through Debian's librocm_smi64. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <rocm_smi/rocm_smi.h>

#define TRY(call)                                                    \
    do {                                                             \
        rsmi_status_t status = (call);                               \
        if (status != RSMI_STATUS_SUCCESS) {                         \
            printf("%s: status %d\n", #call, (int)status);           \
            return 1;                                                \
        }                                                            \
    } while (0)

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    uint32_t count = 0;
    TRY(rsmi_init(0));
    TRY(rsmi_num_monitor_devices(&count));
    printf("%u GPUs\n", count);
    for (uint32_t gpu = 0; gpu < count; gpu++) {
        uint64_t address = 0;
        int64_t temperature = 0;
        TRY(rsmi_dev_pci_id_get(gpu, &address));
        TRY(rsmi_dev_temp_metric_get(gpu, RSMI_TEMP_TYPE_EDGE, RSMI_TEMP_CURRENT, &temperature));
        printf("GPU %u at %04" PRIx64 ", %" PRId64 " mC\n", gpu, address, temperature);
        TRY(rsmi_event_notification_init(gpu));
        TRY(rsmi_event_notification_mask_set(gpu, RSMI_EVENT_MASK_FROM_INDEX(RSMI_EVT_NOTIF_THERMAL_THROTTLE)));
    }
    puts("ready");
    for (uint32_t seen = 0; seen < count;) {
        rsmi_evt_notification_data_t events[8];
        uint32_t got = 8;
        /* What it finds at once it keeps until its wait is over, so it must not wait for ever. */
        rsmi_status_t status = rsmi_event_notification_get(100, &got, events);
        if (status != RSMI_STATUS_SUCCESS && status != RSMI_STATUS_NO_DATA) {
            printf("get: status %d\n", (int)status);
            return 1;
        }
        for (uint32_t i = 0; i < got; i++)
            printf("GPU %u event %d %s\n", events[i].dv_ind, (int)events[i].event, events[i].message);
        seen += got;
    }
    for (uint32_t gpu = 0; gpu < count; gpu++)
        TRY(rsmi_event_notification_stop(gpu));
    TRY(rsmi_shut_down());
    puts("done");
    return 0;
}
