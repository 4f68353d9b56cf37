/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/core/vcpu_table.h"

#include <stdlib.h>
#include <string.h>

static uint32_t slot_of(const VcpuTable *table, uint32_t tid)
{
    return (tid * UINT32_C(0x9e3779b9) >> 16) & (table->n_slots - 1);
}

static void enter(VcpuTable *table, uint32_t vcpu, uint32_t tid)
{
    uint32_t at = slot_of(table, tid);

    while (table->slots[at] != 0)
        at = (at + 1) & (table->n_slots - 1);
    table->slots[at] = (uint64_t)tid << 32 | (vcpu + 1);
}

VcpuTable *vcpu_table_new(const uint32_t *tids, uint32_t n, VcpuTable *older)
{
    VcpuTable *table = calloc(1, sizeof *table);

    if (!table)
        return NULL;
    table->n = n;
    table->n_slots = 4;
    while (table->n_slots < 2 * n)
        table->n_slots *= 2;
    table->tids = calloc(n + 1, sizeof *table->tids);
    table->slots = calloc(table->n_slots, sizeof *table->slots);
    table->latency = calloc(n + 1, sizeof *table->latency);
    if (!table->tids || !table->slots || !table->latency) {
        vcpu_table_free(table);
        return NULL;
    }
    if (n > 0)
        memcpy(table->tids, tids, n * sizeof *tids);
    for (uint32_t i = 0; i < n; i++)
        enter(table, i, tids[i]);
    table->older = older;
    return table;
}

void vcpu_table_free(VcpuTable *table)
{
    while (table) {
        VcpuTable *older = table->older;

        free(table->tids);
        free(table->slots);
        free(table->latency);
        free(table);
        table = older;
    }
}

uint32_t vcpu_table_find(const VcpuTable *table, uint32_t tid)
{
    uint32_t at = slot_of(table, tid);

    for (; table->slots[at] != 0; at = (at + 1) & (table->n_slots - 1))
        if (table->slots[at] >> 32 == tid)
            return (uint32_t)table->slots[at] - 1;
    return table->n;
}
