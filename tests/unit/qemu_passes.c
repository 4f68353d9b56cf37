/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Post-copy is started once a migration, after the pass that was asked for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/qemu/passes.h"

static void once_a_migration(void **state)
{
    Passes passes = {0};

    (void)state;
    assert_false(passes_begin(&passes, 1, 2));
    assert_true(passes_begin(&passes, 2, 2));
    assert_false(passes_begin(&passes, 3, 2));
    assert_false(passes_begin(&passes, 40, 2));
}

/* One that was cancelled says nothing at its end. */
static void the_next_migration(void **state)
{
    Passes passes = {0};

    (void)state;
    for (int migration = 0; migration < 3; migration++) {
        assert_true(passes_begin(&passes, 1, 1));
        assert_false(passes_begin(&passes, 2, 1));
    }
    assert_true(passes_begin(&passes, 1, 1));
    assert_true(passes_begin(&passes, 1, 1));
}

/* Events may have been missed. */
static void joined_late(void **state)
{
    Passes passes = {0};

    (void)state;
    assert_true(passes_begin(&passes, 9, 3));
    assert_false(passes_begin(&passes, 10, 3));
}

static void never(void **state)
{
    Passes passes = {0};

    (void)state;
    for (int pass = 1; pass < 100; pass++)
        assert_false(passes_begin(&passes, pass, 0));
    assert_false(passes_begin(&passes, -1, 1));
    assert_false(passes_begin(&passes, 0, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(once_a_migration),
        cmocka_unit_test(the_next_migration),
        cmocka_unit_test(joined_late),
        cmocka_unit_test(never),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
