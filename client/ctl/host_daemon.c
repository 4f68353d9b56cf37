/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/ctl/host_check.h"
#include "client/operator/daemon.h"
#include "protocol/qmp/error.h"
#include "protocol/qmp/json.h"
#include "version.h"

enum {
    ANSWER_MS = 5 * 1000,
    CAP_IPC_LOCK_BIT = 14, /* in CapEff: whoever has it may lock any amount of memory */
};

/* Less than this and the kernel may refuse what the daemon keeps in memory for its rings. */
#define MEMLOCK_LEAST (G_GUINT64_CONSTANT(64) << 20)

static gboolean is_loopback(const char *listen)
{
    return g_str_has_prefix(listen, "127.") || g_str_has_prefix(listen, "[::1]") ||
           g_str_has_prefix(listen, "localhost:");
}

static void check_listen(HostCheck *check, const char *listen)
{
    if (is_loopback(listen))
        host_say(check, "listen", HOST_WARN,
                 "set [peer] listen=ADDRESS:PORT, and insecure_plaintext=yes if that network is "
                 "trusted",
                 "it listens on %s, so no other host reaches it", listen);
    else
        host_say(check, "listen", HOST_OK, NULL, "it listens for other hosts on %s", listen);
}

static gboolean may_lock_anything(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/status", (int)pid);
    g_autofree char *text = NULL;
    const char *line;

    if (!g_file_get_contents(path, &text, NULL, NULL))
        return FALSE;
    line = strstr(text, "\nCapEff:");
    return line && g_ascii_strtoull(line + strlen("\nCapEff:"), NULL, 16) >> CAP_IPC_LOCK_BIT & 1;
}

/* prlimit() tells only whoever may change it. */
gboolean host_memlock(const HostCheck *check, guint64 *ret_bytes)
{
    const char *name = "\nMax locked memory";
    g_autofree char *path = g_strdup_printf("/proc/%d/limits", (int)check->daemon);
    g_autofree char *text = NULL;
    const char *line;

    *ret_bytes = G_MAXUINT64;
    if (may_lock_anything(check->daemon))
        return TRUE;
    if (!g_file_get_contents(path, &text, NULL, NULL) || !(line = strstr(text, name)))
        return FALSE;
    line += strlen(name);
    line += strspn(line, " ");
    *ret_bytes =
        g_str_has_prefix(line, "unlimited") ? G_MAXUINT64 : g_ascii_strtoull(line, NULL, 10);
    return TRUE;
}

static void check_memlock(HostCheck *check)
{
    guint64 limit;

    if (!host_memlock(check, &limit))
        host_say(check, "memlock", HOST_WARN, "run this check as root",
                 "the daemon's limit of locked memory cannot be read");
    else if (limit == G_MAXUINT64)
        host_say(check, "memlock", HOST_OK, NULL, "the daemon may lock any amount of memory");
    else
        host_say(check, "memlock", limit < MEMLOCK_LEAST ? HOST_WARN : HOST_OK,
                 limit < MEMLOCK_LEAST ? "set LimitMEMLOCK=infinity in its unit" : NULL,
                 "the daemon may lock %" G_GUINT64_FORMAT " KiB of memory", limit >> 10);
}

static void check_answer(HostCheck *check, JsonObject *status)
{
    const char *version = member_string(status, "version");

    check->daemon = (pid_t)member_int(status, "pid");
    host_say(check, "daemon", strcmp(version, POSTCOPYD_VERSION) ? HOST_WARN : HOST_OK,
             strcmp(version, POSTCOPYD_VERSION) ? "restart postcopyd" : NULL,
             "postcopyd %s, pid %d, answers at %s", version, (int)check->daemon, check->socket);
    check_listen(check, member_string(status, "listen"));
    check_memlock(check);
}

/* The one beside us, that which runs, or the first on the path; NULL: there is none. */
static char *daemon_program(const HostCheck *check)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *folder = g_path_get_dirname(self ? self : "/");
    g_autofree char *running = g_strdup_printf("/proc/%d/exe", (int)check->daemon);
    g_autofree char *beside = g_build_filename(folder, "postcopyd", NULL);

    if (g_file_test(beside, G_FILE_TEST_IS_REGULAR) && access(beside, X_OK) == 0)
        return g_steal_pointer(&beside);
    if (check->daemon > 0 && access(running, X_OK) == 0)
        return g_steal_pointer(&running);
    return g_find_program_in_path("postcopyd");
}

/* What is wrong is the daemon's to say; it says so in one line. NULL: nothing, or it cannot be asked. */
static char *config_mistake(const HostCheck *check)
{
    g_autofree char *program = daemon_program(check);
    const char *const words[] = {program, "--config", check->config->path, "--check", NULL};
    g_autofree char *said = NULL;
    const char *begin = "postcopyd: ";
    int status;

    if (!program || !g_spawn_sync(NULL, (char **)words, NULL, G_SPAWN_STDOUT_TO_DEV_NULL, NULL,
                                  NULL, NULL, &said, &status, NULL))
        return NULL;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return NULL;
    g_strdelimit(g_strstrip(said), "\n", ' ');
    return g_strdup(g_str_has_prefix(said, begin) ? said + strlen(begin) : said);
}

static void check_config(HostCheck *check)
{
    const char *advice = "correct it and restart postcopyd; 'postcopyd --check' tries it";
    g_autofree char *mistake = NULL;

    if (!g_file_test(check->config->path, G_FILE_TEST_EXISTS))
        return; /* all is as built in */
    mistake = config_mistake(check);
    if (mistake)
        host_say(check, "config", HOST_FAIL, advice, "%s", mistake);
    else if (!check->config->readable)
        host_say(check, "config", HOST_FAIL, advice, "%s cannot be read", check->config->path);
    else
        host_say(check, "config", HOST_OK, NULL, "the configuration is %s", check->config->path);
}

void host_check_daemon(HostCheck *check)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Daemon) daemon = daemon_connect(check->socket, NULL, &error);
    g_autoptr(JsonNode) answer =
        daemon ? daemon_call(daemon, "status", NULL, -1, ANSWER_MS, &error) : NULL;

    if (answer) {
        check_answer(check, node_object(answer));
    } else {
        host_say(check, "daemon", HOST_FAIL, NULL, "%s", error->message);
        check_listen(check, check->config->listen);
    }
    check_config(check);
    host_check_rdma(check, answer ? node_object(answer) : NULL);
}
