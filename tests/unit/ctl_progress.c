/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "client/ctl/progress.h"
#include "client/ctl/stats.h"
#include "protocol/qmp/json.h"

#define MIB (G_GINT64_CONSTANT(1) << 20)

/* One answer of the daemon, so many milliseconds after the first. */
static void update(Progress *progress, const char *state, gint64 present, gint64 at_ms)
{
    g_autoptr(JsonObject) answer = json_object_new();

    json_object_set_string_member(answer, "state", state);
    json_object_set_int_member(answer, "populated_bytes", 400 * MIB);
    json_object_set_int_member(answer, "present_bytes", present);
    json_object_set_int_member(answer, "faults", 1234);
    progress_update(progress, answer, G_USEC_PER_SEC + at_ms * 1000);
}

static void assert_line(const Progress *progress, guint columns, const char *expected)
{
    g_autofree char *line = progress_line(progress, columns, TRUE);

    assert_string_equal(line, expected);
}

static void test_rate(void **state)
{
    Progress progress = {0};

    (void)state;
    assert_true(progress_seconds_left(&progress) < 0);
    update(&progress, "running", 100 * MIB, 0);
    assert_true(progress_seconds_left(&progress) < 0);
    assert_line(&progress, 0, "25 %  100 MiB of 400 MiB, 1234 faults");

    /* Too soon to tell. */
    update(&progress, "running", 200 * MIB, 10);
    assert_true(progress_seconds_left(&progress) < 0);

    update(&progress, "running", 200 * MIB, 1000);
    assert_true(progress.rate > 99.0 * MIB && progress.rate < 101.0 * MIB);
    assert_line(&progress, 4,
                "[##..] 50 %  200 MiB of 400 MiB, 100 MiB/s, 2.0 s left, 1234 faults");

    update(&progress, "running", 200 * MIB, 2000);
    assert_true(progress.rate > 69.0 * MIB && progress.rate < 71.0 * MIB);

    update(&progress, "complete", 400 * MIB, 3000);
    assert_true(progress_seconds_left(&progress) == 0);
    progress_deinit(&progress);
}

static void test_paused(void **state)
{
    Progress progress = {0};

    (void)state;
    update(&progress, "paused", 100 * MIB, 0);
    assert_line(&progress, 0,
                "25 %  100 MiB of 400 MiB, paused: the link to the source is down, missing pages "
                "wait, 1234 faults");
    progress_deinit(&progress);
}

static void test_verdicts(void **state)
{
    static const struct {
        const char *state;
        ProgressVerdict verdict;
    } cases[] = {
        {"idle", PROGRESS_GOES_ON},      {"sealed", PROGRESS_GOES_ON},
        {"running", PROGRESS_GOES_ON},   {"paused", PROGRESS_GOES_ON},
        {"complete", PROGRESS_COMPLETE}, {"released", PROGRESS_DONE},
        {"done", PROGRESS_DONE},         {"fenced", PROGRESS_FAILED},
        {"broken", PROGRESS_FAILED},     {"cancelled", PROGRESS_FAILED},
    };
    Progress progress = {0};

    (void)state;
    assert_int_equal(progress_verdict(&progress), PROGRESS_GOES_ON);
    for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
        update(&progress, cases[i].state, 0, 0);
        assert_int_equal(progress_verdict(&progress), cases[i].verdict);
    }
    progress_deinit(&progress);
}

static char *render(const char *text)
{
    g_autoptr(JsonNode) node = node_parse(text, -1, NULL);

    return stats_render(node_object(node), TRUE);
}

/* What another version of the daemon leaves out, or says in another type, reads as nothing. */
static void test_stats_of_strangers(void **state)
{
    static const char *const texts[] = {
        "[]",
        "{}",
        "{\"imports\": 3, \"exports\": {}}",
        "{\"imports\": [7, {}, {\"vm\": 5, \"latency\": [], \"vcpus\": {\"a\": 1}}]}",
        "{\"exports\": [null, {\"bytes\": \"many\", \"progress\": null}]}",
        "{\"imports\": [{\"latency\": {\"histogram\": [\"a\", {}, -1, 1e300]}}]}",
    };

    (void)state;
    for (guint i = 0; i < G_N_ELEMENTS(texts); i++) {
        g_autofree char *page = render(texts[i]);
        assert_true(strlen(page) > 0);
    }
}

static void test_stats(void **state)
{
    g_autofree char *page = render(
        "{\"imports\": [{\"vm\": \"alpha\", \"state\": \"running\", \"source\": \"10.0.0.1:16520\","
        "\"faults\": 9, \"pages\": {\"by_fault\": 42}, \"latency\": {\"p50_ns\": 35200,"
        "\"histogram\": [0, 0, 5]}, \"vcpus\": [{\"vcpu\": 3, \"tid\": 77}]}],"
        "\"exports\": [{\"vm\": \"beta\", \"state\": \"sealed\", \"fenced\": true}]}");

    (void)state;
    assert_non_null(strstr(page, "alpha: running, from 10.0.0.1:16520\n"));
    assert_non_null(strstr(page, "by fault 42"));
    assert_null(strstr(page, "took over"));
    assert_non_null(strstr(page, "p50 35.2 µs"));
    assert_non_null(strstr(page, "4 ns  ####"));
    assert_non_null(strstr(page, "beta: sealed"));
    assert_non_null(strstr(page, "FENCED"));
}

static void test_stats_after_a_restart(void **state)
{
    g_autofree char *page = render("{\"imports\": [{\"vm\": \"alpha\", \"adopted\": true}]}");

    (void)state;
    assert_non_null(strstr(page, "counted   since this daemon took over"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rate),     cmocka_unit_test(test_paused),
        cmocka_unit_test(test_verdicts), cmocka_unit_test(test_stats_of_strangers),
        cmocka_unit_test(test_stats),    cmocka_unit_test(test_stats_after_a_restart),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
