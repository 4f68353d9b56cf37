/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/fault/rdma_policy.h"

enum { PAUSE_MIN_MS = 50, PAUSE_MAX_MS = 1000 };

void rdma_policy_init(RdmaPolicy *policy, bool insists)
{
    *policy = (RdmaPolicy){.insists = insists};
}

/* One more failure is enough after a rest. */
bool rdma_policy_may_try(RdmaPolicy *policy, uint64_t now_ns)
{
    if (policy->rest_ns == 0)
        return true;
    if (now_ns < policy->rest_ns)
        return false;
    policy->rest_ns = 0;
    policy->failures = RDMA_POLICY_FAILURES - 1;
    return true;
}

bool rdma_policy_must(const RdmaPolicy *policy)
{
    return policy->insists && policy->rest_ns == 0;
}

void rdma_policy_begins(RdmaPolicy *policy, uint64_t now_ns, uint64_t bytes)
{
    policy->up = true;
    policy->up_ns = now_ns;
    policy->up_bytes = bytes;
}

void rdma_policy_goes_on(RdmaPolicy *policy, uint64_t now_ns, uint64_t bytes)
{
    if (policy->up && (now_ns - policy->up_ns >= RDMA_POLICY_WELL_NS ||
                       bytes - policy->up_bytes >= RDMA_POLICY_WELL)) {
        policy->failures = 0;
        policy->since_ns = 0;
    }
}

/* One more failure was counted: has there been enough of it? */
static bool is_enough(RdmaPolicy *policy, uint64_t now_ns, bool guest_waits)
{
    if (!policy->insists)
        return policy->failures >= RDMA_POLICY_FAILURES;
    if (!guest_waits)
        return false;
    if (policy->since_ns == 0)
        policy->since_ns = now_ns;
    return now_ns - policy->since_ns >= RDMA_POLICY_WAIT_NS;
}

bool rdma_policy_ends(RdmaPolicy *policy, uint64_t now_ns, uint64_t bytes, bool failed,
                      bool guest_waits)
{
    rdma_policy_goes_on(policy, now_ns, bytes);
    policy->up = false;
    if (!failed)
        return false;
    if (policy->failures < RDMA_POLICY_FAILURES)
        policy->failures++;
    if (!is_enough(policy, now_ns, guest_waits))
        return false;
    policy->rest_ns = now_ns + RDMA_POLICY_REST_NS;
    return true;
}

unsigned rdma_policy_pause_ms(const RdmaPolicy *policy)
{
    unsigned pause = PAUSE_MIN_MS;

    if (!rdma_policy_must(policy) || policy->failures == 0)
        return 0; /* TCP is there at once */
    for (unsigned i = 1; i < policy->failures && pause < PAUSE_MAX_MS; i++)
        pause *= 4;
    return pause < PAUSE_MAX_MS ? pause : PAUSE_MAX_MS;
}
