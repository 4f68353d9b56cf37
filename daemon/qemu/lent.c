/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/qemu/lent.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/core/process.h"
#include "protocol/qmp/error.h"
#include "protocol/qmp/qmp.h"

typedef struct Lent {
    guint8 uuid[LIMIT_UUID];
    guint8 token[LIMIT_TOKEN];
    char *name;
    char *monitor;
} Lent;

struct LentBook {
    pthread_mutex_t lock;
    GPtrArray *all; /* of Lent */
};

/* guest comes first: it is what whoever holds it sees. */
typedef struct LentGuest {
    Guest guest;
    char *path;
    Qmp *qmp;        /* NULL before the first question */
    gint64 deadline; /* of all questions that this Guest is asked; 0 before the first */
} LentGuest;

static void lent_free(gpointer data)
{
    Lent *lent = data;

    g_free(lent->name);
    g_free(lent->monitor);
    g_free(lent);
}

LentBook *lent_book_new(void)
{
    LentBook *book = g_new0(LentBook, 1);

    pthread_mutex_init(&book->lock, NULL);
    book->all = g_ptr_array_new_with_free_func(lent_free);
    return book;
}

void lent_book_free(LentBook *book)
{
    g_ptr_array_unref(book->all);
    pthread_mutex_destroy(&book->lock);
    g_free(book);
}

/* Under the lock; its index, or book->all->len. */
static guint find(const LentBook *book, const guint8 *uuid)
{
    guint i = 0;

    while (i < book->all->len &&
           memcmp(((const Lent *)book->all->pdata[i])->uuid, uuid, LIMIT_UUID) != 0)
        i++;
    return i;
}

static Lent *lent_new(const guint8 *uuid, const char *name, const char *monitor,
                      const guint8 *token)
{
    Lent *lent = g_new0(Lent, 1);

    memcpy(lent->uuid, uuid, LIMIT_UUID);
    memcpy(lent->token, token, LIMIT_TOKEN);
    lent->name = g_strdup(name);
    lent->monitor = g_strdup(monitor);
    return lent;
}

int lent_add(LentBook *book, const guint8 *uuid, const char *name, const char *monitor,
             const guint8 *token, char *ret_text)
{
    gboolean room;
    guint i;

    if (!g_path_is_absolute(monitor) ||
        strlen(monitor) >= sizeof((struct sockaddr_un *)NULL)->sun_path) {
        g_snprintf(
            ret_text, LIMIT_TEXT + 1,
            "'%.100s' is not the path of a QMP socket: it must begin with / and have at most "
            "107 bytes",
            monitor);
        return -EINVAL;
    }
    pthread_mutex_lock(&book->lock);
    i = find(book, uuid);
    room = i < LENT_MAX;
    if (i < book->all->len)
        g_ptr_array_remove_index_fast(book->all, i);
    if (room)
        g_ptr_array_add(book->all, lent_new(uuid, name, monitor, token));
    pthread_mutex_unlock(&book->lock);
    if (room)
        return 0;
    g_snprintf(ret_text, LIMIT_TEXT + 1, "%d VMs are lent already: unlend some", LENT_MAX);
    return -ENOSPC;
}

gboolean lent_remove(LentBook *book, const guint8 *uuid)
{
    gboolean found;
    guint i;

    pthread_mutex_lock(&book->lock);
    i = find(book, uuid);
    found = i < book->all->len;
    if (found)
        g_ptr_array_remove_index_fast(book->all, i);
    pthread_mutex_unlock(&book->lock);
    return found;
}

gboolean lent_find(LentBook *book, const char *name, guint8 *ret_uuid)
{
    gboolean found = FALSE;

    pthread_mutex_lock(&book->lock);
    for (guint i = 0; i < book->all->len && !found; i++) {
        const Lent *lent = book->all->pdata[i];

        found = strcmp(lent->name, name) == 0;
        if (found)
            memcpy(ret_uuid, lent->uuid, LIMIT_UUID);
    }
    pthread_mutex_unlock(&book->lock);
    return found;
}

/* --- one that is asked --------------------------------------------------------------------- */

static gboolean connect_monitor(LentGuest *lent, gint64 limit_ms, GError **error)
{
    if (!lent->qmp)
        lent->qmp = qmp_connect_within(lent->path, "VM", NULL, limit_ms, error);
    if (lent->qmp)
        lent->guest.monitor.version = qmp_version(lent->qmp);
    return lent->qmp != NULL;
}

static JsonNode *call(void *user, const char *command, JsonObject *arguments, GError **error)
{
    LentGuest *lent = user;
    gint64 left;

    if (lent->deadline == 0)
        lent->deadline = wait_deadline(GUEST_ALL_QUESTIONS_MS);
    left = (lent->deadline - g_get_monotonic_time()) / 1000;
    left = MIN(left, GUEST_QUESTION_MS);
    if (left > 0 && connect_monitor(lent, left, error)) {
        qmp_set_timeout(lent->qmp, left);
        return qmp_call(lent->qmp, command, arguments, error);
    }
    if (left <= 0)
        g_set_error(error, CALL_ERROR, CALL_ERROR_TIMEOUT,
                    "the VM's QEMU takes too long to answer (%s)", command);
    g_clear_pointer(&arguments, json_object_unref);
    return NULL;
}

/* Who listens at the monitor, as the kernel noted: nobody else's memory can be meant. */
static int open_process(const Guest *self, int *ret_pid, char *ret_text)
{
    LentGuest *lent = self->monitor.user;
    g_autoptr(GError) error = NULL;
    JsonNode *answer = lent->qmp ? NULL : call(lent, "query-status", NULL, &error);
    int pidfd;

    g_clear_pointer(&answer, json_node_unref); /* it was asked for the sake of the connection */
    if (!lent->qmp) {
        g_strlcpy(ret_text, error ? error->message : "its monitor does not answer", LIMIT_TEXT + 1);
        return -EIO;
    }
    *ret_pid = (int)qmp_peer(lent->qmp);
    pidfd = process_open_peer(qmp_fd(lent->qmp));
    if (pidfd >= 0 && *ret_pid > 0 && !process_has_ended(pidfd))
        return pidfd;
    if (pidfd >= 0)
        close(pidfd);
    g_strlcpy(ret_text, "the process that listened at its monitor first has ended", LIMIT_TEXT + 1);
    return pidfd < 0 ? pidfd : -ESRCH;
}

static void lent_close(Guest *self)
{
    LentGuest *lent = (LentGuest *)self;

    qmp_free(lent->qmp);
    g_free(lent->path);
    g_free(lent);
}

Guest *lent_open(LentBook *book, const guint8 *uuid)
{
    LentGuest *guest = NULL;
    guint i;

    pthread_mutex_lock(&book->lock);
    i = find(book, uuid);
    if (i < book->all->len) {
        const Lent *lent = book->all->pdata[i];

        guest = g_new0(LentGuest, 1);
        memcpy(guest->guest.uuid, lent->uuid, LIMIT_UUID);
        g_strlcpy(guest->guest.name, lent->name, sizeof guest->guest.name);
        memcpy(guest->guest.token, lent->token, LIMIT_TOKEN);
        guest->guest.has_token = TRUE;
        guest->guest.monitor = (Monitor){.call = call, .user = guest};
        guest->guest.open_process = open_process;
        guest->guest.close = lent_close;
        guest->path = g_strdup(lent->monitor);
    }
    pthread_mutex_unlock(&book->lock);
    return guest ? &guest->guest : NULL;
}
