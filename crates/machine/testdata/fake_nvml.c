/* A stand-in for NVIDIA's libnvidia-ml.so.1, for tests: two Tesla T4 that work, or a library that is broken as MODE
   says. Structures and numbers are those of NVIDIA's nvml.h. */

#include <string.h>

#define WORKS 0
#define INIT_FAILS 1       /* loads, and refuses to start */
#define COUNT_FAILS 2      /* starts, and then does nothing */
#define SECOND_LOST 3      /* lists two, and the second gives no value */
#define HANDLE_FAILS 4     /* lists two, and the second has no handle */
#define ZEROS 5            /* says that all is well and writes nothing */
#define TOO_MANY 6         /* counts four thousand million processes */
#define LOST_LATER 7       /* gives name and memory, and then is lost */

#define SUCCESS 0
#define ERROR_NOT_SUPPORTED 3
#define ERROR_NO_PERMISSION 4
#define ERROR_INSUFFICIENT_SIZE 7
#define ERROR_DRIVER_NOT_LOADED 9
#define ERROR_GPU_IS_LOST 15
#define ERROR_UNKNOWN 999

typedef struct { unsigned version; unsigned long long total, reserved, free, used; } Memory;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } Pci;
typedef struct { unsigned pid; unsigned long long bytes; unsigned gpu_instance, compute_instance; } Process;

static long devices[2] = {0, 1};

static int lost(long *device) { return MODE == SECOND_LOST && *device == 1; }

/* Leaves the function: for a library that answers "no" or writes nothing. */
#define ANSWER(device)                          \
    if (MODE == ZEROS) return SUCCESS;          \
    if (lost(device)) return ERROR_GPU_IS_LOST

#define LATER(device)                                 \
    ANSWER(device);                                   \
    if (MODE == LOST_LATER) return ERROR_GPU_IS_LOST

int nvmlInit_v2(void) { return MODE == INIT_FAILS ? ERROR_DRIVER_NOT_LOADED : SUCCESS; }

#ifndef WITHOUT_SHUTDOWN
int nvmlShutdown(void) { return SUCCESS; }
#endif

int nvmlSystemGetDriverVersion(char *text, unsigned length) {
    if (MODE == ZEROS) return SUCCESS;
    if (MODE == COUNT_FAILS) return ERROR_UNKNOWN;
    strncpy(text, "580.105.08", length);
    return SUCCESS;
}

int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    if (MODE == ZEROS) return SUCCESS;
    if (MODE == COUNT_FAILS) return ERROR_UNKNOWN;
    *version = 13000;
    return SUCCESS;
}

int nvmlSystemGetProcessName(unsigned pid, char *name, unsigned length) {
    if (pid != 4242) return ERROR_NO_PERMISSION;
    strncpy(name, "/usr/bin/python3", length);
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    if (MODE == COUNT_FAILS) return ERROR_UNKNOWN;
    *count = 2;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, long **device) {
    if (MODE == HANDLE_FAILS && index == 1) return ERROR_GPU_IS_LOST;
    *device = &devices[index];
    return SUCCESS;
}

int nvmlDeviceGetName(long *device, char *name, unsigned length) {
    ANSWER(device);
    strncpy(name, "Tesla T4", length);
    return SUCCESS;
}

int nvmlDeviceGetUUID(long *device, char *uuid, unsigned length) {
    LATER(device);
    strncpy(uuid, *device ? "GPU-b" : "GPU-a", length);
    return SUCCESS;
}

int nvmlDeviceGetPciInfo_v3(long *device, Pci *pci) {
    if (MODE == LOST_LATER) return ERROR_GPU_IS_LOST;
    if (MODE == ZEROS) return SUCCESS;
    strcpy(pci->bus_id, *device ? "00000000:00:05.0" : "00000000:00:04.0");
    pci->device = 4 + *device;
    return SUCCESS;
}

int nvmlDeviceGetCudaComputeCapability(long *device, int *major, int *minor) {
    LATER(device);
    *major = 7;
    *minor = 5;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo_v2(long *device, Memory *memory) {
    ANSWER(device);
    memory->total = 16106127360ull;
    memory->reserved = 470000000ull;
    memory->used = 1073741824ull;
    memory->free = memory->total - memory->reserved - memory->used;
    return SUCCESS;
}

int nvmlDeviceGetClockInfo(long *device, int clock, unsigned *mhz) {
    LATER(device);
    *mhz = clock == 1 ? 300 : 405;
    return SUCCESS;
}

int nvmlDeviceGetMaxClockInfo(long *device, int clock, unsigned *mhz) {
    LATER(device);
    *mhz = clock == 1 ? 1590 : 5001;
    return SUCCESS;
}

int nvmlDeviceGetEnforcedPowerLimit(long *device, unsigned *milliwatts) {
    LATER(device);
    *milliwatts = 70000;
    return SUCCESS;
}

int nvmlDeviceGetPowerUsage(long *device, unsigned *milliwatts) {
    LATER(device);
    *milliwatts = 9350;
    return SUCCESS;
}

int nvmlDeviceGetTemperature(long *device, int sensor, unsigned *celsius) {
    LATER(device);
    *celsius = 41;
    return SUCCESS;
}

int nvmlDeviceGetCurrPcieLinkGeneration(long *device, unsigned *value) {
    LATER(device);
    *value = 1;
    return SUCCESS;
}

int nvmlDeviceGetMaxPcieLinkGeneration(long *device, unsigned *value) {
    LATER(device);
    *value = 3;
    return SUCCESS;
}

int nvmlDeviceGetCurrPcieLinkWidth(long *device, unsigned *value) {
    LATER(device);
    *value = 8;
    return SUCCESS;
}

int nvmlDeviceGetMaxPcieLinkWidth(long *device, unsigned *value) {
    LATER(device);
    *value = 16;
    return SUCCESS;
}

int nvmlDeviceGetEccMode(long *device, int *now, int *pending) {
    LATER(device);
    *now = *pending = 1;
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(long *device, unsigned *count, Process *processes) {
    LATER(device);
    unsigned room = *count;
    *count = MODE == TOO_MANY ? 0xffffffffu : 2;
    if (processes == 0 || room < 2) return ERROR_INSUFFICIENT_SIZE;
    processes[0] = (Process){4242, 1048576000ull, ~0u, ~0u};
    processes[1] = (Process){77, ~0ull, ~0u, ~0u};
    return SUCCESS;
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(long *device, unsigned *count, Process *processes) {
    return ERROR_NOT_SUPPORTED;
}
