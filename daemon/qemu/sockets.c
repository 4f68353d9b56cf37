/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/qemu/sockets.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/core/digits.h"

enum { INODES_MAX = 1 << 20 }; /* the kernel's own bound of fds of a process (fs.nr_open) */

/* --- ends as text -------------------------------------------------------------------------- */

void socket_end_format_host(const SocketEnd *end, char ret_text[SOCKETS_TEXT])
{
    if (!inet_ntop(end->ipv6 ? AF_INET6 : AF_INET, end->address, ret_text, SOCKETS_TEXT))
        ret_text[0] = '\0';
}

void socket_end_format(const SocketEnd *end, char ret_text[SOCKETS_TEXT])
{
    char host[INET6_ADDRSTRLEN] = "";

    inet_ntop(end->ipv6 ? AF_INET6 : AF_INET, end->address, host, sizeof host);
    snprintf(ret_text, SOCKETS_TEXT, end->ipv6 ? "[%s]:%u" : "%s:%u", host, end->port);
}

/* ::ffff:a.b.c.d is a.b.c.d: whether a listener took both kinds does not matter to anybody. */
static void unmap(SocketEnd *end)
{
    static const uint8_t prefix[12] = {[10] = 0xff, [11] = 0xff};
    uint8_t address[4];

    if (!end->ipv6 || memcmp(end->address, prefix, sizeof prefix) != 0)
        return;
    memcpy(address, end->address + sizeof prefix, sizeof address);
    memset(end->address, 0, sizeof end->address);
    memcpy(end->address, address, sizeof address);
    end->ipv6 = false;
}

static bool parse_port(const char *text, uint16_t *ret_port)
{
    unsigned long port = 0;

    for (const char *at = text; *at; at++) {
        if (*at < '0' || *at > '9' || at - text >= 5)
            return false;
        port = port * 10 + (unsigned long)(*at - '0');
    }
    *ret_port = (uint16_t)port;
    return port > 0 && port <= UINT16_MAX;
}

bool socket_end_parse(const char *text, SocketEnd *ret_end)
{
    char host[SOCKETS_TEXT];
    const char *colon = strrchr(text, ':');
    size_t length = colon ? (size_t)(colon - text) : 0;

    memset(ret_end, 0, sizeof *ret_end);
    if (length == 0 || length >= sizeof host || !parse_port(colon + 1, &ret_end->port))
        return false;
    memcpy(host, text, length);
    host[length] = '\0';
    if (host[0] != '[')
        return inet_pton(AF_INET, host, ret_end->address) == 1;
    if (host[length - 1] != ']')
        return false;
    host[length - 1] = '\0';
    ret_end->ipv6 = inet_pton(AF_INET6, host + 1, ret_end->address) == 1;
    if (!ret_end->ipv6)
        return false;
    unmap(ret_end);
    return true;
}

bool socket_end_equals(const SocketEnd *a, const SocketEnd *b)
{
    return a->ipv6 == b->ipv6 && a->port == b->port &&
           memcmp(a->address, b->address, sizeof a->address) == 0;
}

/* --- what the kernel writes ---------------------------------------------------------------- */

/* Words of the address as numbers of this host, though they are in network order. */
static bool parse_end(const char *text, bool ipv6, SocketEnd *ret_end)
{
    size_t length = ipv6 ? 16 : 4;
    uint8_t port[2];

    memset(ret_end, 0, sizeof *ret_end);
    ret_end->ipv6 = ipv6;
    if (!digits_take_bytes(&text, ret_end->address, length) || *text++ != ':' ||
        !digits_take_bytes(&text, port, sizeof port) || *text != ' ')
        return false;
    for (size_t i = 0; i < length; i += 4) {
        uint32_t word;

        memcpy(&word, ret_end->address + i, sizeof word);
        word = ntohl(word);
        memcpy(ret_end->address + i, &word, sizeof word);
    }
    ret_end->port = (uint16_t)(port[0] << 8 | port[1]);
    unmap(ret_end);
    return true;
}

/* Where the fields of a line that are of use stand. */
enum { FIELD_LOCAL = 1, FIELD_REMOTE, FIELD_STATE, FIELD_INODE = 9, FIELDS };

bool sockets_parse_line(const char *line, bool ipv6, ProcessSocket *ret_socket)
{
    const char *fields[FIELDS];
    uint64_t state;

    for (unsigned i = 0; i < FIELDS; i++) {
        fields[i] = line + strspn(line, " ");
        line = fields[i] + strcspn(fields[i], " ");
    }
    if (!parse_end(fields[FIELD_LOCAL], ipv6, &ret_socket->local) ||
        !parse_end(fields[FIELD_REMOTE], ipv6, &ret_socket->remote) ||
        !digits_take(&fields[FIELD_STATE], 16, " ", &state) ||
        !digits_take(&fields[FIELD_INODE], 10, " \n", &ret_socket->inode))
        return false;
    ret_socket->state = state == SOCKET_ESTABLISHED || state == SOCKET_LISTENING
                            ? (SocketState)state
                            : SOCKET_OTHER;
    return true;
}

static int compare(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

    return left < right ? -1 : left > right;
}

void sockets_select(FILE *file, bool ipv6, const uint64_t *inodes, size_t n_inodes,
                    SocketVisit visit, void *user)
{
    ProcessSocket found;
    char *line = NULL;
    size_t size = 0;

    while (n_inodes > 0 && getline(&line, &size, file) > 0)
        if (inodes && sockets_parse_line(line, ipv6, &found) && found.inode != 0 &&
            bsearch(&found.inode, inodes, n_inodes, sizeof *inodes, compare))
            visit(user, &found);
    free(line);
}

/* --- what is looked for -------------------------------------------------------------------- */

void port_set_add(PortSet *set, uint16_t port)
{
    set->bits[port / 8] |= (uint8_t)(1 << port % 8);
}

bool port_set_has(const PortSet *set, uint16_t port)
{
    return set->bits[port / 8] & 1 << port % 8;
}

void incoming_search_listener(void *search, const ProcessSocket *socket)
{
    IncomingSearch *self = search;

    if (socket->state == SOCKET_LISTENING &&
        !(self->others && port_set_has(self->others, socket->local.port)))
        port_set_add(&self->listening, socket->local.port);
}

void incoming_search_connection(void *search, const ProcessSocket *socket)
{
    IncomingSearch *self = search;

    if (socket->state != SOCKET_ESTABLISHED || !port_set_has(&self->listening, socket->local.port))
        return;
    if (self->found && (self->socket.remote.ipv6 != socket->remote.ipv6 ||
                        memcmp(self->socket.remote.address, socket->remote.address,
                               sizeof socket->remote.address) != 0))
        self->several = true;
    self->found = true;
    self->socket = *socket;
}

typedef struct RemoteSearch {
    const SocketEnd *remote;
    uint64_t *inodes;
    uint32_t n, most;
} RemoteSearch;

static void search_remote(void *search, const ProcessSocket *socket)
{
    RemoteSearch *self = search;

    if (socket->state != SOCKET_ESTABLISHED || !socket_end_equals(&socket->remote, self->remote))
        return;
    for (uint32_t i = 0; i < self->n; i++)
        if (self->inodes[i] == socket->inode)
            return; /* shown twice, as others came or went meanwhile */
    if (self->n < self->most)
        self->inodes[self->n++] = socket->inode;
}

/* --- a process ----------------------------------------------------------------------------- */

/* The inode if the fd is a socket, else 0. */
static uint64_t inode_of(int folder, const char *name)
{
    char target[64];
    ssize_t length = readlinkat(folder, name, target, sizeof target - 1);
    const char *at = target + strlen("socket:[");
    uint64_t inode;

    if (length <= 0)
        return 0;
    target[length] = '\0';
    if (strncmp(target, "socket:[", strlen("socket:[")) != 0 || !digits_take(&at, 10, "]", &inode))
        return 0;
    return inode;
}

/* By malloc, sorted.  How many, or negative errno. */
static ssize_t read_inodes(int pid, uint64_t **ret_inodes)
{
    char path[64];
    uint64_t *inodes = NULL;
    size_t n = 0, room = 0;
    struct dirent *entry;
    DIR *folder;

    snprintf(path, sizeof path, "/proc/%d/fd", pid);
    folder = opendir(path);
    if (!folder)
        return -errno;
    while (n < INODES_MAX && (entry = readdir(folder))) {
        uint64_t inode = inode_of(dirfd(folder), entry->d_name);

        if (inode != 0 && n == room) {
            uint64_t *more = realloc(inodes, (room = room ? 2 * room : 64) * sizeof *inodes);
            if (!more)
                break;
            inodes = more;
        }
        if (inode != 0)
            inodes[n++] = inode;
    }
    closedir(folder);
    if (n > 0)
        qsort(inodes, n, sizeof *inodes, compare);
    *ret_inodes = inodes;
    return (ssize_t)n;
}

static void visit_all(int pid, const uint64_t *inodes, size_t n_inodes, SocketVisit visit,
                      void *user)
{
    static const char *const names[] = {"tcp", "tcp6"};

    for (unsigned i = 0; i < 2 && n_inodes > 0; i++) {
        char path[64];
        FILE *file;

        snprintf(path, sizeof path, "/proc/%d/net/%s", pid, names[i]);
        file = fopen(path, "re");
        if (!file)
            continue; /* a kernel without IPv6 */
        sockets_select(file, i == 1, inodes, n_inodes, visit, user);
        fclose(file);
    }
}

int sockets_find_incoming(int pid, const PortSet *others, ProcessSocket *ret_socket)
{
    IncomingSearch search = {.others = others};
    uint64_t *inodes = NULL;
    ssize_t n = read_inodes(pid, &inodes);

    if (n < 0)
        return (int)n;
    visit_all(pid, inodes, (size_t)n, incoming_search_listener, &search);
    visit_all(pid, inodes, (size_t)n, incoming_search_connection, &search);
    free(inodes);
    *ret_socket = search.socket;
    return search.several ? -ENOTUNIQ : search.found;
}

int sockets_find_remote(int pid, const SocketEnd *remote, uint64_t *ret_inodes, uint32_t most)
{
    RemoteSearch search = {.remote = remote, .inodes = ret_inodes, .most = most};
    uint64_t *inodes = NULL;
    ssize_t n = read_inodes(pid, &inodes);

    if (n < 0)
        return (int)n;
    visit_all(pid, inodes, (size_t)n, search_remote, &search);
    free(inodes);
    return (int)search.n;
}
