/* A stand-in for NVIDIA's driver libraries, where there is no GPU: it answers what the environment says. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int number(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}

int cuInit(unsigned int flags) {
    int code = number("FAKE_CUINIT", 0);
    if (code == -1) abort();
    if (code == -2) sleep(60);
    return code;
}
int cuDriverGetVersion(int *version) { *version = number("FAKE_CUDA", 13000); return 0; }
int cuDeviceGetCount(int *count) { *count = number("FAKE_DEVICES", 1); return 0; }

int nvmlInit_v2(void) { return number("FAKE_NVML", 0); }
int nvmlSystemGetDriverVersion(char *text, unsigned int length) { strncpy(text, "580.65.06", length); return 0; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = number("FAKE_NVML_DEVICES", 1); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) {
    *device = (void *)(size_t)(index + 1);
    return (int)index < number("FAKE_LOST", 0) ? 15 : 0;
}
int nvmlDeviceGetName(void *device, char *text, unsigned int length) { strncpy(text, "Fake H100", length); return 0; }
int nvmlDeviceGetTotalEccErrors(void *device, int kind, int counter, unsigned long long *errors) {
    *errors = number("FAKE_ECC", 0);
    return 0;
}
