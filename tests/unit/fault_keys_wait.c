/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/fault/keys_wait.h"

#define MS UINT64_C(1000000)

/* The time between two looks: more often than any of the limits. */
#define STEP (5 * MS)

static KeysWait mapped(void)
{
    KeysWait wait = {0};

    keys_wait_mapped(&wait);
    assert_true(keys_wait_holds(&wait));
    return wait;
}

/* Nothing to claim, again and again, for so long; whether all is still held. */
static bool holds_after(KeysWait *wait, uint64_t from, uint64_t for_ns)
{
    for (uint64_t now = from; now <= from + for_ns; now += STEP)
        keys_wait_claimed(wait, false, now);
    return keys_wait_holds(wait);
}

/* What others have pinned becomes free some time. */
static void a_source_without_room_is_asked_again(void **state)
{
    KeysWait wait = mapped();
    uint64_t now = 1000 * MS, asked = now;
    unsigned times = 0;

    (void)state;
    keys_wait_full(&wait);
    while (times < 8) {
        keys_wait_tidied(&wait, false, 0, now);
        assert_false(keys_wait_holds(&wait)); /* TCP meanwhile */
        assert_false(wait.over);
        if (!wait.full) {
            uint64_t expected = KEYS_AGAIN_MIN_NS << times;

            expected = expected < KEYS_AGAIN_MAX_NS ? expected : KEYS_AGAIN_MAX_NS;
            assert_in_range(now - asked, expected, expected + STEP);
            asked = now;
            times++;
            keys_wait_full(&wait);
        } else {
            now += STEP;
        }
    }
    /* Told at last, it is held again; and the next time it begins with short pauses. */
    keys_wait_tidied(&wait, false, 0, now);
    keys_wait_tidied(&wait, false, 0, now + KEYS_AGAIN_MAX_NS);
    assert_false(wait.full);
    keys_wait_told(&wait);
    assert_true(keys_wait_holds(&wait));
    keys_wait_full(&wait);
    keys_wait_tidied(&wait, false, 0, 50000 * MS);
    keys_wait_tidied(&wait, false, 0, 50000 * MS + KEYS_AGAIN_MIN_NS);
    assert_false(wait.full);
}

/* While something of ours is to be given back, that is waited for. */
static void what_is_given_back_is_asked_for_at_once(void **state)
{
    KeysWait wait = mapped();

    (void)state;
    keys_wait_full(&wait);
    keys_wait_tidied(&wait, false, 3, 10 * MS);
    keys_wait_tidied(&wait, false, 3, 100000 * MS);
    assert_true(wait.full);
    assert_true(keys_wait_holds(&wait));
    keys_wait_tidied(&wait, true, 2, 100001 * MS);
    assert_false(wait.full);
    assert_true(keys_wait_holds(&wait));
    /* Nor is the pause seen out if something comes back in it. */
    keys_wait_full(&wait);
    keys_wait_tidied(&wait, false, 0, 100002 * MS);
    keys_wait_tidied(&wait, true, 0, 100003 * MS);
    assert_false(wait.full);
}

static void room_that_does_not_come_back_is_not_waited_for_long(void **state)
{
    KeysWait wait = mapped();

    (void)state;
    keys_wait_full(&wait);
    assert_true(holds_after(&wait, 1000 * MS, KEYS_IDLE_FULL_NS));
    assert_false(holds_after(&wait, 1000 * MS, KEYS_IDLE_FULL_NS + 2 * STEP));
    assert_false(wait.over);
    keys_wait_tidied(&wait, true, 1, 3000 * MS);
    keys_wait_told(&wait);
    assert_true(keys_wait_holds(&wait));
}

/* Before the map is known no keys are asked for, so there is nothing to blame anybody for. */
static void a_long_map_is_not_counted_against_keys(void **state)
{
    KeysWait wait = {0};

    (void)state;
    assert_true(holds_after(&wait, 1000 * MS, KEYS_IDLE_NS));
    assert_false(holds_after(&wait, 1000 * MS, KEYS_IDLE_NS + 2 * STEP));
    keys_wait_mapped(&wait);
    assert_true(keys_wait_holds(&wait));
    /* The time before does not count. */
    assert_true(holds_after(&wait, 4000 * MS, KEYS_IDLE_NS));
    /* Nor does being told again that the map is known. */
    assert_false(holds_after(&wait, 4000 * MS, KEYS_IDLE_NS + 2 * STEP));
    keys_wait_mapped(&wait);
    assert_false(keys_wait_holds(&wait));
}

static void a_silent_source_is_not_waited_for_twice(void **state)
{
    KeysWait wait = mapped();

    (void)state;
    assert_true(holds_after(&wait, 1000 * MS, KEYS_IDLE_NS));
    keys_wait_claimed(&wait, true, 4000 * MS); /* there was something: it begins anew */
    assert_true(holds_after(&wait, 5000 * MS, KEYS_IDLE_NS));
    assert_false(holds_after(&wait, 5000 * MS, KEYS_IDLE_NS + 2 * STEP));
    keys_wait_told(&wait);
    assert_false(keys_wait_holds(&wait));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_source_without_room_is_asked_again),
        cmocka_unit_test(what_is_given_back_is_asked_for_at_once),
        cmocka_unit_test(room_that_does_not_come_back_is_not_waited_for_long),
        cmocka_unit_test(a_long_map_is_not_counted_against_keys),
        cmocka_unit_test(a_silent_source_is_not_waited_for_twice),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
