/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "protocol/qmp/error.h"
#include "protocol/qmp/layout.h"

#define RAMBLOCK_HEADER                                                                      \
    "              Block Name    PSize              Offset               Used              " \
    "Total\n"

static const char ramblock[] = RAMBLOCK_HEADER
    "                      m0    4 KiB  0x0000000000000000 0x0000000100000000 0x0000000100000000\n"
    "             /objects/m1    2 MiB  0x0000000100000000 0x0000000040000000 0x0000000040000000\n"
    "    /rom@etc/acpi/tables    4 KiB  0x0000000140080000 0x0000000000020000 0x0000000000200000\n"
    "                            4 KiB  0x0000000150000000 0x0000000000100000 0x0000000000100000\n"
    "                 pc.bios    4 KiB  0x0000000140000000 0x0000000000040000 0x0000000000040000\n"
    "\n";

/* From QEMU 9 on there are more columns. */
static const char ramblock_wide[] =
    "              Block Name    PSize              Offset               Used              Total  "
    "              HVA  RO\n"
    "                      m0    4 KiB  0x0000000000000000 0x0000000010000000 0x0000000010000000 "
    "0x00007f0000000000  rw\n";

static const char mtree[] =
    "FlatView #0\n"
    " AS \"mch\", root: bus master container\n"
    " Root memory region: (none)\n"
    "  0000000000000000-0000000000000fff (prio 0, ram): /objects/m1\n"
    "\n"
    "FlatView #1\n"
    " AS \"memory\", root: system\n"
    " AS \"cpu-memory-0\", root: system\n"
    " Root memory region: system\n"
    "  0000000000100000-000000007fffffff (prio 0, ram): m0 @0000000000100000 KVM\n"
    "  0000000000000000-00000000000bffff (prio 0, ram): m0 KVM\n"
    "  00000000000c0000-00000000000dffff (prio 1, rom): pc.rom KVM\n"
    "  00000000000e0000-00000000000fffff (prio 0, rom): pc.bios @0000000000020000 KVM\n"
    "  00000000fee00000-00000000feefffff (prio 4096, i/o): apic-msi\n"
    "  00000000fffc0000-00000000ffffffff (prio 0, rom): pc.bios KVM\n"
    "  0000000100000000-000000017fffffff (prio 0, ram): m0 @0000000080000000 KVM\n"
    "  0000000180100000-00000001bfffffff (prio 0, ram): /objects/m1 @0000000000100000\n"
    "\n"
    "FlatView #2\n"
    " AS \"cpu-smm-0\", root: memory\n"
    " Root memory region: memory\n"
    "  0000000200000000-00000002ffffffff (prio 0, ram): /objects/m1\n";

static void test_blocks(void **state)
{
    g_autoptr(GPtrArray) blocks = layout_parse_blocks(ramblock, NULL);
    RamBlock *block;

    (void)state;
    assert_non_null(blocks);
    assert_int_equal(blocks->len, 4);
    block = layout_find(blocks, "m0");
    assert_int_equal(block->length, UINT64_C(0x100000000));
    assert_int_equal(block->page_size, 4096);
    assert_false(block->placed);
    assert_int_equal(layout_find(blocks, "/objects/m1")->page_size, 2 << 20);
    assert_int_equal(layout_find(blocks, "/rom@etc/acpi/tables")->length, 0x20000);
    assert_null(layout_find(blocks, "m"));
}

static void test_more_columns(void **state)
{
    g_autoptr(GPtrArray) blocks = layout_parse_blocks(ramblock_wide, NULL);

    (void)state;
    assert_non_null(blocks);
    assert_int_equal(layout_find(blocks, "m0")->length, 256 << 20);
}

static void assert_blocks_refused(const char *text)
{
    g_autoptr(GError) error = NULL;

    assert_null(layout_parse_blocks(text, &error));
    assert_non_null(error);
}

static void test_blocks_refused(void **state)
{
    (void)state;
    assert_blocks_refused("");
    assert_blocks_refused(RAMBLOCK_HEADER);
    assert_blocks_refused("unknown command: 'info ramblock'\n");
    assert_blocks_refused(RAMBLOCK_HEADER "  m0  4 KiB  what 12\n");
    assert_blocks_refused(RAMBLOCK_HEADER "  m0  4 parsecs  0x0 0x1000 0x1000\n");
}

static void test_placing(void **state)
{
    g_autoptr(GPtrArray) blocks = layout_parse_blocks(ramblock, NULL);
    RamBlock *block;

    (void)state;
    assert_true(layout_place(blocks, mtree, NULL));
    block = layout_find(blocks, "m0");
    assert_true(block->placed);
    assert_int_equal(block->guest_address, 0);
    assert_int_equal(block->piece_address, 0);
    assert_int_equal(block->piece_offset, 0);

    /* Its beginning is hidden: the first visible piece tells where it would be. */
    block = layout_find(blocks, "/objects/m1");
    assert_true(block->placed);
    assert_int_equal(block->guest_address, UINT64_C(0x180000000));
    assert_int_equal(block->piece_address, UINT64_C(0x180100000));
    assert_int_equal(block->piece_offset, 0x100000);

    assert_int_equal(layout_find(blocks, "pc.bios")->guest_address, UINT64_C(0xfffc0000));
    assert_false(layout_find(blocks, "/rom@etc/acpi/tables")->placed);
}

static void test_no_view(void **state)
{
    g_autoptr(GPtrArray) blocks = layout_parse_blocks(ramblock, NULL);
    g_autoptr(GError) error = NULL;

    (void)state;
    assert_false(layout_place(blocks, "FlatView #0\n AS \"I/O\", root: io\n", &error));
    assert_non_null(error);
}

static void test_address(void **state)
{
    static const char text[] = "Host virtual address for 0x100000000 (m0) is 0x7fb167fff000\r\n";
    g_autoptr(GError) error = NULL;
    guint64 address;

    (void)state;
    assert_true(layout_parse_address(text, "m0", &address, NULL));
    assert_int_equal(address, UINT64_C(0x7fb167fff000));
    assert_false(layout_parse_address(text, "m1", &address, &error));
    assert_non_null(error);
    g_clear_error(&error);
    assert_false(
        layout_parse_address("No memory is mapped at address 0x0\n", "m0", &address, &error));
}

static GPtrArray *placed(const char *id, guint64 guest_address, guint64 length, guint64 page_size)
{
    GPtrArray *blocks = g_ptr_array_new_with_free_func((GDestroyNotify)ram_block_free);
    RamBlock *block = g_new0(RamBlock, 1);

    block->id = g_strdup(id);
    block->guest_address = guest_address;
    block->length = length;
    block->page_size = page_size;
    block->placed = TRUE;
    g_ptr_array_add(blocks, block);
    return blocks;
}

static void assert_differs(GPtrArray *other, const char *word)
{
    g_autoptr(GPtrArray) source = placed("m0", 0, 1 << 30, 4096);
    g_autoptr(GPtrArray) destination = other;
    g_autoptr(GError) error = NULL;

    assert_false(layout_compare(source, destination, &error));
    assert_non_null(strstr(error->message, "'m0'"));
    assert_non_null(strstr(error->message, word));
}

static void test_differences(void **state)
{
    (void)state;
    assert_differs(placed("m0", 0, 1 << 29, 4096), "size 0x40000000 on the source");
    assert_differs(placed("m0", 0, 1 << 30, 2 << 20), "page size");
    assert_differs(placed("m0", 4096, 1 << 30, 4096), "guest address");
    assert_differs(placed("m1", 0, 1 << 30, 4096), "on the source only");
}

static void test_order_is_free(void **state)
{
    g_autoptr(GPtrArray) source = placed("a", 0, 1 << 30, 4096);
    g_autoptr(GPtrArray) destination = placed("b", 1 << 30, 1 << 30, 4096);
    g_autoptr(GPtrArray) a = placed("a", 0, 1 << 30, 4096);
    g_autoptr(GPtrArray) b = placed("b", 1 << 30, 1 << 30, 4096);
    g_autoptr(GError) error = NULL;

    (void)state;
    assert_false(layout_compare(source, destination, NULL));
    g_ptr_array_add(source, g_ptr_array_steal_index(b, 0));
    assert_false(layout_compare(a, source, &error));
    assert_non_null(strstr(error->message, "on the destination only"));
    g_ptr_array_add(destination, g_ptr_array_steal_index(a, 0));
    assert_true(layout_compare(source, destination, NULL));
}

#define MANY 20000

static char *repeated(const char *head, const char *line, guint times)
{
    GString *text = g_string_new(head);

    for (guint i = 0; i < times; i++)
        g_string_append(text, line);
    return g_string_free(text, FALSE);
}

/* More than any QEMU prints costs no more than that. */
static void test_floods(void **state)
{
    g_autofree char *rows = repeated(RAMBLOCK_HEADER, "  m0 4 KiB 0x0 0x1000 0x1000\n", MANY);
    g_autofree char *words = repeated(RAMBLOCK_HEADER, " x", MANY);
    g_autofree char *view = repeated("FlatView #0\n AS \"memory\", root: system\n",
                                     "  0-fff (prio 0, ram): pc.bios\n", MANY);
    g_autofree char *behind = repeated(mtree, "  0-fff (prio 0, ram): pc.bios\n", MANY);
    g_autoptr(GPtrArray) blocks = layout_parse_blocks(ramblock, NULL);
    g_autoptr(GError) error = NULL;

    (void)state;
    assert_blocks_refused(rows);
    assert_blocks_refused(words);
    assert_false(layout_place(blocks, view, &error));
    assert_non_null(strstr(error->message, "prints more than any QEMU would"));
    assert_true(layout_place(blocks, behind, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks),         cmocka_unit_test(test_more_columns),
        cmocka_unit_test(test_blocks_refused), cmocka_unit_test(test_placing),
        cmocka_unit_test(test_no_view),        cmocka_unit_test(test_address),
        cmocka_unit_test(test_differences),    cmocka_unit_test(test_order_is_free),
        cmocka_unit_test(test_floods),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
