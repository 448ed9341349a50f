/* Asks libdrm_amdgpu about a render node. Its header is not needed for this little. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>

typedef struct amdgpu_device *device;

int main(int argc, char **argv) {
    if (argc != 2)
        return 2;
    void *lib = dlopen("libdrm_amdgpu.so.1", RTLD_NOW);
    if (!lib) {
        puts("no libdrm_amdgpu");
        return 3;
    }
    int (*initialize)(int, uint32_t *, uint32_t *, device *) = dlsym(lib, "amdgpu_device_initialize");
    int (*query)(device, unsigned, unsigned, void *) = dlsym(lib, "amdgpu_query_info");
    int (*sensor)(device, unsigned, unsigned, void *) = dlsym(lib, "amdgpu_query_sensor_info");
    int (*deinitialize)(device) = dlsym(lib, "amdgpu_device_deinitialize");
    int fd = open(argv[1], O_RDWR | O_CLOEXEC);
    uint32_t major = 0, minor = 0, celsius = 0;
    uint64_t memory[3] = { 0 };
    device gpu;
    int status = initialize(fd, &major, &minor, &gpu);
    if (status) {
        printf("initialize: %d\n", status);
        return 1;
    }
    printf("amdgpu %u.%u\n", major, minor);
    printf("memory %d\n", query(gpu, 0x14, sizeof memory, memory));
    printf("vram %lu\n", memory[0]);
    printf("sensor %d\n", sensor(gpu, 3, sizeof celsius, &celsius));
    printf("temperature %u\n", celsius);
    return deinitialize(gpu);
}
