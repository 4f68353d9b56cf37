/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Plays a QEMU in assist mode, its preload and its guest, or one that such a QEMU's memory comes from, as a
 * test tells it line by line:
 *
 *   assisted SOCKET MIB
 *
 * It listens for a migration, which comes as any TCP connection.  Each command is answered by
 * "OK COMMAND [figures]" or "ERR COMMAND why"; "touch" ends with an EVENT of its own.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "tests/integration/assisted_memory.h"

typedef struct Assisted {
    const char *path;
    AssistedMemory memory;
    int socket, device;
    ClientChannel channel;
    ClientMessage message;
    uint8_t scratch[CLIENT_PACKET_MAX];
    uint32_t serial;
    char text[LIMIT_TEXT + 1]; /* of the answer */
} Assisted;

static void daemon_connect(Assisted *self)
{
    const struct timeval patience = {.tv_sec = 30};
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    self->socket = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", self->path);
    if (connect(self->socket, (struct sockaddr *)&address, sizeof address)) {
        printf("FATAL connect %s: %s\n", self->path, strerror(errno));
        exit(1);
    }
    setsockopt(self->socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    client_channel_init(&self->channel, self->socket);
}

static void daemon_disconnect(Assisted *self)
{
    client_channel_deinit(&self->channel);
    close(self->socket);
}

static void say(Assisted *self, ClientMessageType type, const int *fds, uint32_t n_fds)
{
    self->message.type = type;
    self->message.serial = ++self->serial;
    client_message_send(self->socket, &self->message, fds, n_fds, self->scratch);
}

/* The answer to what was said last. NULL, or why not. */
static const char *hear(Assisted *self, ClientMessageType type)
{
    if (client_channel_receive(&self->channel, &self->message) != 1)
        return "the daemon does not answer";
    if (self->message.serial != self->serial)
        return "an answer to something else";
    if (self->message.type == type)
        return NULL;
    if (self->message.type != CLIENT_ERROR)
        return "an answer of another type";
    memcpy(self->text, self->message.status.text, sizeof self->text);
    return self->text;
}

/* --- commands: NULL, or why it failed; text: what to say of it --------------------------------- */

static bool parse_uuid(const char *text, uint8_t *ret_uuid)
{
    for (int i = 0; i < LIMIT_UUID; i++) {
        unsigned byte;

        if (sscanf(text + 2 * i, "%2x", &byte) != 1)
            return false;
        ret_uuid[i] = (uint8_t)byte;
    }
    return true;
}

static const char *do_assist(Assisted *self, const char *words)
{
    const char *error;

    memset(&self->message.assist, 0, sizeof self->message.assist);
    if (*words && !parse_uuid(words, self->message.assist.uuid))
        return "wants a uuid as 32 digits";
    say(self, CLIENT_ASSIST, NULL, 0);
    error = hear(self, CLIENT_PLAN);
    if (error)
        return error;
    for (uint32_t i = 0; i < self->message.plan.n_ranges; i++)
        if (self->message.plan.n_ranges != MEMORY_REGIONS ||
            self->message.plan.ranges[i].address != (uint64_t)(uintptr_t)self->memory.memory[i] ||
            self->message.plan.ranges[i].length != self->memory.length[i])
            return "the plan names other ranges";
    self->memory.n_shards = self->message.plan.n_shards;
    memcpy(self->memory.shards, self->message.plan.shards, sizeof self->memory.shards);
    if (!memory_take_table(&self->memory, client_channel_take_fd(&self->channel, 0),
                           self->message.plan.table_size))
        return "the table is none";
    snprintf(self->text, sizeof self->text, "shards=%u device=%u", self->memory.n_shards,
             self->message.n_fds - 1);
    return NULL;
}

/* Its plan is taken back, which it is told without asking. */
static const char *do_withdrawn(Assisted *self, const char *words)
{
    (void)words;
    return hear(self, CLIENT_ERROR);
}

static const char *do_device(Assisted *self, const char *words)
{
    const char *error;

    (void)words;
    say(self, CLIENT_DEVICE, NULL, 0);
    error = hear(self, CLIENT_DEVICE);
    if (!error)
        self->device = client_channel_take_fd(&self->channel, 0);
    return error;
}

static const char *do_register(Assisted *self, const char *words)
{
    (void)words;
    memory_register(&self->memory, self->device);
    return NULL;
}

/* "few": all fds but one; "many": one twice; "other": a socket for the first; "none": none; "fork" and
 * "remove": for the first a userfaultfd that reports such events. */
static const char *do_listen(Assisted *self, const char *words)
{
    int fds[LIMIT_SHARDS + 1];
    uint32_t n = self->memory.n_shards;

    memcpy(fds, self->memory.uffds, sizeof self->memory.uffds);
    if (strcmp(words, "few") == 0)
        n--;
    else if (strcmp(words, "none") == 0)
        n = 0;
    else if (strcmp(words, "many") == 0)
        fds[n++] = fds[0];
    else if (strcmp(words, "other") == 0)
        fds[0] = self->socket;
    else if (strcmp(words, "fork") == 0)
        fds[0] = memory_new_uffd(self->device, UFFD_FEATURE_EVENT_FORK);
    else if (strcmp(words, "remove") == 0)
        fds[0] = memory_new_uffd(self->device, UFFD_FEATURE_EVENT_REMOVE);
    say(self, CLIENT_LISTEN, fds, n);
    return hear(self, CLIENT_OK);
}

static const char *do_present(Assisted *self, const char *words)
{
    uint64_t first, count;

    if (sscanf(words, "%lu %lu", &first, &count) != 2)
        return "wants FIRST COUNT";
    memory_write(&self->memory, first, count);
    return NULL;
}

static const char *do_hot(Assisted *self, const char *words)
{
    uint64_t first, count;

    if (sscanf(words, "%lu %lu", &first, &count) != 2)
        return "wants FIRST COUNT";
    memory_mark_hot(&self->memory, first, count);
    return NULL;
}

static const char *do_place(Assisted *self, const char *words)
{
    uint64_t first, count;

    if (sscanf(words, "%lu %lu", &first, &count) != 2)
        return "wants FIRST COUNT";
    snprintf(self->text, sizeof self->text, "there=%lu", memory_place(&self->memory, first, count));
    return NULL;
}

static void *touch_thread(void *argument)
{
    GuestTouch *touch = argument;

    memory_touch(touch);
    printf("EVENT touched region=%u first=%lu count=%lu bad=%lu most_us=%lu\n", touch->region,
           touch->first, touch->count, touch->bad, touch->most_us);
    free(touch);
    return NULL;
}

static const char *do_touch(Assisted *self, const char *words)
{
    GuestTouch *touch = calloc(1, sizeof *touch);
    pthread_t thread;

    touch->memory = &self->memory;
    touch->zero = strstr(words, "zero") != NULL;
    if (sscanf(words, "%u %lu %lu %u", &touch->region, &touch->first, &touch->count,
               &touch->threads) != 4 ||
        touch->threads < 1 || touch->threads > MEMORY_THREADS)
        return "wants REGION FIRST COUNT THREADS [zero]";
    pthread_create(&thread, NULL, touch_thread, touch);
    pthread_detach(thread);
    return NULL;
}

static const char *do_relay(Assisted *self, const char *words)
{
    memory_relay(&self->memory, strcmp(words, "on") == 0);
    snprintf(self->text, sizeof self->text, "relayed=%lu", atomic_load(&self->memory.relayed));
    return NULL;
}

static const char *do_words(Assisted *self, const char *words)
{
    const PageTableHeader *table = self->memory.table;
    uint64_t counts[8], oldest = 0;
    struct timespec now;

    (void)words;
    for (int i = 0; i < PAGE_TABLE_BUSY; i++) {
        uint64_t since = __atomic_load_n(&table->busy_since[i], __ATOMIC_SEQ_CST);
        if (since != 0 && (oldest == 0 || since < oldest))
            oldest = since;
    }
    clock_gettime(CLOCK_MONOTONIC, &now);
    memory_count(&self->memory, counts);
    snprintf(
        self->text, sizeof self->text,
        "serving=%u busy_ms=%ld hole=%lu missing=%lu requested=%lu present=%lu "
        "found=%lu",
        __atomic_load_n(&table->serving, __ATOMIC_SEQ_CST),
        oldest
            ? (long)(((uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec - oldest) / 1000000)
            : -1,
        counts[PAGE_HOLE], counts[PAGE_MISSING], counts[PAGE_REQUESTED] + counts[PAGE_RECEIVED],
        counts[PAGE_PRESENT] + counts[PAGE_FOUND], counts[PAGE_FOUND]);
    return NULL;
}

static const char *do_end(Assisted *self, const char *words)
{
    (void)words;
    memory_unregister(&self->memory);
    say(self, CLIENT_END, NULL, 0);
    return NULL;
}

/* It migrates to somebody who listens there. */
static const char *do_connect(Assisted *self, const char *words)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                  .sin_port = htons((uint16_t)atoi(words))};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)self;
    return connect(fd, (struct sockaddr *)&address, sizeof address) ? strerror(errno) : NULL;
}

static const char *do_reconnect(Assisted *self, const char *words)
{
    (void)words;
    daemon_disconnect(self);
    daemon_connect(self);
    return NULL;
}

static const struct {
    const char *name;
    const char *(*run)(Assisted *self, const char *words);
} commands[] = {
    {"assist", do_assist},     {"device", do_device},
    {"register", do_register}, {"listen", do_listen},
    {"present", do_present},   {"hot", do_hot},
    {"place", do_place},       {"touch", do_touch},
    {"relay", do_relay},       {"words", do_words},
    {"end", do_end},           {"reconnect", do_reconnect},
    {"connect", do_connect},   {"withdrawn", do_withdrawn},
};

static void run(Assisted *self, char *line)
{
    char *words = strchr(line, ' ');
    const char *error = "no such command";

    if (words)
        *words++ = '\0';
    self->text[0] = '\0';
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(line, commands[i].name) == 0)
            error = commands[i].run(self, words ? words : "");
    printf(error ? "ERR %s %s\n" : "OK %s %s\n", line, error ? error : self->text);
}

/* Whoever comes, as a migration would; kept until the end. */
static void *accept_all(void *argument)
{
    while (accept(*(int *)argument, NULL, NULL) >= 0)
        printf("EVENT accepted one\n");
    return NULL;
}

static int listen_for_migration(uint16_t *ret_port)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = in6addr_any};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (bind(fd, (struct sockaddr *)&address, length) || listen(fd, 8) ||
        getsockname(fd, (struct sockaddr *)&address, &length)) {
        perror("listen");
        exit(1);
    }
    *ret_port = ntohs(address.sin6_port);
    return fd;
}

int main(int argc, char **argv)
{
    static Assisted self = {.device = -1};
    char line[256];
    pthread_t thread;
    uint16_t port;
    int listener;

    if (argc != 3)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    self.path = argv[1];
    memory_init(&self.memory, strtoull(argv[2], NULL, 10) << 20);
    listener = listen_for_migration(&port);
    pthread_create(&thread, NULL, accept_all, &listener);
    daemon_connect(&self);
    printf("READY port=%u main=%lu small=%lu\n", port, (uint64_t)(uintptr_t)self.memory.memory[0],
           (uint64_t)(uintptr_t)self.memory.memory[1]);
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = '\0';
        if (strcmp(line, "quit") == 0)
            break;
        run(&self, line);
    }
    fflush(stdout);
    _exit(0); /* whatever waits for a page */
}
