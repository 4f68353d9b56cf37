/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How long a thread looks for work before it sleeps.  A wake-up across cores takes as long as a page from memory
 * next door, or longer (5 to 12 us measured; 130 where the host is a guest), so looking pays where a core is
 * spare and work comes often; where it does not come, less and less is spent on it.  Who gave up looks again after a few short
 * sleeps in a row, after more of them each time that was in vain, and after many sleeps anyway.  One thread; pure
 * arithmetic.
 */
#ifndef POSTCOPYD_CORE_SPIN_H
#define POSTCOPYD_CORE_SPIN_H

#include <stdbool.h>
#include <stdint.h>

enum { SPIN_FORGIVEN_AFTER = 64 };

/*
 * How long is worth looking where nobody has said so.  A guest's next fault comes no sooner than its thread has
 * been woken after this one: who looks for two wake-ups finds half of what comes at once, and for
 * five, most of it (docs/PERFORMANCE.md).  Some more leave the guest time for itself.  But a resolver whose work comes
 * every so often keeps a core busy by looking: for no more than SPIN_MOST_US, unless somebody says so.
 */
enum { SPIN_WAKE_UPS = 8, SPIN_LEAST_US = 50, SPIN_MOST_US = 500 };

typedef struct Spin {
    uint64_t most_ns; /* 0: never */
    uint64_t now_ns;
    unsigned sleeps; /* since it gave up, */
    unsigned brief;  /* and how many of them, the last ones, were short */
    unsigned enough; /* of those to look again */
    uint64_t tried;  /* how often it looked, and how often something came meanwhile */
    uint64_t hits;
} Spin;

/* Tells the core that this is a loop that waits. */
static inline void spin_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static inline void spin_init(Spin *spin, uint64_t most_ns)
{
    *spin = (Spin){.most_ns = most_ns, .now_ns = most_ns, .enough = 1};
}

/* Microseconds, from SPIN_LEAST_US to SPIN_MOST_US, for what a wake-up takes (wake_cost.h; 0: not known). */
static inline unsigned spin_worth_us(uint64_t wake_ns)
{
    if (wake_ns > UINT64_C(1000) * SPIN_MOST_US / SPIN_WAKE_UPS)
        return SPIN_MOST_US;
    if (wake_ns < UINT64_C(1000) * SPIN_LEAST_US / SPIN_WAKE_UPS)
        return SPIN_LEAST_US;
    return (unsigned)(wake_ns * SPIN_WAKE_UPS / 1000);
}

/* For how long to look this time; 0: not at all. */
static inline uint64_t spin_budget(const Spin *spin)
{
    return spin->now_ns;
}

/* Something came while it looked, or nothing did. */
static inline void spin_learn(Spin *spin, bool hit)
{
    enum { WORTH_NS = 1000 };

    spin->tried++;
    if (hit) {
        spin->hits++;
        spin->enough = 1;
        spin->now_ns = spin->now_ns * 2 < spin->most_ns ? spin->now_ns * 2 : spin->most_ns;
        return;
    }
    spin->now_ns = spin->now_ns / 2 >= WORTH_NS ? spin->now_ns / 2 : 0;
    if (spin->now_ns > 0)
        return;
    spin->sleeps = spin->brief = 0;
    if (spin->enough < SPIN_FORGIVEN_AFTER)
        spin->enough *= 2;
}

/* It slept so long without having looked.  A wake-up is in that, which looking would have spared. */
static inline void spin_slept(Spin *spin, uint64_t slept_ns)
{
    spin->brief = slept_ns / 2 < spin->most_ns ? spin->brief + 1 : 0;
    if (++spin->sleeps >= SPIN_FORGIVEN_AFTER || spin->brief >= spin->enough)
        spin->now_ns = spin->most_ns;
}

#endif
