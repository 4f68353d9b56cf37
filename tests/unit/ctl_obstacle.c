/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What of a domain's XML is refused, and where its destination's daemon is looked for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "client/ctl/libvirt_obstacle.h"
#include "protocol/qmp/error.h"

static char *obstacle_of(const char *devices)
{
    g_autofree char *xml =
        g_strdup_printf("<domain type='kvm' id='1'><name>x</name>\n"
                        "<metadata><a:hostdev xmlns:a='a' type='pci'/></metadata>"
                        "<devices>%s</devices></domain>",
                        devices);
    g_autoptr(GError) error = NULL;
    char *obstacle = libvirt_obstacle(xml, &error);

    assert_null(error);
    return obstacle;
}

static void expect_obstacle(const char *devices, const char *word)
{
    g_autofree char *obstacle = obstacle_of(devices);

    if (!obstacle)
        fail_msg("nothing is in the way: %s", devices);
    assert_non_null(strstr(obstacle, word));
    assert_null(strchr(obstacle, '\n'));
}

static void expect_none(const char *devices)
{
    g_autofree char *obstacle = obstacle_of(devices);

    if (obstacle)
        fail_msg("%s: %s", devices, obstacle);
}

static void test_host_devices(void **state)
{
    (void)state;
    expect_obstacle("<hostdev mode='subsystem' type='pci' managed='yes'><source/></hostdev>",
                    "VFIO");
    expect_obstacle("<disk/><hostdev mode='subsystem' type='mdev' model='vfio-pci'/>", "VFIO");
    expect_obstacle("<interface type='hostdev'/>", "VFIO");
    expect_obstacle("<interface type='vdpa'/>", "VFIO");
    expect_obstacle("<disk type='nvme'/>", "VFIO");
    expect_none("<hostdev mode='subsystem' type='usb'/>");
    expect_none("<hostdev mode='subsystem' type='scsi'/>");
}

static void test_vhost_user(void **state)
{
    (void)state;
    expect_obstacle("<interface type='vhostuser'><source/></interface>", "vhost-user");
    expect_obstacle("<filesystem type='mount'><driver type='virtiofs'/></filesystem>",
                    "vhost-user");
    expect_obstacle("<disk type='vhostuser'/>", "vhost-user");
    expect_obstacle("<video><driver name='vhostuser'/><model/></video>", "vhost-user");
    expect_none("<interface type='network'><driver name='vhost'/></interface>");
    expect_none("<filesystem type='mount'><driver type='path'/></filesystem>");
    expect_none("<disk type='file'><driver name='qemu' type='raw'/></disk>");
}

/* The same words elsewhere mean nothing: in the metadata, and deeper in a device. */
static void test_elsewhere(void **state)
{
    (void)state;
    expect_none("");
    expect_none("<disk type='file'><mirror><hostdev type='pci'/></mirror></disk>");
    expect_none("<controller type='pci'/><serial type='pci'><hostdev type='pci'/></serial>");
}

static void test_bad_xml(void **state)
{
    static const char *const bad[] = {"", "<domain>", "<domain></devices>", "text"};

    (void)state;
    for (guint i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;

        assert_null(libvirt_obstacle(bad[i], &error));
        assert_non_null(error);
    }
}

static void expect_address(const char *said, const char *uri, const char *expected)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *address = libvirt_daemon_address(said, uri, &error);

    if (expected) {
        assert_null(error);
        assert_string_equal(address, expected);
    } else {
        assert_null(address);
        assert_true(g_error_matches(error, CALL_ERROR, CALL_ERROR_USAGE));
    }
}

static void test_addresses(void **state)
{
    static const char *const wrong[] = {"",          ":1",      "far:",     "far:0",     "far:x",
                                        "far:65536", "fd00::2", "[fd00::2", "[fd00::2]7"};

    (void)state;
    expect_address(NULL, "qemu+ssh://hostb/system", "hostb:16520");
    expect_address(NULL, "qemu+ssh://root@hostb.example:2222/system?keyfile=/a",
                   "hostb.example:16520");
    expect_address(NULL, "qemu+tcp://10.0.0.2/system", "10.0.0.2:16520");
    expect_address(NULL, "qemu+tls://[fd00::2]:16514/system", "[fd00::2]:16520");
    expect_address(NULL, "qemu:///system", NULL);
    expect_address(NULL, "hostb", NULL);
    expect_address("far", "qemu:///system", "far:16520");
    expect_address("far:1", "qemu+tcp://near/system", "far:1");
    expect_address("[fd00::2]", "qemu:///system", "[fd00::2]:16520");
    expect_address("[fd00::2]:7", "qemu:///system", "[fd00::2]:7");
    for (gsize i = 0; i < G_N_ELEMENTS(wrong); i++)
        expect_address(wrong[i], "qemu+tcp://near/system", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_host_devices), cmocka_unit_test(test_vhost_user),
        cmocka_unit_test(test_elsewhere),    cmocka_unit_test(test_bad_xml),
        cmocka_unit_test(test_addresses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
