/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/monitor.h"

#include <errno.h>
#include <json-glib/json-glib.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/core/process.h"
#include "daemon/qemu/answers.h"
#include "protocol/qmp/json_depth.h"

enum { MONITOR_TIMEOUT_MS = 5000, MONITOR_LINE_MAX = 4 << 20 };

static int send_lines(int fd, const char *lines)
{
    size_t left = strlen(lines);

    while (left > 0) {
        ssize_t n = send(fd, lines, left, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            struct pollfd poll_fd = {.fd = fd, .events = POLLOUT};
            if (poll(&poll_fd, 1, MONITOR_TIMEOUT_MS) <= 0)
                return -ETIMEDOUT;
            continue;
        }
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0) {
            lines += n;
            left -= (size_t)n;
        }
    }
    return 0;
}

/* One line without taking a byte more: what follows belongs to the monitor's owner. */
static int read_line(int fd, GString *ret_line)
{
    g_string_truncate(ret_line, 0);
    while (ret_line->len < MONITOR_LINE_MAX) {
        struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
        char part[4096];
        const char *end;
        ssize_t n;

        if (poll(&poll_fd, 1, MONITOR_TIMEOUT_MS) <= 0)
            return -ETIMEDOUT;
        n = recv(fd, part, sizeof part, MSG_DONTWAIT | MSG_PEEK);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -ECONNRESET;
        end = memchr(part, '\n', (size_t)n);
        n = recv(fd, part, end ? (size_t)(end + 1 - part) : (size_t)n, MSG_DONTWAIT);
        if (n <= 0)
            return n < 0 ? -errno : -ECONNRESET;
        g_string_append_len(ret_line, part, n);
        if (end)
            return 0;
    }
    return -EMSGSIZE;
}

/* 1 and what the command returned (NULL: it failed), if this line answers it; 0 if it is something
 * else; -EPROTO. */
static int parse_answer(const char *line, const char *id, JsonNode **ret_result)
{
    g_autoptr(JsonParser) parser = json_parser_new();
    JsonObject *object;
    JsonNode *root;

    if (!json_depth_is_bounded(line, strlen(line)) ||
        !json_parser_load_from_data(parser, line, -1, NULL))
        return -EPROTO;
    root = json_parser_get_root(parser);
    if (!root || !JSON_NODE_HOLDS_OBJECT(root))
        return -EPROTO;
    object = json_node_get_object(root);
    if (g_strcmp0(json_object_get_string_member_with_default(object, "id", ""), id) != 0)
        return 0;
    *ret_result = json_object_dup_member(object, "return");
    return 1;
}

/* Both at once, as the guest is waiting.  QEMU answers in this order. */
static const char questions[] = "{\"execute\":\"query-status\",\"id\":\"postcopyd-status\"}\n"
                                "{\"execute\":\"query-cpus-fast\",\"id\":\"postcopyd-vcpus\"}\n";

/* 0 and what the question of that id returned; NULL: it failed.  Negative errno: no answer. */
static int read_answer(int fd, const char *id, JsonNode **ret_result)
{
    g_autoptr(GString) line = g_string_new(NULL);
    int result = 0;

    *ret_result = NULL;
    while (result == 0) {
        result = read_line(fd, line);
        if (result == 0)
            result = parse_answer(line->str, id, ret_result);
    }
    return result < 0 ? result : 0;
}

/* The vCPUs' thread ids as its process knows them; none if it cannot tell. */
static int read_vcpus(int fd, MonitorVcpus *ret_vcpus)
{
    g_autoptr(JsonNode) result = NULL;
    int error = read_answer(fd, "postcopyd-vcpus", &result);

    ret_vcpus->n = error ? 0 : answers_vcpus(result, ret_vcpus->tids, LIMIT_VCPUS);
    return error;
}

static int check_owner(int fd, int pid, char *ret_text)
{
    struct ucred peer;
    socklen_t length = sizeof peer;
    int pidfd = process_open_peer(fd);
    gboolean lives = pidfd >= 0 && !process_has_ended(pidfd);

    if (pidfd >= 0)
        close(pidfd);
    if (!lives || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) || peer.pid != pid) {
        snprintf(ret_text, LIMIT_TEXT + 1,
                 "the monitor is not that of the VM's process %d: seal refused", pid);
        return -EACCES;
    }
    return 0;
}

int monitor_check_stopped(int fd, int pid, MonitorVcpus *ret_vcpus, char *ret_text)
{
    g_autoptr(JsonNode) result = NULL;
    g_autofree char *status = NULL;
    int error = check_owner(fd, pid, ret_text);

    if (error)
        return error;
    error = send_lines(fd, questions);
    if (!error)
        error = read_answer(fd, "postcopyd-status", &result);
    if (!error && (!result || !JSON_NODE_HOLDS_OBJECT(result)))
        error = -EPROTO;
    if (!error)
        error = read_vcpus(fd, ret_vcpus);
    if (error) {
        snprintf(ret_text, LIMIT_TEXT + 1, "the source's monitor did not answer: %s",
                 strerror(-error));
        return error;
    }
    if (answers_stopped(result, &status))
        return 0;
    snprintf(ret_text, LIMIT_TEXT + 1, "the source's guest is not stopped: its monitor says '%s'",
             status);
    return -EBUSY;
}
