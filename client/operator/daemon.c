/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/operator/daemon.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "protocol/client.h"
#include "protocol/qmp/error.h"
#include "protocol/qmp/json.h"

enum { ANSWER_MAX = 64 * 1024 * 1024 };

struct Daemon {
    int socket;
    uint32_t serial;
    int refusal;
    const Interrupt *interrupt;
    ClientMessage message;
    ClientChannel channel;
    uint8_t scratch[CLIENT_PACKET_MAX];
};

static void set_connect_error(const char *path, int error_number, GError **error)
{
    switch (error_number) {
    case ENOENT:
    case ECONNREFUSED:
        g_set_error(error, CALL_ERROR, CALL_ERROR_CLOSED,
                    "no daemon answers at %s: start postcopyd, or name its socket: postcopyctl "
                    "--socket PATH COMMAND",
                    path);
        break;
    case EACCES:
    case EPERM:
        g_set_error(
            error, CALL_ERROR, CALL_ERROR_FAILED,
            "no permission to connect to %s: run as root, or as a member of the group that the "
            "socket belongs to ([daemon] group)",
            path);
        break;
    default:
        g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED, "cannot connect to %s: %s", path,
                    g_strerror(error_number));
    }
}

Daemon *daemon_connect(const char *path, const Interrupt *interrupt, GError **error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    g_autoptr(Daemon) daemon = g_new0(Daemon, 1);

    daemon->interrupt = interrupt;
    daemon->socket = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    client_channel_init(&daemon->channel, daemon->socket);
    if (g_strlcpy(address.sun_path, path, sizeof address.sun_path) >= sizeof address.sun_path) {
        set_connect_error(path, ENAMETOOLONG, error);
        return NULL;
    }
    if (daemon->socket < 0 ||
        connect(daemon->socket, (const struct sockaddr *)&address, sizeof address) < 0) {
        set_connect_error(path, errno, error);
        return NULL;
    }
    return g_steal_pointer(&daemon);
}

void daemon_free(Daemon *daemon)
{
    if (!daemon)
        return;
    client_channel_deinit(&daemon->channel);
    if (daemon->socket >= 0)
        close(daemon->socket);
    g_free(daemon);
}

static gboolean send_request(Daemon *daemon, char *text, int fd, GError **error)
{
    ClientMessage *message = &daemon->message;
    gsize length = strlen(text);
    int result;

    if (length > CLIENT_JSON_MAX) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED, "the request is too long");
        return FALSE;
    }
    message->type = CLIENT_OPERATOR;
    message->serial = ++daemon->serial;
    message->json.flags = 0;
    message->json.length = (uint32_t)length;
    memcpy(message->json.text, text, length + 1);
    result = client_message_send(daemon->socket, message, &fd, fd >= 0 ? 1 : 0, daemon->scratch);
    if (result) {
        g_set_error(error, CALL_ERROR, CALL_ERROR_CLOSED,
                    "the connection to the daemon is lost: %s", g_strerror(-result));
        return FALSE;
    }
    return TRUE;
}

/* The next message that answers the last request; others are left out. */
static gboolean receive_reply(Daemon *daemon, const char *op, gint64 deadline, GError **error)
{
    int result;

    do {
        if (!wait_readable(&daemon->socket, 1, daemon->interrupt, deadline, error)) {
            g_prefix_error(error, "waiting for the daemon's answer to \"%s\": ", op);
            return FALSE;
        }
        result = client_channel_receive(&daemon->channel, &daemon->message);
        if (result <= 0) {
            g_set_error(error, CALL_ERROR, CALL_ERROR_CLOSED,
                        "the daemon ended the connection during \"%s\"%s%s", op, result ? ": " : "",
                        result ? g_strerror(-result) : "");
            return FALSE;
        }
    } while (daemon->message.serial != daemon->serial);
    return TRUE;
}

static GString *receive_text(Daemon *daemon, const char *op, gint64 deadline, GError **error)
{
    g_autoptr(GString) text = g_string_new(NULL);

    do {
        if (!receive_reply(daemon, op, deadline, error))
            return NULL;
        if (daemon->message.type == CLIENT_ERROR) {
            daemon->refusal =
                daemon->message.status.status < 0 ? -daemon->message.status.status : 0;
            g_set_error(error, CALL_ERROR, CALL_ERROR_REFUSED, "%s", daemon->message.status.text);
            return NULL;
        }
        if (daemon->message.type != CLIENT_REPLY || text->len > ANSWER_MAX) {
            g_set_error(error, CALL_ERROR, CALL_ERROR_CLOSED,
                        "the daemon's answer to \"%s\" is not understood", op);
            return NULL;
        }
        g_string_append_len(text, daemon->message.json.text, daemon->message.json.length);
    } while (daemon->message.json.flags & CLIENT_REPLY_MORE);
    return g_steal_pointer(&text);
}

JsonNode *daemon_call(Daemon *daemon, const char *op, JsonObject *request, int fd,
                      gint64 timeout_ms, GError **error)
{
    g_autofree char *text = NULL;
    g_autoptr(GString) answer = NULL;
    g_autoptr(JsonNode) node = NULL;
    const char *reason;

    if (!request)
        request = json_object_new();
    json_object_set_string_member(request, "op", op);
    text = object_line(request);
    daemon->refusal = 0;
    if (!send_request(daemon, text, fd, error))
        return NULL;
    answer = receive_text(daemon, op, wait_deadline(timeout_ms), error);
    if (!answer)
        return NULL;
    node = node_parse(answer->str, (gssize)answer->len, error);
    if (!node)
        return NULL;
    reason = member_string(node_object(node), "error");
    if (*reason) {
        daemon->refusal = (int)CLAMP(member_int(node_object(node), "errno"), 0, G_MAXINT);
        g_set_error(error, CALL_ERROR, CALL_ERROR_REFUSED, "%s", reason);
        return NULL;
    }
    return g_steal_pointer(&node);
}

int daemon_refusal(const Daemon *daemon)
{
    return daemon->refusal;
}

gboolean daemon_vm_call(Daemon *daemon, const char *op, const char *vm, gint64 timeout_ms,
                        GError **error)
{
    JsonObject *request = json_object_new();
    g_autoptr(JsonNode) answer = NULL;

    json_object_set_string_member(request, "vm", vm);
    answer = daemon_call(daemon, op, request, -1, timeout_ms, error);
    return answer != NULL;
}
