/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libpostcopy's conversation with a daemon, memory apart.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/client_fake.h"

static int set_up(void **state)
{
    FakePair *pair = calloc(1, sizeof *pair);

    pair->fds_before = fake_count_fds();
    pair->daemon = fake_daemon_new();
    pair->vmm = fake_vmm_new(FAKE_PAGES);
    *state = pair;
    return 0;
}

static void connect_source(FakePair *pair)
{
    fake_vmm_connect(pair->vmm, pair->daemon, POSTCOPY_SOURCE);
    fake_daemon_welcome(pair->daemon);
    assert_int_equal(postcopy_wait(pair->vmm->pc, POSTCOPY_CONNECTED, FAKE_TIMEOUT_MS),
                     POSTCOPY_CONNECTED);
}

static void test_hello_tells_everything(void **state)
{
    FakePair *pair = *state;
    const ClientHello *hello = &pair->daemon->in.hello;
    struct stat ours, theirs;

    connect_source(pair);
    assert_int_equal(hello->role, CLIENT_ROLE_SOURCE);
    assert_int_equal(hello->flags, 0);
    assert_string_equal(hello->name, "guest");
    assert_string_equal(hello->problem, "");
    assert_int_equal(hello->uuid[1], 2);
    assert_int_equal(hello->n_vcpus, 3);
    assert_int_equal(hello->vcpus[2], 13);
    assert_int_equal(hello->n_regions, 2);
    assert_string_equal(hello->regions[1].id, "high");
    assert_int_equal(hello->regions[0].kind, CLIENT_REGION_ANONYMOUS);
    assert_int_equal(hello->regions[0].fd, -1);
    assert_int_equal(hello->regions[1].kind, CLIENT_REGION_SHARED);
    assert_int_equal(hello->regions[1].fd, 0);
    assert_int_equal(hello->regions[1].fd_offset, FAKE_PAGE);
    assert_int_equal(hello->regions[1].address, (uintptr_t)pair->vmm->memory[1]);
    assert_int_equal(pair->daemon->in.n_fds, 1);
    assert_int_equal(fstat(pair->daemon->channel.fds[0], &theirs), 0);
    assert_int_equal(fstat(pair->vmm->memfd, &ours), 0);
    assert_int_equal(theirs.st_ino, ours.st_ino);
}

static void test_hello_tells_a_problem(void **state)
{
    FakePair *pair = *state;

    pair->vmm->refusal = "it\nis not\tsafe";
    connect_source(pair);
    assert_string_equal(pair->daemon->in.hello.problem, "it is not safe");
}

static void test_unknown_messages_are_answered(void **state)
{
    static const uint8_t unknown[] = {99, 0, CLIENT_VERSION, 0, 42, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3};
    FakePair *pair = *state;

    connect_source(pair);
    assert_int_equal(write(pair->daemon->socket, unknown, sizeof unknown), sizeof unknown);
    fake_daemon_expect(pair->daemon, CLIENT_ERROR);
    assert_int_equal(pair->daemon->in.serial, 42);
    assert_int_equal(pair->daemon->in.status.status, -EOPNOTSUPP);
    assert_string_equal(pair->daemon->in.status.text, "unknown message type");

    fake_daemon_send_type(pair->daemon, CLIENT_SEAL);
    fake_daemon_expect(pair->daemon, CLIENT_ERROR);
    assert_int_equal(pair->daemon->in.serial, 100);
}

static void test_an_error_is_not_answered(void **state)
{
    FakePair *pair = *state;

    connect_source(pair);
    fake_daemon_send_status(pair->daemon, CLIENT_ERROR, 4711, -EINVAL, "what?");
    fake_daemon_send_type(pair->daemon, CLIENT_EXPORT);
    fake_daemon_expect(pair->daemon, CLIENT_EXPORTED);
}

typedef struct Offer {
    postcopy *pc;
    int status;
    int timeout_ms;
    char error[1024];
} Offer;

static void *offer(void *argument)
{
    Offer *o = argument;

    o->status = postcopy_offer(o->pc, "host:1", o->timeout_ms);
    snprintf(o->error, sizeof o->error, "%s", postcopy_error(o->pc));
    return NULL;
}

static pthread_t start_offer(Offer *o, postcopy *pc, int timeout_ms)
{
    pthread_t thread;

    *o = (Offer){.pc = pc, .timeout_ms = timeout_ms};
    assert_int_equal(pthread_create(&thread, NULL, offer, o), 0);
    return thread;
}

static void test_a_request_waits_for_its_answer(void **state)
{
    FakePair *pair = *state;
    pthread_t thread;
    Offer o;

    connect_source(pair);
    thread = start_offer(&o, pair->vmm->pc, -1);
    fake_daemon_expect(pair->daemon, CLIENT_OFFER);
    assert_string_equal(pair->daemon->in.offer.destination, "host:1");
    uint32_t serial = pair->daemon->in.serial;
    fake_daemon_send_status(pair->daemon, CLIENT_OFFERED, serial + 1, 0, "of another");
    fake_daemon_send_status(pair->daemon, CLIENT_OFFERED, serial, -ENOENT, "no such guest there");
    pthread_join(thread, NULL);
    assert_int_equal(o.status, -ENOENT);
    assert_string_equal(o.error, "no such guest there");

    thread = start_offer(&o, pair->vmm->pc, FAKE_TIMEOUT_MS);
    fake_daemon_expect(pair->daemon, CLIENT_OFFER);
    fake_daemon_send_status(pair->daemon, CLIENT_OFFERED, pair->daemon->in.serial, 0, "");
    pthread_join(thread, NULL);
    assert_int_equal(o.status, 0);
    assert_string_equal(o.error, "");
}

static void test_a_request_fails_with_its_connection(void **state)
{
    FakePair *pair = *state;
    pthread_t thread;
    Offer o;

    connect_source(pair);
    thread = start_offer(&o, pair->vmm->pc, FAKE_TIMEOUT_MS);
    fake_daemon_expect(pair->daemon, CLIENT_OFFER);
    fake_daemon_hang_up(pair->daemon);
    pthread_join(thread, NULL);
    assert_int_equal(o.status, -ECONNRESET);
    assert_string_equal(o.error, "the daemon closed the connection");
}

static void test_a_request_waits_for_a_connection(void **state)
{
    FakePair *pair = *state;
    pthread_t thread;
    Offer o;

    fake_vmm_connect(pair->vmm, pair->daemon, POSTCOPY_SOURCE);
    assert_int_equal(postcopy_seal(pair->vmm->pc, 30), -ETIMEDOUT);
    thread = start_offer(&o, pair->vmm->pc, FAKE_TIMEOUT_MS);
    fake_daemon_welcome(pair->daemon);
    fake_daemon_expect(pair->daemon, CLIENT_OFFER);
    fake_daemon_send_status(pair->daemon, CLIENT_OFFERED, pair->daemon->in.serial, 0, "");
    pthread_join(thread, NULL);
    assert_int_equal(o.status, 0);
}

static void test_a_request_times_out(void **state)
{
    FakePair *pair = *state;
    Offer o = {.timeout_ms = 30};

    connect_source(pair);
    o.pc = pair->vmm->pc;
    offer(&o);
    assert_int_equal(o.status, -ETIMEDOUT);
    assert_string_equal(o.error, "the daemon did not answer in time");
}

static void test_states_become_events_once(void **state)
{
    FakePair *pair = *state;
    FakeVmm *vmm = pair->vmm;

    connect_source(pair);
    fake_daemon_send_state(pair->daemon, CLIENT_STATE_EXPORTED);
    fake_daemon_send_state(pair->daemon, CLIENT_STATE_EXPORTED);
    fake_daemon_send_state(pair->daemon, CLIENT_STATE_ARMED); /* which nothing is */
    fake_daemon_send_state(pair->daemon, CLIENT_STATE_SEALED);
    assert_int_equal(postcopy_wait(vmm->pc, POSTCOPY_SEALED, FAKE_TIMEOUT_MS), POSTCOPY_SEALED);
    assert_int_equal(postcopy_wait(vmm->pc, POSTCOPY_EXPORTED, 0), POSTCOPY_SEALED);
    fake_wait_for(__atomic_load_n(&vmm->n_events, __ATOMIC_SEQ_CST) == 3);
    fake_daemon_send_state(pair->daemon, CLIENT_STATE_IDLE);
    fake_daemon_send_state(pair->daemon, CLIENT_STATE_DONE);
    assert_int_equal(postcopy_wait(vmm->pc, POSTCOPY_RUNNING, FAKE_TIMEOUT_MS), POSTCOPY_DONE);
    fake_wait_for(__atomic_load_n(&vmm->n_events, __ATOMIC_SEQ_CST) == 4);
}

static void *add_high(void *argument)
{
    FakeVmm *vmm = argument;
    struct postcopy_region region = fake_vmm_region(vmm, 1);

    return (void *)(intptr_t)postcopy_add_region(vmm->pc, &region);
}

static void *remove_high(void *argument)
{
    FakeVmm *vmm = argument;

    return (void *)(intptr_t)postcopy_remove_region(vmm->pc, vmm->memory[1]);
}

static void change_region(FakePair *pair, void *(*change)(void *), ClientMessageType type)
{
    pthread_t thread;
    void *status;

    assert_int_equal(pthread_create(&thread, NULL, change, pair->vmm), 0);
    fake_daemon_expect(pair->daemon, type);
    assert_int_equal(pair->daemon->in.region.address, (uintptr_t)pair->vmm->memory[1]);
    fake_daemon_send_status(pair->daemon, CLIENT_OK, pair->daemon->in.serial, 0, "");
    pthread_join(thread, &status);
    assert_null(status);
}

static void test_regions_come_and_go(void **state)
{
    FakePair *pair = *state;
    struct postcopy_region region = fake_vmm_region(pair->vmm, 1);

    connect_source(pair);
    assert_int_equal(postcopy_add_region(pair->vmm->pc, &region), -EEXIST);
    change_region(pair, remove_high, CLIENT_REGION_REMOVE);
    change_region(pair, add_high, CLIENT_REGION_ADD);
    assert_int_equal(pair->daemon->in.n_fds, 1);
    assert_int_equal(pair->daemon->in.region.guest_address, UINT64_C(1) << 32);

    fake_daemon_send_type(pair->daemon, CLIENT_EXPORT);
    fake_daemon_expect(pair->daemon, CLIENT_EXPORTED);
    assert_int_equal(pair->daemon->in.status.status, 0);
    assert_int_equal(postcopy_remove_region(pair->vmm->pc, region.address), -EBUSY);
}

static void test_unmapped_regions_are_dropped(void **state)
{
    FakePair *pair = *state;

    connect_source(pair);
    assert_int_equal(pair->daemon->in.hello.n_regions, 2);
    munmap(pair->vmm->memory[1], (size_t)FAKE_PAGES * FAKE_PAGE);
    fake_daemon_send_type(pair->daemon, CLIENT_EXPORT);
    fake_daemon_expect(pair->daemon, CLIENT_EXPORTED);
    assert_int_equal(pair->daemon->in.status.status, -ESTALE);
    fake_daemon_hang_up(pair->daemon);
    fake_daemon_welcome(pair->daemon);
    assert_int_equal(pair->daemon->in.hello.n_regions, 1);
    assert_string_equal(pair->daemon->in.hello.regions[0].id, "low");
}

static void test_a_refused_client_is_told(void **state)
{
    FakePair *pair = *state;

    fake_vmm_connect(pair->vmm, pair->daemon, POSTCOPY_SOURCE);
    fake_daemon_accept(pair->daemon);
    fake_daemon_expect(pair->daemon, CLIENT_HELLO);
    fake_daemon_send_status(pair->daemon, CLIENT_ERROR, pair->daemon->in.serial, -EEXIST,
                            "there is one of that name");
    fake_wait_for(strcmp(postcopy_error(pair->vmm->pc), "there is one of that name") == 0);
    fake_daemon_hang_up(pair->daemon);
    fake_daemon_welcome(pair->daemon); /* it does not give up */
}

/* What no daemon would take is refused here, with a reason, and not only there. */
static void test_names_are_utf8(void **state)
{
    FakePair *pair = *state;
    struct postcopy_region region = fake_vmm_region(pair->vmm, 0);
    struct postcopy_config config = {.size = sizeof config,
                                     .socket = pair->daemon->path,
                                     .role = POSTCOPY_SOURCE,
                                     .name = "M\374hle",
                                     .regions = &region,
                                     .n_regions = 1};
    postcopy *pc;

    assert_int_equal(postcopy_connect(&config, 0, 0, &pc), -EINVAL);
    assert_string_equal(postcopy_error(NULL), "the name is not printable UTF-8");
    config.name = "M\303\274hle";
    region.id = "\377";
    assert_int_equal(postcopy_connect(&config, 0, 0, &pc), -EINVAL);
    assert_non_null(strstr(postcopy_error(NULL), "UTF-8"));
    connect_source(pair);
    assert_int_equal(postcopy_add_region(pair->vmm->pc, &region), -EINVAL);
    assert_non_null(strstr(postcopy_error(pair->vmm->pc), "UTF-8"));
    assert_int_equal(postcopy_offer(pair->vmm->pc, "\377:1", 0), -EINVAL);
}

static void *connect_and_wait(void *argument)
{
    const FakeDaemon *daemon = argument;
    struct postcopy_config config = {
        .size = sizeof config, .socket = daemon->path, .role = POSTCOPY_SOURCE};
    struct postcopy_region region = {.guest_address = 0,
                                     .address = mmap(NULL, FAKE_PAGE, PROT_READ | PROT_WRITE,
                                                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
                                     .length = FAKE_PAGE,
                                     .page_size = FAKE_PAGE,
                                     .fd = -1};
    postcopy *pc;
    int status;

    config.regions = &region;
    config.n_regions = 1;
    status = postcopy_connect(&config, POSTCOPY_WAIT, FAKE_TIMEOUT_MS, &pc);
    postcopy_free(pc);
    munmap(region.address, FAKE_PAGE);
    return (void *)(intptr_t)status;
}

static void test_connect_can_wait(void **state)
{
    FakePair *pair = *state;
    pthread_t thread;
    void *status;

    assert_int_equal(pthread_create(&thread, NULL, connect_and_wait, pair->daemon), 0);
    fake_daemon_welcome(pair->daemon);
    pthread_join(thread, &status);
    assert_null(status);
    fake_daemon_hang_up(pair->daemon);

    assert_int_equal(pthread_create(&thread, NULL, connect_and_wait, pair->daemon), 0);
    fake_daemon_accept(pair->daemon);
    fake_daemon_expect(pair->daemon, CLIENT_HELLO);
    fake_daemon_send_status(pair->daemon, CLIENT_ERROR, pair->daemon->in.serial, -EACCES, "no");
    pthread_join(thread, &status);
    assert_int_equal((intptr_t)status, -EACCES);
}

static void test_an_arrived_destination_becomes_a_source(void **state)
{
    FakePair *pair = *state;

    fake_vmm_connect(pair->vmm, pair->daemon, POSTCOPY_DESTINATION);
    fake_daemon_welcome(pair->daemon);
    assert_int_equal(pair->daemon->in.hello.role, CLIENT_ROLE_DESTINATION);
    assert_int_equal(postcopy_running(pair->vmm->pc, 0), 0);
    fake_daemon_hang_up(pair->daemon);
    fake_daemon_welcome(pair->daemon);
    assert_int_equal(pair->daemon->in.hello.role, CLIENT_ROLE_SOURCE);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, fake_pair_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_hello_tells_everything),
        TEST(test_hello_tells_a_problem),
        TEST(test_unknown_messages_are_answered),
        TEST(test_an_error_is_not_answered),
        TEST(test_a_request_waits_for_its_answer),
        TEST(test_a_request_fails_with_its_connection),
        TEST(test_a_request_waits_for_a_connection),
        TEST(test_a_request_times_out),
        TEST(test_states_become_events_once),
        TEST(test_regions_come_and_go),
        TEST(test_unmapped_regions_are_dropped),
        TEST(test_a_refused_client_is_told),
        TEST(test_names_are_utf8),
        TEST(test_connect_can_wait),
        TEST(test_an_arrived_destination_becomes_a_source),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
