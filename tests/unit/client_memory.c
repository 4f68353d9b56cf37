/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * libpostcopy arms memory and lets it go: with real userfaultfds, memfds and faults.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/client_fake.h"

static int set_up(void **state)
{
    return fake_pair_set_up(state, FAKE_PAGES);
}

static int set_up_large(void **state)
{
    return fake_pair_set_up(state, 300);
}

static void arm(FakePair *pair, uint32_t n_shards)
{
    fake_daemon_make_table(pair->daemon, pair->vmm, true);
    fake_daemon_prepare_arm(pair->daemon, pair->vmm, n_shards);
    assert_int_equal(fake_daemon_arm(pair->daemon), 0);
    assert_int_equal(pair->daemon->in.n_fds, FAKE_REGIONS * n_shards);
    assert_int_equal(postcopy_wait(pair->vmm->pc, POSTCOPY_ARMED, FAKE_TIMEOUT_MS), POSTCOPY_ARMED);
}

static void disarm(FakePair *pair)
{
    assert_int_equal(fake_daemon_release(pair->daemon, CLIENT_RELEASE_DISARM), 0);
}

static void *touch(void *address)
{
    return (void *)(uintptr_t) * (volatile uint8_t *)address;
}

static void await_fault(int uffd, const void *page)
{
    struct pollfd readable = {.fd = uffd, .events = POLLIN};
    struct uffd_msg message;

    assert_int_equal(poll(&readable, 1, FAKE_TIMEOUT_MS), 1);
    assert_int_equal(readable.revents, POLLIN);
    assert_int_equal(read(uffd, &message, sizeof message), sizeof message);
    assert_int_equal(message.event, UFFD_EVENT_PAGEFAULT);
    assert_int_equal(message.arg.pagefault.address & ~(uint64_t)(FAKE_PAGE - 1), (uintptr_t)page);
}

static void place(int uffd, const void *page, uint8_t content)
{
    static uint8_t source[FAKE_PAGE] __attribute__((aligned(FAKE_PAGE)));
    struct uffdio_copy copy = {.dst = (uintptr_t)page, .src = (uintptr_t)source, .len = FAKE_PAGE};

    memset(source, content, sizeof source);
    assert_int_equal(ioctl(uffd, UFFDIO_COPY, &copy), 0);
}

/* A fault in the region waits until the page is placed through this uffd. */
static void check_fault(FakePair *pair, int uffd, unsigned region, unsigned page)
{
    uint8_t *address = pair->vmm->memory[region] + (size_t)page * FAKE_PAGE;
    uint8_t content = (uint8_t)(1 + region * 100 + page);
    pthread_t thread;
    void *seen;

    assert_int_equal(pthread_create(&thread, NULL, touch, address), 0);
    await_fault(uffd, address);
    place(uffd, address, content);
    pthread_join(thread, &seen);
    assert_int_equal((uintptr_t)seen, content);
}

static void test_faults_wait_for_the_daemon(void **state)
{
    FakePair *pair = *state;
    int *uffds = pair->daemon->channel.fds;

    arm(pair, 2);
    assert_true(pair->daemon->table->progress & PAGE_TABLE_ARMED);
    /* Page 0 had content, which arming takes away. */
    check_fault(pair, uffds[0], 0, 0);
    check_fault(pair, uffds[1], 0, FAKE_PAGES - 1);
    check_fault(pair, uffds[2], 1, 0);
    check_fault(pair, uffds[3], 1, FAKE_PAGES / 2);
    for (unsigned i = 0; i < 4; i++)
        assert_true(fcntl(uffds[i], F_GETFL) & O_NONBLOCK);
    disarm(pair);
    assert_int_equal(postcopy_wait(pair->vmm->pc, POSTCOPY_CANCELLED, FAKE_TIMEOUT_MS),
                     POSTCOPY_CANCELLED);
    assert_int_equal(pair->vmm->memory[1][(size_t)5 * FAKE_PAGE], 0);
}

static void test_uffds_can_come_from_the_device(void **state)
{
    FakePair *pair = *state;

    if (access("/dev/userfaultfd", R_OK | W_OK) < 0)
        skip();
    fake_daemon_make_table(pair->daemon, pair->vmm, true);
    fake_daemon_prepare_arm(pair->daemon, pair->vmm, 1);
    pair->daemon->out.arm.flags = CLIENT_ARM_DEVICE;
    assert_int_equal(fake_daemon_arm(pair->daemon), 0);
    check_fault(pair, pair->daemon->channel.fds[1], 1, 3);
    disarm(pair);
}

static void test_release_waits_for_every_page(void **state)
{
    static const uint64_t unresolved[] = {PAGE_MISSING, PAGE_REQUESTED, PAGE_RECEIVED,
                                          PAGE_REQUESTED | PAGE_WAITED};
    static const uint64_t resolved[] = {PAGE_HOLE, PAGE_PRESENT, PAGE_REMOVED};
    FakePair *pair = *state;
    FakeDaemon *daemon = pair->daemon;
    uint64_t *word;

    arm(pair, 1);
    word = fake_daemon_table_word(daemon, 1) + 2;
    assert_int_equal(fake_daemon_release(daemon, 0), -EBUSY); /* the map is not complete */
    __atomic_or_fetch(&daemon->table->progress, PAGE_TABLE_MAP_COMPLETE | PAGE_TABLE_GATE_OPEN,
                      __ATOMIC_SEQ_CST);
    assert_int_equal(fake_daemon_release(daemon, CLIENT_RELEASE_DISARM), -EBUSY);
    for (size_t i = 0; i < 4; i++) {
        __atomic_store_n(word, unresolved[i] << (4 * (i * 5)), __ATOMIC_SEQ_CST);
        assert_int_equal(fake_daemon_release(daemon, 0), -EBUSY);
        assert_non_null(strstr(daemon->in.status.text, "region 1 high"));
    }
    assert_int_equal(postcopy_free(pair->vmm->pc), -EBUSY);
    __atomic_store_n(word, resolved[0] | resolved[1] << 20 | resolved[2] << 40, __ATOMIC_SEQ_CST);
    assert_int_equal(fake_daemon_release(daemon, 0), 0);
    assert_int_equal(postcopy_wait(pair->vmm->pc, POSTCOPY_RELEASED, FAKE_TIMEOUT_MS),
                     POSTCOPY_RELEASED);
    assert_int_equal(pair->vmm->memory[0][0], 0);
    assert_int_equal(fake_daemon_release(daemon, 0), -EINVAL); /* nothing is armed */
}

static void test_a_released_guest_is_a_source(void **state)
{
    FakePair *pair = *state;
    FakeDaemon *daemon = pair->daemon;

    arm(pair, 1);
    fake_daemon_send_type(daemon, CLIENT_EXPORT);
    fake_daemon_expect(daemon, CLIENT_EXPORTED);
    assert_int_equal(daemon->in.status.status, -EBUSY);
    __atomic_or_fetch(&daemon->table->progress, PAGE_TABLE_MAP_COMPLETE, __ATOMIC_SEQ_CST);
    assert_int_equal(fake_daemon_release(daemon, 0), 0);
    pair->vmm->memory[0][0] = 77;
    fake_daemon_prepare_arm(daemon, pair->vmm, 1);
    assert_int_equal(fake_daemon_arm(daemon), -EPERM); /* it would be emptied */
    assert_int_equal(pair->vmm->memory[0][0], 77);
    fake_daemon_send_type(daemon, CLIENT_EXPORT);
    fake_daemon_expect(daemon, CLIENT_EXPORTED);
    assert_int_equal(daemon->in.status.status, 0);
}

static ino_t inode_of(int fd)
{
    struct stat st;

    assert_int_equal(fstat(fd, &st), 0);
    return st.st_ino;
}

/* The next daemon gets the very uffds, with the faults that wait in them. */
static void test_a_restarted_daemon_gets_everything(void **state)
{
    FakePair *pair = *state;
    FakeDaemon *daemon = pair->daemon;
    const ClientHello *hello = &daemon->in.hello;
    uint8_t *page = pair->vmm->memory[1] + (size_t)9 * FAKE_PAGE;
    pthread_t thread;
    void *seen;

    arm(pair, 2);
    daemon->out.keep.length = 5;
    memcpy(daemon->out.keep.blob, "hello", 5);
    fake_daemon_send_type(daemon, CLIENT_KEEP);
    fake_daemon_expect(daemon, CLIENT_OK);
    fake_daemon_hang_up(daemon);
    fake_daemon_stop_listening(daemon);
    assert_int_equal(postcopy_wait(pair->vmm->pc, POSTCOPY_DISCONNECTED, FAKE_TIMEOUT_MS),
                     POSTCOPY_DISCONNECTED);
    assert_int_equal(pthread_create(&thread, NULL, touch, page), 0);
    usleep(100000);

    fake_daemon_listen(daemon);
    fake_daemon_welcome(daemon);
    assert_int_equal(hello->role, CLIENT_ROLE_DESTINATION);
    assert_int_equal(hello->flags, CLIENT_HELLO_ARMED);
    assert_int_equal(hello->n_shards, 4);
    assert_int_equal(hello->shards[3].region, 1);
    assert_int_equal(hello->blob_length, 5);
    assert_memory_equal(hello->blob, "hello", 5);
    assert_int_equal(hello->table_fd, 1);
    assert_int_equal(daemon->in.n_fds, 6);
    assert_int_equal(inode_of(daemon->channel.fds[1]), inode_of(daemon->table_fd));
    int uffd = daemon->channel.fds[2 + 2];
    await_fault(uffd, page);
    place(uffd, page, 99);
    pthread_join(thread, &seen);
    assert_int_equal((uintptr_t)seen, 99);
    disarm(pair);
}

static void test_many_shards_take_several_packets(void **state)
{
    FakePair *pair = *state;

    arm(pair, 150);
    assert_int_equal(pair->daemon->channel.n_fds, 300);
    check_fault(pair, pair->daemon->channel.fds[299], 1, 299);
    fake_daemon_hang_up(pair->daemon);
    fake_daemon_welcome(pair->daemon);
    assert_int_equal(pair->daemon->in.n_fds, 302);
    check_fault(pair, pair->daemon->channel.fds[2 + 150], 1, 0);
    disarm(pair);
}

static bool has_flag(const void *address, const char *flag)
{
    FILE *smaps = fopen("/proc/self/smaps", "re");
    unsigned long start;
    char *dash;
    bool inside = false, found = false;
    char line[512];

    assert_non_null(smaps);
    while (fgets(line, sizeof line, smaps)) {
        start = strtoul(line, &dash, 16);
        if (dash > line && *dash == '-')
            inside =
                start <= (uintptr_t)address && (uintptr_t)address < strtoul(dash + 1, NULL, 16);
        else if (inside && strncmp(line, "VmFlags:", 8) == 0)
            found = strstr(line, flag) != NULL;
    }
    fclose(smaps);
    return found;
}

static void test_children_do_not_inherit_armed_memory(void **state)
{
    FakePair *pair = *state;

    assert_int_equal(madvise(pair->vmm->memory[1], (size_t)FAKE_PAGES * FAKE_PAGE, MADV_DONTFORK),
                     0);
    arm(pair, 1);
    assert_true(has_flag(pair->vmm->memory[0], " dc"));
    disarm(pair);
    assert_false(has_flag(pair->vmm->memory[0], " dc"));
    assert_true(has_flag(pair->vmm->memory[1], " dc")); /* the VMM's own wish */
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, fake_pair_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_faults_wait_for_the_daemon),
        TEST(test_uffds_can_come_from_the_device),
        TEST(test_release_waits_for_every_page),
        TEST(test_a_released_guest_is_a_source),
        TEST(test_a_restarted_daemon_gets_everything),
        cmocka_unit_test_setup_teardown(test_many_shards_take_several_packets, set_up_large,
                                        fake_pair_tear_down),
        TEST(test_children_do_not_inherit_armed_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
