/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/keys_wait.h"

void keys_wait_mapped(KeysWait *wait)
{
    if (wait->mapped)
        return;
    wait->mapped = true;
    wait->lifted = false;
    wait->idle_ns = 0;
}

void keys_wait_told(KeysWait *wait)
{
    wait->lifted = false;
    wait->pause_ns = 0;
    wait->idle_ns = 0;
}

void keys_wait_full(KeysWait *wait)
{
    wait->full = true;
    wait->again_ns = 0;
    wait->idle_ns = 0;
}

void keys_wait_tidied(KeysWait *wait, bool any, unsigned live, uint64_t now_ns)
{
    if (!wait->full)
        return;
    if (any || (wait->again_ns != 0 && now_ns >= wait->again_ns)) {
        wait->full = false;
        wait->again_ns = 0;
        return;
    }
    if (live > 0 || wait->again_ns != 0)
        return;
    /* Others have it all: there is nothing of ours to wait for. */
    wait->pause_ns = wait->pause_ns == 0 ? KEYS_AGAIN_MIN_NS : 2 * wait->pause_ns;
    if (wait->pause_ns > KEYS_AGAIN_MAX_NS)
        wait->pause_ns = KEYS_AGAIN_MAX_NS;
    wait->again_ns = now_ns + wait->pause_ns;
    wait->lifted = true;
}

void keys_wait_claimed(KeysWait *wait, bool any, uint64_t now_ns)
{
    uint64_t most = wait->full ? KEYS_IDLE_FULL_NS : KEYS_IDLE_NS;

    if (any || !keys_wait_holds(wait)) {
        wait->idle_ns = 0;
        return;
    }
    if (wait->idle_ns == 0)
        wait->idle_ns = now_ns;
    if (now_ns - wait->idle_ns <= most)
        return;
    wait->idle_ns = 0;
    if (wait->mapped && !wait->full)
        wait->over = true;
    else
        wait->lifted = true;
}
