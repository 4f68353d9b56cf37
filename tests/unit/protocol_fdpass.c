/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Messages with file descriptors: long lists, order, and what happens when one side runs out.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "protocol/client.h"
#include "protocol/fdpass.h"

enum { MANY = 500 };

static ClientMessage in, out;
static ClientChannel channel;
static uint8_t scratch[CLIENT_PACKET_MAX];

static int count_fds(void)
{
    DIR *folder = opendir("/proc/self/fd");
    int n = 0;

    if (!folder)
        return -1;
    while (readdir(folder))
        n++;
    closedir(folder);
    return n;
}

/* A file that tells its number by its size. */
static int numbered_file(unsigned number)
{
    int fd = memfd_create("number", MFD_CLOEXEC);

    if (fd < 0 || ftruncate(fd, number))
        abort();
    return fd;
}

static off_t number_of(int fd)
{
    struct stat status;

    return fstat(fd, &status) ? -1 : status.st_size;
}

static void open_pair(int pair[2], int flags)
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | flags, 0, pair), 0);
    client_channel_init(&channel, pair[1]);
}

static void close_pair(int pair[2])
{
    client_channel_deinit(&channel);
    close(pair[0]);
    close(pair[1]);
}

static void sample_hello(void)
{
    memset(&in, 0, sizeof in);
    in.type = CLIENT_HELLO;
    in.serial = 5;
    in.hello.role = CLIENT_ROLE_SOURCE;
}

static bool allow_fds(rlim_t n)
{
    struct rlimit limit;

    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur >= n)
        return true;
    if (limit.rlim_max < n)
        return false;
    limit.rlim_cur = n;
    return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

static void many_fds_arrive_in_order_and_close_on_exec(void **state)
{
    int before = count_fds();
    int fds[MANY], pair[2];

    (void)state;
    if (!allow_fds(2 * MANY + 100))
        skip();
    open_pair(pair, 0);
    for (unsigned i = 0; i < MANY; i++)
        fds[i] = numbered_file(i);
    sample_hello();
    assert_int_equal(client_message_send(pair[0], &in, fds, MANY, scratch), 0);
    fdpass_close(fds, MANY);
    assert_int_equal(client_channel_receive(&channel, &out), 1);
    assert_int_equal(out.type, CLIENT_HELLO);
    assert_int_equal(out.n_fds, MANY);
    for (unsigned i = 0; i < MANY; i++) {
        assert_int_equal(number_of(channel.fds[i]), i);
        assert_true(fcntl(channel.fds[i], F_GETFD) & FD_CLOEXEC);
    }
    close_pair(pair);
    assert_int_equal(count_fds(), before);
}

static void what_is_not_taken_is_closed_by_the_next_message(void **state)
{
    int before = count_fds();
    int fds[3], pair[2], taken;

    (void)state;
    open_pair(pair, 0);
    for (unsigned i = 0; i < 3; i++)
        fds[i] = numbered_file(i);
    sample_hello();
    assert_int_equal(client_message_send(pair[0], &in, fds, 3, scratch), 0);
    in.type = CLIENT_OK;
    assert_int_equal(client_message_send(pair[0], &in, NULL, 0, scratch), 0);
    fdpass_close(fds, 3);
    assert_int_equal(client_channel_receive(&channel, &out), 1);
    taken = client_channel_take_fd(&channel, 1);
    assert_int_equal(number_of(taken), 1);
    assert_int_equal(client_channel_take_fd(&channel, 1), -1);
    assert_int_equal(client_channel_take_fd(&channel, 3), -1);
    assert_int_equal(client_channel_receive(&channel, &out), 1);
    assert_int_equal(count_fds(), before + 3); /* the pair and the one taken */
    close(taken);
    close_pair(pair);
    assert_int_equal(count_fds(), before);
}

static void a_message_may_come_in_several_reads(void **state)
{
    int pair[2];
    int fds[LIMIT_FDS_PACKET + 1];

    (void)state;
    open_pair(pair, SOCK_NONBLOCK);
    assert_int_equal(client_channel_receive(&channel, &out), -EAGAIN);
    for (unsigned i = 0; i < LIMIT_FDS_PACKET + 1; i++)
        fds[i] = pair[0];
    in = (ClientMessage){.type = CLIENT_FDS};
    assert_true(client_message_encode(&in, LIMIT_FDS_PACKET, scratch) > 0);
    assert_int_equal(fdpass_send(pair[0], scratch, 12, fds, LIMIT_FDS_PACKET), 0);
    assert_int_equal(client_channel_receive(&channel, &out), -EAGAIN);
    assert_int_equal(channel.n_fds, LIMIT_FDS_PACKET);
    in.type = CLIENT_OK;
    assert_true(client_message_encode(&in, LIMIT_FDS_PACKET + 1, scratch) > 0);
    assert_int_equal(fdpass_send(pair[0], scratch, 12, fds, 1), 0);
    assert_int_equal(client_channel_receive(&channel, &out), 1);
    assert_int_equal(out.n_fds, LIMIT_FDS_PACKET + 1);
    close_pair(pair);
}

static void a_wrong_number_of_fds_is_refused(void **state)
{
    int before = count_fds();
    int pair[2];

    (void)state;
    open_pair(pair, 0);
    in = (ClientMessage){.type = CLIENT_OK};
    assert_true(client_message_encode(&in, 2, scratch) > 0);
    assert_int_equal(fdpass_send(pair[0], scratch, 12, pair, 1), 0);
    assert_int_equal(client_channel_receive(&channel, &out), -EPROTO);
    close_pair(pair);
    open_pair(pair, 0);
    in.type = CLIENT_FDS; /* a packet of fds without any would keep its receiver busy for nothing */
    assert_true(client_message_encode(&in, 0, scratch) > 0);
    assert_int_equal(fdpass_send(pair[0], scratch, 12, NULL, 0), 0);
    assert_int_equal(client_channel_receive(&channel, &out), -EPROTO);
    close_pair(pair);
    assert_int_equal(count_fds(), before);
}

static void more_fds_than_a_message_may_have_are_refused(void **state)
{
    int before = count_fds();
    int fds[LIMIT_FDS_PACKET], pair[2], result;
    unsigned packets = 0;

    (void)state;
    if (!allow_fds(2 * LIMIT_FDS + 100))
        skip();
    open_pair(pair, 0);
    for (unsigned i = 0; i < LIMIT_FDS_PACKET; i++)
        fds[i] = pair[0];
    in = (ClientMessage){.type = CLIENT_FDS};
    assert_true(client_message_encode(&in, LIMIT_FDS_PACKET, scratch) > 0);
    while (packets * LIMIT_FDS_PACKET <= LIMIT_FDS) {
        assert_int_equal(fdpass_send(pair[0], scratch, 12, fds, LIMIT_FDS_PACKET), 0);
        packets++;
    }
    result = client_channel_receive(&channel, &out);
    assert_int_equal(result, -EMSGSIZE);
    close_pair(pair);
    assert_int_equal(count_fds(), before);
    assert_int_equal(fdpass_send(pair[0], scratch, 12, fds, LIMIT_FDS_PACKET + 1), -EINVAL);
}

static void a_packet_larger_than_the_buffer_is_refused(void **state)
{
    int before = count_fds();
    int pair[2], fds[4];
    char data[10] = {0};
    size_t n_fds;

    (void)state;
    open_pair(pair, 0);
    assert_int_equal(fdpass_send(pair[0], data, sizeof data, pair, 2), 0);
    assert_int_equal(fdpass_receive(pair[1], data, 5, fds, 4, &n_fds), -EMSGSIZE);
    assert_int_equal(n_fds, 0);
    assert_int_equal(fdpass_send(pair[0], data, sizeof data, pair, 2), 0);
    assert_int_equal(fdpass_receive(pair[1], data, 10, fds, 1, &n_fds), -EMSGSIZE);
    assert_int_equal(n_fds, 0);
    close_pair(pair);
    assert_int_equal(count_fds(), before);
}

/* In a child: with room for ten more fds, the kernel cuts the control data of fifty. */
static int run_out_of_fds(void)
{
    struct rlimit limit, all;
    int pair[2], fds[50], before, probe;
    size_t n_fds;
    ssize_t result;
    char byte = 0;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return 1;
    for (unsigned i = 0; i < 50; i++)
        fds[i] = pair[0];
    if (fdpass_send(pair[0], &byte, 1, fds, 50))
        return 2;
    before = count_fds();
    probe = fcntl(0, F_DUPFD, 3);
    close(probe);
    getrlimit(RLIMIT_NOFILE, &all);
    limit = all;
    limit.rlim_cur = (rlim_t)probe + 10;
    setrlimit(RLIMIT_NOFILE, &limit);
    result = fdpass_receive(pair[1], &byte, 1, fds, 50, &n_fds);
    setrlimit(RLIMIT_NOFILE, &all);
    if (result != -EMSGSIZE || n_fds != 0)
        return 3;
    return count_fds() == before ? 0 : 4;
}

static void control_data_cut_by_the_kernel_leaks_nothing(void **state)
{
    pid_t child = fork();
    int status;

    (void)state;
    if (child == 0)
        _exit(run_out_of_fds());
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void other_versions_and_types_are_told_apart(void **state)
{
    int pair[2];

    (void)state;
    open_pair(pair, 0);
    in = (ClientMessage){.type = CLIENT_OK, .serial = 9};
    assert_int_equal(client_message_encode(&in, 0, scratch), 12);
    scratch[0] = 200;
    assert_int_equal(fdpass_send(pair[0], scratch, 12, NULL, 0), 0);
    assert_int_equal(client_channel_receive(&channel, &out), 1);
    assert_int_equal(out.type, CLIENT_UNKNOWN);
    assert_int_equal(out.serial, 9);
    scratch[2] = CLIENT_VERSION + 1;
    assert_int_equal(fdpass_send(pair[0], scratch, 12, NULL, 0), 0);
    assert_int_equal(client_channel_receive(&channel, &out), -EPROTONOSUPPORT);
    close(pair[0]);
    assert_int_equal(client_channel_receive(&channel, &out), 0);
    pair[0] = -1;
    close_pair(pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_fds_arrive_in_order_and_close_on_exec),
        cmocka_unit_test(what_is_not_taken_is_closed_by_the_next_message),
        cmocka_unit_test(a_message_may_come_in_several_reads),
        cmocka_unit_test(a_wrong_number_of_fds_is_refused),
        cmocka_unit_test(more_fds_than_a_message_may_have_are_refused),
        cmocka_unit_test(a_packet_larger_than_the_buffer_is_refused),
        cmocka_unit_test(control_data_cut_by_the_kernel_leaks_nothing),
        cmocka_unit_test(other_versions_and_types_are_told_apart),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
