/* Whole files through the table of I/O functions: reading one, and putting one in another's place so that the name
 * stands for a whole file at every moment. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "model.h"

static fnn_status io_error(fnn_detail *detail, int error)
{
    if (detail)
        detail->system_error = error;
    return FNN_EIO;
}

/* Some file systems let a signal interrupt any call. */
#define RETRY(result, call) \
    do                      \
        (result) = (call);  \
    while ((result) < 0 && errno == EINTR)

enum { MOST_AT_ONCE = 1 << 30 }; /* bytes of a call: macOS refuses more than 2^31 - 1 */

static size_t at_once(size_t size)
{
    return size < MOST_AT_ONCE ? size : MOST_AT_ONCE;
}

static int open_file(const char *path, int flags, mode_t mode)
{
    int file;
    RETRY(file, fnn_files.open(path, flags, mode));
    return file;
}

/* ---- reading ---- */

fnn_status fnn_read_bytes(int file, void *bytes, size_t size, fnn_detail *detail)
{
    for (char *to = bytes; size > 0;) {
        ssize_t n;
        RETRY(n, fnn_files.read(file, to, at_once(size)));
        if (n <= 0)
            return io_error(detail, n < 0 ? errno : EIO);
        to += n;
        size -= (size_t)n;
    }
    return FNN_OK;
}

fnn_status fnn_open_file(int *file, size_t *size, const char *path, fnn_detail *detail)
{
    struct stat about;
    int failed;
    /* Not to wait for a writer where the path is a pipe, nor to be ruled by a terminal. */
    *file = open_file(path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if (*file < 0)
        return io_error(detail, errno);
    RETRY(failed, fnn_files.file_status(*file, &about));
    fnn_status status = FNN_OK;
    if (failed || S_ISDIR(about.st_mode))
        status = io_error(detail, failed ? errno : EISDIR);
    else if (!S_ISREG(about.st_mode))
        status = fnn_say(detail, FNN_EFORMAT, "not a regular file");
    else if ((uintmax_t)about.st_size > PTRDIFF_MAX)
        status = FNN_EOVERFLOW;
    if (status != FNN_OK)
        fnn_files.close(*file);
    else
        *size = (size_t)about.st_size;
    return status;
}

/* ---- writing ---- */

enum { BUFFER_BYTES = 1 << 16, MOST_ATTEMPTS = 100 };

void fnn_put(fnn_sink *sink, const void *bytes, size_t size)
{
    if (sink->status == FNN_OK)
        sink->status = sink->write(sink, bytes, size);
}

static fnn_status write_all(fnn_sink *sink, const char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t n;
        RETRY(n, fnn_files.write(sink->file, bytes, at_once(size)));
        if (n <= 0) {
            sink->system_error = n < 0 ? errno : EIO;
            return FNN_EIO;
        }
        bytes += n;
        size -= (size_t)n;
    }
    return FNN_OK;
}

static fnn_status flush(fnn_sink *sink)
{
    size_t size = sink->buffered;
    sink->buffered = 0;
    return write_all(sink, sink->memory, size);
}

static fnn_status write_to_file(fnn_sink *sink, const void *bytes, size_t size)
{
    if (size > BUFFER_BYTES - sink->buffered) {
        fnn_status status = flush(sink);
        if (status != FNN_OK)
            return status;
    }
    if (size > BUFFER_BYTES)
        return write_all(sink, bytes, size);
    memcpy(sink->memory + sink->buffered, bytes, size);
    sink->buffered += size;
    return FNN_OK;
}

/* What may be replaced: nothing, or a regular file, whose permissions the new one shall not exceed. */
static int look_at_old_file(mode_t *mode, const char *path)
{
    struct stat about;
    int failed;
    *mode = 0666;
    RETRY(failed, fnn_files.path_status(path, &about));
    if (failed)
        return errno == ENOENT ? 0 : errno;
    *mode &= about.st_mode;
    if (S_ISDIR(about.st_mode))
        return EISDIR;
    return S_ISREG(about.st_mode) ? 0 : EINVAL;
}

static size_t folder_length(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

/* A new file in the same folder; the name tells a cleaner what it was. The time is in it because processes that were
 * killed leave theirs behind, and in a container every process may have the same number. */
static int create_temporary(char *name, size_t size, const char *path, mode_t mode)
{
    static atomic_uint count;
    int file = -1;
    for (int i = 0; i < MOST_ATTEMPTS && file < 0; i++) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        snprintf(name, size, "%.*s.fastnn-%ld-%lx%lx-%x.tmp", (int)folder_length(path), path, (long)getpid(),
                 (unsigned long)now.tv_sec, (unsigned long)now.tv_nsec, atomic_fetch_add(&count, 1));
        file = open_file(name, O_WRONLY | O_CREAT | O_EXCL, mode);
        if (file < 0 && errno != EEXIST)
            break;
    }
    return file;
}

static int sync_file(int file)
{
    int failed;
    RETRY(failed, fnn_files.sync(file));
    return failed ? errno : 0;
}

/* A renamed file survives a loss of power once its folder is written. Some file systems cannot sync folders, and one
 * that may not be read cannot be opened for it. */
static int sync_folder(char *name, const char *path)
{
    size_t length = folder_length(path);
    memcpy(name, length ? path : ".", length ? length : 1);
    name[length ? length : 1] = 0;
    int folder = open_file(name, O_RDONLY | O_DIRECTORY, 0);
    if (folder < 0)
        return errno == EACCES ? 0 : errno;
    int error = sync_file(folder);
    fnn_files.close(folder);
    return error == EINVAL ? 0 : error;
}

/* The temporary file, whole and on the disk; else an errno value in the sink. */
static void fill(fnn_sink *sink, void (*emit)(fnn_sink *, const void *), const void *argument)
{
    emit(sink, argument);
    if (sink->status == FNN_OK)
        sink->status = flush(sink);
    if (sink->status == FNN_OK && (sink->system_error = sync_file(sink->file)) != 0)
        sink->status = FNN_EIO;
    if (fnn_files.close(sink->file) < 0 && sink->status == FNN_OK && errno != EINTR) {
        sink->system_error = errno;
        sink->status = FNN_EIO;
    }
}

static int rename_file(const char *from, const char *to)
{
    int failed;
    RETRY(failed, fnn_files.rename(from, to));
    return failed ? errno : 0;
}

fnn_status fnn_replace_file(const char *path, void (*emit)(fnn_sink *, const void *), const void *argument,
                            fnn_detail *detail)
{
    enum { TEMPORARY_NAME = 96 };
    size_t name_size, size;
    mode_t mode;
    int error = folder_length(path) > PATH_MAX ? ENAMETOOLONG : look_at_old_file(&mode, path);
    if (error)
        return io_error(detail, error);
    if (!fnn_size_add(&name_size, folder_length(path), TEMPORARY_NAME) || !fnn_size_add(&size, name_size, BUFFER_BYTES))
        return FNN_EOVERFLOW;
    char *memory = fnn_allocate(size), *name = memory + BUFFER_BYTES;
    if (!memory)
        return FNN_ENOMEM;
    fnn_sink sink = {.write = write_to_file, .memory = memory, .file = create_temporary(name, name_size, path, mode)};
    fnn_status status = FNN_EIO;
    error = errno;
    if (sink.file >= 0) {
        fill(&sink, emit, argument);
        status = sink.status;
        error = sink.system_error;
        if (status == FNN_OK && (error = rename_file(name, path)) != 0)
            status = FNN_EIO;
        if (status != FNN_OK)
            fnn_files.unlink(name);
        else if ((error = sync_folder(name, path)) != 0)
            status = FNN_EIO;
    }
    fnn_release(memory);
    return status == FNN_EIO ? io_error(detail, error) : status;
}
