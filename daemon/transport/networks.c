/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/transport/networks.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The first bits of an IPv6 address that stands for an IPv4 one: all are compared in that form. */
enum { MAPPED_BITS = 96, BITS = 128 };

typedef struct Network {
    uint8_t address[16];
    unsigned prefix; /* bits of address that count; the others are 0 */
    unsigned word;
} Network;

struct Networks {
    unsigned n;
    Network networks[];
};

static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static bool is_ipv4(const uint8_t *address)
{
    return memcmp(address, mapped, sizeof mapped) == 0;
}

static bool parse_address(const char *text, uint8_t *ret_address)
{
    memcpy(ret_address, mapped, sizeof mapped);
    return inet_pton(AF_INET, text, ret_address + sizeof mapped) == 1 ||
           inet_pton(AF_INET6, text, ret_address) == 1;
}

static bool same_bits(const uint8_t *a, const uint8_t *b, unsigned bits)
{
    unsigned bytes = bits / 8, rest = bits % 8;

    return memcmp(a, b, bytes) == 0 && (rest == 0 || (a[bytes] ^ b[bytes]) >> (8 - rest) == 0);
}

/* A network of all IPv6 addresses does not hold the IPv4 ones, in whatever form those come. */
static bool is_ipv4_network(const Network *network)
{
    return network->prefix >= MAPPED_BITS && is_ipv4(network->address);
}

static bool holds(const Network *network, const uint8_t *address)
{
    return is_ipv4(address) == is_ipv4_network(network) &&
           same_bits(network->address, address, network->prefix);
}

/* Two networks are apart, or one is in the other. */
static bool overlap(const Network *a, const Network *b)
{
    return is_ipv4_network(a) == is_ipv4_network(b) &&
           same_bits(a->address, b->address, a->prefix < b->prefix ? a->prefix : b->prefix);
}

static void write_network(const Network *network, char *ret_text)
{
    bool ipv4 = is_ipv4_network(network);
    char address[INET6_ADDRSTRLEN];

    inet_ntop(ipv4 ? AF_INET : AF_INET6, network->address + (ipv4 ? sizeof mapped : 0), address,
              sizeof address);
    snprintf(ret_text, NETWORK_TEXT + 1, "%s/%u", address,
             ipv4 ? network->prefix - MAPPED_BITS : network->prefix);
}

/* --- parsing ------------------------------------------------------------------------------- */

/* An entry while it is read; the strings are cut out of a copy of the list. */
typedef struct Entry {
    const char *text; /* all of it, for what is said about it */
    char *address;
    const char *prefix; /* NULL: a lone address */
    const char *word;   /* NULL: none */
} Entry;

static bool parse_prefix(const Entry *entry, bool ipv4, unsigned *ret_prefix, char *ret_text)
{
    unsigned most = ipv4 ? BITS - MAPPED_BITS : BITS;
    unsigned long value = most;
    char *end;

    if (entry->prefix) {
        value = strtoul(entry->prefix, &end, 10);
        if (entry->prefix[0] < '0' || entry->prefix[0] > '9' || *end != '\0' || value > most ||
            strlen(entry->prefix) > 3) {
            snprintf(ret_text, LIMIT_TEXT + 1,
                     "'%.100s': what follows the / must be a number from 0 to %u", entry->text,
                     most);
            return false;
        }
    }
    *ret_prefix = (unsigned)value;
    return true;
}

/* Whoever writes 10.1.2.3/8 may mean that host or that network: trust is not to hang on a guess. */
static bool check_rest(const Network *network, const Entry *entry, char *ret_text)
{
    char text[NETWORK_TEXT + 1];
    Network cut = {.prefix = network->prefix};

    for (unsigned bit = 0; bit < network->prefix; bit++)
        cut.address[bit / 8] |= network->address[bit / 8] & (uint8_t)(0x80 >> bit % 8);
    if (memcmp(cut.address, network->address, sizeof cut.address) == 0)
        return true;
    write_network(&cut, text);
    snprintf(ret_text, LIMIT_TEXT + 1,
             "'%.100s': has bits behind its first %.3s: write %s for that network, or the address "
             "without a /",
             entry->text, entry->prefix, text);
    return false;
}

static bool parse_network(const Entry *entry, Network *ret_network, char *ret_text)
{
    bool short_form = strchr(entry->address, ':') == NULL;

    if (!parse_address(entry->address, ret_network->address)) {
        snprintf(ret_text, LIMIT_TEXT + 1,
                 "'%.100s' is not an address: networks are written as 10.1.0.0/16 or fd00:1::/64, "
                 "separated by commas",
                 entry->text);
        return false;
    }
    if (!parse_prefix(entry, short_form, &ret_network->prefix, ret_text))
        return false;
    if (short_form)
        ret_network->prefix += MAPPED_BITS;
    return check_rest(ret_network, entry, ret_text);
}

static bool parse_word(const Entry *entry, const char *const *words, unsigned n_words,
                       unsigned *ret_word, char *ret_text)
{
    int length;

    *ret_word = 0;
    if (n_words == 0 && !entry->word)
        return true;
    if (n_words == 0) {
        snprintf(ret_text, LIMIT_TEXT + 1, "'%.100s': nothing may follow the network", entry->text);
        return false;
    }
    for (unsigned i = 0; entry->word && i < n_words; i++)
        if (strcmp(entry->word, words[i]) == 0) {
            *ret_word = i;
            return true;
        }
    length = snprintf(ret_text, LIMIT_TEXT + 1, "'%.100s': must be NETWORK=WORD, where WORD is",
                      entry->text);
    for (unsigned i = 0; i < n_words; i++)
        length += snprintf(ret_text + length, (size_t)(LIMIT_TEXT + 1 - length), "%s %.20s",
                           i == 0             ? ""
                           : i + 1 == n_words ? " or"
                                              : ",",
                           words[i]);
    return false;
}

/* The same network twice is a slip; which word counts would be a guess. */
static bool check_twice(const Networks *networks, const Network *network, const Entry *entry,
                        char *ret_text)
{
    for (unsigned i = 0; i < networks->n; i++) {
        const Network *other = &networks->networks[i];
        if (other->prefix == network->prefix && other->word != network->word &&
            memcmp(other->address, network->address, sizeof other->address) == 0) {
            snprintf(ret_text, LIMIT_TEXT + 1, "'%.100s': that network is in the list already",
                     entry->text);
            return false;
        }
    }
    return true;
}

static char *strip(char *text)
{
    size_t length;

    text += strspn(text, " \t");
    length = strlen(text);
    while (length > 0 && (text[length - 1] == ' ' || text[length - 1] == '\t'))
        text[--length] = '\0';
    return text;
}

/* item: a copy of entry->text, to be cut. */
static void split(char *item, Entry *entry)
{
    char *equals = strchr(item, '='), *slash;

    if (equals)
        *equals = '\0';
    entry->word = equals ? strip(equals + 1) : NULL;
    entry->address = strip(item);
    slash = strchr(entry->address, '/');
    if (slash)
        *slash = '\0';
    entry->prefix = slash ? slash + 1 : NULL;
}

static bool parse_item(const char *text, const char *const *words, unsigned n_words,
                       Networks *networks, char *ret_text)
{
    Network *network = &networks->networks[networks->n];
    Entry entry = {.text = text};
    char item[128];

    if (text[0] == '\0') {
        snprintf(ret_text, LIMIT_TEXT + 1,
                 "an entry is empty: there is a comma too many, at its end perhaps");
        return false;
    }
    if (strlen(text) >= sizeof item) {
        snprintf(ret_text, LIMIT_TEXT + 1, "'%.100s...' is not an address: it is too long", text);
        return false;
    }
    memcpy(item, text, strlen(text) + 1);
    split(item, &entry);
    if (!parse_network(&entry, network, ret_text) ||
        !parse_word(&entry, words, n_words, &network->word, ret_text) ||
        !check_twice(networks, network, &entry, ret_text))
        return false;
    networks->n++;
    return true;
}

static bool parse_list(char *text, const char *const *words, unsigned n_words, Networks *networks,
                       char *ret_text)
{
    char *next;

    for (; text; text = next) {
        next = strchr(text, ',');
        if (next)
            *next++ = '\0';
        if (!parse_item(strip(text), words, n_words, networks, ret_text))
            return false;
    }
    return true;
}

Networks *networks_parse_words(const char *text, const char *const *words, unsigned n_words,
                               char *ret_text)
{
    char *copy = strdup(text ? text : "");
    Networks *networks = NULL;
    size_t n = 1;

    for (const char *at = copy; at && *at; at++)
        n += *at == ',';
    if (copy)
        networks = calloc(1, sizeof *networks + n * sizeof networks->networks[0]);
    if (!networks) {
        snprintf(ret_text, LIMIT_TEXT + 1, "there is not enough memory");
    } else if (strip(copy)[0] != '\0' && !parse_list(copy, words, n_words, networks, ret_text)) {
        free(networks);
        networks = NULL;
    }
    free(copy);
    return networks;
}

Networks *networks_parse(const char *text, char *ret_text)
{
    return networks_parse_words(text, NULL, 0, ret_text);
}

void networks_free(Networks *networks)
{
    free(networks);
}

/* --- asking -------------------------------------------------------------------------------- */

/* The smallest network that host is in. */
static const Network *find(const Networks *networks, const char *host)
{
    const Network *found = NULL;
    char numeric[INET6_ADDRSTRLEN];
    uint8_t address[16];
    size_t length = strcspn(host, "%");

    if (!networks || length >= sizeof numeric)
        return NULL;
    memcpy(numeric, host, length);
    numeric[length] = '\0';
    if (!parse_address(numeric, address))
        return NULL;
    for (unsigned i = 0; i < networks->n; i++) {
        const Network *network = &networks->networks[i];
        if (holds(network, address) && (!found || network->prefix > found->prefix))
            found = network;
    }
    return found;
}

bool networks_match(const Networks *networks, const char *host)
{
    return find(networks, host) != NULL;
}

unsigned networks_word(const Networks *networks, const char *host, unsigned fallback)
{
    const Network *network = find(networks, host);

    return network ? network->word : fallback;
}

bool networks_find_outside(const Networks *list, unsigned word, const Networks *others,
                           char *ret_text)
{
    for (unsigned i = 0; list && i < list->n; i++) {
        bool outside = list->networks[i].word == word;

        for (unsigned j = 0; others && j < others->n; j++)
            outside = outside && !overlap(&list->networks[i], &others->networks[j]);
        if (outside) {
            write_network(&list->networks[i], ret_text);
            return true;
        }
    }
    return false;
}

bool networks_is_empty(const Networks *networks)
{
    return !networks || networks->n == 0;
}

static bool is_loopback(const Network *network)
{
    static const uint8_t ipv4[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127};

    return (network->prefix >= MAPPED_BITS + 8 &&
            same_bits(network->address, ipv4, MAPPED_BITS + 8)) ||
           (network->prefix == BITS &&
            memcmp(network->address, &in6addr_loopback, sizeof network->address) == 0);
}

static unsigned loopbacks(const Networks *networks)
{
    unsigned n = 0;

    for (unsigned i = 0; networks && i < networks->n; i++)
        n += is_loopback(&networks->networks[i]);
    return n;
}

bool networks_name_loopback(const Networks *networks)
{
    return loopbacks(networks) > 0;
}

bool networks_are_loopback(const Networks *networks)
{
    return !networks_is_empty(networks) && loopbacks(networks) == networks->n;
}
