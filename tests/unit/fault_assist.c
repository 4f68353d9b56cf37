/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "daemon/fault/assist.h"
#include "daemon/fault/import.h"
#include "daemon/fault/resolver_watch.h"

/* A resolver with one shard, whose faults were announced and not read yet. */
typedef struct World {
    Import import;
    Resolver resolver;
    Shard shards[1];
    ShardWatch watches[1];
    PageTableHeader header;
} World;

static int set_up(void **state)
{
    World *world = calloc(1, sizeof *world);

    assert_non_null(world);
    world->import.config.assist = true;
    world->import.table.header = &world->header;
    world->import.shards = world->shards;
    atomic_store(&world->import.n_shards, 1);
    world->shards[0].owner = SHARD_SHARED;
    world->shards[0].uffd = -1;
    atomic_store(&world->shards[0].state, SHARD_LIVE);
    world->watches[0].shard = &world->shards[0];
    world->watches[0].unread = world->watches[0].more = true;
    world->resolver.import = &world->import;
    world->resolver.watches = world->watches;
    world->resolver.channel.fd = -1;
    world->resolver.assist = assist_watch_new();
    assert_non_null(world->resolver.assist);
    *state = world;
    return 0;
}

static int tear_down(void **state)
{
    World *world = *state;

    free(world->resolver.assist);
    free(world);
    return 0;
}

static void what_was_left_unread_is_looked_at_again(void **state)
{
    World *world = *state;

    world->header.relaying = 1;
    resolver_serve_unread(&world->resolver);
    assert_true(world->watches[0].unread);
    assert_int_equal(assist_patience_ms(&world->resolver), ASSIST_TICK_MS);
    world->header.relaying = 0; /* right after it looked, and before it sleeps */
    assert_int_equal(assist_patience_ms(&world->resolver), ASSIST_TICK_MS);
}

static void who_has_read_all_sleeps(void **state)
{
    World *world = *state;

    world->watches[0].unread = false; /* the ring polls it */
    assert_int_equal(assist_patience_ms(&world->resolver), -1);
    world->header.relaying = 1;
    assert_int_equal(assist_patience_ms(&world->resolver), -1);
}

static void who_never_reads_again_sleeps(void **state)
{
    World *world = *state;

    atomic_store(&world->import.withdrawn, true);
    assert_int_equal(assist_patience_ms(&world->resolver), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_left_unread_is_looked_at_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_has_read_all_sleeps, set_up, tear_down),
        cmocka_unit_test_setup_teardown(who_never_reads_again_sleeps, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
