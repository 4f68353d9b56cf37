/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Lists of networks: what is in them, and what is said about those that make no sense.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/transport/networks.h"

static bool is_in(const char *list, const char *host)
{
    char text[LIMIT_TEXT + 1] = "";
    Networks *networks = networks_parse(list, text);
    bool found;

    if (!networks)
        fail_msg("%s: %s", list, text);
    found = networks_match(networks, host);
    networks_free(networks);
    return found;
}

static void hosts_are_found(void **state)
{
    static const struct {
        const char *list, *host;
    } in[] = {
        {"10.1.0.0/16", "10.1.255.255"},
        {"10.1.0.0/16", "::ffff:10.1.2.3"},
        {"0.0.0.0/0", "192.0.2.1"},
        {"0.0.0.0/0", "::ffff:192.0.2.1"},
        {"192.0.2.7", "192.0.2.7"},
        {"192.0.2.7/32", "192.0.2.7"},
        {"10.0.0.0/9", "10.127.0.1"},
        {"10.128.0.0/9", "10.128.0.1"},
        {"192.0.2.6/31", "192.0.2.7"},
        {"fd00:1::/64", "fd00:1::5"},
        {"fd00:1::/65", "fd00:1:0:0:7fff::1"},
        {"::/0", "2001:db8::1"},
        {"fe80::/10", "fe80::1%eth0"},
        {"2001:db8::1", "2001:db8:0::1"},
        {"::ffff:10.0.0.0/104", "10.2.3.4"},
        {"::ffff:10.2.3.4", "10.2.3.4"},
        {" 10.1.0.0/16 ,\tfd00::/8 , 192.0.2.7 ", "192.0.2.7"},
        {"10.1.0.0/16,10.1.0.0/16", "10.1.0.1"},
        {"127.0.0.0/8", "127.0.0.1"},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof in / sizeof in[0]; i++)
        if (!is_in(in[i].list, in[i].host))
            fail_msg("%s is not in %s", in[i].host, in[i].list);
}

static void others_are_not(void **state)
{
    static const struct {
        const char *list, *host;
    } out[] = {
        {NULL, "10.1.2.3"},
        {"", "10.1.2.3"},
        {"  ", "10.1.2.3"},
        {"10.1.0.0/16", "10.2.0.0"},
        {"10.1.0.0/16", "10.0.255.255"},
        {"10.0.0.0/9", "10.128.0.1"},
        {"192.0.2.7", "192.0.2.6"},
        {"fd00:1::/65", "fd00:1:0:0:8000::1"},
        {"10.1.0.0/16", "0a01::1"},
        {"::/0", "10.1.2.3"},
        {"::/0", "::ffff:10.1.2.3"},
        {"0.0.0.0/0", "::1"},
        {"0.0.0.0/0", "example.org"},
        {"0.0.0.0/0", ""},
        {"0.0.0.0/0", "10.1.2"},
        {"0.0.0.0/0", "10.1.2.3:16520"},
        {"0.0.0.0/0", "1111111111111111111111111111111111111111111111111111111111111111111111"},
        {"10.1.0.0/16", "::10.1.2.3"},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof out / sizeof out[0]; i++)
        if (is_in(out[i].list, out[i].host))
            fail_msg("%s is in %s", out[i].host, out[i].list ? out[i].list : "no list");
    assert_false(networks_match(NULL, "10.1.2.3"));
}

static void nonsense_is_named(void **state)
{
    static const struct {
        const char *list, *part;
    } bad[] = {
        {"10.0.0.0/33", "'10.0.0.0/33': what follows the / must be a number from 0 to 32"},
        {"fd00::/129", "0 to 128"},
        {"10.0.0.0/", "0 to 32"},
        {"10.0.0.0/-1", "0 to 32"},
        {"10.0.0.0/+8", "0 to 32"},
        {"10.0.0.0/8x", "0 to 32"},
        {"10.0.0.0/0008", "0 to 32"},
        {"10.0.0.0/255.0.0.0", "0 to 32"},
        {"10.0.0.0/99999999999999999999", "0 to 32"},
        {"10.1.2.3/8", "write 10.0.0.0/8 for that network"},
        {"fd00::1/64", "write fd00::/64 for that network"},
        {"::ffff:10.1.2.3/104", "write 10.0.0.0/8 for that network"},
        {"10.0.0.0/8,", "a comma too many"},
        {",10.0.0.0/8", "a comma too many"},
        {"10.0.0.0/8,,fd00::/8", "a comma too many"},
        {"10.0.0.0/8 fd00::/8", "0 to 32"},
        {"10.0.0.0/8;fd00::/8", "0 to 32"},
        {"10.1.2.3 fd00::1", "is not an address"},
        {"storage", "'storage' is not an address"},
        {"10.0.0/8", "is not an address"},
        {"[fd00::]/8", "is not an address"},
        {"fe80::1%eth0", "is not an address"},
        {"10.0.0.0/8=rdma", "nothing may follow"},
        {"10.0.0.0/8=", "nothing may follow"},
        {"=", "is not an address"},
        {"/", "is not an address"},
    };
    char text[LIMIT_TEXT + 1], many[600];

    (void)state;
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        text[0] = '\0';
        assert_null(networks_parse(bad[i].list, text));
        if (!strstr(text, bad[i].part))
            fail_msg("%s: '%s' does not say '%s'", bad[i].list, text, bad[i].part);
        assert_null(strchr(text, '\n'));
    }
    memset(many, '1', sizeof many - 1);
    many[sizeof many - 1] = '\0';
    assert_null(networks_parse(many, text));
    assert_non_null(strstr(text, "is not an address"));
    memset(many, ' ', sizeof many - 1);
    memcpy(many, "10.0.0.0/8", 10);
    many[sizeof many - 2] = 'x';
    assert_null(networks_parse(many, text));
    assert_non_null(strstr(text, "too long"));
}

static const char *const words[] = {"auto", "tcp", "rdma"};

static void the_smallest_network_decides(void **state)
{
    char text[LIMIT_TEXT + 1];
    Networks *networks = networks_parse_words(
        "10.0.0.0/8=rdma, 10.1.0.0/16 = tcp ,10.1.2.3=auto,fd00::/8=rdma,0.0.0.0/0=tcp", words, 3,
        text);

    (void)state;
    assert_non_null(networks);
    assert_int_equal(networks_word(networks, "10.9.9.9", 7), 2);
    assert_int_equal(networks_word(networks, "10.1.9.9", 7), 1);
    assert_int_equal(networks_word(networks, "10.1.2.3", 7), 0);
    assert_int_equal(networks_word(networks, "::ffff:10.1.2.3", 7), 0);
    assert_int_equal(networks_word(networks, "fd12::1", 7), 2);
    assert_int_equal(networks_word(networks, "192.0.2.1", 7), 1);
    assert_int_equal(networks_word(networks, "2001:db8::1", 7), 7);
    assert_int_equal(networks_word(networks, "a.name", 7), 7);
    assert_int_equal(networks_word(NULL, "10.9.9.9", 7), 7);
    networks_free(networks);
}

static void words_are_checked(void **state)
{
    static const char *const bad[] = {"10.0.0.0/8", "10.0.0.0/8=", "10.0.0.0/8=RDMA",
                                      "10.0.0.0/8=rdma=tcp", "10.0.0.0/8=verbs"};
    char text[LIMIT_TEXT + 1];
    Networks *same;

    (void)state;
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_null(networks_parse_words(bad[i], words, 3, text));
        assert_non_null(strstr(text, "must be NETWORK=WORD, where WORD is auto, tcp or rdma"));
    }
    assert_null(networks_parse_words("10.0.0.0/8=tcp, 10.0.0.0/8=rdma", words, 3, text));
    assert_non_null(strstr(text, "in the list already"));
    same = networks_parse_words("10.0.0.0/8=tcp, 10.0.0.0/8=tcp", words, 3, text);
    assert_non_null(same);
    networks_free(same);
}

static void what_is_outside_is_found(void **state)
{
    static const struct {
        const char *list, *others, *outside; /* NULL: nothing is */
    } lists[] = {
        {"10.1.0.0/16=rdma", "10.1.0.0/16", NULL},
        {"10.1.2.3=rdma", "10.0.0.0/8", NULL},
        {"0.0.0.0/0=rdma", "10.1.0.0/16", NULL},
        {"fd00::/8=rdma", "10.0.0.0/8,fd12::/16", NULL},
        {"::ffff:10.1.0.0/112=rdma", "10.0.0.0/8", NULL},
        {"192.0.2.0/24=tcp, 198.51.100.0/24=auto", "10.0.0.0/8", NULL},
        {" ", "10.0.0.0/8", NULL},
        {"10.2.0.0/16=rdma", "10.1.0.0/16", "10.2.0.0/16"},
        {"10.1.0.0/16=rdma", "10.1.0.0/16,10.2.0.0/16", NULL},
        {"10.2.0.0/16=rdma", "10.1.0.0/16,10.2.0.0/16", NULL},
        {"10.2.0.0/16=tcp, 10.1.0.0/16=rdma, 192.0.2.7=rdma, ::1=rdma", "10.1.0.0/16",
         "192.0.2.7/32"},
        {"10.0.0.0/8=rdma", "", "10.0.0.0/8"},
        {"10.0.0.0/9=rdma", "10.128.0.0/9", "10.0.0.0/9"},
        {"0.0.0.0/0=rdma", "::/0", "0.0.0.0/0"},
        {"::/0=rdma", "10.0.0.0/8", "::/0"},
        {"2001:db8:1:2:3:4:5:6=rdma", "fd00::/8", "2001:db8:1:2:3:4:5:6/128"},
    };
    char text[LIMIT_TEXT + 1], network[NETWORK_TEXT + 1];

    (void)state;
    for (unsigned i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        Networks *list = networks_parse_words(lists[i].list, words, 3, text);
        Networks *others = networks_parse(lists[i].others, text);
        bool found = networks_find_outside(list, 2, others, network);

        if (found != (lists[i].outside != NULL))
            fail_msg("%s in %s: %s", lists[i].list, lists[i].others, found ? network : "nothing");
        if (found)
            assert_string_equal(network, lists[i].outside);
        networks_free(list);
        networks_free(others);
    }
    assert_false(networks_find_outside(NULL, 2, NULL, network));
}

static void emptiness_and_loopback_are_told(void **state)
{
    static const struct {
        const char *list;
        bool empty, loopback, all;
    } lists[] = {
        {NULL, true, false, false},          {" ", true, false, false},
        {"10.0.0.0/8", false, false, false}, {"10.0.0.0/8, 127.0.0.1", false, true, false},
        {"127.0.0.0/8", false, true, true},  {"::1, 127.0.0.1", false, true, true},
        {"0.0.0.0/0", false, false, false},  {"::/0", false, false, false},
    };
    char text[LIMIT_TEXT + 1];

    (void)state;
    for (unsigned i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        Networks *networks = networks_parse(lists[i].list, text);
        assert_non_null(networks);
        assert_int_equal(networks_is_empty(networks), lists[i].empty);
        assert_int_equal(networks_name_loopback(networks), lists[i].loopback);
        assert_int_equal(networks_are_loopback(networks), lists[i].all);
        networks_free(networks);
    }
    assert_true(networks_is_empty(NULL));
    assert_false(networks_name_loopback(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hosts_are_found),
        cmocka_unit_test(others_are_not),
        cmocka_unit_test(nonsense_is_named),
        cmocka_unit_test(the_smallest_network_decides),
        cmocka_unit_test(words_are_checked),
        cmocka_unit_test(emptiness_and_loopback_are_told),
        cmocka_unit_test(what_is_outside_is_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
