/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/qemu/sockets.h"

#define HEAD                                                                                      \
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout " \
    "inode\n"

/* As a kernel on a little-endian host writes them. */
static const char tcp[] = HEAD
    "   0: 00000000:C000 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 "
    "101 1 0000000000000000 100 0 0 10 0\n"
    "   1: 0A01A8C0:C000 0B01A8C0:9C40 01 00000000:00000000 00:00000000 00000000   107        0 "
    "102 2 0000000000000000 20 4 30 10 -1\n"
    "   2: 0A01A8C0:0016 0C01A8C0:C000 01 00000000:00000000 00:00000000 00000000     0        0 "
    "103 1 0000000000000000 20 4 30 10 -1\n"
    "   3: 0A01A8C0:C000 0D01A8C0:9C41 06 00000000:00000000 03:00001767 00000000     0        0 "
    "0 3 0000000000000000\n";

static const char tcp6[] = HEAD
    "   0: 00000000000000000000000000000000:C001 00000000000000000000000000000000:0000 0A "
    "00000000:00000000 00:00000000 00000000     0        0 201 1 0000000000000000 100 0 0 10 0\n"
    "   1: 0000000000000000FFFF00000A01A8C0:C001 0000000000000000FFFF00000B01A8C0:9C42 01 "
    "00000000:00000000 00:00000000 00000000     0        0 202 1 0000000000000000 20 0 0 10 -1\n"
    "   2: 000000FD000000000000000001000000:C001 000000FD000000000000000002000000:9C43 01 "
    "00000000:00000000 00:00000000 00000000     0        0 203 1 0000000000000000 20 0 0 10 -1\n";

/* Sockets in the order in which they were shown. */
typedef struct Shown {
    uint32_t n;
    ProcessSocket sockets[8];
} Shown;

static void note(void *user, const ProcessSocket *socket)
{
    Shown *shown = user;

    assert_true(shown->n < 8);
    shown->sockets[shown->n++] = *socket;
}

static void visit(const char *text, bool ipv6, const uint64_t *inodes, size_t n,
                  SocketVisit visitor, void *user)
{
    FILE *file = fmemopen((void *)text, strlen(text), "r");

    sockets_select(file, ipv6, inodes, n, visitor, user);
    fclose(file);
}

static Shown select_from(const char *text, bool ipv6, const uint64_t *inodes, size_t n)
{
    Shown shown = {0};

    visit(text, ipv6, inodes, n, note, &shown);
    return shown;
}

static const char *end_text(const SocketEnd *end)
{
    static char text[SOCKETS_TEXT];

    socket_end_format(end, text);
    return text;
}

static void only_sockets_of_the_process_are_taken(void **state)
{
    const uint64_t inodes[] = {101, 102, 999};
    Shown shown = select_from(tcp, false, inodes, 3);

    (void)state;
    assert_int_equal(shown.n, 2);
    assert_int_equal(shown.sockets[0].state, SOCKET_LISTENING);
    assert_string_equal(end_text(&shown.sockets[0].local), "0.0.0.0:49152");
    assert_int_equal(shown.sockets[1].state, SOCKET_ESTABLISHED);
    assert_string_equal(end_text(&shown.sockets[1].local), "192.168.1.10:49152");
    assert_string_equal(end_text(&shown.sockets[1].remote), "192.168.1.11:40000");
    assert_int_equal(shown.sockets[1].inode, 102);
    assert_int_equal(select_from(tcp, false, inodes, 0).n, 0);
}

static void ipv4_in_ipv6_is_ipv4(void **state)
{
    const uint64_t inodes[] = {201, 202, 203};
    Shown shown = select_from(tcp6, true, inodes, 3);

    (void)state;
    assert_int_equal(shown.n, 3);
    assert_string_equal(end_text(&shown.sockets[0].local), "[::]:49153");
    assert_false(shown.sockets[1].remote.ipv6);
    assert_string_equal(end_text(&shown.sockets[1].local), "192.168.1.10:49153");
    assert_string_equal(end_text(&shown.sockets[1].remote), "192.168.1.11:40002");
    assert_string_equal(end_text(&shown.sockets[2].remote), "[fd00::2]:40003");
}

static IncomingSearch search(const char *text, bool ipv6, const uint64_t *inodes, size_t n,
                             const PortSet *others)
{
    IncomingSearch result = {.others = others};

    visit(text, ipv6, inodes, n, incoming_search_listener, &result);
    visit(text, ipv6, inodes, n, incoming_search_connection, &result);
    return result;
}

static void the_migration_comes_to_a_port_it_listens_at(void **state)
{
    const uint64_t all[] = {101, 102, 103}, no_listener[] = {102, 103}, other[] = {101, 103};
    IncomingSearch result = search(tcp, false, all, 3, NULL);

    (void)state;
    assert_true(result.found && !result.several);
    assert_int_equal(result.socket.inode, 102);
    assert_false(search(tcp, false, no_listener, 2, NULL).found);
    /* A connection of its own to that port of another host is none. */
    assert_int_equal(select_from(tcp, false, other, 2).n, 2);
    assert_false(search(tcp, false, other, 2, NULL).found);
}

/* The console of a VM is listened at as well, and whoever looks at it is not its source. */
static void other_ports_are_not_the_migration(void **state)
{
    const uint64_t inodes[] = {201, 202, 203}, one[] = {201, 203};
    PortSet others = {0};

    (void)state;
    assert_true(search(tcp6, true, inodes, 3, NULL).several);
    assert_true(search(tcp6, true, one, 2, NULL).found);
    assert_false(search(tcp6, true, one, 2, NULL).several);
    port_set_add(&others, 49152);
    assert_true(search(tcp6, true, inodes, 3, &others).found);
    port_set_add(&others, 49153);
    assert_true(port_set_has(&others, 49153) && !port_set_has(&others, 49154));
    assert_false(search(tcp6, true, inodes, 3, &others).found);
}

static void nonsense_is_no_socket(void **state)
{
    static const char *const lines[] = {
        "",
        "\n",
        HEAD,
        "   0: 00000000:C000 00000000:0000 0A",
        "   0: 0000000:C000 00000000:0000 0A 0:0 0:0 0 0 0 5 1\n",
        "   0: 00000000:C000 0000000000000000:0000 0A 0:0 0:0 0 0 0 5 1\n",
        "   0: zzzzzzzz:C000 00000000:0000 0A 0:0 0:0 0 0 0 5 1\n",
        "   0: 00000000:C00 00000000:0000 0A 0:0 0:0 0 0 0 5 1\n",
        "   0: 00000000:C0000 00000000:0000 0A 0:0 0:0 0 0 0 5 1\n",
        "   0: 00000000:C000 00000000:0000 +A 0:0 0:0 0 0 0 5 1\n",
        "   0: 00000000:C000 00000000:0000 0A 0:0 0:0 0 0 0 -5 1\n",
        "   0: 00000000:C000 00000000:0000 0A 0:0 0:0 0 0 0 5", /* cut short, maybe in a number */
    };
    ProcessSocket socket;

    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
        assert_false(sockets_parse_line(lines[i], false, &socket));
    assert_true(sockets_parse_line("0: 00000000:C000 00000000:0000 0A 0:0 0:0 0 0 0 5 1\n", false,
                                   &socket));
}

static void ends_are_read_as_they_are_written(void **state)
{
    static const char *const wrong[] = {
        "",      "1.2.3.4", "1.2.3.4:",    "1.2.3.4:0",  "host:1",     "1.2.3.4:65536",
        "::1:5", "[::1]5",  "[1.2.3.4]:5", "1.2.3.4:1x", "[fd00::1:5", "1.2.3.4:000001"};
    static const char *const right[] = {"1.2.3.4:5", "[fd00::2]:65535", "[::]:1"};
    SocketEnd end, mapped;

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_false(socket_end_parse(wrong[i], &end));
    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++) {
        assert_true(socket_end_parse(right[i], &end));
        assert_string_equal(end_text(&end), right[i]);
    }
    assert_true(socket_end_parse("1.2.3.4:5", &end));
    assert_true(socket_end_parse("[::ffff:1.2.3.4]:5", &mapped));
    assert_true(socket_end_equals(&end, &mapped));
    mapped.port = 6;
    assert_false(socket_end_equals(&end, &mapped));
}

static int listen_on_loopback(struct sockaddr_in *ret_address)
{
    socklen_t length = sizeof *ret_address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    *ret_address =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(bind(fd, (struct sockaddr *)ret_address, length), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)ret_address, &length), 0);
    return fd;
}

/* own: an address of this host.  Connections to different ports may have the same port there. */
static int connect_to(const struct sockaddr_in *address, uint32_t own)
{
    const struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(own)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (const struct sockaddr *)&from, sizeof from), 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)address, sizeof *address), 0);
    return fd;
}

static void a_process_is_found_out_by_its_own_files(void **state)
{
    struct sockaddr_in address, own;
    socklen_t length = sizeof own;
    int listener = listen_on_loopback(&address), outgoing, incoming;
    PortSet others = {0};
    ProcessSocket found;
    uint64_t inodes[4];

    (void)state;
    assert_int_equal(sockets_find_incoming(getpid(), NULL, &found), 0);
    outgoing = connect_to(&address, INADDR_LOOPBACK);
    incoming = accept(listener, NULL, NULL);
    assert_true(incoming >= 0);
    assert_int_equal(getsockname(outgoing, (struct sockaddr *)&own, &length), 0);
    assert_int_equal(sockets_find_incoming(getpid(), NULL, &found), 1);
    assert_int_equal(found.remote.port, ntohs(own.sin_port));
    assert_int_equal(found.local.port, ntohs(address.sin_port));
    assert_int_equal(sockets_find_remote(getpid(), &found.remote, inodes, 4), 1);
    port_set_add(&others, found.local.port);
    assert_int_equal(sockets_find_incoming(getpid(), &others, &found), 0);
    assert_true(sockets_find_incoming(0x7fffffff, NULL, &found) < 0);
    assert_true(sockets_find_remote(0x7fffffff, &found.remote, inodes, 4) < 0);
    close(listener);
    close(outgoing);
    close(incoming);
}

/* As a QEMU has whose disks are in a cluster. */
static void one_among_many_is_found(void **state)
{
    enum { OTHERS = 400 };
    struct sockaddr_in address, elsewhere;
    int others = listen_on_loopback(&elsewhere), listener, fds[2 * OTHERS], outgoing, incoming;
    ProcessSocket found;
    uint64_t inodes[4];

    (void)state;
    for (int i = 0; i < OTHERS; i++) {
        fds[2 * i] = connect_to(&elsewhere, INADDR_LOOPBACK);
        fds[2 * i + 1] = accept(others, NULL, NULL);
        assert_true(fds[2 * i + 1] >= 0);
    }
    close(others);
    listener = listen_on_loopback(&address);
    outgoing = connect_to(&address, INADDR_LOOPBACK + 1);
    incoming = accept(listener, NULL, NULL);
    assert_int_equal(sockets_find_incoming(getpid(), NULL, &found), 1);
    assert_int_equal(found.local.port, ntohs(address.sin_port));
    assert_int_equal(sockets_find_remote(getpid(), &found.remote, inodes, 4), 1);
    found.remote.port = 1;
    assert_int_equal(sockets_find_remote(getpid(), &found.remote, inodes, 4), 0);
    for (int i = 0; i < 2 * OTHERS; i++)
        close(fds[i]);
    close(listener);
    close(outgoing);
    close(incoming);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_sockets_of_the_process_are_taken),
        cmocka_unit_test(ipv4_in_ipv6_is_ipv4),
        cmocka_unit_test(the_migration_comes_to_a_port_it_listens_at),
        cmocka_unit_test(other_ports_are_not_the_migration),
        cmocka_unit_test(nonsense_is_no_socket),
        cmocka_unit_test(ends_are_read_as_they_are_written),
        cmocka_unit_test(a_process_is_found_out_by_its_own_files),
        cmocka_unit_test(one_among_many_is_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
