/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * On which CPUs resolvers run: where the vCPUs whose faults they resolve are kept to some CPUs, they
 * are kept to the same, so that a fault does not cross the host.  Where no vCPU is, or where a resolver
 * may serve any of several that differ, it stays where it was.
 *
 * The control thread decides and moves; a resolver then finds out whether a core is spare where it is,
 * so that it may look for work before it sleeps.
 *
 * Everything here is a hint: a client's thread ids are of its own pid namespace, and only the threads
 * of the client's own process are looked at.
 */
#ifndef POSTCOPYD_FAULT_AFFINITY_H
#define POSTCOPYD_FAULT_AFFINITY_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/core/vcpu_table.h"

struct Import;
struct Resolver;

/* Moves the resolvers; when vCPUs become known or others, and at arm.  Control thread. */
void affinity_apply(struct Import *import);

/* Before it waits: costs nothing unless it was moved, or the vCPUs are others.  The resolver's thread. */
void affinity_heed(struct Resolver *resolver);

/*
 * How many cores there have to be for resolvers to look for work: one for each of them, each vCPU (of those that
 * nobody has named there is one at least), the stream, and QEMU's own where it brings the memory too.
 */
unsigned affinity_cores_wanted(uint32_t n_vcpus, unsigned n_resolvers, bool assist);

/*
 * The CPUs of each vCPU thread of a process, within allowed, in ret_cpus[table->n]; all of allowed for
 * one that is not found there, or shares no CPU with it.
 */
void affinity_read(pid_t pid, const VcpuTable *table, const cpu_set_t *allowed,
                   cpu_set_t *ret_cpus);

/*
 * The CPUs that one of n_resolvers should keep to.  home: it resolves the faults of its own vCPUs, else
 * those of any.  False: none in particular.
 */
bool affinity_choose(const cpu_set_t *allowed, const cpu_set_t *vcpus, uint32_t n_vcpus,
                     unsigned resolver, unsigned n_resolvers, bool home, cpu_set_t *ret_cpus);

#endif
