/* What this machine can run and how much of it this process may use. */
#if defined(__AVX__) && !defined(FNN_ALLOW_NATIVE)
/* For a library that never leaves this machine, define FNN_ALLOW_NATIVE. */
#error "cpu.c runs before it is known which instructions may: compile it without -march or -mavx flags"
#endif

#ifdef __linux__
#define _GNU_SOURCE
#include <sched.h>
#endif
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#ifdef __x86_64__
#include <cpuid.h>
#endif

#include "runtime.h"

/* ---- instruction sets ---- */

#ifdef __x86_64__
enum {
    LEAF1_ECX = 1u << 12 | 1u << 22 | 1u << 27 | 1u << 28 | 1u << 29, /* FMA, MOVBE, OSXSAVE, AVX, F16C */
    LEAF7_EBX_AVX2 = 1u << 3 | 1u << 5 | 1u << 8,                     /* BMI1, AVX2, BMI2 */
    EXTENDED1_ECX = 1u << 5                                           /* LZCNT */
};
static const unsigned LEAF7_EBX_AVX512 = 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31; /* F, DQ, CD, BW, VL */
/* Register files that the operating system saves: XMM and YMM; with opmask, upper ZMM and ZMM16-31. */
enum { XCR0_AVX2 = 0x06, XCR0_AVX512 = 0xe6 };

static bool has_all(unsigned bits, unsigned wanted)
{
    return (bits & wanted) == wanted;
}

static unsigned extended_control_register(void)
{
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0)); /* the intrinsic needs -mxsave */
    (void)high;
    return low;
}

unsigned fnn_cpu_features(void)
{
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !has_all(ecx, LEAF1_ECX))
        return 0;
    if (!__get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) || !has_all(ecx, EXTENDED1_ECX))
        return 0;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || !has_all(ebx, LEAF7_EBX_AVX2))
        return 0;
    unsigned saved = extended_control_register();
    if (!has_all(saved, XCR0_AVX2))
        return 0;
    bool avx512 = has_all(ebx, LEAF7_EBX_AVX512) && has_all(saved, XCR0_AVX512);
    return FNN_CPU_AVX2 | (avx512 ? FNN_CPU_AVX512 : 0);
}
#elif defined(__aarch64__)
unsigned fnn_cpu_features(void)
{
    return FNN_CPU_NEON; /* part of every AArch64 processor that runs a general-purpose system */
}
#else
unsigned fnn_cpu_features(void)
{
    return 0;
}
#endif

/* ---- processors ---- */

#ifdef __linux__
static int affinity_count(void)
{
    /* A machine may have more processors than cpu_set_t has bits; the call then says EINVAL. */
    for (int processors = CPU_SETSIZE; processors <= 1 << 20; processors *= 2) {
        cpu_set_t *set = CPU_ALLOC((size_t)processors);
        if (set == NULL)
            break;
        size_t bytes = CPU_ALLOC_SIZE((size_t)processors);
        int count = sched_getaffinity(0, bytes, set) == 0 ? CPU_COUNT_S(bytes, set) : 0;
        CPU_FREE(set);
        if (count > 0)
            return count;
    }
    return INT_MAX;
}

static int processors_of(long quota, long period)
{
    if (quota <= 0 || period <= 0)
        return INT_MAX;
    long count = quota / period + (quota % period != 0);
    return count < INT_MAX ? (int)count : INT_MAX;
}

/* Up to two numbers from a one-line file; how many there were. "max" is none. */
static int read_numbers(const char *folder, const char *file, long *first, long *second)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/%s", folder, file) >= (int)sizeof path)
        return 0;
    FILE *stream = fopen(path, "re");
    if (stream == NULL)
        return 0;
    int count = fscanf(stream, "%ld %ld", first, second);
    fclose(stream);
    return count;
}

static int quota_of_group(const char *folder)
{
    long quota, period, unused;
    if (read_numbers(folder, "cpu.max", &quota, &period) == 2) /* version 2 */
        return processors_of(quota, period);
    if (read_numbers(folder, "cpu.cfs_quota_us", &quota, &unused) == 1 && /* version 1; -1: no limit */
        read_numbers(folder, "cpu.cfs_period_us", &period, &unused) == 1)
        return processors_of(quota, period);
    return INT_MAX;
}

/* The tightest quota of a group and all groups above it. Inside a container the path of the group often does not exist
 * under the mount, whose top then is the container's own group: the walk ends there. */
static int quota_of_path(const char *mount, const char *group)
{
    char folder[PATH_MAX];
    if (snprintf(folder, sizeof folder, "%s%s", mount, group) >= (int)sizeof folder)
        return INT_MAX;
    int lowest = INT_MAX;
    for (;;) {
        int quota = quota_of_group(folder);
        lowest = quota < lowest ? quota : lowest;
        char *slash = strrchr(folder, '/');
        if (slash == NULL || (size_t)(slash - folder) < strlen(mount))
            return lowest;
        *slash = '\0';
    }
}

/* Is `name` one of the words of a comma-separated list? */
static bool list_has(const char *list, const char *name)
{
    size_t length = strlen(name);
    for (const char *word = list; word != NULL; word = strchr(word, ',')) {
        word += *word == ',';
        if (strncmp(word, name, length) == 0 && (word[length] == ',' || word[length] == '\0'))
            return true;
    }
    return false;
}

int fnn_cgroup_limit(const char *root)
{
    char path[PATH_MAX], line[PATH_MAX + 64], mount[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/proc/self/cgroup", root) >= (int)sizeof path)
        return INT_MAX;
    FILE *stream = fopen(path, "re");
    if (stream == NULL)
        return INT_MAX;
    int lowest = INT_MAX;
    while (fgets(line, sizeof line, stream) != NULL) { /* hierarchy:controllers:group */
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (group == NULL)
            continue;
        *group++ = '\0';
        controllers++;
        if (*controllers != '\0' && !list_has(controllers, "cpu"))
            continue;
        const char *subfolder = *controllers == '\0' ? "" : "/cpu";
        if (snprintf(mount, sizeof mount, "%s/sys/fs/cgroup%s", root, subfolder) >= (int)sizeof mount)
            continue;
        int quota = quota_of_path(mount, group);
        lowest = quota < lowest ? quota : lowest;
    }
    fclose(stream);
    return lowest;
}
#else
static int affinity_count(void)
{
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count > 0 && count < INT_MAX ? (int)count : 1;
}

int fnn_cgroup_limit(const char *root)
{
    (void)root;
    return INT_MAX;
}
#endif

int fnn_cpu_count(void)
{
    int affinity = affinity_count(), quota = fnn_cgroup_limit("");
    int count = affinity < quota ? affinity : quota;
    return count < INT_MAX ? count : 1;
}
