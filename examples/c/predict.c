/* Predictions of a model file:  predict [-p] MODEL < ROWS
 *
 * A row of numbers per line, separated by commas, semicolons or white space; one line of predictions for each, as soon
 * as it is there. -p prints probabilities instead of the net's outputs. */
#define _POSIX_C_SOURCE 200809L /* getline */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fastnn.h>

static int fail(const char *what, fnn_status status, const fnn_detail *detail)
{
    const char *why = fnn_status_text(status);
    if (detail && detail->system_error)
        why = strerror(detail->system_error);
    else if (detail && detail->text[0])
        why = detail->text;
    fprintf(stderr, "predict: %s: %s\n", what, why);
    return EXIT_FAILURE;
}

/* The numbers of a line into row (n). Returns how many there are, SIZE_MAX where something else stands in it. */
static size_t parse_row(double *row, size_t n, const char *line)
{
    size_t count = 0;
    for (line += strspn(line, ",; \t\r\n"); *line; line += strspn(line, ",; \t\r\n")) {
        char *end;
        double value = strtod(line, &end);
        if (end == line || !strchr(",; \t\r\n", *end)) /* its terminating zero, the end of the line, counts */
            return SIZE_MAX;
        if (count < n)
            row[count] = value;
        count++;
        line = end;
    }
    return count;
}

static void print_row(const void *outputs, fnn_dtype dtype, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (dtype == FNN_FLOAT32)
            printf("%s%.9g", i ? "," : "", (double)((const float *)outputs)[i]);
        else
            printf("%s%.17g", i ? "," : "", ((const double *)outputs)[i]);
    }
    putchar('\n');
    fflush(stdout);
}

/* Features may be of any element type: those of a float net are rounded from these doubles once. */
static int predict_lines(fnn_net *net, int probabilities, double *row, void *outputs)
{
    size_t inputs = fnn_net_input_size(net), size = 0;
    fnn_features x = fnn_rows(row, FNN_FLOAT64, 1, inputs);
    char *line = NULL;
    int failed = 0;
    for (unsigned long number = 1; !failed && getline(&line, &size, stdin) >= 0; number++) {
        size_t count = parse_row(row, inputs, line);
        if (count == inputs) {
            fnn_status status =
                probabilities ? fnn_predict_proba(net, outputs, &x, 1) : fnn_predict(net, outputs, &x, 1);
            if (status == FNN_OK)
                print_row(outputs, fnn_net_dtype(net), fnn_net_output_size(net));
            else
                failed = fail(probabilities ? "probabilities" : "prediction", status, NULL);
        } else if (count == SIZE_MAX) {
            fprintf(stderr, "predict: line %lu: not a number\n", number);
            failed = EXIT_FAILURE;
        } else if (count > 0) { /* an empty line is no row */
            fprintf(stderr, "predict: line %lu: %zu numbers, the net takes %zu\n", number, count, inputs);
            failed = EXIT_FAILURE;
        }
    }
    free(line);
    if (ferror(stdin) || ferror(stdout)) {
        perror("predict");
        failed = EXIT_FAILURE;
    }
    return failed;
}

int main(int argc, char **argv)
{
    int probabilities = argc > 1 && strcmp(argv[1], "-p") == 0;
    if (argc != 2 + probabilities) {
        fprintf(stderr, "usage: predict [-p] MODEL < ROWS\n");
        return 2;
    }
    const char *path = argv[1 + probabilities];
    fnn_net *net;
    fnn_detail detail;
    fnn_status status = fnn_net_load(&net, path, &detail);
    if (status != FNN_OK)
        return fail(path, status, &detail);

    /* The weights' fastest layout, and the workspace of one predictor on one thread: from here on predicting allocates
     * nothing. */
    status = fnn_net_freeze(net);
    if (status == FNN_OK)
        status = fnn_net_reserve(net, 1, 1);
    double *row = malloc(fnn_net_input_size(net) * sizeof *row);
    void *outputs = malloc(fnn_net_output_size(net) * sizeof(double)); /* enough for both element types */
    if (status == FNN_OK && (!row || !outputs))
        status = FNN_ENOMEM;

    int result = status == FNN_OK ? predict_lines(net, probabilities, row, outputs) : fail(path, status, NULL);
    free(outputs);
    free(row);
    fnn_net_free(net);
    return result;
}
