/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "protocol/qmp/qmp.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "protocol/qmp/error.h"
#include "protocol/qmp/json.h"

enum {
    QMP_TIMEOUT_MS = 10 * 1000,
    QMP_READ_BYTES = 64 * 1024,
    QMP_READS = 4, /* at once; then whoever waits looks at the time */
};

struct Qmp {
    int fd;
    const char *word;
    const Interrupt *interrupt;
    gint64 timeout_ms;
    GString *buffer; /* read, not yet a whole line */
    guint64 serial;
    char *expected;   /* the id of the command under way */
    JsonNode *answer; /* to it */
    JsonNode *greeting;
    gboolean closed;
    gboolean resync; /* the next line may lack its beginning */
    QmpEventFunc on_event;
    void *user;
};

void qmp_free(Qmp *qmp)
{
    if (!qmp)
        return;
    if (qmp->fd >= 0)
        close(qmp->fd);
    g_string_free(qmp->buffer, TRUE);
    g_clear_pointer(&qmp->answer, json_node_unref);
    g_clear_pointer(&qmp->greeting, json_node_unref);
    g_free(qmp->expected);
    g_free(qmp);
}

void qmp_on_event(Qmp *qmp, QmpEventFunc function, void *user)
{
    qmp->on_event = function;
    qmp->user = user;
}

void qmp_set_timeout(Qmp *qmp, gint64 milliseconds)
{
    qmp->timeout_ms = milliseconds;
}

gboolean qmp_is_closed(const Qmp *qmp)
{
    return qmp->closed;
}

int qmp_fd(const Qmp *qmp)
{
    return qmp->fd;
}

pid_t qmp_peer(const Qmp *qmp)
{
    struct ucred peer;
    socklen_t length = sizeof peer;

    return getsockopt(qmp->fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 ? peer.pid : 0;
}

int qmp_version(const Qmp *qmp)
{
    JsonObject *greeting = member_object(node_object(qmp->greeting), "QMP");
    JsonObject *version = member_object(member_object(greeting, "version"), "qemu");

    return (int)(member_int(version, "major") * 1000 + member_int(version, "minor"));
}

static void handle_event(Qmp *qmp, JsonObject *message)
{
    JsonObject *timestamp = member_object(message, "timestamp");
    gint64 time_us =
        member_int(timestamp, "seconds") * G_USEC_PER_SEC + member_int(timestamp, "microseconds");

    if (qmp->on_event)
        qmp->on_event(qmp->user, member_string(message, "event"), member_object(message, "data"),
                      time_us);
}

/* Answers to commands that are not ours, or that timed out, are left out. */
static void handle_message(Qmp *qmp, JsonNode *node)
{
    JsonObject *message = node_object(node);

    if (!message)
        return;
    if (json_object_has_member(message, "QMP")) {
        g_clear_pointer(&qmp->greeting, json_node_unref);
        qmp->greeting = json_node_ref(node);
    } else if (json_object_has_member(message, "event")) {
        handle_event(qmp, message);
    } else if (qmp->expected && strcmp(member_string(message, "id"), qmp->expected) == 0) {
        g_clear_pointer(&qmp->answer, json_node_unref);
        qmp->answer = json_node_ref(node);
    }
}

static gboolean handle_lines(Qmp *qmp, GError **error)
{
    char *end;

    while ((end = memchr(qmp->buffer->str, '\n', qmp->buffer->len))) {
        gssize length = end - qmp->buffer->str;
        g_autoptr(JsonNode) node = length > 1 ? node_parse(qmp->buffer->str, length, NULL) : NULL;

        g_string_erase(qmp->buffer, 0, length + 1);
        if (!node && length > 1 && !qmp->resync) {
            g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED, "the %s's monitor does not speak QMP",
                        qmp->word);
            return FALSE;
        }
        qmp->resync = FALSE;
        if (node)
            handle_message(qmp, node);
    }
    if (qmp->buffer->len > MONITOR_ANSWER_MAX) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED, "the %s's monitor sent an endless line",
                    qmp->word);
        return FALSE;
    }
    return TRUE;
}

/*
 * Reads what is there without waiting, but not for ever: QEMU may write faster than we read.  The
 * descriptor's own flags may be changed by whoever it was lent to, so each call says MSG_DONTWAIT itself.
 */
static gboolean receive(Qmp *qmp, GError **error)
{
    char bytes[QMP_READ_BYTES];

    for (int i = 0; i < QMP_READS; i++) {
        ssize_t length = recv(qmp->fd, bytes, sizeof bytes, MSG_DONTWAIT);

        if (length < 0 && (errno == EAGAIN || errno == EINTR))
            return TRUE;
        if (length <= 0) {
            qmp->closed = TRUE;
            return TRUE;
        }
        g_string_append_len(qmp->buffer, bytes, length);
        if (!handle_lines(qmp, error))
            return FALSE;
    }
    return TRUE;
}

static gboolean fail_closed(Qmp *qmp, const char *during, GError **error)
{
    g_set_error(error, CALL_ERROR, CALL_ERROR_CLOSED,
                "the %s's QEMU ended its monitor connection (%s)", qmp->word, during);
    return FALSE;
}

static void tell_whose(const Qmp *qmp, const char *during, GError **error)
{
    g_prefix_error(error, "waiting for the %s's QEMU (%s): ", qmp->word, during);
}

static gboolean has_answer(const Qmp *qmp)
{
    return qmp->answer != NULL;
}

static gboolean has_greeting(const Qmp *qmp)
{
    return qmp->greeting != NULL;
}

static gboolean is_between_lines(const Qmp *qmp)
{
    return qmp->buffer->len == 0;
}

/* What came in time is read once more after it, so that a wait of ours in between does no harm. */
static gboolean pump(Qmp *qmp, gboolean (*is_done)(const Qmp *qmp), const char *during,
                     gint64 deadline, GError **error)
{
    gboolean late = FALSE;

    while (!is_done(qmp)) {
        if (qmp->closed)
            return fail_closed(qmp, during, error);
        if (late) {
            g_set_error(error, CALL_ERROR, CALL_ERROR_TIMEOUT, "it talks of other things");
            tell_whose(qmp, during, error);
            return FALSE;
        }
        late = g_get_monotonic_time() >= deadline;
        if (!wait_readable(&qmp->fd, 1, qmp->interrupt, deadline, error)) {
            tell_whose(qmp, during, error);
            return FALSE;
        }
        if (!receive(qmp, error))
            return FALSE;
    }
    return TRUE;
}

static gboolean send_line(Qmp *qmp, const char *command, const char *line, GError **error)
{
    gsize left = strlen(line);

    while (left > 0) {
        ssize_t sent = send(qmp->fd, line, left, MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0) {
            /* EPIPE: what it said before it went is still to be read. */
            receive(qmp, NULL);
            qmp->closed = TRUE;
            return fail_closed(qmp, command, error);
        }
        line += sent;
        left -= (gsize)sent;
    }
    return TRUE;
}

static char *command_line(Qmp *qmp, const char *command, JsonObject *arguments)
{
    JsonObject *request = json_object_new();
    g_autofree char *text = NULL;

    g_free(qmp->expected);
    qmp->expected = g_strdup_printf("postcopyctl-%" G_GUINT64_FORMAT, ++qmp->serial);
    json_object_set_string_member(request, "execute", command);
    if (arguments)
        json_object_set_object_member(request, "arguments", arguments);
    json_object_set_string_member(request, "id", qmp->expected);
    text = object_line(request);
    return g_strconcat(text, "\r\n", NULL);
}

static JsonNode *take_answer(Qmp *qmp, const char *command, GError **error)
{
    g_autoptr(JsonNode) answer = g_steal_pointer(&qmp->answer);
    JsonObject *message = node_object(answer);
    JsonNode *value = json_object_get_member(message, "return");

    if (value)
        return json_node_copy(value);
    g_set_error(error, CALL_ERROR, CALL_ERROR_REFUSED, "the %s's QEMU refused %s: %s", qmp->word,
                command, member_string(member_object(message, "error"), "desc"));
    return NULL;
}

JsonNode *qmp_call(Qmp *qmp, const char *command, JsonObject *arguments, GError **error)
{
    g_autofree char *line = command_line(qmp, command, arguments);
    gint64 deadline = wait_deadline(qmp->timeout_ms);

    g_clear_pointer(&qmp->answer, json_node_unref);
    if (qmp->closed) {
        fail_closed(qmp, command, error);
        return NULL;
    }
    if (!send_line(qmp, command, line, error) || !pump(qmp, has_answer, command, deadline, error))
        return NULL;
    return take_answer(qmp, command, error);
}

gboolean qmp_run(Qmp *qmp, const char *command, JsonObject *arguments, GError **error)
{
    g_autoptr(JsonNode) answer = qmp_call(qmp, command, arguments, error);

    return answer != NULL;
}

char *qmp_query_status(Qmp *qmp, const char *query, GError **error)
{
    g_autoptr(JsonNode) answer = qmp_call(qmp, query, NULL, error);

    return answer ? g_strdup(member_string(node_object(answer), "status")) : NULL;
}

static JsonNode *call_of_monitor(void *user, const char *command, JsonObject *arguments,
                                 GError **error)
{
    return qmp_call(user, command, arguments, error);
}

Monitor qmp_monitor(Qmp *qmp)
{
    return (Monitor){.call = call_of_monitor, .user = qmp, .version = qmp_version(qmp)};
}

gboolean qmp_drain(Qmp *qmp, GError **error)
{
    gint64 deadline = wait_deadline(qmp->timeout_ms);

    if (!receive(qmp, error) || !pump(qmp, is_between_lines, "reading events", deadline, error))
        return FALSE;
    return !qmp->closed || fail_closed(qmp, "reading events", error);
}

void qmp_resume(Qmp *qmp)
{
    qmp->resync = TRUE;
}

gboolean qmp_wait(Qmp *const *qmps, guint n, const Interrupt *interrupt, gint64 deadline,
                  GError **error)
{
    int fds[2] = {-1, -1};

    g_assert(n <= G_N_ELEMENTS(fds));
    for (guint i = 0; i < n; i++)
        fds[i] = qmps[i]->closed ? -1 : qmps[i]->fd;
    if (!wait_readable(fds, n, interrupt, deadline, error))
        return FALSE;
    for (guint i = 0; i < n; i++)
        if (!qmps[i]->closed && !receive(qmps[i], error))
            return FALSE;
    return TRUE;
}

static gboolean negotiate(Qmp *qmp, const char *path, GError **error)
{
    gint64 deadline = wait_deadline(qmp->timeout_ms);

    if (!pump(qmp, has_greeting, "its greeting", deadline, error)) {
        g_prefix_error(error, "%s says nothing; a QMP socket serves one client at a time: ", path);
        return FALSE;
    }
    return qmp_run(qmp, "qmp_capabilities", NULL, error);
}

/* A connected socket, or -1 with errno.  Somebody may have filled its queue, or read nothing of it: then
 * connecting and sending are given up after the time limit, with EAGAIN. */
static int connect_socket(const char *path, gint64 milliseconds)
{
    struct timeval limit = {.tv_sec = milliseconds / 1000, .tv_usec = milliseconds % 1000 * 1000};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd, error;

    if (g_strlcpy(address.sun_path, path, sizeof address.sun_path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    error = errno;
    close(fd);
    errno = error;
    return -1;
}

Qmp *qmp_connect(const char *path, const char *word, const Interrupt *interrupt, GError **error)
{
    return qmp_connect_within(path, word, interrupt, QMP_TIMEOUT_MS, error);
}

Qmp *qmp_connect_within(const char *path, const char *word, const Interrupt *interrupt,
                        gint64 milliseconds, GError **error)
{
    int fd = connect_socket(path, milliseconds);
    Qmp *qmp;

    if (fd < 0) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED,
                    "cannot connect to the %s's QMP socket %s: %s", word, path, g_strerror(errno));
        return NULL;
    }
    qmp = g_new0(Qmp, 1);
    qmp->fd = fd;
    qmp->word = word;
    qmp->interrupt = interrupt;
    qmp->timeout_ms = milliseconds;
    qmp->buffer = g_string_new(NULL);
    if (negotiate(qmp, path, error))
        return qmp;
    qmp_free(qmp);
    return NULL;
}
