/* Model files without Python: what is written is read back; what is damaged, too short or something else is refused;
 * bad arguments, failing allocations and another locale. */
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "counted_memory.h"
#include "fastnn.h"
#include "fnn_internal.h"
#include "minitest.h"
#include "sample_nets.h"

enum { MOST_SMALL_FILE = 1 << 14 };

static bool same_net(fnn_net *a, fnn_net *b)
{
    size_t real = fnn_net_dtype(a) == FNN_FLOAT32 ? sizeof(float) : sizeof(double);
    if (fnn_net_dtype(a) != fnn_net_dtype(b) || fnn_net_seed(a) != fnn_net_seed(b) ||
        fnn_net_input_size(a) != fnn_net_input_size(b) || fnn_net_link(a) != fnn_net_link(b) ||
        fnn_net_frozen(a) != fnn_net_frozen(b) || fnn_net_layer_count(a) != fnn_net_layer_count(b) ||
        fnn_net_arena_size(a) != fnn_net_arena_size(b))
        return false;
    for (size_t i = 0; i < fnn_net_layer_count(a); i++) {
        fnn_layer x, y;
        fnn_net_layer(a, i, &x);
        fnn_net_layer(b, i, &y);
        if (memcmp(&x, &y, sizeof x) != 0)
            return false;
    }
    return memcmp(fnn_net_parameters(a), fnn_net_parameters(b), fnn_net_arena_size(a) * real) == 0;
}

static bool same_moments(fnn_net *a, fnn_net *b)
{
    size_t real = fnn_net_dtype(a) == FNN_FLOAT32 ? sizeof(float) : sizeof(double);
    fnn_counters x = fnn_net_counters(a), y = fnn_net_counters(b);
    for (int i = 0; i < 2; i++) {
        const void *m = fnn_net_moments(a, i), *n = fnn_net_moments(b, i);
        if (!m != !n || (m && memcmp(m, n, fnn_net_trainable_size(a) * real) != 0))
            return false;
    }
    return x.passes == y.passes && x.updates == y.updates;
}

static bool same_outputs(fnn_net *a, fnn_net *b)
{
    char x[SAMPLE_ROWS * 8 * 8], y[sizeof x];
    const fnn_features features = sample_features();
    memset(x, 0, sizeof x);
    memset(y, 1, sizeof y);
    size_t bytes = SAMPLE_ROWS * fnn_net_output_size(a) * (fnn_net_dtype(a) == FNN_FLOAT32 ? 4 : 8);
    return fnn_predict(a, x, &features, 1) == FNN_OK && fnn_predict(b, y, &features, 1) == FNN_OK &&
           memcmp(x, y, bytes) == 0;
}

static void test_what_is_written_is_read(void)
{
    for (int i = 0; i < SAMPLES; i++) {
        size_t size, n;
        fnn_net *net, *again;
        fnn_model *model;
        fnn_attachment expected[MOST_ATTACHMENTS];
        char *bytes = sample_file(&size, &samples[i]);
        CHECK(bytes && make_sample(&net, &samples[i]) == FNN_OK);
        CHECK(fnn_model_open_memory(&model, bytes, size, NULL) == FNN_OK);
        CHECK(fnn_model_contents(model) == samples[i].contents);
        n = sample_attachments(expected, &samples[i]);
        CHECK(fnn_model_attachment_count(model) == n);
        for (size_t j = 0; j < n; j++) {
            fnn_attachment found = fnn_model_attachment(model, j);
            size_t k = 0;
            while (k < n && strcmp(expected[k].name, found.name) != 0)
                k++;
            CHECK(k < n && found.dtype == expected[k].dtype && found.rows == expected[k].rows &&
                  found.columns == expected[k].columns && memcmp(found.data, expected[k].data, found.rows) == 0);
        }
        CHECK(fnn_model_net(model, &again, NULL) == FNN_OK);
        CHECK(same_net(net, again));
        CHECK(samples[i].contents == FNN_MODEL || same_moments(net, again));
        CHECK(same_outputs(net, again));
        fnn_net_free(again);
        CHECK(fnn_model_net(model, &again, NULL) == FNN_EINVAL); /* it was handed out */
        CHECK(again == NULL);
        fnn_model_close(model);
        fnn_net_free(net);
        fnn_release(bytes);
    }
}

/* Every byte is one that we put there: whatever the memory held before, on the stack too. */
static void test_no_byte_is_left_to_chance(void)
{
    for (int i = 0; i < SAMPLES; i++) {
        static char first[MOST_SMALL_FILE], second[MOST_SMALL_FILE];
        fnn_net *net;
        size_t size = sizeof first, size_again = sizeof second;
        memset(first, 0x55, sizeof first);
        memset(second, 0xaa, sizeof second);
        CHECK(make_sample(&net, &samples[i]) == FNN_OK);
        CHECK(fnn_net_save_memory(net, first, &size, samples[i].contents, NULL) == FNN_OK);
        volatile char stack[1 << 14];
        memset((char *)stack, 0x77, sizeof stack);
        CHECK(fnn_net_save_memory(net, second, &size_again, samples[i].contents, NULL) == FNN_OK);
        CHECK(size == size_again && memcmp(first, second, size) == 0);
        CHECK((unsigned char)first[size] == 0x55 && (unsigned char)second[size] == 0xaa);
        fnn_net_free(net);
    }
}

static bool refused(const char *bytes, size_t size, fnn_status expected)
{
    fnn_model *model = (fnn_model *)bytes;
    fnn_detail detail;
    fnn_status status = fnn_model_open_memory(&model, bytes, size, &detail);
    fnn_model_close(model);
    return status != FNN_OK && (status == expected || (expected == FNN_EFORMAT && status == FNN_EVERSION)) && !model &&
           detail.text[0];
}

static void test_every_truncation_and_flipped_bit_is_refused(void)
{
    const int with_attachments = 5;
    for (int i = 0; i <= with_attachments; i += with_attachments) {
        size_t size, wrong = 0;
        char *bytes = sample_file(&size, &samples[i]);
        CHECK(bytes != NULL);
        for (size_t shorter = 0; shorter < size; shorter++) {
            char *cut = malloc(shorter + 1); /* a sanitizer sees what is read behind it */
            memcpy(cut, bytes, shorter);
            wrong += !refused(cut, shorter, FNN_EFORMAT);
            free(cut);
        }
        for (size_t bit = 0; bit < 8 * size; bit++) {
            bytes[bit / 8] ^= (char)(1 << bit % 8);
            wrong += !refused(bytes, size, FNN_EFORMAT);
            bytes[bit / 8] ^= (char)(1 << bit % 8);
        }
        CHECK(wrong == 0);
        CHECK(!refused(bytes, size, FNN_EFORMAT));
        fnn_release(bytes);
    }
}

static void test_what_is_no_model_file(void)
{
    static const struct {
        const char *bytes;
        size_t size;
        const char *says;
    } others[] = {
        {"", 0, "has 0 bytes"},
        {"abc", 3, "has 3 bytes"},
        {"\x80\x04\x95\x20\0\0\0\0\0\0\0\x8c", 12, "pickle"},
        {"PK\3\4\x14\0\0\0\0\0\0\0", 12, "zip"},
        {"\x89HDF\r\n\x1a\n\0\0\0\0", 12, "HDF5"},
        {"\0\0\0\0\0\0\0\0\0\0", 10, "JSON"},
        {"\2\0\0\0\0\0\0\0{}", 10, "JSON"},
        {"\x13\0\0\0\0\0\0\0{\"__metadata__\":{}}", 27, "not a fastnn model"},
        {"\x13\0\0\0\0\0\0\0{\"__metadata__\":{}", 26, "declares 19"},
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        fnn_net *net;
        fnn_detail detail;
        CHECK(fnn_net_load_memory(&net, others[i].bytes, others[i].size, &detail) == FNN_EFORMAT);
        CHECK(net == NULL && strstr(detail.text, others[i].says));
    }
}

/* ---- the writer refuses what the reader would ---- */

static void write_value(fnn_net *net, const char *name, double value)
{
    for (size_t i = 0; i < fnn_net_tensor_count(net); i++) {
        fnn_tensor t;
        fnn_net_tensor(net, i, &t);
        if (strcmp(t.name, name) == 0)
            ((float *)fnn_net_parameters(net))[t.offset + t.columns - 1] = (float)value;
    }
}

static void test_nets_that_cannot_be_saved(void)
{
    static const struct {
        const char *tensor;
        double value;
    } bad[] = {{"1.weight", NAN},     {"1.bias", INFINITY}, {"2.running_var", -1}, {"2.running_mean", NAN},
               {"0.scale", INFINITY}, {"0.scale", 0},       {"0.scale", 1e-40}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        fnn_net *net;
        size_t size = 0;
        fnn_detail detail;
        CHECK(make_sample(&net, &samples[1]) == FNN_OK);
        write_value(net, bad[i].tensor, bad[i].value);
        CHECK(fnn_net_save_memory(net, NULL, &size, FNN_MODEL, &detail) == FNN_EINVAL);
        CHECK(size == 0 && strstr(detail.text, bad[i].tensor));
        fnn_net_free(net);
    }
}

static void test_attachments_that_cannot_be_saved(void)
{
    static const double zeros[4], ones[] = {1, 1, 1, 1};
    static const int64_t ends[] = {0, 3}, falling[] = {0, 3, 1, 3}, short_ends[] = {0, 2}, late[] = {1, 3};
    static const char *const text = "abc", *const not_utf8 = "a\xff"
                                                             "c";
    char long_name[200] = "callback.";
    memset(long_name + 9, 'x', 150);
    const struct {
        fnn_attachment a[2];
    } bad[] = {
        {{{"weights", FNN_FLOAT32, 1, 0, ones}}},
        {{{"preprocess.mean", FNN_FLOAT32, 1, 0, ones}}},
        {{{"preprocess.mean", FNN_FLOAT64, 2, 2, ones}}},
        {{{"preprocess.scale", FNN_FLOAT64, 4, 0, zeros}}},
        {{{"trainer.state", FNN_UINT8, 3, 0, text}}}, /* in a model */
        {{{"preprocess.mean", FNN_FLOAT64, 0, 0, ones}}},
        {{{"preprocess.mean", (fnn_dtype)99, 4, 0, ones}}},
        {{{"preprocess.mean", FNN_FLOAT64, 4, 0, NULL}}},
        {{{NULL, FNN_FLOAT64, 4, 0, ones}}},
        {{{"preprocess.mean", FNN_FLOAT64, SIZE_MAX, 0, ones}}},
        {{{"preprocess.categories.a\"b.utf8", FNN_UINT8, 3, 0, text},
          {"preprocess.categories.a\"b.offsets", FNN_INT64, 2, 0, ends}}},
        {{{"class_names.utf8", FNN_UINT8, 3, 0, text}}},
        {{{long_name, FNN_UINT8, 3, 0, text}}},
        {{{"preprocess.mean", FNN_FLOAT64, 4, 0, ones}, {"preprocess.mean", FNN_FLOAT64, 4, 0, ones}}},
        {{{"class_names.utf8", FNN_UINT8, 3, 0, not_utf8}, {"class_names.offsets", FNN_INT64, 2, 0, ends}}},
        {{{"class_names.utf8", FNN_UINT8, 3, 0, text}, {"class_names.offsets", FNN_INT64, 4, 0, falling}}},
        {{{"class_names.utf8", FNN_UINT8, 3, 0, text}, {"class_names.offsets", FNN_INT64, 2, 0, short_ends}}},
        {{{"class_names.utf8", FNN_UINT8, 3, 0, text}, {"class_names.offsets", FNN_INT64, 2, 0, late}}},
    };
    fnn_net *net;
    CHECK(make_sample(&net, &samples[0]) == FNN_OK);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        size_t size = 0, n = bad[i].a[1].name ? 2 : 1;
        fnn_status status = fnn_model_save_memory(net, NULL, &size, FNN_MODEL, bad[i].a, n, NULL);
        CHECK((status == FNN_EINVAL || status == FNN_EOVERFLOW) && size == 0);
    }
    const fnn_attachment good[] = {{"class_names.utf8", FNN_UINT8, 3, 0, text},
                                   {"class_names.offsets", FNN_INT64, 2, 0, ends}};
    size_t size = 0;
    CHECK(fnn_model_save_memory(net, NULL, &size, FNN_MODEL, good, 2, NULL) == FNN_EINVAL && size > 0);
    CHECK(fnn_model_save_memory(net, NULL, &size, FNN_MODEL, NULL, 2, NULL) == FNN_EINVAL);
    CHECK(fnn_model_save_memory(net, NULL, &size, FNN_MODEL, good, SIZE_MAX, NULL) == FNN_EOVERFLOW);
    fnn_net_free(net);
}

static void test_what_the_format_cannot_hold(void)
{
    static fnn_layer many[5000];
    for (size_t i = 0; i < sizeof many / sizeof *many; i++)
        many[i] = (fnn_layer){.kind = FNN_ACTIVATION, .activation = FNN_RELU};
    fnn_net *net;
    size_t size = 0;
    CHECK(fnn_net_create(&net, many, 4096, 1, FNN_FLOAT32, 0) == FNN_OK);
    CHECK(fnn_net_save_memory(net, NULL, &size, FNN_MODEL, NULL) == FNN_EINVAL && size > 0);
    fnn_net_free(net);
    size = 0;
    CHECK(fnn_net_create(&net, many, 4097, 1, FNN_FLOAT32, 0) == FNN_OK);
    CHECK(fnn_net_save_memory(net, NULL, &size, FNN_MODEL, NULL) == FNN_EOVERFLOW && size == 0);
    fnn_net_free(net);
    CHECK(fnn_net_create(&net, many, 1, (size_t)1 << 31, FNN_FLOAT32, 0) == FNN_OK);
    CHECK(fnn_net_save_memory(net, NULL, &size, FNN_MODEL, NULL) == FNN_EOVERFLOW && size == 0);
    fnn_net_free(net);
    CHECK(fnn_net_create(&net, many, 1, 1, FNN_FLOAT32, 0) == FNN_OK);
    fnn_net_set_counters(net, (fnn_counters){.passes = (uint64_t)1 << 63});
    CHECK(fnn_net_save_memory(net, NULL, &size, FNN_CHECKPOINT, NULL) == FNN_EOVERFLOW && size == 0);
    fnn_net_free(net);
}

/* ---- memory ---- */

/* Twice the file: its bytes and the net; a frozen matrix takes no copy of its own. */
static void test_memory_for_a_large_file(void)
{
    const fnn_layer layer = {.kind = FNN_DENSE, .units = 3200, .use_bias = 1};
    char path[] = "/tmp/fastnn-large-XXXXXX";
    int file = mkstemp(path);
    CHECK(file >= 0 && close(file) == 0);
    fnn_memory_functions kept = fnn_memory;
    fnn_memory = counted_memory;
    for (int frozen = 0; frozen < 2; frozen++) {
        fnn_net *net, *again;
        struct stat about;
        CHECK(fnn_net_create(&net, &layer, 1, 3000, FNN_FLOAT32, 1) == FNN_OK);
        CHECK(fnn_net_initialize(net) == FNN_OK);
        CHECK(!frozen || fnn_net_freeze(net) == FNN_OK);
        size_t before = live_bytes;
        peak_bytes = before;
        CHECK(fnn_net_save(net, path, FNN_MODEL, NULL) == FNN_OK);
        CHECK(peak_bytes - before < 1 << 20);
        CHECK(stat(path, &about) == 0 && about.st_size > 38000000);
        peak_bytes = live_bytes;
        CHECK(fnn_net_load(&again, path, NULL) == FNN_OK);
        CHECK(peak_bytes - before < 2 * (size_t)about.st_size + (16 << 20));
        CHECK(same_net(net, again));
        fnn_net_free(again);
        fnn_net_free(net);
    }
    CHECK(live_bytes == 0);
    fnn_memory = kept;
    unlink(path);
}

/* ---- arguments ---- */

static void test_misuse(void)
{
    fnn_net *net, *other;
    fnn_model *model;
    fnn_tensor tensor;
    fnn_layer layer;
    const char *name;
    char bytes[64];
    double out[SAMPLE_ROWS * 3];
    size_t size = sizeof bytes;
    int64_t order[4];
    const fnn_features x = sample_features();
    fnn_features no_data = x, bad_dtype = x;
    no_data.data = NULL;
    bad_dtype.dtype = (fnn_dtype)99;
    const int32_t labels[SAMPLE_ROWS] = {0};
    const fnn_targets y = {.labels = labels}, nothing = {0};
    const fnn_loss loss = {.kind = FNN_CROSS_ENTROPY}, bad_loss = {.kind = (fnn_loss_kind)99};
    const fnn_optimizer sgd = {.kind = FNN_SGD}, bad_optimizer = {.kind = (fnn_optimizer_kind)99};
    const fnn_clip bad_clip = {.kind = (fnn_clip_kind)99};
    const fnn_penalty bad_penalty = {.kind = (fnn_penalty_kind)99};
    fnn_run empty = {0};
    CHECK(make_sample(&net, &samples[0]) == FNN_OK);
    const struct {
        const char *what;
        fnn_status status;
    } calls[] = {
        {"create into nothing", fnn_net_create(NULL, samples[0].layers, 1, 4, FNN_FLOAT32, 0)},
        {"create of nothing", fnn_net_create(&other, NULL, 1, 4, FNN_FLOAT32, 0)},
        {"create of no dtype", fnn_net_create(&other, samples[0].layers, 1, 4, (fnn_dtype)99, 0)},
        {"layer of nothing", fnn_net_layer(NULL, 0, &layer)},
        {"layer into nothing", fnn_net_layer(net, 0, NULL)},
        {"layer too many", fnn_net_layer(net, 1, &layer)},
        {"tensor of nothing", fnn_net_tensor(NULL, 0, &tensor)},
        {"tensor into nothing", fnn_net_tensor(net, 0, NULL)},
        {"tensor too many", fnn_net_tensor(net, SIZE_MAX, &tensor)},
        {"initialize nothing", fnn_net_initialize(NULL)},
        {"predict of nothing", fnn_predict(NULL, out, &x, 1)},
        {"predict into nothing", fnn_predict(net, NULL, &x, 1)},
        {"predict from nothing", fnn_predict(net, out, NULL, 1)},
        {"predict from no data", fnn_predict(net, out, &no_data, 1)},
        {"predict from no dtype", fnn_predict(net, out, &bad_dtype, 1)},
        {"reserve nothing", fnn_net_reserve(NULL, 1, 1)},
        {"reserve for nobody", fnn_net_reserve(net, 0, 1)},
        {"reserve for too many", fnn_net_reserve(net, 1, 1 << 30)},
        {"freeze nothing", fnn_net_freeze(NULL)},
        {"configure nothing", fnn_net_configure(NULL, &sgd, NULL, NULL)},
        {"configure no optimizer", fnn_net_configure(net, NULL, NULL, NULL)},
        {"configure another optimizer", fnn_net_configure(net, &bad_optimizer, NULL, NULL)},
        {"configure another clip", fnn_net_configure(net, &sgd, &bad_clip, NULL)},
        {"configure another penalty", fnn_net_configure(net, &sgd, NULL, &bad_penalty)},
        {"train nothing", fnn_train(NULL, &empty)},
        {"train with nothing", fnn_train(net, NULL)},
        {"train with an empty run", fnn_train(net, &empty)},
        {"step of nothing", fnn_train_step(NULL, &x, &y, &loss, 0.1, 1, NULL)},
        {"step without features", fnn_train_step(net, NULL, &y, &loss, 0.1, 1, NULL)},
        {"step without targets", fnn_train_step(net, &x, NULL, &loss, 0.1, 1, NULL)},
        {"step with empty targets", fnn_train_step(net, &x, &nothing, &loss, 0.1, 1, NULL)},
        {"step without a loss", fnn_train_step(net, &x, &y, NULL, 0.1, 1, NULL)},
        {"step with another loss", fnn_train_step(net, &x, &y, &bad_loss, 0.1, 1, NULL)},
        {"step without data", fnn_train_step(net, &no_data, &y, &loss, 0.1, 1, NULL)},
        {"permutation of nothing", fnn_permutation(NULL, 4, 0, 0)},
        {"threads", fnn_set_num_threads(-1)},
        {"name into nothing", fnn_isa_name(NULL)},
        {"save nothing", fnn_net_save(NULL, "x", FNN_MODEL, NULL)},
        {"save to nowhere", fnn_net_save(net, NULL, FNN_MODEL, NULL)},
        {"save other contents", fnn_net_save(net, "x", (fnn_contents)99, NULL)},
        {"save nothing to memory", fnn_net_save_memory(NULL, bytes, &size, FNN_MODEL, NULL)},
        {"save without a size", fnn_net_save_memory(net, bytes, NULL, FNN_MODEL, NULL)},
        {"save to short memory", fnn_net_save_memory(net, bytes, &size, FNN_MODEL, NULL)},
        {"load into nothing", fnn_net_load(NULL, "x", NULL)},
        {"load from nowhere", fnn_net_load(&other, NULL, NULL)},
        {"load memory into nothing", fnn_net_load_memory(NULL, bytes, sizeof bytes, NULL)},
        {"load no memory", fnn_net_load_memory(&other, NULL, 10, NULL)},
        {"load no memory at all", fnn_net_load_memory(&other, NULL, 0, NULL)},
        {"open into nothing", fnn_model_open_memory(NULL, bytes, sizeof bytes, NULL)},
        {"open from nowhere", fnn_model_open(&model, NULL, NULL)},
        {"net of nothing", fnn_model_net(NULL, &other, NULL)},
    };
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (calls[i].status != FNN_EINVAL) {
            CHECK(calls[i].status == FNN_EINVAL);
            fprintf(stderr, "  %s: status %d\n", calls[i].what, calls[i].status);
        }
    CHECK(size > sizeof bytes); /* what it would have taken */
    CHECK(fnn_isa_name(&name) == FNN_OK && fnn_permutation(order, 4, 0, 0) == FNN_OK);
    CHECK(fnn_permutation(NULL, 0, 0, 0) == FNN_OK);
    CHECK(fnn_model_attachment_count(NULL) == 0 && fnn_model_attachment(NULL, 0).name == NULL);
    CHECK(strcmp(fnn_status_text((fnn_status)99), "unknown status") == 0);
    fnn_model_close(NULL);
    char *file = sample_file(&size, &samples[5]);
    CHECK(fnn_model_open_memory(&model, file, size, NULL) == FNN_OK);
    CHECK(fnn_model_net(model, NULL, NULL) == FNN_EINVAL);
    CHECK(fnn_model_attachment(model, fnn_model_attachment_count(model)).name == NULL);
    CHECK(fnn_model_attachment(model, SIZE_MAX).name == NULL);
    fnn_model_close(model);
    fnn_release(file);
    CHECK(fnn_net_freeze(net) == FNN_OK && fnn_net_link(net) == FNN_LINK_NONE);
    CHECK(fnn_train_step(net, &x, &y, &loss, 0.1, 1, NULL) == FNN_EINVAL);
    CHECK(fnn_net_link(net) == FNN_LINK_NONE); /* what was refused has changed nothing */
    CHECK(fnn_net_save_memory(net, NULL, &size, FNN_CHECKPOINT, NULL) == FNN_EINVAL);
    fnn_net_free(net);
}

/* ---- locale ---- */

/* Numbers are written with a point and read so, whatever the program's locale has between digits. */
static void test_decimal_comma(void)
{
    static const char *const locales[] = {"de_DE.UTF-8", "de_DE.utf8",  "de_DE",      "fr_FR.UTF-8",
                                          "es_ES.UTF-8", "nl_NL.UTF-8", "ru_RU.UTF-8"};
    size_t i = 0, n = sizeof locales / sizeof *locales;
    while (i < n && !(setlocale(LC_ALL, locales[i]) && localeconv()->decimal_point[0] == ','))
        i++;
    if (i == n) {
        printf("    (no locale with a decimal comma here: tests/test_model_file.py makes one)\n");
        setlocale(LC_ALL, "C");
        return;
    }
    for (int s = 0; s < SAMPLES; s++) {
        size_t size, size_there;
        setlocale(LC_ALL, "C");
        char *here = sample_file(&size, &samples[s]);
        setlocale(LC_ALL, locales[i]);
        char *there = sample_file(&size_there, &samples[s]);
        fnn_net *net;
        CHECK(here && there && size == size_there && memcmp(here, there, size) == 0);
        CHECK(fnn_net_load_memory(&net, there, size_there, NULL) == FNN_OK);
        fnn_net_free(net);
        fnn_release(here);
        fnn_release(there);
    }
    setlocale(LC_ALL, "C");
}

void run_model_tests(void)
{
    RUN(test_what_is_written_is_read);
    RUN(test_no_byte_is_left_to_chance);
    RUN(test_every_truncation_and_flipped_bit_is_refused);
    RUN(test_what_is_no_model_file);
    RUN(test_nets_that_cannot_be_saved);
    RUN(test_attachments_that_cannot_be_saved);
    RUN(test_what_the_format_cannot_hold);
    RUN(test_memory_for_a_large_file);
    RUN(test_misuse);
    RUN(test_decimal_comma);
}
