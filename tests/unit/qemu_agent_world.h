/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The agent with the domains of libvirt's own test driver, which lives in this process: they have metadata and
 * tell of events, but no QEMU.
 */
#ifndef POSTCOPYD_TESTS_QEMU_AGENT_WORLD_H
#define POSTCOPYD_TESTS_QEMU_AGENT_WORLD_H

#include <libvirt/libvirt.h>

#include "daemon/qemu/agent.h"
#include "daemon/qemu/mark.h"

typedef struct World {
    Agent *agent;
    virConnectPtr connection;
    virDomainPtr domain; /* "test", which runs */
    guint8 uuid[LIMIT_UUID];
} World;

int world_set_up(void **state);
int world_tear_down(void **state);
#define WITH_DOMAIN(test) cmocka_unit_test_setup_teardown(test, world_set_up, world_tear_down)

void world_start(World *world, gboolean all);
void world_stop(World *world);

/* The domain's live element; FALSE: there is none. */
void world_write_mark(World *world, const char *xml);
gboolean world_read_mark(World *world, Mark *ret_mark);

/* The guest, when the agent knows it; NULL if it never does. */
Guest *world_wait_guest(World *world);
void world_wait_known(World *world);
gboolean world_has_guest(World *world);
void world_wait_no_guest(World *world);

/* Another domain that takes part, and is looked at after whatever was done to the first. */
void world_let_looks_pass(World *world);

#endif
