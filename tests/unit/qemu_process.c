/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a process's memory map tells of its guest's RAM: by texts, and by this process itself. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/qemu/process.h"

static const char maps[] =
    "00010000-00030000 rw-p 00000000 00:00 0 \n"
    "00030000-00040000 rw-p 00000000 00:00 0                                [heap]\n"
    "00040000-00050000 rw-p 00004000 08:01 77                               /usr/lib/a file\n"
    "00060000-00070000 ---p 00000000 00:00 0 \n"
    "7f0000000000-7f0000200000 rw-s 00100000 00:01 1027                     /memfd:ram (deleted)\n"
    "7f0000200000-7f0000400000 rw-s 00300000 00:01 1027                     /memfd:ram (deleted)\n"
    "7f0000400000-7f0000600000 rw-s 00500000 00:01 1028                     /memfd:ram (deleted)\n"
    "7f0000600000-7f0000800000 rw-s 00000000 00:01 1028                     /memfd:ram (deleted)\n"
    "7f0000800000-7f0000a00000 rw-p 00000000 00:00 0 \n"
    "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                [vsyscall]\n";

static int classify(guint64 address, guint64 length, Stretch *ret_stretch)
{
    static GArray *mappings;
    char text[LIMIT_TEXT + 1] = "";
    int error;

    if (!mappings)
        mappings = mappings_parse(maps);
    assert_non_null(mappings);
    assert_int_equal(mappings->len, 10);
    error = mappings_classify(mappings, address, length, ret_stretch, text);
    assert_int_equal(error != 0, text[0] != '\0');
    return error;
}

static void kinds_are_told_apart(void **state)
{
    Stretch stretch;

    (void)state;
    assert_int_equal(classify(0x10000, 0x20000, &stretch), 0);
    assert_int_equal(stretch.kind, CLIENT_REGION_ANONYMOUS);
    assert_int_equal(classify(0x11000, 0x2f000, &stretch), 0);
    assert_int_equal(stretch.kind, CLIENT_REGION_ANONYMOUS);
    assert_int_equal(classify(0x40000, 0x10000, &stretch), 0);
    assert_int_equal(stretch.kind, CLIENT_REGION_PRIVATE);
    assert_int_equal(classify(G_GUINT64_CONSTANT(0x7f0000001000), 0x1ff000, &stretch), 0);
    assert_int_equal(stretch.kind, CLIENT_REGION_SHARED);
    assert_int_equal(stretch.offset, 0x101000);
    assert_int_equal(stretch.first->inode, 1027);
}

/* What a private file mapping shows counts as content, so it must not pass for untouched memory. */
static void stretches_of_several_mappings(void **state)
{
    const guint64 shared = G_GUINT64_CONSTANT(0x7f0000000000);
    Stretch stretch;

    (void)state;
    assert_int_equal(classify(0x10000, 0x40000, &stretch), 0);
    assert_int_equal(stretch.kind, CLIENT_REGION_PRIVATE);
    assert_int_equal(classify(shared, 0x400000, &stretch), 0);
    assert_int_equal(stretch.kind, CLIENT_REGION_SHARED);
    assert_int_equal(stretch.offset, 0x100000);
    /* Another file; the same file elsewhere; private memory behind shared. */
    assert_int_equal(classify(shared, 0x400001, &stretch), -EINVAL);
    assert_int_equal(classify(shared + 0x400000, 0x400000, &stretch), -EINVAL);
    assert_int_equal(classify(shared + 0x600000, 0x400000, &stretch), -EINVAL);
}

static void gaps_are_no_memory(void **state)
{
    Stretch stretch;

    (void)state;
    assert_int_equal(classify(0xf000, 0x2000, &stretch), -EINVAL);
    assert_int_equal(classify(0x40000, 0x20001, &stretch), -EINVAL);
    assert_int_equal(classify(0x60000, 0x10000, &stretch), -EINVAL);
    assert_int_equal(classify(0, 1, &stretch), -EINVAL);
}

static void malformed_texts(void **state)
{
    static const char *const texts[] = {
        "nonsense\n",
        "10000-20000 rw-p 0 00:00 0", /* cut short */
        "20000-10000 rw-p 0 00:00 0\n",
        "10000-20000 rw 0 00:00 0\n",
        "10000-20000 rw-p 0 00:00\n",
        "10000--20000 rw-p 0 00:00 0\n",
        "10000-20000 rwxsp 0 00:00 0\n",
        "10000-20000 rw-p 0 00:00 0x\n",
        "10000-11111111111120000 rw-p 0 00:00 0\n",
        "10000-20000 rw-p 0 00:00 0\n18000-28000 rw-p 0 00:00 0\n", /* overlapping */
    };
    GArray *none = mappings_parse("");

    (void)state;
    for (guint i = 0; i < G_N_ELEMENTS(texts); i++)
        assert_null(mappings_parse(texts[i]));
    assert_non_null(none);
    g_array_unref(none);
}

static int regions_of_self(void *address, guint64 length, guint64 page_size, RegionSet *ret_regions,
                           char *ret_text)
{
    RamBlock block = {.id = (char *)"ram",
                      .length = length,
                      .page_size = page_size,
                      .placed = TRUE,
                      .guest_address = 0x1000,
                      .address = (guint64)(uintptr_t)address};
    g_autoptr(GPtrArray) blocks = g_ptr_array_new();

    g_ptr_array_add(blocks, &block);
    return process_regions(getpid(), blocks, ret_regions, ret_text);
}

static void memory_of_this_process(void **state)
{
    enum { LENGTH = 1 << 20 };
    g_autofree RegionSet *regions = g_new0(RegionSet, 1);
    char text[LIMIT_TEXT + 1] = "";
    int fd = memfd_create("ram", 0);
    char *shared, *anonymous, byte = 0;

    (void)state;
    assert_int_equal(ftruncate(fd, LENGTH * 2), 0);
    shared = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 4096);
    anonymous = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(shared != MAP_FAILED && anonymous != MAP_FAILED);

    assert_int_equal(regions_of_self(anonymous, LENGTH, 4096, regions, text), 0);
    assert_int_equal(regions->regions[0].kind, CLIENT_REGION_ANONYMOUS);
    assert_int_equal(regions->regions[0].fd, -1);
    assert_int_equal(regions->regions[0].page_shift, 12);
    assert_int_equal(regions_of_self(anonymous, LENGTH + 1, 4096, regions, text), -EINVAL);
    assert_int_equal(regions_of_self(anonymous, G_GUINT64_CONSTANT(1) << 30,
                                     G_GUINT64_CONSTANT(1) << 30, regions, text),
                     -EINVAL);
    munmap(anonymous, LENGTH);
    assert_int_equal(regions_of_self(anonymous, LENGTH, 4096, regions, text), -EINVAL);

    if (geteuid() == 0) {
        assert_int_equal(regions_of_self(shared, LENGTH, 4096, regions, text), 0);
        assert_int_equal(regions->regions[0].kind, CLIENT_REGION_SHARED);
        assert_int_equal(regions->regions[0].fd_offset, 4096);
        shared[5] = 'x';
        assert_int_equal(pread(regions->regions[0].fd, &byte, 1, 4096 + 5), 1);
        assert_int_equal(byte, 'x');
        assert_true(pwrite(regions->regions[0].fd, &byte, 1, 0) < 0);
        region_set_deinit(regions);
        /* Its file was cut short: those pages are not zero but gone. */
        assert_int_equal(ftruncate(fd, LENGTH), 0);
        assert_int_equal(regions_of_self(shared, LENGTH, 4096, regions, text), -EINVAL);
    }
    munmap(shared, LENGTH);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kinds_are_told_apart),   cmocka_unit_test(stretches_of_several_mappings),
        cmocka_unit_test(gaps_are_no_memory),     cmocka_unit_test(malformed_texts),
        cmocka_unit_test(memory_of_this_process),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
