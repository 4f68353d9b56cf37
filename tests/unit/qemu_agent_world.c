/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/qemu_agent_world.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <libvirt/virterror.h>

#define URI "test:///default"

/* libvirt uses GLib's event loop and objects, whose locks and counts the thread sanitizer does not
 * know. */
const char *__tsan_default_suppressions(void);

const char *__tsan_default_suppressions(void)
{
    return "race:libglib-2.0.so.0\nrace:libvirt.so.0\ndeadlock:libvirt.so.0\n";
}

void world_write_mark(World *world, const char *xml)
{
    assert_int_equal(virDomainSetMetadata(world->domain, VIR_DOMAIN_METADATA_ELEMENT, xml,
                                          MARK_PREFIX, MARK_NAMESPACE, VIR_DOMAIN_AFFECT_LIVE),
                     0);
}

/* FALSE: there is none. */
gboolean world_read_mark(World *world, Mark *ret_mark)
{
    char *xml = virDomainGetMetadata(world->domain, VIR_DOMAIN_METADATA_ELEMENT, MARK_NAMESPACE,
                                     VIR_DOMAIN_AFFECT_LIVE);

    memset(ret_mark, 0, sizeof *ret_mark);
    if (!xml)
        return FALSE;
    assert_true(mark_parse(xml, ret_mark));
    free(xml);
    return TRUE;
}

void world_start(World *world, gboolean all)
{
    world->agent = agent_start(&(AgentConfig){.uri = URI, .start_postcopy = 1, .all = all});
    for (int i = 0; i < 5000 && !agent_is_connected(world->agent); i++)
        usleep(1000);
    assert_true(agent_is_connected(world->agent));
    assert_string_equal(agent_uri(world->agent), URI);
}

void world_stop(World *world)
{
    agent_stop(world->agent);
    agent_free(world->agent);
    world->agent = NULL;
}

int world_set_up(void **state)
{
    World *world = g_new0(World, 1);

    world->connection = virConnectOpen(URI);
    assert_non_null(world->connection);
    world->domain = virDomainLookupByName(world->connection, "test");
    assert_non_null(world->domain);
    assert_int_equal(virDomainGetUUID(world->domain, world->uuid), 0);
    *state = world;
    return 0;
}

/* The domains are made anew with the next connection. */
int world_tear_down(void **state)
{
    World *world = *state;

    if (world->agent)
        world_stop(world);
    virDomainFree(world->domain);
    virConnectClose(world->connection);
    g_free(world);
    return 0;
}

/* The guest, when the agent knows it; NULL if it never does. */
Guest *world_wait_guest(World *world)
{
    GuestProvider provider = agent_provider(world->agent);
    char text[LIMIT_TEXT + 1];
    Guest *guest = NULL;

    for (int i = 0; i < 5000 && provider.open(provider.user, world->uuid, &guest, text); i++)
        usleep(1000);
    return guest;
}

void world_wait_known(World *world)
{
    Guest *guest = world_wait_guest(world);

    assert_non_null(guest);
    guest->close(guest);
}

gboolean world_has_guest(World *world)
{
    GuestProvider provider = agent_provider(world->agent);
    char text[LIMIT_TEXT + 1];
    Guest *guest = NULL;
    int error = provider.open(provider.user, world->uuid, &guest, text);

    assert_true(error == 0 || (error == -ENOENT && text[0] == '\0'));
    if (guest)
        guest->close(guest);
    return error == 0;
}

void world_wait_no_guest(World *world)
{
    for (int i = 0; i < 5000 && world_has_guest(world); i++)
        usleep(1000);
    assert_false(world_has_guest(world));
}

/* Another domain that takes part, and is looked at after whatever was done to the first. */
void world_let_looks_pass(World *world)
{
    static const char xml[] = "<domain type='test'><name>other</name><memory>1024</memory><os>"
                              "<type>hvm</type></os></domain>";
    World other = {.agent = world->agent, .connection = world->connection};
    Guest *guest;

    other.domain = virDomainCreateXML(world->connection, xml, 0);
    assert_non_null(other.domain);
    virDomainGetUUID(other.domain, other.uuid);
    world_write_mark(&other, "<migration enabled='yes'/>");
    guest = world_wait_guest(&other);
    assert_non_null(guest);
    guest->close(guest);
    assert_int_equal(virDomainDestroy(other.domain), 0);
    world_wait_no_guest(&other);
    virDomainFree(other.domain);
    usleep(50000);
}
