/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which device has an address: a /sys of our own, in which the loopback interface stands for another. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <glib/gstdio.h>
#include <cmocka.h>

#include "client/ctl/rdma_port.h"

#define V4         "0000:0000:0000:0000:0000:ffff:7f00:0001"
#define NOBODY     "0000:0000:0000:0000:0000:0000:0000:0000"
#define LINK_LOCAL "fe80:0000:0000:0000:5054:00ff:fe12:3456"

static char *sys;

static void put(const char *name, const char *text)
{
    g_autofree char *path = g_build_filename(sys, "class", name, NULL);
    g_autofree char *folder = g_path_get_dirname(path);

    assert_int_equal(g_mkdir_with_parents(folder, 0700), 0);
    assert_true(g_file_set_contents(path, text, -1, NULL));
}

static int set_up(void **state)
{
    (void)state;
    sys = g_dir_make_tmp("rdma-port-XXXXXX", NULL);
    return sys == NULL;
}

static void remove_all(const char *path)
{
    g_autoptr(GDir) folder = g_dir_open(path, 0, NULL);
    const char *name;

    while (folder && (name = g_dir_read_name(folder))) {
        g_autofree char *inner = g_build_filename(path, name, NULL);

        remove_all(inner);
    }
    g_remove(path);
}

static int tear_down(void **state)
{
    (void)state;
    remove_all(sys);
    g_free(sys);
    return 0;
}

static void assert_found(const char *address, const char *device, gboolean active)
{
    gboolean found_active = !active;
    g_autofree char *found = rdma_port_of(sys, address, &found_active);

    if (device)
        assert_string_equal(found, device);
    else
        assert_null(found);
    assert_int_equal(found_active, active);
}

static void make_roce(void)
{
    put("net/lo/address", "00:00:00:00:00:00\n");
    put("infiniband/rxe0/node_type", "1: CA\n");
    put("infiniband/rxe0/ports/1/state", "4: ACTIVE\n");
    put("infiniband/rxe0/ports/1/gids/0", LINK_LOCAL "\n");
    put("infiniband/rxe0/ports/1/gids/1", NOBODY "\n");
    put("infiniband/rxe0/ports/1/gids/2", V4 "\n");
}

static void roce_is_found_by_its_address(void **state)
{
    (void)state;
    assert_found("127.0.0.1", NULL, FALSE); /* no device at all */
    make_roce();
    assert_found("127.0.0.1", "rxe0", TRUE);
    put("infiniband/rxe0/ports/1/state", "1: DOWN\n");
    assert_found("127.0.0.1", "rxe0", FALSE);
    put("infiniband/rxe0/ports/1/gids/2", NOBODY "\n");
    assert_found("127.0.0.1", NULL, FALSE);
    put("infiniband/rxe0/ports/2/state", "4: ACTIVE\n");
    put("infiniband/rxe0/ports/2/gids/0", V4 "\n");
    assert_found("127.0.0.1", "rxe0", TRUE);
}

static void only_own_addresses_and_fitting_devices_count(void **state)
{
    static const char *const strange[] = {"", "%lo", "rxe0", "127.0.0.1.1", "192.0.2.1"};

    (void)state;
    make_roce();
    put("infiniband/rxe0/ports/1/gids/3", "0000:0000:0000:0000:0000:ffff:c000:0201\n");
    for (gsize i = 0; i < G_N_ELEMENTS(strange); i++)
        assert_found(strange[i], NULL, FALSE);
    put("infiniband/rxe0/node_type", "4: RNIC\n"); /* iWARP */
    assert_found("127.0.0.1", NULL, FALSE);
}

static void infiniband_is_found_by_its_hardware_address(void **state)
{
    (void)state;
    make_roce();
    put("net/lo/address", "80:00:00:48:fe:80:00:00:00:00:00:00:00:02:c9:03:00:12:34:56\n");
    assert_found("127.0.0.1", NULL, FALSE); /* another's address, by chance */
    put("infiniband/mlx5_1/node_type", "1: CA\n");
    put("infiniband/mlx5_1/ports/1/state", "4: ACTIVE\n");
    put("infiniband/mlx5_1/ports/1/gids/0", "fe80:0000:0000:0000:0002:c903:0012:3456\n");
    assert_found("127.0.0.1", "mlx5_1", TRUE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(roce_is_found_by_its_address, set_up, tear_down),
        cmocka_unit_test_setup_teardown(only_own_addresses_and_fitting_devices_count, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(infiniband_is_found_by_its_hardware_address, set_up,
                                        tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
