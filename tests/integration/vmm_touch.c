/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/integration/vmm_touch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THINK_MAX_US = 999999, CPU_MAX = 1023 };

static const void *page_of(const void *owner, uint64_t number)
{
    const VmmMemory *memory = owner;

    return vmm_memory_words(memory, vmm_memory_page(memory, number));
}

static bool parse_word(const char *word, TouchPlan *plan)
{
    const char *value = strchr(word, '=');
    char *end;
    long long number;

    if (!value)
        return false;
    number = strtoll(++value, &end, 10);
    if (end == value || *end || (number < 0 && strncmp(word, "cpu=", 4) != 0))
        return false;
    if (strncmp(word, "threads=", 8) == 0)
        plan->n_threads = (unsigned)number;
    else if (strncmp(word, "first=", 6) == 0)
        plan->first = (uint64_t)number;
    else if (strncmp(word, "pages=", 6) == 0)
        plan->n = (uint64_t)number;
    else if (strncmp(word, "think=", 6) == 0)
        plan->think_us = (unsigned)number;
    else if (strncmp(word, "cpu=", 4) == 0)
        plan->cpu = (int)number;
    else
        return false;
    return true;
}

const char *vmm_touch_plan(const VmmMemory *memory, char *words, TouchPlan *ret_plan)
{
    char *rest = NULL;

    *ret_plan = (TouchPlan){
        .page = page_of,
        .owner = memory,
        .n_pages = memory->shape.n_filled,
        .n = memory->shape.n_filled,
        .random = true,
        .n_threads = 1,
        .cpu = -1,
    };
    for (char *word = strtok_r(words, ",", &rest); word; word = strtok_r(NULL, ",", &rest))
        if (!parse_word(word, ret_plan))
            return "wants threads=N,first=N,pages=N,think=US,cpu=N";
    if (ret_plan->n_threads < 1 || ret_plan->n_threads > TOUCH_THREADS)
        return "too many threads, or none";
    if (ret_plan->first > ret_plan->n_pages || ret_plan->n > ret_plan->n_pages - ret_plan->first)
        return "there are not so many filled pages";
    if (ret_plan->think_us > THINK_MAX_US || ret_plan->cpu < -1 || ret_plan->cpu > CPU_MAX)
        return "think is below a second, and the CPU is one of this host";
    return NULL;
}
