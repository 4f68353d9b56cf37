/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/qemu/discard.h"
#include "client/qemu/listen.h"
#include "client/qemu/marks.h"
#include "client/qemu/present.h"
#include "tests/unit/preload_plan.h"

typedef struct World {
    int ram; /* a memfd behind the memory, or -1 */
    int wake;
    uint8_t *memory;
    Listen *listen;
} World;

static Plan *make_plan(World *world)
{
    static ClientMessage message;
    Reason reason = {0};
    Plan *plan;

    plan_make_message(&message, world->memory);
    plan = plan_new(&message, plan_make_table(&message, true), -1, &reason);
    if (!plan)
        fail_msg("%s", reason.text);
    return plan;
}

static void begin(World *world, bool shared)
{
    size_t size = (size_t)PLAN_ALL * PLAN_PAGE;

    world->ram = shared ? memfd_create("ram", MFD_CLOEXEC) : -1;
    if (shared)
        assert_int_equal(ftruncate(world->ram, (off_t)size), 0);
    world->memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                         shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, world->ram, 0);
    assert_true(world->memory != MAP_FAILED);
    madvise(world->memory, size, MADV_NOHUGEPAGE);
    world->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    world->listen = listen_new(make_plan(world), world->wake);
    assert_non_null(world->listen);
}

static void end(World *world)
{
    listen_free(world->listen);
    close(world->wake);
    if (world->ram >= 0)
        close(world->ram);
    munmap(world->memory, (size_t)PLAN_ALL * PLAN_PAGE);
}

static PageState state_of(const World *world, unsigned range, unsigned page)
{
    return plan_state(world->listen->plan, range, page);
}

static void only_what_nobody_asked_for_is_marked(void **state)
{
    World world;
    Table *table;
    uint64_t *words;

    (void)state;
    begin(&world, false);
    table = &world.listen->plan->table;
    words = (uint64_t *)((uint8_t *)table->header + PAGE_TABLE_HEADER_SIZE) + table->first_word[1];
    /* HOLE, MISSING, REQUESTED with somebody waiting, RECEIVED, PRESENT, REMOVED, FOUND. */
    words[0] = UINT64_C(0x6543a10);
    marks_present(table, 1, 0, 7);
    assert_int_equal(words[0], UINT64_C(0x4543a44));
    words[0] = UINT64_C(0x6543a10);
    marks_found(table, 1, 0, 7);
    assert_int_equal(words[0], UINT64_C(0x6543a66));
    words[0] = UINT64_C(0x6543a10);
    assert_int_equal(marks_hot(table, 1, 0, 7), 1);
    assert_int_equal(words[0], UINT64_C(0x6543a11));
    for (unsigned page = 0; page < 7; page++)
        assert_int_equal(marks_state(table, 1, page), (UINT64_C(0x6543211) >> page * 4) & 7);
    assert_int_equal(marks_state(table, 1, UINT64_MAX), PAGE_REMOVED);
    /* The last page, and nothing beyond the region. */
    assert_int_equal(marks_hot(table, 1, PLAN_PAGES - 1, 1000), 1);
    assert_int_equal(state_of(&world, 1, PLAN_PAGES - 1), PAGE_MISSING);
    assert_int_equal(marks_hot(table, 1, PLAN_PAGES, UINT64_MAX), 0);
    assert_int_equal(state_of(&world, 0, 0), PAGE_HOLE);
    end(&world);
}

/* Runs that begin and end anywhere in a word, over what others hold in between. */
static void a_run_is_marked_to_the_page(void **state)
{
    World world;
    Table *table;

    (void)state;
    begin(&world, false);
    table = &world.listen->plan->table;
    for (unsigned first = 0; first < PLAN_PAGES; first++)
        for (unsigned count = 0; first + count <= PLAN_PAGES; count++) {
            for (unsigned page = 0; page < PLAN_PAGES; page++)
                plan_set_state(world.listen->plan, 0, page,
                               page % 7 == 3 ? PAGE_REQUESTED : PAGE_HOLE);
            uint64_t moved = marks_hot(table, 0, first, count);
            for (unsigned page = 0; page < PLAN_PAGES; page++) {
                bool within = page >= first && page < first + count;
                PageState expected = page % 7 == 3 ? PAGE_REQUESTED
                                     : within      ? PAGE_MISSING
                                                   : PAGE_HOLE;
                if (state_of(&world, 0, page) != expected)
                    fail_msg("page %u of %u from %u on: state %u", page, count, first,
                             state_of(&world, 0, page));
                moved -= expected == PAGE_MISSING;
            }
            assert_int_equal(moved, 0);
        }
    assert_int_equal(state_of(&world, 1, 0), PAGE_HOLE);
    end(&world);
}

static void what_is_here_is_marked(void **state)
{
    Present present = {0};
    World world;

    (void)state;
    begin(&world, false);
    plan_range(world.memory, 0)[3 * PLAN_PAGE] = 1;
    plan_range(world.memory, 0)[(size_t)(PLAN_PAGES - 1) * PLAN_PAGE] = 1;
    plan_range(world.memory, 1)[0] = 1;
    plan_range(world.memory, 1)[-1] = 1; /* not planned */
    while (!present_step(&present, world.listen))
        ;
    assert_int_equal(present.found, 3);
    for (unsigned page = 0; page < PLAN_PAGES; page++) {
        assert_int_equal(state_of(&world, 0, page),
                         page == 3 || page == PLAN_PAGES - 1 ? PAGE_FOUND : PAGE_HOLE);
        assert_int_equal(state_of(&world, 1, page), page ? PAGE_HOLE : PAGE_FOUND);
    }
    end(&world);
}

static void what_is_discarded_is_hot_if_it_was_here(void **state)
{
    World world;
    uint8_t *range;

    (void)state;
    begin(&world, false);
    range = plan_range(world.memory, 1);
    assert_true(discard_is_watched());
    range[5 * PLAN_PAGE] = range[6 * PLAN_PAGE] = range[9 * PLAN_PAGE] = 1;
    errno = 0x5a;
    discard_memory(range + 4 * PLAN_PAGE, 3 * PLAN_PAGE);
    /* Of a page that is discarded in part, the rest stays. */
    discard_memory(range + 9 * PLAN_PAGE + 1, PLAN_PAGE);
    discard_memory(world.memory, PLAN_PAGE);
    discard_memory((void *)UINTPTR_MAX, SIZE_MAX);
    assert_int_equal(errno, 0x5a);
    for (unsigned page = 0; page < PLAN_PAGES; page++)
        assert_int_equal(state_of(&world, 1, page),
                         page == 5 || page == 6 ? PAGE_MISSING : PAGE_HOLE);
    assert_int_equal(world.listen->hot, 2);
    end(&world);
}

static void a_whole_range_is_never_hot(void **state)
{
    World world;

    (void)state;
    begin(&world, false);
    plan_range(world.memory, 0)[0] = 1;
    discard_memory(plan_range(world.memory, 0), (size_t)PLAN_PAGES * PLAN_PAGE);
    discard_memory(world.memory, (size_t)PLAN_ALL * PLAN_PAGE);
    assert_int_equal(state_of(&world, 0, 0), PAGE_HOLE);
    end(&world);
}

static void a_hole_in_the_file_is_a_discard(void **state)
{
    World world;
    int other = memfd_create("other", MFD_CLOEXEC);
    off_t start;

    (void)state;
    begin(&world, true);
    start = plan_range(world.memory, 1) - world.memory;
    plan_range(world.memory, 1)[2 * PLAN_PAGE] = 1;
    discard_file(other, start, 8 * PLAN_PAGE);
    discard_file(world.ram, -1, 8 * PLAN_PAGE);
    discard_file(world.ram, start, -1);
    discard_file(-1, start, 8 * PLAN_PAGE);
    assert_int_equal(state_of(&world, 1, 2), PAGE_HOLE);
    discard_file(world.ram, start, 8 * PLAN_PAGE);
    assert_int_equal(state_of(&world, 1, 2), PAGE_MISSING);
    assert_int_equal(state_of(&world, 1, 3), PAGE_HOLE);
    end(&world);
    close(other);
}

static void without_a_plan_nothing_is_watched(void **state)
{
    (void)state;
    assert_false(discard_is_watched());
    discard_memory(state, 1 << 20);
    discard_file(0, 0, 1 << 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_what_nobody_asked_for_is_marked),
        cmocka_unit_test(a_run_is_marked_to_the_page),
        cmocka_unit_test(what_is_here_is_marked),
        cmocka_unit_test(what_is_discarded_is_hot_if_it_was_here),
        cmocka_unit_test(a_whole_range_is_never_hot),
        cmocka_unit_test(a_hole_in_the_file_is_a_discard),
        cmocka_unit_test(without_a_plan_nothing_is_watched),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
