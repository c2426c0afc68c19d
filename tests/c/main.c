/* Runs all suites but the long ones, or those named on the command line; "hash" prints what training came to, bit by
 * bit, instead. */
#include <stdbool.h>
#include <string.h>

#include "minitest.h"

int minitest_checks, minitest_failures;

void run_runtime_tests(void);
void run_net_tests(void);
void run_training_tests(void);
void run_api_tests(void);
void run_model_tests(void);
void run_durability_tests(void);
void run_long_durability_tests(void);
void print_hashes(void);

static const struct {
    const char *name;
    void (*run)(void);
} suites[] = {
    {"runtime", run_runtime_tests}, /* first: it tests the choice of the instruction set, made once per process */
    {"net", run_net_tests},
    {"training", run_training_tests},
    {"api", run_api_tests},
    {"model", run_model_tests},
    {"durability", run_durability_tests},
    {"durability-long", run_long_durability_tests},
};

static bool wanted(const char *name, int count, char **names)
{
    for (int i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return count == 0 && !strstr(name, "-long");
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "hash") == 0) {
        print_hashes();
        return 0;
    }
    for (size_t i = 0; i < sizeof suites / sizeof *suites; i++) {
        if (!wanted(suites[i].name, argc - 1, argv + 1))
            continue;
        printf("%s\n", suites[i].name);
        suites[i].run();
    }
    printf("%d checks, %d failures\n", minitest_checks, minitest_failures);
    return minitest_failures > 0 || minitest_checks == 0;
}
