/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * HOST:PORT, and sockets from it.
 */
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/transport/address.h"

static void addresses_are_parsed(void **state)
{
    static const struct {
        const char *text, *host, *port;
    } good[] = {
        {"host:16520", "host", "16520"},
        {"10.1.2.3:0", "10.1.2.3", "0"},
        {"[::1]:65535", "::1", "65535"},
        {"[2001:db8::1]:1", "2001:db8::1", "1"},
        {"[fe80::1%eth0]:5", "fe80::1%eth0", "5"},
        {":16520", "", "16520"},
        {"a-b.example.org:00080", "a-b.example.org", "00080"},
    };
    Address address;

    (void)state;
    for (unsigned i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(address_parse(good[i].text, &address), 0);
        assert_string_equal(address.host, good[i].host);
        assert_string_equal(address.port, good[i].port);
    }
}

static void nonsense_is_refused(void **state)
{
    static const char *const bad[] = {
        "",        "host",       "host:",      "host:port",  "host:-1",     "host:+1",
        "host: 1", "host:1x",    "host:65536", "host:99999", "host:000080", "::1:16520",
        "[::1]",   "[::1:16520", "[]:16520",   "[:16520",    "a:b:1",       "host:1 ",
    };
    char text[400];
    Address address;

    (void)state;
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(address_parse(bad[i], &address), -EINVAL);
    memset(text, 'h', sizeof text);
    strcpy(text + LIMIT_ADDRESS + 1, ":1");
    assert_int_equal(address_parse(text, &address), -EINVAL);
    strcpy(text + LIMIT_ADDRESS, ":1");
    assert_int_equal(address_parse(text, &address), 0);
}

static void what_is_formatted_can_be_parsed(void **state)
{
    char text[LIMIT_ADDRESS + 1], host[LIMIT_ADDRESS + 1];
    Address address;

    (void)state;
    assert_int_equal(address_format("::1", "16520", text), 0);
    assert_string_equal(text, "[::1]:16520");
    assert_int_equal(address_parse(text, &address), 0);
    assert_string_equal(address.host, "::1");
    assert_int_equal(address_format("host", "1", text), 0);
    assert_string_equal(text, "host:1");
    memset(host, 'h', LIMIT_ADDRESS);
    host[LIMIT_ADDRESS] = '\0';
    assert_int_equal(address_format(host, "1", text), -EINVAL);
}

static bool loopback(const char *text)
{
    Address address;

    assert_int_equal(address_parse(text, &address), 0);
    return address_is_loopback(&address);
}

static void loopback_is_known(void **state)
{
    (void)state;
    assert_true(loopback("127.0.0.1:1"));
    assert_true(loopback("127.3.2.1:1"));
    assert_true(loopback("[::1]:1"));
    assert_false(loopback("10.0.0.1:1"));
    assert_false(loopback("0.0.0.0:1"));
    assert_false(loopback(":1"));
}

static void a_connection_is_made(void **state)
{
    char host[64];
    Address address;
    int listener, fd;

    (void)state;
    assert_int_equal(address_parse("127.0.0.1:0", &address), 0);
    listener = address_listen(&address);
    assert_true(listener >= 0);
    assert_int_equal(address_own_port(listener, address.port, sizeof address.port), 0);
    fd = address_connect(&address, 1000, 1000, -1);
    assert_true(fd >= 0);
    assert_int_equal(address_peer_host(fd, host, sizeof host), 0);
    assert_string_equal(host, "127.0.0.1");
    close(fd);
    close(listener);
    assert_int_equal(address_connect(&address, 1000, 1000, -1), -ECONNREFUSED);
}

/* What may be cancelled does not ask a name server. */
static void a_name_is_looked_up_only_where_it_may_block(void **state)
{
    Address address = {.host = "127.0.0.1", .port = "0"};
    int listener = address_listen(&address);
    int never[2], fd;

    (void)state;
    assert_true(listener >= 0);
    assert_int_equal(pipe(never), 0);
    assert_int_equal(address_own_port(listener, address.port, sizeof address.port), 0);
    assert_true(address_is_numeric(&address));
    fd = address_connect(&address, 1000, 1000, never[0]);
    assert_true(fd >= 0);
    close(fd);
    snprintf(address.host, sizeof address.host, "localhost");
    assert_false(address_is_numeric(&address));
    assert_int_equal(address_connect(&address, 1000, 1000, never[0]), -EINVAL);
    fd = address_connect(&address, 1000, 1000, -1);
    assert_true(fd >= 0);
    close(fd);
    assert_true(address_is_numeric(&(Address){.host = "::1", .port = "1"}));
    assert_false(address_is_numeric(&(Address){.host = "", .port = "1"}));
    close(never[0]);
    close(never[1]);
    close(listener);
}

static void a_port_in_use_is_told(void **state)
{
    Address address;
    int listener;

    (void)state;
    assert_int_equal(address_parse("127.0.0.1:0", &address), 0);
    listener = address_listen(&address);
    assert_true(listener >= 0);
    assert_int_equal(address_own_port(listener, address.port, sizeof address.port), 0);
    assert_int_equal(address_listen(&address), -EADDRINUSE);
    close(listener);
}

static int option(int socket, int level, int name)
{
    int value = -1;
    socklen_t length = sizeof value;

    assert_int_equal(getsockopt(socket, level, name, &value, &length), 0);
    return value;
}

static void urgent_goes_before_bulk(void **state)
{
    (void)state;
    for (int family = AF_INET;; family = AF_INET6) {
        int level = family == AF_INET ? IPPROTO_IP : IPPROTO_IPV6;
        int name = family == AF_INET ? IP_TOS : IPV6_TCLASS;
        int urgent = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int bulk = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

        if (urgent >= 0 && bulk >= 0) { /* a host may lack IPv6 */
            address_prioritise(urgent, true);
            address_prioritise(bulk, false);
            assert_int_equal(option(urgent, level, name), 40 << 2);
            assert_int_equal(option(bulk, level, name), 8 << 2);
            assert_int_equal(option(urgent, SOL_SOCKET, SO_PRIORITY), 6);
            assert_int_equal(option(bulk, SOL_SOCKET, SO_PRIORITY), 2);
        }
        close(urgent);
        close(bulk);
        if (family == AF_INET6)
            break;
    }
}

/* How much a connection takes that nobody reads from. */
static size_t swallowed(int bound)
{
    static const char bytes[65536];
    Address address;
    size_t sum = 0;
    ssize_t n;

    assert_int_equal(address_parse("127.0.0.1:0", &address), 0);
    int listener = address_listen(&address);
    assert_int_equal(address_own_port(listener, address.port, sizeof address.port), 0);
    int fd = address_connect(&address, 5000, 5000, -1);
    assert_true(fd >= 0);
    if (bound)
        address_bound_unsent(fd, bound);
    while ((n = send(fd, bytes, sizeof bytes, MSG_NOSIGNAL | MSG_DONTWAIT)) > 0)
        sum += (size_t)n;
    assert_int_equal(errno, EAGAIN);
    close(fd);
    close(listener);
    return sum;
}

static void what_waits_to_be_sent_is_bounded(void **state)
{
    size_t free_of_bounds = swallowed(0), bounded = swallowed(65536);

    (void)state;
    assert_true(bounded > 0);
    assert_true(bounded + 262144 < free_of_bounds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_parsed),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(what_is_formatted_can_be_parsed),
        cmocka_unit_test(loopback_is_known),
        cmocka_unit_test(a_connection_is_made),
        cmocka_unit_test(a_name_is_looked_up_only_where_it_may_block),
        cmocka_unit_test(a_port_in_use_is_told),
        cmocka_unit_test(urgent_goes_before_bulk),
        cmocka_unit_test(what_waits_to_be_sent_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
