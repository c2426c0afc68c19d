/* Whole files through the table of I/O functions: reading one, and putting one in another's place so that the name
 * stands for a whole file at every moment. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "model.h"

static fnn_status io_error(fnn_detail *detail, int error)
{
    if (detail)
        detail->system_error = error;
    return FNN_EIO;
}

static int open_file(const char *path, int flags, mode_t mode)
{
    int file;
    do
        file = fnn_files.open(path, flags, mode);
    while (file < 0 && errno == EINTR);
    return file;
}

/* ---- reading ---- */

/* Fills `size` bytes; 0 or an errno value. A file that became shorter meanwhile is EIO. */
static int read_all(int file, char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t n = fnn_files.read(file, bytes, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? errno : EIO;
        bytes += n;
        size -= (size_t)n;
    }
    return 0;
}

fnn_status fnn_read_file(char **bytes, size_t *size, const char *path, fnn_detail *detail)
{
    *bytes = NULL;
    struct stat about;
    /* Not to wait for a writer where the path is a pipe. */
    int file = open_file(path, O_RDONLY | O_NONBLOCK, 0);
    if (file < 0)
        return io_error(detail, errno);
    fnn_status status = FNN_OK;
    int error = fnn_files.file_status(file, &about) < 0 ? errno : 0;
    if (error == 0 && S_ISDIR(about.st_mode))
        error = EISDIR;
    if (error)
        status = io_error(detail, error);
    else if (!S_ISREG(about.st_mode))
        status = fnn_say(detail, FNN_EFORMAT, "not a regular file");
    else if ((uintmax_t)about.st_size > PTRDIFF_MAX)
        status = FNN_EOVERFLOW;
    if (status == FNN_OK) {
        *size = (size_t)about.st_size;
        *bytes = fnn_allocate(*size);
        status = *bytes ? FNN_OK : FNN_ENOMEM;
    }
    if (status == FNN_OK && (error = read_all(file, *bytes, *size)) != 0)
        status = io_error(detail, error);
    fnn_files.close(file); /* nothing was written: what it says does not matter */
    if (status != FNN_OK) {
        fnn_release(*bytes);
        *bytes = NULL;
    }
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
        ssize_t n = fnn_files.write(sink->file, bytes, size);
        if (n < 0 && errno == EINTR)
            continue;
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

/* What may be replaced: nothing, or a regular file. */
static int refuse_special_file(const char *path)
{
    struct stat about;
    if (fnn_files.path_status(path, &about) < 0)
        return errno == ENOENT ? 0 : errno;
    if (S_ISDIR(about.st_mode))
        return EISDIR;
    return S_ISREG(about.st_mode) ? 0 : EINVAL;
}

static size_t folder_length(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

/* A new file in the same folder; the name tells a cleaner what it was. */
static int create_temporary(char *name, size_t size, const char *path)
{
    int file = -1;
    for (int i = 0; i < MOST_ATTEMPTS && file < 0; i++) {
        snprintf(name, size, "%.*s.fastnn-%ld-%d.tmp", (int)folder_length(path), path, (long)getpid(), i);
        file = open_file(name, O_WRONLY | O_CREAT | O_EXCL, 0666);
        if (file < 0 && errno != EEXIST)
            break;
    }
    return file;
}

static int sync_file(int file)
{
    int failed;
    do
        failed = fnn_files.sync(file);
    while (failed && errno == EINTR);
    return failed ? errno : 0;
}

/* A renamed file survives a loss of power once its folder is written. Some file systems cannot sync folders. */
static int sync_folder(char *name, const char *path)
{
    size_t length = folder_length(path);
    memcpy(name, length ? path : ".", length ? length : 1);
    name[length ? length : 1] = 0;
    int folder = open_file(name, O_RDONLY | O_DIRECTORY, 0);
    if (folder < 0)
        return errno;
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

fnn_status fnn_replace_file(const char *path, void (*emit)(fnn_sink *, const void *), const void *argument,
                            fnn_detail *detail)
{
    enum { TEMPORARY_NAME = 64 };
    size_t name_size = folder_length(path) + TEMPORARY_NAME;
    int error = folder_length(path) > PATH_MAX ? ENAMETOOLONG : refuse_special_file(path);
    if (error)
        return io_error(detail, error);
    char *memory = fnn_allocate(BUFFER_BYTES + name_size), *name = memory + BUFFER_BYTES;
    if (!memory)
        return FNN_ENOMEM;
    fnn_sink sink = {.write = write_to_file, .memory = memory, .file = create_temporary(name, name_size, path)};
    fnn_status status = FNN_EIO;
    error = errno;
    if (sink.file >= 0) {
        fill(&sink, emit, argument);
        status = sink.status;
        error = sink.system_error;
        if (status == FNN_OK && fnn_files.rename(name, path) < 0) {
            error = errno;
            status = FNN_EIO;
        }
        if (status != FNN_OK)
            fnn_files.unlink(name);
        else if ((error = sync_folder(name, path)) != 0)
            status = FNN_EIO;
    }
    fnn_release(memory);
    return status == FNN_EIO ? io_error(detail, error) : status;
}
