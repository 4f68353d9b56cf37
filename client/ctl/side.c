/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/ctl/side.h"

#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "client/ctl/error.h"
#include "protocol/qmp/json.h"

static void on_event(void *user, const char *event, JsonObject *data, gint64 time_us)
{
    Side *side = user;

    if (strcmp(event, "MIGRATION") == 0) {
        g_free(side->migration);
        side->migration = g_strdup(member_string(data, "status"));
    } else if (strcmp(event, "STOP") == 0) {
        side->stop_us = time_us;
        side->stop_seen_us = g_get_monotonic_time();
    } else if (strcmp(event, "RESUME") == 0) {
        side->resume_us = time_us;
        side->resume_seen_us = g_get_monotonic_time();
    } else if (strcmp(event, "SHUTDOWN") == 0) {
        side->shut_down = TRUE;
    }
}

/*
 * Who listens on a monitor's socket need not be QEMU: it may be a tunnel to another host, or
 * whoever opened the socket for it.  It is QEMU if the vCPU threads are its own.
 */
static int open_local(const Side *side)
{
    g_autoptr(JsonArray) vcpus = side_vcpus(side, NULL);
    g_autofree char *task = NULL;
    pid_t pid = qmp_peer(side->qmp);

    if (pid <= 0 || element_count(vcpus) == 0)
        return -1;
    task = g_strdup_printf("/proc/%d/task/%d", (int)pid, (int)element_int(vcpus, 0));
    if (!g_file_test(task, G_FILE_TEST_IS_DIR))
        return -1;
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

gboolean side_connect(Side *side, const char *path, const char *word, const Interrupt *interrupt,
                      GError **error)
{
    side->word = word;
    side->is_source = strcmp(word, "source") == 0;
    side->pidfd = -1;
    side->migration = g_strdup("");
    side->qmp = qmp_connect(path, word, interrupt, error);
    if (!side->qmp)
        return FALSE;
    qmp_on_event(side->qmp, on_event, side);
    side->pidfd = open_local(side);
    return TRUE;
}

void side_deinit(Side *side)
{
    qmp_free(g_steal_pointer(&side->qmp));
    g_clear_pointer(&side->migration, g_free);
    settings_deinit(&side->settings);
    if (side->pidfd >= 0)
        close(side->pidfd);
    side->pidfd = -1;
}

gboolean side_is_local(const Side *side)
{
    return side->pidfd >= 0;
}

JsonArray *side_vcpus(const Side *side, GError **error)
{
    g_autoptr(JsonNode) answer = qmp_call(side->qmp, "query-cpus-fast", NULL, error);
    JsonArray *cpus = node_array(answer);
    JsonArray *tids;

    if (!answer)
        return NULL;
    tids = json_array_new();
    for (guint i = 0; i < element_count(cpus); i++)
        json_array_add_int_element(tids, member_int(element_object(cpus, i), "thread-id"));
    return tids;
}

gboolean side_migration_is(const Side *side, const char *status)
{
    return strcmp(side->migration, status) == 0;
}

gboolean side_migration_failed(const Side *side)
{
    return side_migration_is(side, "failed") || side_migration_is(side, "cancelled") ||
           side_migration_is(side, "cancelling");
}

gboolean side_refresh(Side *side, GError **error)
{
    char *status = qmp_query_status(side->qmp, "query-migrate", error);

    if (!status)
        return FALSE;
    g_free(side->migration);
    side->migration = status;
    return TRUE;
}

gboolean side_restore(Side *side, GError **error)
{
    g_autoptr(GError) local = NULL;

    if (!side->qmp || qmp_is_closed(side->qmp) ||
        settings_restore(&side->settings, side->qmp, &local) || qmp_is_closed(side->qmp))
        return TRUE;
    g_propagate_prefixed_error(
        error, g_steal_pointer(&local),
        "the %s's migration capabilities are not as they were: ", side->word);
    return FALSE;
}

static gboolean process_ended(const Side *side, gint64 timeout_ms)
{
    return side->pidfd >= 0 &&
           wait_readable(&side->pidfd, 1, NULL, wait_deadline(timeout_ms), NULL);
}

/*
 * A QEMU that waits for a page of its guest's memory answers no command.  It dies of SIGKILL, and
 * the descriptor makes sure that no other process does.
 */
static gboolean kill_process(const Side *side, gint64 timeout_ms)
{
    if (side->pidfd < 0)
        return FALSE;
    syscall(SYS_pidfd_send_signal, side->pidfd, SIGKILL, NULL, 0);
    return process_ended(side, timeout_ms);
}

static void wait_for_end(Side *side, gint64 timeout_ms)
{
    gint64 deadline = wait_deadline(timeout_ms);

    while (!qmp_is_closed(side->qmp) && qmp_wait(&side->qmp, 1, NULL, deadline, NULL))
        ;
}

gboolean side_destroy(Side *side, gint64 timeout_ms, GError **error)
{
    /* The end of the connection may be there already, unread. */
    wait_for_end(side, 0);
    qmp_set_timeout(side->qmp, timeout_ms);
    if (!qmp_is_closed(side->qmp) && qmp_run(side->qmp, "quit", NULL, NULL))
        side->shut_down = TRUE;
    if (side->shut_down)
        wait_for_end(side, timeout_ms);
    if (side->shut_down && qmp_is_closed(side->qmp))
        return TRUE;
    if (process_ended(side, 0) || kill_process(side, timeout_ms))
        return TRUE;
    g_set_error(error, CALL_ERROR, CALL_ERROR_UNSAFE,
                "the %s's QEMU cannot be proven to be gone (its monitor %s)", side->word,
                qmp_is_closed(side->qmp) ? "is closed, its process is not to be seen from here"
                                         : "does not answer");
    return FALSE;
}
