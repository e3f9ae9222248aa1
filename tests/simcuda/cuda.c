/* A CUDA runtime and driver that claim SIMCUDA_DEVICES devices and have none.

   Preloaded, it is found before the real runtime: torch counts devices, makes streams and events,
   and allocates pinned memory. Memory of a device there is none of, and a kernel that is launched
   ends the process: what a tensor computes never gets here (device.py). Every call succeeds at
   once, so events are always over. */

#include <driver_types.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DONE return cudaSuccess
typedef cudaError_t Code;

/* Devices */

static __thread int current = 0;

static int count(void) {
    const char *devices = getenv("SIMCUDA_DEVICES");
    return devices ? atoi(devices) : 1;
}

Code cudaGetDeviceCount(int *devices) { *devices = count(); DONE; }
Code cudaGetDevice(int *device) { *device = current; DONE; }
Code cudaSetDevice(int device) {
    if (device < 0 || device >= count()) return cudaErrorInvalidDevice;
    current = device;
    DONE;
}
Code cudaGetDeviceProperties(struct cudaDeviceProp *has, int device) {
    memset(has, 0, sizeof *has);
    strcpy(has->name, "simulated");
    has->major = 9;
    has->totalGlobalMem = 80ull << 30;
    has->multiProcessorCount = 132;
    has->warpSize = 32;
    has->maxThreadsPerBlock = 1024;
    has->maxThreadsPerMultiProcessor = 2048;
    has->sharedMemPerBlock = 48 << 10;
    has->sharedMemPerMultiprocessor = 228 << 10;
    has->regsPerMultiprocessor = 65536;
    DONE;
}
Code cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr which, int device) { *value = 0; DONE; }
Code cudaDeviceCanAccessPeer(int *can, int device, int peer) { *can = 0; DONE; }
Code cudaDeviceGetPCIBusId(char *id, int size, int device) { strncpy(id, "0000:00:00.0", size); DONE; }
Code cudaDeviceSynchronize(void) { DONE; }
Code cudaDriverGetVersion(int *version) { *version = SIMCUDA_VERSION; DONE; }
Code cudaRuntimeGetVersion(int *version) { *version = SIMCUDA_VERSION; DONE; }
Code cudaGetLastError(void) { DONE; }
Code cudaPeekAtLastError(void) { DONE; }

/* Streams and events: names without anything behind them */

static char names[4096];

static void *name(void) {
    static int next = 0;
    return &names[next++ % sizeof names];
}

Code cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    if (least) *least = 0;
    if (greatest) *greatest = -3;
    DONE;
}
Code cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority) {
    *stream = name();
    DONE;
}
Code cudaStreamQuery(cudaStream_t stream) { DONE; }
Code cudaStreamSynchronize(cudaStream_t stream) { DONE; }
Code cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) { DONE; }
Code cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    *status = cudaStreamCaptureStatusNone;
    DONE;
}
Code cudaStreamGetCaptureInfo(cudaStream_t stream, enum cudaStreamCaptureStatus *status, ...) {
    return cudaStreamIsCapturing(stream, status);
}
Code cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode) { DONE; }
Code cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) { *event = name(); DONE; }
Code cudaEventDestroy(cudaEvent_t event) { DONE; }
Code cudaEventRecord(cudaEvent_t event, cudaStream_t stream) { DONE; }
Code cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) { DONE; }
Code cudaEventQuery(cudaEvent_t event) { DONE; }
Code cudaEventSynchronize(cudaEvent_t event) { DONE; }
Code cudaEventElapsedTime(float *time, cudaEvent_t from, cudaEvent_t to) { *time = 0; DONE; }

/* Memory: pinned memory is there, a device's is not */

static struct { char *start; size_t size; } pinned[1 << 16];

Code cudaHostAlloc(void **start, size_t size, unsigned flags) {
    for (size_t i = 0; i < sizeof pinned / sizeof *pinned; i++)
        if (!pinned[i].start) {
            *start = pinned[i].start = aligned_alloc(512, (size + 511) / 512 * 512);
            pinned[i].size = size;
            DONE;
        }
    return cudaErrorMemoryAllocation;
}
Code cudaFreeHost(void *start) {
    for (size_t i = 0; i < sizeof pinned / sizeof *pinned; i++)
        if (pinned[i].start == start) pinned[i].start = NULL;
    free(start);
    DONE;
}
Code cudaPointerGetAttributes(struct cudaPointerAttributes *is, const void *pointer) {
    memset(is, 0, sizeof *is);
    is->type = cudaMemoryTypeUnregistered;
    for (size_t i = 0; i < sizeof pinned / sizeof *pinned; i++) {
        char *start = pinned[i].start;
        if (start && start <= (char *)pointer && (char *)pointer < start + pinned[i].size)
            is->type = cudaMemoryTypeHost;
    }
    DONE;
}
Code cudaMemGetInfo(size_t *free, size_t *total) { *free = *total = 80ull << 30; DONE; }
Code cudaMalloc(void **start, size_t size) {
    fprintf(stderr, "simcuda: %zu bytes of a device that is not there\n", size);
    return cudaErrorMemoryAllocation;
}

/* Kernels: none */

Code cudaFuncGetAttributes(struct cudaFuncAttributes *is, const void *function) {
    memset(is, 0, sizeof *is);
    DONE;
}
Code cudaLaunchKernel(
    const void *function, struct dim3 grid, struct dim3 block, void **given, size_t shared,
    cudaStream_t stream) {
    fprintf(stderr, "simcuda: a kernel was launched on a device that is not there\n");
    abort();
}

/* The driver, which torch asks whether a device has a context, and calls by entry points */

int cuInit(unsigned flags) { return 0; }
int cuDeviceGetCount(int *devices) { *devices = count(); return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    *flags = 0;
    *active = 1;
    return 0;
}
static int fine(void) { return 0; }
Code cudaGetDriverEntryPoint(
    const char *symbol, void **function, unsigned long long flags,
    enum cudaDriverEntryPointQueryResult *result) {
    *function = (void *)fine;
    if (result) *result = cudaDriverEntryPointSuccess;
    DONE;
}
Code cudaGetDriverEntryPointByVersion(
    const char *symbol, void **function, unsigned version, unsigned long long flags,
    enum cudaDriverEntryPointQueryResult *result) {
    return cudaGetDriverEntryPoint(symbol, function, flags, result);
}
