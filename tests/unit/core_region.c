/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rule 12: regions find their counterparts by id and guest physical address, or are refused.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/core_regions.h"

#define PAGE      UINT64_C(4096)
#define HUGE_PAGE (UINT64_C(2) << 20)

static RegionSet here;
static PeerRegions source;
static uint32_t map[LIMIT_REGIONS];
static char text[LIMIT_TEXT + 1];

static int set_up(void **state)
{
    (void)state;
    here.n = 0;
    add_region(&here, 1024, PAGE, -1);
    add_region(&here, 8, HUGE_PAGE, -1);
    add_region(&here, 16, PAGE, -1);
    region_set_describe(&here, &source);
    text[0] = '\0';
    return 0;
}

static void swap_source(uint32_t a, uint32_t b)
{
    PeerRegion kept = source.regions[a];

    source.regions[a] = source.regions[b];
    source.regions[b] = kept;
}

static int find(void)
{
    return region_set_map(&here, &source, map, text);
}

static void assert_refused(const char *because)
{
    assert_int_equal(find(), -EINVAL);
    assert_non_null(strstr(text, because));
    assert_non_null(strstr(text, "start both sides with the same memory"));
}

static void order_does_not_matter(void **state)
{
    (void)state;
    swap_source(0, 2);
    swap_source(0, 1);
    assert_int_equal(find(), 0);
    for (uint32_t i = 0; i < 3; i++)
        assert_string_equal(source.regions[map[i]].id, here.regions[i].id);
}

static void another_number_of_regions_is_refused(void **state)
{
    (void)state;
    source.n = 2;
    assert_refused("3 regions here and 2 at the source");
}

static void a_part_is_found_where_that_is_allowed(void **state)
{
    (void)state;
    swap_source(0, 2);
    here.n = 2;
    assert_refused("2 regions here and 3 at the source");
    assert_int_equal(region_set_map_part(&here, &source, map, text), 0);
    assert_int_equal(map[0], 2);
    assert_int_equal(map[1], 1);
    /* Never the other way round: what is missing there has nobody to bring it. */
    here.n = 3;
    source.n = 2;
    assert_int_equal(region_set_map_part(&here, &source, map, text), -EINVAL);
    assert_non_null(strstr(text, "no region like 'ram0'"));
}

static void another_size_is_refused(void **state)
{
    (void)state;
    source.regions[1].length += HUGE_PAGE;
    assert_refused("region 'ram1' at guest address 0x100000000 has length 0x1000000 here and "
                   "0x1200000 at the source");
}

static void another_page_size_is_refused(void **state)
{
    (void)state;
    source.regions[1].page_size = PAGE;
    assert_refused("has page size 0x200000 here and 0x1000 at the source");
}

static void another_id_or_address_is_refused(void **state)
{
    (void)state;
    strcpy(source.regions[0].id, "pc.bios");
    assert_refused("the source has no region like 'ram0'");
    strcpy(source.regions[0].id, "ram0");
    source.regions[0].guest_address = 4096;
    assert_refused("the source has no region like 'ram0'");
}

static void ambiguity_is_refused(void **state)
{
    (void)state;
    strcpy(source.regions[2].id, "ram0");
    source.regions[2].guest_address = source.regions[0].guest_address;
    assert_refused("the source has more than one region like 'ram0'");
    set_up(NULL);
    here.regions[2] = here.regions[0]; /* two here that would share one there */
    source.regions[2] = source.regions[0];
    source.regions[2].guest_address = 1;
    assert_refused("more than one");
}

static void nameless(Region *region)
{
    region->id[0] = '\0';
    region->guest_address = GUEST_ADDRESS_UNKNOWN;
}

static void nameless_regions_are_found_by_the_hint(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 3; i++) {
        nameless(&here.regions[i]);
        source.regions[i].address_hint = here.regions[i].address;
    }
    swap_source(1, 2);
    assert_int_equal(find(), 0);
    assert_int_equal(map[1], 2);
    region_set_take_names(&here, &source, map);
    assert_string_equal(here.regions[1].id, "ram1");
    assert_int_equal(here.regions[2].guest_address, UINT64_C(0x200000000));
}

/* Never by size alone, however well it fits. */
static void nameless_regions_without_a_hint_are_refused(void **state)
{
    (void)state;
    nameless(&here.regions[0]);
    here.regions[0].address = 0;
    assert_refused("the source has no region like ''");
}

static void a_driver_names_by_address(void **state)
{
    PeerRegions names = {.n = 1};

    (void)state;
    nameless(&here.regions[1]);
    strcpy(names.regions[0].id, "pc.ram");
    names.regions[0].guest_address = 0;
    names.regions[0].length = here.regions[1].length;
    names.regions[0].address_hint = here.regions[1].address;
    assert_int_equal(region_set_name(&here, &names, text), 0);
    assert_string_equal(here.regions[1].id, "pc.ram");
    assert_int_equal(here.regions[1].guest_address, 0);
    assert_string_equal(here.regions[0].id, "ram0");
    nameless(&here.regions[1]);
    names.regions[0].length += PAGE;
    assert_int_equal(region_set_name(&here, &names, text), -EINVAL);
    assert_non_null(strstr(text, "not known to the guest's monitor"));
}

/* A client that comes back tells its regions again; what it could never know does not count. */
static void the_same_regions_are_recognised(void **state)
{
    RegionSet told = here;

    (void)state;
    told.regions[0].address += PAGE;
    region_make_absent(&told.regions[2]);
    nameless(&told.regions[1]);
    assert_true(region_set_is_same(&here, &told));
    assert_false(region_set_is_same(&told, &here)); /* by then it was known */
    told.regions[1].length -= HUGE_PAGE;
    assert_false(region_set_is_same(&here, &told));
    told = here;
    told.regions[1].page_size = PAGE;
    assert_false(region_set_is_same(&here, &told));
    told = here;
    told.regions[2].guest_address++;
    assert_false(region_set_is_same(&here, &told));
    told = here;
    strcpy(told.regions[2].id, "other");
    assert_false(region_set_is_same(&here, &told));
    told = here;
    told.n--;
    assert_false(region_set_is_same(&here, &told));
    assert_false(region_set_is_same(&told, &here));
}

static void overlaps_are_noticed(void **state)
{
    (void)state;
    assert_false(region_set_overlaps(&here));
    here.regions[2].address = here.regions[0].address + here.regions[0].length;
    assert_false(region_set_overlaps(&here));
    here.regions[2].address -= PAGE;
    assert_true(region_set_overlaps(&here));
    here.regions[2].address = here.regions[0].address + PAGE; /* inside */
    assert_true(region_set_overlaps(&here));
}

static void the_same_file_is_recognised(void **state)
{
    int fd = memfd_create("ram", MFD_CLOEXEC);
    int other = memfd_create("ram", MFD_CLOEXEC);
    RegionSet copy;

    (void)state;
    here.regions[0].fd = fd;
    here.regions[1].fd = other;
    region_set_describe(&here, &source);
    assert_true(source.regions[0].backing != 0);
    assert_true(source.regions[0].backing != source.regions[1].backing);
    assert_int_equal(source.regions[2].backing, 0);
    assert_int_equal(find(), 0);
    assert_int_equal(region_set_copy(&here, &copy), 0);
    assert_int_not_equal(copy.regions[0].fd, fd);
    assert_int_equal(region_set_shared_with(&copy, &source, map), 0);
    source.regions[0].backing = 0;
    assert_int_equal(region_set_shared_with(&copy, &source, map), 1);
    source.regions[1].backing++;
    assert_int_equal(region_set_shared_with(&copy, &source, map), 3);
    region_set_deinit(&copy);
    assert_true(fcntl(fd, F_GETFD) >= 0); /* the copy had its own */
    region_set_deinit(&here);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
}

static void a_copy_without_fds_to_spare_leaks_none(void **state)
{
    RegionSet copy;

    (void)state;
    here.regions[0].fd = memfd_create("ram", MFD_CLOEXEC);
    here.regions[1].fd = 1 << 20; /* not open: its copy fails */
    assert_int_equal(region_set_copy(&here, &copy), -EBADF);
    assert_int_equal(copy.n, 0);
    close(here.regions[0].fd);
}

/* Rule 13: what could wait for a file server is not even looked at. */
static void only_files_in_memory_hold_regions(void **state)
{
    int memfd = memfd_create("ram", MFD_CLOEXEC);
    int tmpfs = open("/dev/shm", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    int status = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    int pipes[2];

    (void)state;
    assert_int_equal(pipe(pipes), 0);
    assert_true(region_file_is_memory(memfd));
    assert_true(tmpfs < 0 || region_file_is_memory(tmpfs));
    assert_true(status >= 0);
    assert_false(region_file_is_memory(status));
    assert_false(region_file_is_memory(pipes[0]));
    assert_false(region_file_is_memory(-1));
    close(memfd);
    close(tmpfs);
    close(status);
    close(pipes[0]);
    close(pipes[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(order_does_not_matter, set_up),
        cmocka_unit_test_setup(another_number_of_regions_is_refused, set_up),
        cmocka_unit_test_setup(a_part_is_found_where_that_is_allowed, set_up),
        cmocka_unit_test_setup(another_size_is_refused, set_up),
        cmocka_unit_test_setup(another_page_size_is_refused, set_up),
        cmocka_unit_test_setup(another_id_or_address_is_refused, set_up),
        cmocka_unit_test_setup(ambiguity_is_refused, set_up),
        cmocka_unit_test_setup(nameless_regions_are_found_by_the_hint, set_up),
        cmocka_unit_test_setup(nameless_regions_without_a_hint_are_refused, set_up),
        cmocka_unit_test_setup(a_driver_names_by_address, set_up),
        cmocka_unit_test_setup(the_same_regions_are_recognised, set_up),
        cmocka_unit_test_setup(overlaps_are_noticed, set_up),
        cmocka_unit_test_setup(the_same_file_is_recognised, set_up),
        cmocka_unit_test_setup(a_copy_without_fds_to_spare_leaks_none, set_up),
        cmocka_unit_test_setup(only_files_in_memory_hold_regions, set_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
