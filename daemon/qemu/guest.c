/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/qemu/guest.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "daemon/core/process.h"
#include "daemon/qemu/answers.h"
#include "daemon/qemu/lent.h"
#include "daemon/qemu/process.h"
#include "protocol/qmp/blocks.h"
#include "protocol/qmp/error.h"

struct Guests {
    LentBook *lent;
    GuestProvider provider; /* open is NULL without one */
};

Guests *guests_new(void)
{
    Guests *guests = g_new0(Guests, 1);

    guests->lent = lent_book_new();
    return guests;
}

void guests_free(Guests *guests)
{
    if (!guests)
        return;
    lent_book_free(guests->lent);
    g_free(guests);
}

void guests_provide(Guests *guests, const GuestProvider *provider)
{
    guests->provider = *provider;
}

int guests_lend(Guests *guests, const guint8 *uuid, const char *name, const char *monitor,
                const guint8 *token, char *ret_text)
{
    return lent_add(guests->lent, uuid, name, monitor, token, ret_text);
}

gboolean guests_unlend(Guests *guests, const guint8 *uuid)
{
    return lent_remove(guests->lent, uuid);
}

gboolean guests_find_lent(Guests *guests, const char *name, guint8 *ret_uuid)
{
    return lent_find(guests->lent, name, ret_uuid);
}

int guests_open(Guests *guests, const guint8 *uuid, Guest **ret_guest, char *ret_text)
{
    int error = -ENOENT;

    ret_text[0] = '\0';
    *ret_guest = lent_open(guests->lent, uuid);
    if (*ret_guest)
        return 0;
    if (guests->provider.open)
        error = guests->provider.open(guests->provider.user, uuid, ret_guest, ret_text);
    if (error && !ret_text[0])
        g_snprintf(ret_text, LIMIT_TEXT + 1,
                   "no VM with that uuid is known to this host's daemon%s",
                   guests->provider.open
                       ? ": neither its libvirt runs it, nor was it lent"
                       : ": it was not lent, and the daemon does not ask libvirt ([libvirt] uri)");
    return error;
}

void guest_close(Guest *guest)
{
    if (guest)
        guest->close(guest);
}

/* --- questions ----------------------------------------------------------------------------- */

/* Clears error. */
static int tell(char *ret_text, GError **error)
{
    int code = g_error_matches(*error, CALL_ERROR, CALL_ERROR_TIMEOUT) ? -ETIMEDOUT : -EIO;

    g_strlcpy(ret_text, *error ? (*error)->message : "its monitor did not answer", LIMIT_TEXT + 1);
    g_clear_error(error);
    return code;
}

static gboolean has_threads(int pid, const guint32 *tids, guint32 n)
{
    for (guint32 i = 0; i < n; i++)
        if (!process_has_thread(pid, tids[i]))
            return FALSE;
    return n > 0;
}

/* Its vCPUs, if they are threads of that process. */
static int take_vcpus(const Guest *guest, GuestProcess *process, char *ret_text)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonNode) answer = monitor_call(&guest->monitor, "query-cpus-fast", NULL, &error);

    if (!answer)
        return tell(ret_text, &error);
    process->vcpus = g_new0(guint32, LIMIT_VCPUS);
    process->n_vcpus = answers_vcpus(answer, process->vcpus, LIMIT_VCPUS);
    /* A thread that was found before the process ended may have been another's by then. */
    if (has_threads(process->pid, process->vcpus, process->n_vcpus) &&
        !process_has_ended(process->pidfd))
        return 0;
    g_snprintf(ret_text, LIMIT_TEXT + 1,
               "the threads that its monitor names as its vCPUs are not of its process %d: does it "
               "run in a pid namespace of its own?",
               process->pid);
    return -ESRCH;
}

int guest_process(const Guest *guest, GuestProcess *ret_process, char *ret_text)
{
    GuestProcess process = {.pidfd = -1};
    int error;

    *ret_process = process;
    process.pidfd = guest->open_process(guest, &process.pid, ret_text);
    if (process.pidfd < 0)
        return process.pidfd;
    error = take_vcpus(guest, &process, ret_text);
    if (error)
        guest_process_clear(&process);
    *ret_process = process;
    return error;
}

void guest_process_clear(GuestProcess *process)
{
    if (process->pidfd >= 0)
        close(process->pidfd);
    g_free(process->vcpus);
    *process = (GuestProcess){.pidfd = -1};
}

int guest_regions(const Guest *guest, int pid, RegionSet *ret_regions, char *ret_text)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) blocks = blocks_query_any(&guest->monitor, GUEST_REGION_LEAST, &error);

    ret_regions->n = 0;
    return blocks ? process_regions(pid, blocks, ret_regions, ret_text) : tell(ret_text, &error);
}

static int refuse(char *ret_text, int error, const char *text)
{
    g_strlcpy(ret_text, text, LIMIT_TEXT + 1);
    return error;
}

int guest_check_leaving(const Guest *guest, char *ret_text)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *status = monitor_query_status(&guest->monitor, "query-migrate", &error);
    gboolean postcopy, release;

    if (!status || !monitor_get_capability(&guest->monitor, "postcopy-ram", &postcopy, &error) ||
        !monitor_get_capability(&guest->monitor, "release-ram", &release, &error))
        return tell(ret_text, &error);
    if (!answers_migrating(status)) {
        g_snprintf(ret_text, LIMIT_TEXT + 1, "it is not being migrated: its QEMU says '%.50s'",
                   status[0] ? status : "none");
        return -EINVAL;
    }
    if (!postcopy)
        return refuse(ret_text, -EINVAL,
                      "its migration cannot become post-copy (postcopy-ram is off): migrate with "
                      "--postcopy");
    if (release)
        return refuse(ret_text, -EINVAL,
                      "its QEMU gives up memory as it sends it (release-ram is on), so nobody else "
                      "may read it");
    return 0;
}

gboolean guest_postcopy_is_limited(const Guest *guest)
{
    g_autoptr(JsonNode) answer =
        monitor_call(&guest->monitor, "query-migrate-parameters", NULL, NULL);

    return !answer || answers_postcopy_limited(answer);
}

/* The answer to query-status, or NULL and *ret_error with a reason. */
static JsonNode *ask_status(const Guest *guest, int *ret_error, char *ret_text)
{
    g_autoptr(GError) error = NULL;
    JsonNode *answer = monitor_call(&guest->monitor, "query-status", NULL, &error);

    *ret_error = answer ? 0 : tell(ret_text, &error);
    return answer;
}

gboolean guest_says_running(const Guest *guest)
{
    char text[LIMIT_TEXT + 1];
    int error;
    g_autoptr(JsonNode) status = ask_status(guest, &error, text);

    return status && answers_say_running(status);
}

int guest_check_postcopy(const Guest *guest, char *ret_text)
{
    int result = 0;
    g_autoptr(GError) error = NULL;
    g_autofree char *migration = monitor_query_status(&guest->monitor, "query-migrate", &error);
    g_autoptr(JsonNode) status = NULL;
    gboolean postcopy;

    if (!migration || !monitor_get_capability(&guest->monitor, "postcopy-ram", &postcopy, &error))
        return tell(ret_text, &error);
    if (!postcopy)
        return refuse(ret_text, -EINVAL, "it is not migrated by post-copy (postcopy-ram is off)");
    /* Asked last: one that runs again after its migration failed must not look stopped. */
    status = ask_status(guest, &result, ret_text);
    if (!status)
        return result;
    if (answers_running(status))
        return refuse(ret_text, -EBUSY, "its guest still runs here");
    if (answers_moved_on(migration))
        return 0;
    g_snprintf(ret_text, LIMIT_TEXT + 1, "its migration has not become post-copy: '%.50s'",
               migration);
    return -EBUSY;
}

int guest_check_stopped(const Guest *guest, char *ret_text)
{
    int result = 0;
    g_autoptr(GError) error = NULL;
    g_autofree char *migration = monitor_query_status(&guest->monitor, "query-migrate", &error);
    g_autoptr(JsonNode) answer = NULL;
    g_autofree char *status = NULL;

    if (!migration)
        return tell(ret_text, &error);
    answer = ask_status(guest, &result, ret_text);
    if (!answer)
        return result;
    if (answers_stopped_for(answer, migration, &status))
        return 0;
    g_snprintf(ret_text, LIMIT_TEXT + 1,
               "the source's guest is not stopped for good: its monitor says '%.50s', of its "
               "migration '%.50s'",
               status, migration);
    return -EBUSY;
}
