/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the RDMA transport does without any device: the budget, and to say what is missing.
 * The rest needs one: tests/rdma.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/transport/rdma_device.h"

static void the_budget_is_never_exceeded(void **state)
{
    RdmaBudget budget = {.most = 100};

    (void)state;
    assert_true(rdma_budget_take(&budget, 60, 0));
    assert_false(rdma_budget_take(&budget, 41, 0));
    assert_false(rdma_budget_take(&budget, UINT64_MAX, 0));
    assert_false(rdma_budget_take(&budget, UINT64_MAX - 59, 0));
    assert_int_equal(budget.used, 60);
    assert_true(rdma_budget_take(&budget, 40, 0));
    assert_false(rdma_budget_take(&budget, 1, 0));
    assert_int_equal(budget.peak, 100);
    rdma_budget_give(&budget, 40);
    rdma_budget_give(&budget, 60);
    assert_int_equal(budget.used, 0);
    assert_int_equal(budget.peak, 100);
}

/* What is pinned early and for long leaves room for the lanes of the next import. */
static void a_part_is_reserved(void **state)
{
    const uint64_t mib = 1 << 20;
    RdmaBudget budget = {.most = 1024 * mib};

    (void)state;
    assert_int_equal(rdma_budget_reserve(&budget), 256 * mib);
    assert_int_equal(rdma_budget_room(&budget), 768 * mib);
    assert_true(rdma_budget_take(&budget, 700 * mib, rdma_budget_reserve(&budget)));
    assert_int_equal(rdma_budget_room(&budget), 68 * mib);
    assert_false(rdma_budget_take(&budget, 69 * mib, rdma_budget_reserve(&budget)));
    assert_int_equal(budget.used, 700 * mib);
    assert_true(rdma_budget_take(&budget, 100 * mib, 0));
    assert_int_equal(rdma_budget_room(&budget), 0);
    assert_false(rdma_budget_take(&budget, 1, rdma_budget_reserve(&budget)));
    assert_true(rdma_budget_take(&budget, 224 * mib, 0));
    assert_int_equal(budget.peak, 1024 * mib);

    budget.most = 40 * mib;
    assert_int_equal(rdma_budget_reserve(&budget), 16 * mib);
    assert_false(rdma_budget_take(&budget, 1, UINT64_MAX));
    assert_int_equal(rdma_budget_room(&budget), 0); /* more is taken than there may be */
    budget.most = 8 * mib;                          /* both must be possible */
    assert_int_equal(rdma_budget_reserve(&budget), 4 * mib);
}

enum { ROUNDS = 20000 };

static void *take_and_give(void *opaque)
{
    RdmaBudget *budget = opaque;

    for (int i = 0; i < ROUNDS; i++)
        if (rdma_budget_take(budget, 3, 0))
            rdma_budget_give(budget, 3);
    return NULL;
}

static void threads_share_the_budget(void **state)
{
    RdmaBudget budget = {.most = 7};
    pthread_t threads[3];

    (void)state;
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, take_and_give, &budget);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(budget.used, 0);
    assert_true(budget.peak == 3 || budget.peak == 6);
}

static void loopback_has_no_device(void **state)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    RdmaBudget budget = {.most = 1 << 20};
    char text[LIMIT_TEXT + 1] = "";
    int listener = socket(AF_INET, SOCK_STREAM, 0), near = socket(AF_INET, SOCK_STREAM, 0);

    (void)state;
    assert_int_equal(bind(listener, (struct sockaddr *)&address, length), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_null(rdma_device_open(listener, &budget, text));
    assert_non_null(strstr(text, "has ended"));
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &length), 0);
    assert_int_equal(connect(near, (struct sockaddr *)&address, length), 0);
    assert_null(rdma_device_open(near, &budget, text));
    assert_non_null(strstr(text, "127.0.0.1"));
    assert_null(strchr(text, '\n'));
    rdma_device_unref(NULL);
    close(near);
    close(listener);
}

/* As many names as there are devices, here often none. */
static void devices_are_counted(void **state)
{
    char names[1024] = "x";
    unsigned n = rdma_list_devices(names, sizeof names), blanks = 0;

    (void)state;
    for (const char *at = names; *at; at++)
        blanks += *at == ' ';
    assert_int_equal(n, names[0] ? blanks + 1 : 0);
    assert_int_equal(rdma_list_devices(names, 1), n);
    assert_string_equal(names, "");
}

static void the_hint_names_the_limit(void **state)
{
    struct rlimit old, limit;
    char text[LIMIT_TEXT + 1];

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &old), 0);
    limit = (struct rlimit){.rlim_cur = 64 << 10, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
    rdma_memory_hint(UINT64_C(3) << 20, text);
    assert_non_null(strstr(text, "3072 KiB could not be pinned"));
    assert_non_null(strstr(text, "limit is 64 KiB"));
    assert_non_null(strstr(text, "LimitMEMLOCK=infinity"));
    assert_null(strchr(text, '\n'));
    assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &old), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_budget_is_never_exceeded), cmocka_unit_test(a_part_is_reserved),
        cmocka_unit_test(threads_share_the_budget),     cmocka_unit_test(loopback_has_no_device),
        cmocka_unit_test(devices_are_counted),          cmocka_unit_test(the_hint_names_the_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
