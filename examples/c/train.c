/* A trainer for a device:  train CHECKPOINT MODEL [STEPS]
 *
 * Learns the state of a machine from a stream of sensor readings, which are simulated here. It continues from the
 * checkpoint where there is one, saves it again every 10,000 steps and at the end, and writes the model for predict.c.
 * SIGTERM and SIGINT are an early end. However often it is stopped and started again, the model has the same bits. */
#define _POSIX_C_SOURCE 200809L /* sigaction */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fastnn.h>

enum { READINGS = 2, STATES = 3, BATCH = 32, TEST_ROWS = 1000, REPORT_STEPS = 1000, SAVE_STEPS = 10000 };

static const fnn_layer layers[] = {
    {.kind = FNN_DENSE, .units = 32, .activation = FNN_RELU, .use_bias = 1, .trainable = 1},
    {.kind = FNN_DENSE, .units = 32, .activation = FNN_RELU, .use_bias = 1, .trainable = 1},
    {.kind = FNN_DENSE, .units = STATES, .use_bias = 1, .trainable = 1},
};
static const fnn_optimizer adam = {.kind = FNN_ADAM, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
static const fnn_clip clip = {.kind = FNN_CLIP_NORM, .high = 1};
static const fnn_loss cross_entropy = {.kind = FNN_CROSS_ENTROPY};
static const double learning_rate = 1e-3;

static volatile sig_atomic_t stopped;

static void stop(int signal)
{
    (void)signal;
    stopped = 1;
}

static int fail(const char *what, fnn_status status, const fnn_detail *detail)
{
    const char *why = fnn_status_text(status);
    if (detail && detail->system_error)
        why = strerror(detail->system_error);
    else if (detail && detail->text[0])
        why = detail->text;
    fprintf(stderr, "train: %s: %s\n", what, why);
    return EXIT_FAILURE;
}

/* ---- the sensor: sample number i is always the same, so that a stopped run can go on behind its last one ---- */

/* Number i of a stream that is uniform on [-1, 1) (splitmix64). */
static float uniform(uint64_t i)
{
    uint64_t z = (i + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return (float)(z >> 40) / (1 << 23) - 1;
}

static void read_sensor(float x[][READINGS], int32_t *states, uint64_t first, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < READINGS; j++)
            x[i][j] = uniform((first + i) * READINGS + j);
        int idle = x[i][0] * x[i][0] + x[i][1] * x[i][1] < 0.25f;
        states[i] = idle ? 0 : x[i][0] * x[i][1] > 0 ? 1 : 2;
    }
}

/* ---- the net ---- */

/* From the checkpoint, else a new one. */
static fnn_status open_net(fnn_net **net, const char *checkpoint, fnn_detail *detail)
{
    fnn_status status = fnn_net_load(net, checkpoint, detail);
    if (status == FNN_EIO && detail->system_error == ENOENT) {
        detail->system_error = 0;
        status = fnn_net_create(net, layers, sizeof layers / sizeof *layers, READINGS, FNN_FLOAT32, 1);
        if (status == FNN_OK)
            status = fnn_net_initialize(*net);
    }
    if (status == FNN_OK && (fnn_net_input_size(*net) != READINGS || fnn_net_output_size(*net) != STATES))
        status = FNN_EINVAL; /* a file of another net: the arrays below would not do */
    return status == FNN_OK ? fnn_net_configure(*net, &adam, &clip, NULL) : status;
}

static fnn_status report(fnn_net *net, uint64_t steps)
{
    static float x[TEST_ROWS][READINGS];
    static int32_t states[TEST_ROWS];
    const fnn_features features = fnn_rows(x, FNN_FLOAT32, TEST_ROWS, READINGS);
    const fnn_targets targets = {.labels = states};
    double loss;
    read_sensor(x, states, UINT64_MAX / READINGS - TEST_ROWS, TEST_ROWS); /* never reached by training */
    fnn_status status = fnn_evaluate(net, &loss, &features, &targets, &cross_entropy, 1);
    if (status == FNN_OK)
        printf("step %llu, test loss %.4f\n", (unsigned long long)steps, loss);
    fflush(stdout);
    return status;
}

static fnn_status train(fnn_net *net, uint64_t end, const char *checkpoint, fnn_detail *detail)
{
    float x[BATCH][READINGS];
    int32_t states[BATCH];
    const fnn_features features = fnn_rows(x, FNN_FLOAT32, BATCH, READINGS);
    const fnn_targets targets = {.labels = states};
    fnn_status status = FNN_OK;
    uint64_t step = fnn_net_counters(net).passes;
    while (status == FNN_OK && step < end && !stopped) {
        read_sensor(x, states, step * BATCH, BATCH);
        status = fnn_train_step(net, &features, &targets, &cross_entropy, learning_rate, 1, NULL);
        step++;
        if (status == FNN_OK && step % REPORT_STEPS == 0)
            status = report(net, step);
        if (status == FNN_OK && step % SAVE_STEPS == 0)
            status = fnn_net_save(net, checkpoint, FNN_CHECKPOINT, detail);
    }
    return status == FNN_OK ? fnn_net_save(net, checkpoint, FNN_CHECKPOINT, detail) : status;
}

int main(int argc, char **argv)
{
    if (argc != 3 && argc != 4) {
        fprintf(stderr, "usage: train CHECKPOINT MODEL [STEPS]\n");
        return 2;
    }
    char *end = NULL;
    uint64_t steps = argc == 4 ? strtoull(argv[3], &end, 10) : 20000;
    if (argc == 4 && (argv[3][0] < '0' || argv[3][0] > '9' || *end)) {
        fprintf(stderr, "train: STEPS is '%s', not a whole number\n", argv[3]);
        return 2;
    }
    const struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);

    fnn_net *net = NULL;
    fnn_detail detail = {0};
    fnn_status status = open_net(&net, argv[1], &detail);
    if (status == FNN_OK)
        status = train(net, steps, argv[1], &detail);
    if (status != FNN_OK) {
        fnn_net_free(net);
        return fail(argv[1], status, &detail);
    }
    status = fnn_net_save(net, argv[2], FNN_MODEL, &detail);
    fnn_net_free(net);
    return status == FNN_OK ? EXIT_SUCCESS : fail(argv[2], status, &detail);
}
