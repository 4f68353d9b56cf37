/* SPDX-License-Identifier: GPL-2.0-or-later */
/* AppArmor's files in a folder of the test's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <glib/gstdio.h>
#include <cmocka.h>

#include "client/operator/apparmor.h"

#define ENABLED  "/sys/module/apparmor/parameters/enabled"
#define TEMPLATE "/etc/apparmor.d/libvirt/TEMPLATE.qemu"
#define LOCAL    "/etc/apparmor.d/local/abstractions/libvirt-qemu"
#define CONF     "/etc/libvirt/qemu.conf"

static void put(const char *root, const char *name, const char *text)
{
    g_autofree char *path = g_strconcat(root, name, NULL);
    g_autofree char *folder = g_path_get_dirname(path);

    assert_int_equal(g_mkdir_with_parents(folder, 0700), 0);
    assert_true(g_file_set_contents(path, text, -1, NULL));
}

static void take(const char *root, const char *name)
{
    g_autofree char *path = g_strconcat(root, name, NULL);

    for (; strlen(path) > strlen(root); strrchr(path, '/')[0] = '\0')
        if (g_remove(path))
            break;
}

static void test_states(void **state)
{
    g_autofree char *root = g_dir_make_tmp("apparmor-XXXXXX", NULL);

    (void)state;
    assert_int_equal(apparmor_state(root), APPARMOR_ABSENT);
    put(root, ENABLED, "Y\n");
    assert_int_equal(apparmor_state(root), APPARMOR_ABSENT);
    put(root, TEMPLATE, "  #include <abstractions/libvirt-qemu>\n");
    assert_int_equal(apparmor_state(root), APPARMOR_FORBIDS);
    put(root, CONF, "#security_driver = \"none\"\n");
    assert_int_equal(apparmor_state(root), APPARMOR_FORBIDS);
    put(root, LOCAL, "/usr/lib/libpostcopy-qemu.so mr,\n");
    assert_int_equal(apparmor_state(root), APPARMOR_ALLOWS);
    put(root, LOCAL, "# nothing\n");
    put(root, CONF, "security_driver = \"none\"\n");
    assert_int_equal(apparmor_state(root), APPARMOR_ABSENT);
    put(root, CONF, "security_driver = [ \"apparmor\" ]\n");
    assert_int_equal(apparmor_state(root), APPARMOR_FORBIDS);
    put(root, ENABLED, "N\n");
    assert_int_equal(apparmor_state(root), APPARMOR_ABSENT);
    take(root, ENABLED);
    take(root, TEMPLATE);
    take(root, LOCAL);
    take(root, CONF);
    assert_int_equal(g_rmdir(root), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_states)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
