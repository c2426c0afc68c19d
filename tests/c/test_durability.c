/* Saving and loading when memory, the disk or the power fails: an error is returned and nothing leaks; the name of a
 * file always stands for the old one or the new one, whole. The numbers of a checkpoint tell which it is. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "counted_memory.h"
#include "fastnn.h"
#include "fnn_internal.h"
#include "minitest.h"
#include "sample_nets.h"

enum { MOST_FAULTS = 400 };

static char folder[64], path[128];

static void make_folder(void)
{
    snprintf(folder, sizeof folder, "/tmp/fastnn-durability-XXXXXX");
    CHECK(mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/net.safetensors", folder);
}

/* How many files there are in it; all are removed. */
static int empty_folder(void)
{
    char command[256];
    snprintf(command, sizeof command, "ls -A %s | wc -l; rm -f %s/* %s/.fastnn*", folder, folder, folder);
    FILE *pipe = popen(command, "r");
    int n = -1;
    CHECK(pipe && fscanf(pipe, "%d", &n) == 1);
    pclose(pipe);
    return n;
}

static void remove_folder(void)
{
    empty_folder();
    rmdir(folder);
}

/* A net whose file takes more than one write. */
static fnn_net *make_net(uint64_t passes)
{
    const fnn_layer layers[] = {{.kind = FNN_DENSE, .units = 150, .use_bias = 1, .trainable = 1},
                                {.kind = FNN_DENSE, .units = 3, .trainable = 1}};
    fnn_net *net = NULL;
    CHECK(fnn_net_create(&net, layers, 2, 200, FNN_FLOAT32, 5) == FNN_OK);
    CHECK(fnn_net_initialize(net) == FNN_OK);
    fnn_net_set_counters(net, (fnn_counters){.passes = passes});
    return net;
}

static fnn_status save(fnn_net *net, const char *to, uint64_t passes, fnn_detail *detail)
{
    fnn_net_set_counters(net, (fnn_counters){.passes = passes});
    return fnn_net_save(net, to, FNN_CHECKPOINT, detail);
}

/* The number of the net in this file; -1 where there is none, -2 where it is not one. */
static int64_t number_in(const char *file)
{
    fnn_net *net;
    fnn_detail detail;
    fnn_status status = fnn_net_load(&net, file, &detail);
    if (status == FNN_EIO && detail.system_error == ENOENT)
        return -1;
    if (status != FNN_OK)
        return -2;
    int64_t number = (int64_t)fnn_net_counters(net).passes;
    fnn_net_free(net);
    return number;
}

/* ---- memory ---- */

/* One of the ways in and out; FNN_OK where all went well. */
static fnn_status save_and_load(fnn_net *net, int way, const char *bytes, size_t size)
{
    fnn_net *other = NULL;
    fnn_model *model = NULL;
    fnn_status status;
    char *memory = NULL;
    size_t room = 0;
    switch (way) {
    case 0:
        status = save(net, path, 7, NULL);
        break;
    case 1:
        fnn_net_save_memory(net, NULL, &room, FNN_CHECKPOINT, NULL);
        memory = malloc(room + 1);
        status = room ? fnn_net_save_memory(net, memory, &room, FNN_CHECKPOINT, NULL) : FNN_ENOMEM;
        free(memory);
        break;
    case 2:
        status = fnn_net_load(&other, path, NULL);
        break;
    case 3:
        status = fnn_net_load_memory(&other, bytes, size, NULL);
        break;
    default: /* when the net could not be made, the model can still make it */
        status = fnn_model_open_memory(&model, bytes, size, NULL);
        if (status == FNN_OK && (status = fnn_model_net(model, &other, NULL)) == FNN_ENOMEM) {
            fnn_fail_allocation(0, 0);
            CHECK(other == NULL);
            CHECK(fnn_model_net(model, &other, NULL) == FNN_OK);
        }
        fnn_model_close(model);
    }
    CHECK(way < 2 || way == 4 || (status == FNN_OK) == (other != NULL));
    fnn_net_free(other);
    return status;
}

static void allocations_fail(int from_then_on)
{
    fnn_net *net = make_net(7);
    CHECK(save(net, path, 7, NULL) == FNN_OK);
    for (int s = 0; s < SAMPLES; s++) {
        size_t size;
        char *bytes = sample_file(&size, &samples[s]);
        for (int way = s == 0 ? 0 : 3; way < 5; way++) {
            bool failed = true;
            for (uint64_t n = 1; failed && n < MOST_FAULTS; n++) {
                size_t before = live_blocks;
                fnn_fail_allocation(n, from_then_on);
                fnn_status status = save_and_load(net, way, bytes, size);
                fnn_fail_allocation(0, 0);
                CHECK(status == FNN_OK || status == FNN_ENOMEM);
                CHECK(live_blocks == before);
                CHECK(number_in(path) == 7);
                CHECK(n + 1 < MOST_FAULTS);
                failed = status != FNN_OK;
            }
        }
        fnn_release(bytes);
    }
    CHECK(empty_folder() == 1);
    fnn_net_free(net);
}

static void test_every_allocation_fails(void)
{
    fnn_memory_functions kept = fnn_memory;
    fnn_memory = counted_memory;
    make_folder();
    allocations_fail(0);
    allocations_fail(1);
    remove_folder();
    CHECK(live_blocks == 0);
    fnn_memory = kept;
}

/* ---- the disk ---- */

/* The calls of a saving or a loading fail one after the other. No failure goes unnoticed but that of the last call,
 * which closes what was read or the folder; harmless ones do. */
static void io_fails(int error, int from_then_on, bool harmless)
{
    enum { MORE_CALLS_THAN_THERE_ARE = 30, LEAST_CALLS = 5 };
    fnn_net *net = make_net(0);
    for (int loads = 0; loads < 2; loads++) {
        bool failed = true;
        uint64_t noticed = 0;
        for (uint64_t n = 1; n < MORE_CALLS_THAN_THERE_ARE; n++) {
            fnn_detail detail = {.system_error = -1};
            fnn_net *other = NULL;
            CHECK(save(net, path, 1, NULL) == FNN_OK);
            fnn_fail_io(n, from_then_on, error);
            fnn_status status = loads ? fnn_net_load(&other, path, &detail) : save(net, path, 2, &detail);
            fnn_fail_io(0, 0, 0);
            CHECK(status == FNN_OK || failed || error == EACCES); /* a folder that may not be read is not synced */
            failed = status != FNN_OK;
            noticed += failed;
            CHECK(status == FNN_OK || (status == FNN_EIO && detail.system_error == error && !harmless));
            int64_t number = number_in(path);
            CHECK(number == 2 || (number == 1 && (failed || loads)));
            CHECK(!loads || failed == !other);
            fnn_net_free(other);
            int files = empty_folder(); /* a temporary file stays where it could not be removed */
            CHECK(files == 1 || (files == 2 && failed && from_then_on));
        }
        CHECK(harmless ? noticed == 0 : noticed >= LEAST_CALLS && !failed);
    }
    fnn_net_free(net);
}

static void test_every_io_call_fails(void)
{
    make_folder();
    const int errors[] = {ENOSPC, EIO, EACCES, EDQUOT, EROFS};
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        io_fails(errors[i], 0, false);
        io_fails(errors[i], 1, false);
    }
    io_fails(EINTR, 0, true);
    io_fails(0, 0, true); /* short writes */
    io_fails(0, 1, true);
    remove_folder();
}

static fnn_file_functions real_files;

static ssize_t short_read(int file, void *bytes, size_t size)
{
    static unsigned calls;
    if (++calls % 3 == 0) {
        errno = EINTR;
        return -1;
    }
    return real_files.read(file, bytes, size < 700 ? size : 700);
}

static ssize_t no_more(int file, void *bytes, size_t size)
{
    return real_files.read(file, bytes, size > 1000 ? size / 2 : 0);
}

static void test_short_reads(void)
{
    make_folder();
    fnn_net *net = make_net(0), *other;
    fnn_detail detail;
    CHECK(save(net, path, 3, NULL) == FNN_OK);
    real_files = fnn_files;
    fnn_files.read = short_read;
    CHECK(number_in(path) == 3);
    fnn_files.read = no_more; /* the file became shorter while it was read */
    CHECK(fnn_net_load(&other, path, &detail) == FNN_EIO && detail.system_error == EIO);
    fnn_files = real_files;
    fnn_net_free(net);
    remove_folder();
}

/* ---- the process is killed ---- */

static int kill_at, kill_after; /* a call before (after) which the process ends, counted from 1 */
static int n_calls;

static void before_call(void)
{
    if (++n_calls == kill_at)
        raise(SIGKILL);
}

static void after_call(void)
{
    if (n_calls == kill_after)
        raise(SIGKILL);
}

#define KILLING(type, name, call, ...)     \
    static type killing_##name __VA_ARGS__ \
    {                                      \
        before_call();                     \
        type result = real_files.call;     \
        after_call();                      \
        return result;                     \
    }
KILLING(int, open, open(file, flags, mode), (const char *file, int flags, mode_t mode))
KILLING(ssize_t, write, write(file, bytes, size > 5000 ? 5000 : size), (int file, const void *bytes, size_t size))
KILLING(int, sync, sync(file), (int file))
KILLING(int, close, close(file), (int file))
KILLING(int, rename, rename(from, to), (const char *from, const char *to))
KILLING(int, unlink, unlink(file), (const char *file))
KILLING(int, path_status, path_status(file, about), (const char *file, struct stat *about))

static void save_and_be_killed(fnn_net *net)
{
    real_files = fnn_files;
    fnn_files.open = killing_open;
    fnn_files.write = killing_write;
    fnn_files.sync = killing_sync;
    fnn_files.close = killing_close;
    fnn_files.rename = killing_rename;
    fnn_files.unlink = killing_unlink;
    fnn_files.path_status = killing_path_status;
    _exit(save(net, path, 2, NULL) != FNN_OK);
}

static void test_a_kill_at_every_io_call(void)
{
    make_folder();
    fnn_net *net = make_net(0);
    CHECK(save(net, path, 1, NULL) == FNN_OK);
    bool seen_old = false, seen_new = false;
    for (int after = 0; after < 2; after++) {
        bool killed = true;
        for (int n = 1; killed && n < MOST_FAULTS; n++) {
            int how;
            fflush(stdout);
            pid_t child = fork();
            if (child == 0) {
                kill_at = after ? 0 : n;
                kill_after = after ? n : 0;
                save_and_be_killed(net);
            }
            CHECK(waitpid(child, &how, 0) == child);
            killed = WIFSIGNALED(how);
            CHECK(killed || how == 0);
            int64_t number = number_in(path);
            CHECK(number == 1 || number == 2);
            CHECK(killed || number == 2);
            seen_old |= number == 1;
            seen_new |= number == 2 && killed;
            if (number == 2)
                CHECK(save(net, path, 1, NULL) == FNN_OK);
        }
    }
    CHECK(seen_old && seen_new);
    fnn_net_free(net);
    remove_folder();
}

/* One after the other, each of which is told to the parent once it is on the disk. */
static void save_for_ever(fnn_net *net, int told)
{
    for (uint64_t number = (uint64_t)number_in(path) + 1;; number++) {
        if (save(net, path, number, NULL) != FNN_OK)
            _exit(1);
        if (write(told, &number, sizeof number) != sizeof number)
            _exit(2);
    }
}

static void kill_writers(int kills)
{
    make_folder();
    fnn_net *net = make_net(0);
    CHECK(save(net, path, 0, NULL) == FNN_OK);
    int64_t last = 0, lost = 0;
    unsigned random = 1;
    for (int i = 0; i < kills; i++) {
        int ends[2], how;
        CHECK(pipe(ends) == 0);
        fflush(stdout);
        pid_t child = fork();
        if (child == 0)
            save_for_ever(net, ends[1]);
        close(ends[1]);
        random = random * 1664525u + 1013904223u;
        int64_t told;
        if (i % 8 == 0) /* a slow machine, or a sanitizer, gets on as well */
            CHECK(read(ends[0], &told, sizeof told) == sizeof told && (last = told) > 0);
        usleep(200 + random % 15000);
        kill(child, SIGKILL);
        CHECK(waitpid(child, &how, 0) == child && WIFSIGNALED(how));
        while (read(ends[0], &told, sizeof told) == sizeof told)
            last = told;
        close(ends[0]);
        int64_t number = number_in(path);
        lost += number < last || number > last + 1;
        last = number;
    }
    CHECK(lost == 0);
    CHECK(last > 0);
    printf("    %d kills, %lld files written\n", kills, (long long)last);
    fnn_net_free(net);
    remove_folder();
}

static void test_kills_at_any_time(void)
{
    kill_writers(40);
}

static void test_a_thousand_kills(void)
{
    kill_writers(1000);
}

/* ---- several writers at once ---- */

static void test_two_processes_save_to_one_path(void)
{
    make_folder();
    fnn_net *net = make_net(0);
    CHECK(save(net, path, 0, NULL) == FNN_OK);
    pid_t children[2];
    fflush(stdout);
    for (int i = 0; i < 2; i++)
        if ((children[i] = fork()) == 0) {
            for (uint64_t k = 1; k <= 30; k++)
                if (save(net, path, 2 * k + (uint64_t)i, NULL) != FNN_OK)
                    _exit(1);
            _exit(0);
        }
    int running = 2, how, bad = 0;
    while (running > 0) {
        bad += number_in(path) < 0;
        while (running > 0 && waitpid(-1, &how, WNOHANG) > 0) {
            CHECK(how == 0);
            running--;
        }
    }
    CHECK(bad == 0);
    CHECK(number_in(path) >= 60);
    CHECK(empty_folder() == 1);
    fnn_net_free(net);
    remove_folder();
}

static _Atomic bool stop;

static void *keep_saving(void *net)
{
    while (!stop)
        CHECK(save(net, path, 1, NULL) == FNN_OK);
    return NULL;
}

static void test_fork_while_a_thread_saves(void)
{
    make_folder();
    fnn_net *net = make_net(0), *own = make_net(0);
    CHECK(save(net, path, 1, NULL) == FNN_OK);
    pthread_t thread;
    stop = false;
    CHECK(pthread_create(&thread, NULL, keep_saving, net) == 0);
    fflush(stdout);
    for (int i = 0; i < 20; i++) {
        int how;
        pid_t child = fork();
        if (child == 0)
            _exit(number_in(path) != 1 || save(own, path, 1, NULL) != FNN_OK);
        CHECK(waitpid(child, &how, 0) == child && how == 0);
    }
    stop = true;
    pthread_join(thread, NULL);
    CHECK(number_in(path) == 1);
    CHECK(empty_folder() == 1);
    fnn_net_free(own);
    fnn_net_free(net);
    remove_folder();
}

/* ---- the power fails: a disk in memory, which loses what was not synced ---- */

enum { MOST_OPERATIONS = 600, MOST_BYTES = 400000, SUBSETS = 20, TEMPORARY = 1000, FOLDER = 1001, BLOCK = 512 };

typedef struct operation {
    enum { CREATE, WRITE, SYNC, RENAME, SYNC_FOLDER, CLOSE } kind;
    size_t begin, end; /* WRITE */
} operation;

static operation operations[MOST_OPERATIONS];
static int n_operations;
static char written[MOST_BYTES];
static size_t n_written;

static void record(operation o)
{
    CHECK(n_operations < MOST_OPERATIONS);
    operations[n_operations++] = o;
}

static int disk_open(const char *name, int flags, mode_t mode)
{
    (void)name;
    (void)mode;
    if (flags & O_DIRECTORY)
        return FOLDER;
    record((operation){.kind = CREATE});
    return TEMPORARY;
}

static ssize_t disk_write(int file, const void *bytes, size_t size)
{
    (void)file;
    size = size > 3000 ? 3000 : size;
    CHECK(n_written + size <= MOST_BYTES);
    memcpy(written + n_written, bytes, size);
    record((operation){WRITE, n_written, n_written + size});
    n_written += size;
    return (ssize_t)size;
}

static int disk_sync(int file)
{
    record((operation){.kind = file == FOLDER ? SYNC_FOLDER : SYNC});
    return 0;
}

static int disk_close(int file)
{
    (void)file;
    record((operation){.kind = CLOSE});
    return 0;
}

static int disk_rename(const char *from, const char *to)
{
    (void)from;
    (void)to;
    record((operation){.kind = RENAME});
    return 0;
}

static int disk_status(const char *name, struct stat *about)
{
    (void)name;
    *about = (struct stat){.st_mode = S_IFREG | 0644};
    return 0;
}

static uint64_t disk_random = 1;

static unsigned roll(unsigned n)
{
    disk_random = disk_random * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(disk_random >> 33) % n;
}

/* What lies under the new file's name after the first n operations and a loss of power, in which writes that nothing
 * had synced were kept, dropped (a hole, or the file ends before) or left as zeros, by blocks. */
static size_t after_loss(char *file, int n, bool sync_works)
{
    int synced = -1;
    size_t size = 0;
    for (int i = 0; i < n; i++)
        if (operations[i].kind == SYNC && sync_works)
            synced = i;
    for (int i = 0; i < n; i++) {
        const operation *o = &operations[i];
        if (o->kind != WRITE)
            continue;
        for (size_t at = o->begin; at < o->end; at += BLOCK) {
            size_t end = at + BLOCK < o->end ? at + BLOCK : o->end;
            unsigned fate = i < synced ? 0 : roll(3);
            if (fate == 1) /* dropped: the file is longer only where something behind it was kept */
                continue;
            if (end > size) {
                memset(file + size, 0, end - size);
                size = end;
            }
            if (fate == 0)
                memcpy(file + at, written + at, end - at);
        }
    }
    return size;
}

typedef struct verdict {
    int old, whole, refused, wrong;
    bool old_in_the_end; /* though the saving had returned */
} verdict;

/* The file under its final name, for a loss of power after every operation. */
static verdict lose_power(bool sync_works)
{
    static char file[MOST_BYTES];
    verdict v = {0};
    for (int n = 0; n <= n_operations; n++) {
        bool renamed = false, durable = false;
        for (int i = 0; i < n; i++) {
            renamed |= operations[i].kind == RENAME;
            durable |= renamed && operations[i].kind == SYNC_FOLDER && sync_works;
        }
        for (int subset = 0; subset < SUBSETS; subset++) {
            size_t size = after_loss(file, n, sync_works);
            bool whole = size == n_written && memcmp(file, written, size) == 0;
            fnn_net *net;
            fnn_detail detail;
            bool loads = fnn_net_load_memory(&net, file, size, &detail) == FNN_OK;
            v.wrong += loads != whole;
            fnn_net_free(net);
            bool old = !renamed || (!durable && roll(2)); /* the name is still the old one's */
            v.old += old;
            v.whole += !old && whole;
            v.refused += !old && !whole;
            v.old_in_the_end |= old && n == n_operations;
        }
    }
    return v;
}

static void test_loss_of_power(void)
{
    fnn_net *net = make_net(2);
    real_files = fnn_files;
    fnn_files.open = disk_open;
    fnn_files.write = disk_write;
    fnn_files.sync = disk_sync;
    fnn_files.close = disk_close;
    fnn_files.rename = disk_rename;
    fnn_files.path_status = disk_status;
    n_operations = 0;
    n_written = 0;
    CHECK(save(net, "folder/net.safetensors", 2, NULL) == FNN_OK);
    fnn_files = real_files;
    verdict v = lose_power(true);
    CHECK(v.old > 0 && v.whole > 0);
    CHECK(!v.old_in_the_end);
    CHECK(v.refused == 0 && v.wrong == 0); /* under the name: the old one or the new one */
    printf("    %d operations, %d losses: %d old, %d new\n", n_operations, (n_operations + 1) * SUBSETS, v.old,
           v.whole);
    v = lose_power(false); /* a disk that lies: damage happens, and is seen */
    CHECK(v.refused > 0 && v.wrong == 0);
    fnn_net_free(net);
}

void run_durability_tests(void)
{
    RUN(test_every_allocation_fails);
    RUN(test_every_io_call_fails);
    RUN(test_short_reads);
    RUN(test_a_kill_at_every_io_call);
    RUN(test_kills_at_any_time);
    RUN(test_two_processes_save_to_one_path);
    RUN(test_fork_while_a_thread_saves);
    RUN(test_loss_of_power);
}

void run_long_durability_tests(void)
{
    RUN(test_a_thousand_kills);
    for (int i = 0; i < 50; i++) /* other subsets every time */
        test_loss_of_power();
}
