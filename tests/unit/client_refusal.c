/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What libpostcopy does not arm, and that memory refused is memory untouched.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/client_fake.h"

static int set_up(void **state)
{
    return fake_pair_set_up(state, FAKE_PAGES);
}

static void test_the_vmm_may_refuse(void **state)
{
    FakePair *pair = *state;

    __atomic_store_n(&pair->vmm->refusal, "not today", __ATOMIC_SEQ_CST);
    fake_daemon_make_table(pair->daemon, pair->vmm, true);
    fake_daemon_prepare_arm(pair->daemon, pair->vmm, 1);
    assert_int_equal(fake_daemon_arm(pair->daemon), -EOPNOTSUPP);
    assert_string_equal(pair->daemon->in.status.text, "not today");
    assert_int_equal(pair->vmm->memory[0][0], 0x5a);
}

typedef void Spoil(ClientMessage *arm);

static void spoil_gap(ClientMessage *arm_message)
{
    arm_message->arm.shards[1].start += FAKE_PAGE;
    arm_message->arm.shards[1].length -= FAKE_PAGE;
}

static void spoil_overlap(ClientMessage *arm_message)
{
    arm_message->arm.shards[0].length += FAKE_PAGE;
}

static void spoil_truncated(ClientMessage *arm_message)
{
    arm_message->arm.shards[3].length -= FAKE_PAGE;
}

static void spoil_beyond(ClientMessage *arm_message)
{
    arm_message->arm.shards[3].length += FAKE_PAGE;
}

static void spoil_alignment(ClientMessage *arm_message)
{
    arm_message->arm.shards[0].length -= 512;
    arm_message->arm.shards[1].start -= 512;
    arm_message->arm.shards[1].length += 512;
}

static void spoil_region(ClientMessage *arm_message)
{
    arm_message->arm.shards[3].region = 2;
}

static void spoil_missing_region(ClientMessage *arm_message)
{
    arm_message->arm.n_shards = 2;
}

static void spoil_all(ClientMessage *arm_message)
{
    arm_message->arm.n_shards = 0;
}

static void test_bad_shards_are_refused(void **state)
{
    static Spoil *const spoils[] = {spoil_gap,       spoil_overlap, spoil_truncated,
                                    spoil_beyond,    spoil_region,  spoil_missing_region,
                                    spoil_alignment, spoil_all};
    FakePair *pair = *state;

    fake_daemon_make_table(pair->daemon, pair->vmm, true);
    for (size_t i = 0; i < sizeof spoils / sizeof spoils[0]; i++) {
        fake_daemon_prepare_arm(pair->daemon, pair->vmm, 2);
        spoils[i](&pair->daemon->out);
        assert_int_equal(fake_daemon_arm(pair->daemon), -EINVAL);
        assert_int_equal(pair->daemon->in.n_fds, 0);
    }
    assert_int_equal(pair->vmm->memory[1][0], 0x5a);
}

static void test_an_unsealed_table_is_refused(void **state)
{
    FakePair *pair = *state;

    fake_daemon_make_table(pair->daemon, pair->vmm, false);
    fake_daemon_prepare_arm(pair->daemon, pair->vmm, 1);
    assert_int_equal(fake_daemon_arm(pair->daemon), -EPERM);
}

static void expect_bad_table(FakePair *pair)
{
    fake_daemon_prepare_arm(pair->daemon, pair->vmm, 1);
    assert_int_equal(fake_daemon_arm(pair->daemon), -EINVAL);
}

static void test_a_bad_table_is_refused(void **state)
{
    FakePair *pair = *state;
    FakeDaemon *daemon = pair->daemon;
    PageTableHeader good;

    fake_daemon_make_table(daemon, pair->vmm, true);
    good = *daemon->table;
    daemon->table->magic++;
    expect_bad_table(pair);
    *daemon->table = good;
    daemon->table->n_regions = 1;
    expect_bad_table(pair);
    *daemon->table = good;
    daemon->table->n_words = UINT64_MAX / 8;
    expect_bad_table(pair);
    *daemon->table = good;
    daemon->table->regions[1].first_word = UINT64_MAX - 1;
    expect_bad_table(pair);
    *daemon->table = good;
    daemon->table->regions[1].first_word = 1; /* shared with the other region */
    expect_bad_table(pair);
    *daemon->table = good;
    daemon->table->regions[0].page_size *= 2;
    expect_bad_table(pair);
    *daemon->table = good;
    daemon->table_size += 8;
    expect_bad_table(pair);
    daemon->table_size -= 8;
    fake_daemon_prepare_arm(daemon, pair->vmm, 1);
    fake_daemon_send(daemon, NULL, 0); /* none at all */
    fake_daemon_expect(daemon, CLIENT_ARMED);
    assert_int_equal(daemon->in.status.status, -EPERM);
}

/* When a later shard cannot be registered the earlier ones are let go. */
static void test_a_failed_arm_is_undone(void **state)
{
    FakePair *pair = *state;
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register other = {
        .range = {.start = (uintptr_t)pair->vmm->memory[1], .len = FAKE_PAGE},
        .mode = UFFDIO_REGISTER_MODE_MISSING,
    };
    int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

    if (uffd < 0)
        skip();
    assert_int_equal(ioctl(uffd, UFFDIO_API, &api), 0);
    assert_int_equal(ioctl(uffd, UFFDIO_REGISTER, &other), 0);
    fake_daemon_make_table(pair->daemon, pair->vmm, true);
    fake_daemon_prepare_arm(pair->daemon, pair->vmm, 1);
    assert_int_equal(fake_daemon_arm(pair->daemon), -EBUSY);
    assert_false(pair->daemon->table->progress & PAGE_TABLE_ARMED);
    assert_int_equal(pair->vmm->memory[0][FAKE_PAGE], 0); /* does not wait */
    close(uffd);
    fake_daemon_prepare_arm(pair->daemon, pair->vmm, 1);
    assert_int_equal(fake_daemon_arm(pair->daemon), 0);
    assert_int_equal(fake_daemon_release(pair->daemon, CLIENT_RELEASE_DISARM), 0);
}

static void test_a_replaced_mapping_is_refused(void **state)
{
    FakePair *pair = *state;
    uint8_t *page = pair->vmm->memory[1] + FAKE_PAGE;

    assert_ptr_equal(mmap(page, FAKE_PAGE, PROT_READ | PROT_WRITE,
                          MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
                     page);
    fake_daemon_make_table(pair->daemon, pair->vmm, true);
    fake_daemon_prepare_arm(pair->daemon, pair->vmm, 1);
    assert_int_equal(fake_daemon_arm(pair->daemon), -ESTALE);
    assert_int_equal(pair->vmm->memory[1][0], 0x5a);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, fake_pair_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_the_vmm_may_refuse),           TEST(test_bad_shards_are_refused),
        TEST(test_an_unsealed_table_is_refused), TEST(test_a_bad_table_is_refused),
        TEST(test_a_failed_arm_is_undone),       TEST(test_a_replaced_mapping_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
