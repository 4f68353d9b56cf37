/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/unit/preload_world.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/lib/uffd.h"

uint8_t world_content[4 * PLAN_PAGE] __attribute__((aligned(PLAN_PAGE)));

int world_open_native(int flags)
{
    int uffd = (int)syscall(SYS_userfaultfd, flags);

    assert_true(uffd >= 0);
    return listen_opened(uffd, flags);
}

void world_plan(World *world)
{
    static ClientMessage message;
    Reason reason = {0};
    Plan *made;

    memset(world, 0, sizeof *world);
    memset(world_content, 'q', sizeof world_content);
    world->proxy = -1;
    world->memory =
        mmap(NULL, WORLD_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(world->memory != MAP_FAILED);
    madvise(world->memory, WORLD_SIZE, MADV_NOHUGEPAGE);
    world->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    plan_make_message(&message, world->memory);
    made = plan_new(&message, plan_make_table(&message, true), -1, &reason);
    if (!made)
        fail_msg("%s", reason.text);
    world->listen = listen_new(made, world->wake);
    assert_non_null(world->listen);
    faults_init(&world->faults, world->listen);
}

void world_open(World *world)
{
    struct uffdio_api api = {.api = UFFD_API};
    struct pollfd polls[FAULTS_POLLS];

    world_plan(world);
    world->proxy = world_open_native(O_CLOEXEC | O_NONBLOCK);
    assert_true(listen_owns(world->proxy));
    /* Until QEMU says which interface it wants, there is nothing to wait for. */
    assert_int_equal(faults_polls(&world->faults, polls), 1);
    assert_int_equal(listen_ioctl(world->proxy, UFFDIO_API, &api), 0);
    assert_true(api.ioctls & UINT64_C(1) << _UFFDIO_REGISTER);
    assert_int_equal(faults_polls(&world->faults, polls), 2);
}

void world_end(World *world)
{
    listen_free(world->listen);
    assert_false(listen_owns(world->proxy));
    if (world->proxy >= 0)
        close(world->proxy);
    close(world->wake);
    munmap(world->memory, WORLD_SIZE);
}

int world_register(World *world, void *start, size_t length, uint64_t *ret_ioctls)
{
    struct uffdio_register wanted = {
        .range = {.start = (uintptr_t)start, .len = length},
        .mode = UFFDIO_REGISTER_MODE_MISSING,
    };
    int result = listen_ioctl(world->proxy, UFFDIO_REGISTER, &wanted);

    *ret_ioctls = wanted.ioctls;
    return result;
}

void world_register_all(World *world)
{
    uint64_t ioctls;

    assert_int_equal(world_register(world, world->memory, WORLD_SIZE, &ioctls), 0);
    assert_true(ioctls & UINT64_C(1) << _UFFDIO_COPY);
    assert_true(ioctls & UINT64_C(1) << _UFFDIO_ZEROPAGE);
    assert_int_equal(listen_registered(world->listen), PLAN_SHARDS);
    assert_true(world->listen->complete);
    assert_true(world->listen->registered_at > 0);
}

int world_copy(World *world, const void *to, size_t length, int64_t *ret_copied)
{
    struct uffdio_copy wanted = {
        .dst = (uintptr_t)to, .src = (uintptr_t)world_content, .len = length};
    int result = listen_ioctl(world->proxy, UFFDIO_COPY, &wanted);

    *ret_copied = wanted.copy;
    return result;
}

void *world_touch(void *address)
{
    return (void *)(uintptr_t) * (volatile uint8_t *)address;
}

uint64_t world_read_fault(World *world, bool relaying)
{
    struct pollfd polls[FAULTS_POLLS];
    struct uffd_msg message;

    world->faults.relay.relaying = relaying;
    for (int i = 0; i < 100; i++) {
        size_t n = faults_polls(&world->faults, polls);
        poll(polls, n, 10);
        faults_forward(&world->faults, polls, n);
        if (read(world->proxy, &message, sizeof message) == sizeof message) {
            assert_int_equal(message.event, UFFD_EVENT_PAGEFAULT);
            return message.arg.pagefault.address & ~(uint64_t)(PLAN_PAGE - 1);
        }
        assert_int_equal(errno, EAGAIN);
    }
    return 0;
}

bool world_is_allowed(void)
{
    Reason reason = {0};
    int uffd = uffd_open(-1, 0, &reason);

    if (uffd < 0)
        return false;
    close(uffd);
    return true;
}
