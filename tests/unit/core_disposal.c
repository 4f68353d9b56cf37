/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Descriptors whose closing takes a while: sockets that linger stand for files of hundreds of GiB. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/core/clock.h"
#include "daemon/core/disposal.h"

enum { LINGER_S = 2 };

static int listener;

/* Its peer reads nothing, so closing it waits for LINGER_S. */
static int lingering_socket(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    struct linger linger = {.l_onoff = 1, .l_linger = LINGER_S};
    socklen_t length = sizeof address;
    static const char data[65536];
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &length), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
    while (send(fd, data, sizeof data, MSG_DONTWAIT) > 0)
        ;
    return fd;
}

static void nobody_waits(void **state)
{
    static RegionSet set;
    uint64_t begin = clock_ns();
    int fd = lingering_socket();

    (void)state;
    set.n = 3;
    set.regions[0].fd = fd;
    set.regions[1].fd = -1;
    set.regions[2].fd = dup(STDOUT_FILENO);
    fd = set.regions[2].fd;
    region_set_dispose(&set);
    assert_int_equal(set.n, 0);
    assert_true(clock_ns() - begin < UINT64_C(1000000000) * LINGER_S / 2);
    /* In order, so the last is closed when the first was. */
    while (fcntl(fd, F_GETFD) >= 0)
        usleep(10000);
    assert_true(clock_ns() - begin > UINT64_C(1000000000) * LINGER_S / 2);
    close(listener);
}

static void nothing_to_close(void **state)
{
    static RegionSet set;

    (void)state;
    set.n = 1;
    set.regions[0].fd = -1;
    region_set_dispose(&set);
    assert_int_equal(set.n, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_waits),
        cmocka_unit_test(nothing_to_close),
    };

    alarm(60);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
