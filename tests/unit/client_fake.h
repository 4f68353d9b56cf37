/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For tests of libpostcopy: a VMM made of one anonymous and one memfd region, and a daemon that does
 * what the test tells it to, message by message.
 */
#ifndef CLIENT_FAKE_H
#define CLIENT_FAKE_H

#include <stdbool.h>
#include <stdint.h>

#include "client/lib/postcopy.h"
#include "protocol/client.h"
#include "protocol/pagetable.h"

enum { FAKE_PAGE = 4096, FAKE_PAGES = 64, FAKE_REGIONS = 2, FAKE_TIMEOUT_MS = 5000 };

typedef struct FakeVmm {
    postcopy *pc;
    uint8_t *memory[FAKE_REGIONS]; /* anonymous, and a memfd shared */
    int memfd;
    uint32_t pages; /* of each */
    const char *refusal;
    int last_event; /* atomic */
    int n_events;   /* atomic */
} FakeVmm;

typedef struct FakeDaemon {
    char folder[64];
    char path[96];
    int listener;
    int socket;
    ClientMessage in;
    ClientMessage out;
    ClientChannel channel;
    uint8_t scratch[CLIENT_PACKET_MAX];
    int table_fd;
    uint64_t table_size;
    PageTableHeader *table; /* mapped, table_size bytes */
} FakeDaemon;

FakeDaemon *fake_daemon_new(void);
void fake_daemon_free(FakeDaemon *daemon);
void fake_daemon_accept(FakeDaemon *daemon);
void fake_daemon_hang_up(FakeDaemon *daemon);
void fake_daemon_stop_listening(FakeDaemon *daemon);
void fake_daemon_listen(FakeDaemon *daemon);

/* The next message has to be of this type. */
void fake_daemon_expect(FakeDaemon *daemon, ClientMessageType type);
void fake_daemon_send(FakeDaemon *daemon, const int *fds, size_t n_fds);
void fake_daemon_send_type(FakeDaemon *daemon, ClientMessageType type);
void fake_daemon_send_status(FakeDaemon *daemon, ClientMessageType type, uint32_t serial,
                             int status, const char *text);
void fake_daemon_send_state(FakeDaemon *daemon, ClientState state);

/* Accepts, takes HELLO, answers WELCOME. */
void fake_daemon_welcome(FakeDaemon *daemon);

/* A page table for the VMM's regions. */
void fake_daemon_make_table(FakeDaemon *daemon, const FakeVmm *vmm, bool sealed);
uint64_t *fake_daemon_table_word(FakeDaemon *daemon, uint32_t region);

/* ARM of n_shards equal shards a region in daemon->out, then sends it and takes the ARMED. */
void fake_daemon_prepare_arm(FakeDaemon *daemon, const FakeVmm *vmm, uint32_t n_shards);
int fake_daemon_arm(FakeDaemon *daemon);

/* Sends RELEASE and takes the RELEASED; its status. */
int fake_daemon_release(FakeDaemon *daemon, uint32_t flags);

/* Makes the memory; fake_vmm_connect() then connects, without waiting. */
FakeVmm *fake_vmm_new(uint32_t pages);
void fake_vmm_connect(FakeVmm *vmm, const FakeDaemon *daemon, enum postcopy_role role);
void fake_vmm_free(FakeVmm *vmm);
struct postcopy_region fake_vmm_region(const FakeVmm *vmm, unsigned index);

/* Waits until the condition holds, or fails the test. */
#define fake_wait_for(condition)                       \
    do {                                               \
        for (int waited = 0; !(condition); waited++) { \
            assert_true(waited < FAKE_TIMEOUT_MS);     \
            usleep(1000);                              \
        }                                              \
    } while (0)

/* Both, the VMM a destination that has been welcomed, its first pages filled with 0x5a. */
typedef struct FakePair {
    FakeDaemon *daemon;
    FakeVmm *vmm;
    int fds_before;
} FakePair;

int fake_pair_set_up(void **state, uint32_t pages);

/* Also checks that no fd was leaked. */
int fake_pair_tear_down(void **state);

/* Number of this process's open fds. */
int fake_count_fds(void);

#endif
