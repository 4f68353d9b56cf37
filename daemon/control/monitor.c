/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/monitor.h"

#include <errno.h>
#include <json-glib/json-glib.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The JSON parser recurses: what a hostile QEMU could nest in one line must fit a thread's stack. */
enum { MONITOR_TIMEOUT_MS = 5000, MONITOR_LINE_MAX = 32 * 1024 };

/* States in which a QEMU runs no vCPU and starts none by itself (qapi/run-state.json). */
static const char *const stopped_states[] = {"finish-migrate", "postmigrate", "paused"};

static int send_line(int fd, const char *line)
{
    size_t left = strlen(line);

    while (left > 0) {
        ssize_t n = send(fd, line, left, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            struct pollfd poll_fd = {.fd = fd, .events = POLLOUT};
            if (poll(&poll_fd, 1, MONITOR_TIMEOUT_MS) <= 0)
                return -ETIMEDOUT;
            continue;
        }
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0) {
            line += n;
            left -= (size_t)n;
        }
    }
    return 0;
}

/* One line without reading a byte more: what follows belongs to the monitor's owner. */
static int read_line(int fd, GString *ret_line)
{
    g_string_truncate(ret_line, 0);
    for (;;) {
        struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
        char c;
        ssize_t n;

        if (poll(&poll_fd, 1, MONITOR_TIMEOUT_MS) <= 0)
            return -ETIMEDOUT;
        n = recv(fd, &c, 1, MSG_DONTWAIT);
        if (n == 0)
            return -ECONNRESET;
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (n < 0)
            return -errno;
        if (c == '\n')
            return 0;
        if (ret_line->len >= MONITOR_LINE_MAX)
            return -EMSGSIZE;
        g_string_append_c(ret_line, c);
    }
}

/* 1 and the state if this line answers our question; 0 if it is something else; -EPROTO. */
static int parse_answer(const char *line, const char *id, gboolean *ret_running, char **ret_status)
{
    g_autoptr(JsonParser) parser = json_parser_new();
    JsonObject *object, *result;
    JsonNode *root;

    if (!json_parser_load_from_data(parser, line, -1, NULL))
        return -EPROTO;
    root = json_parser_get_root(parser);
    if (!root || !JSON_NODE_HOLDS_OBJECT(root))
        return -EPROTO;
    object = json_node_get_object(root);
    if (g_strcmp0(json_object_get_string_member_with_default(object, "id", ""), id) != 0)
        return 0;
    if (!json_object_has_member(object, "return") ||
        !JSON_NODE_HOLDS_OBJECT(json_object_get_member(object, "return")))
        return -EPROTO;
    result = json_object_get_object_member(object, "return");
    *ret_running = json_object_get_boolean_member_with_default(result, "running", TRUE);
    *ret_status = g_strdup(json_object_get_string_member_with_default(result, "status", ""));
    return 1;
}

static int ask(int fd, gboolean *ret_running, char **ret_status)
{
    static const char id[] = "postcopyd-seal";
    g_autoptr(GString) line = g_string_new(NULL);
    int result = send_line(fd, "{\"execute\":\"query-status\",\"id\":\"postcopyd-seal\"}\n");

    while (result == 0) {
        result = read_line(fd, line);
        if (result == 0)
            result = parse_answer(line->str, id, ret_running, ret_status);
    }
    return result < 0 ? result : 0;
}

static int check_owner(int fd, int pid, char *ret_text)
{
    struct ucred peer;
    socklen_t length = sizeof peer;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) || peer.pid != pid) {
        snprintf(ret_text, LIMIT_TEXT + 1,
                 "the monitor is not that of the VM's process %d: seal refused", pid);
        return -EACCES;
    }
    return 0;
}

int monitor_check_stopped(int fd, int pid, char *ret_text)
{
    g_autofree char *status = NULL;
    gboolean running = TRUE;
    int error = check_owner(fd, pid, ret_text);

    if (error)
        return error;
    error = ask(fd, &running, &status);
    if (error) {
        snprintf(ret_text, LIMIT_TEXT + 1, "the source's monitor did not answer: %s",
                 strerror(-error));
        return error;
    }
    for (gsize i = 0; i < G_N_ELEMENTS(stopped_states); i++)
        if (!running && strcmp(status, stopped_states[i]) == 0)
            return 0;
    snprintf(ret_text, LIMIT_TEXT + 1, "the source's guest is not stopped: its monitor says '%s'",
             status);
    return -EBUSY;
}
