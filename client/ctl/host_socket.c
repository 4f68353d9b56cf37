/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whether libvirt's QEMUs, as the user and group that they run as, may connect to the daemon.  Nothing else says so:
 * a QEMU that may not goes on as if there were no daemon.
 */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>

#include "client/ctl/host_check.h"

#define QEMU_CONF "/etc/libvirt/qemu.conf"

enum { GROUPS_MAX = 256, MAY_ENTER = 1, MAY_CONNECT = 2 }; /* the bits of a mode */

/* Whom libvirt's QEMUs run as. */
typedef struct QemuUser {
    uid_t uid;
    char *name;
    gid_t groups[GROUPS_MAX + 1]; /* the first is the one to give the socket to */
    int n_groups;
} QemuUser;

/* The value of "key = "value"", as qemu.conf has it; NULL if it has none. */
static char *conf_value(const char *text, const char *key)
{
    g_autofree char *pattern = g_strdup_printf("^[ \\t]*%s[ \\t]*=[ \\t]*\"([^\"\\n]+)\"", key);
    g_autoptr(GRegex) regex = g_regex_new(pattern, G_REGEX_MULTILINE, 0, NULL);
    g_autoptr(GMatchInfo) match = NULL;

    return regex && g_regex_match(regex, text, 0, &match) ? g_match_info_fetch(match, 1) : NULL;
}

/* "+107" is a number, whatever names there are. */
static gboolean as_number(const char *text, guint64 *ret_number)
{
    return g_ascii_string_to_unsigned(text + (*text == '+'), 10, 0, G_MAXUINT32 - 1, ret_number,
                                      NULL);
}

static const struct passwd *find_user(const char *said)
{
    const struct passwd *user = said ? getpwnam(said) : getpwnam("libvirt-qemu");
    guint64 number;

    if (!user && said && as_number(said, &number))
        return getpwuid((uid_t)number);
    if (!user && !said)
        user = getpwnam("qemu");
    return user || said ? user : getpwuid(0);
}

static gboolean find_group(const char *said, gid_t *ret_gid)
{
    const struct group *group = getgrnam(said);
    guint64 number;

    if (!group && !as_number(said, &number))
        return FALSE;
    *ret_gid = group ? group->gr_gid : (gid_t)number;
    return TRUE;
}

/* As libvirt does: qemu.conf, else what it was built with, which is one of a few. */
static gboolean find_qemu_user(QemuUser *ret_user)
{
    const char *path = g_getenv("POSTCOPYD_QEMU_CONF");
    g_autofree char *text = NULL, *said_user = NULL, *said_group = NULL;
    const struct passwd *user;

    if (g_file_get_contents(path ? path : QEMU_CONF, &text, NULL, NULL)) {
        said_user = conf_value(text, "user");
        said_group = conf_value(text, "group");
    }
    user = find_user(said_user);
    if (!user)
        return FALSE;
    ret_user->uid = user->pw_uid;
    ret_user->name = g_strdup(user->pw_name);
    ret_user->n_groups = GROUPS_MAX;
    if (getgrouplist(user->pw_name, user->pw_gid, ret_user->groups, &ret_user->n_groups) < 0)
        ret_user->n_groups = GROUPS_MAX;
    if (said_group && find_group(said_group, &ret_user->groups[ret_user->n_groups]))
        ret_user->n_groups++;
    return TRUE;
}

static gboolean has_group(const QemuUser *user, gid_t gid)
{
    for (int i = 0; i < user->n_groups; i++)
        if (user->groups[i] == gid)
            return TRUE;
    return FALSE;
}

static gboolean may(const QemuUser *user, const struct stat *status, unsigned bit)
{
    if (user->uid == 0)
        return TRUE;
    if (user->uid == status->st_uid)
        return (status->st_mode & (bit << 6)) != 0;
    return (status->st_mode & (has_group(user, status->st_gid) ? bit << 3 : bit)) != 0;
}

/* NULL if nothing is in the way; else the path that is. The caller's. */
static char *closed_folder(const QemuUser *user, const char *socket)
{
    g_autofree char *folder = g_path_get_dirname(socket);
    struct stat status;

    while (stat(folder, &status) == 0 && may(user, &status, MAY_ENTER)) {
        char *above = g_path_get_dirname(folder);

        if (strcmp(above, folder) == 0) {
            g_free(above);
            return NULL;
        }
        g_free(folder);
        folder = above;
    }
    return g_steal_pointer(&folder);
}

static void judge(HostCheck *check, const QemuUser *user, const struct stat *status)
{
    const struct group *group = getgrgid(status->st_gid);
    g_autofree char *owner =
        group ? g_strdup(group->gr_name) : g_strdup_printf("%u", (unsigned)status->st_gid);
    g_autofree char *folder = closed_folder(user, check->socket);
    g_autofree char *advice = NULL;

    if (folder) {
        host_say(check, "socket", HOST_FAIL, "let that user enter it, or move the socket",
                 "libvirt's QEMUs run as %s, who may not enter %s, where the daemon's socket is",
                 user->name, folder);
        return;
    }
    if (may(user, status, MAY_CONNECT)) {
        host_say(check, "socket", HOST_OK, NULL, "libvirt's QEMUs, which run as %s, may connect",
                 user->name);
        return;
    }
    group = getgrgid(user->groups[0]);
    advice = g_strdup_printf("set [daemon] group=%s, or SocketGroup= where postcopyd.socket makes "
                             "it, and restart postcopyd",
                             group ? group->gr_name : "GROUP");
    host_say(check, "socket", HOST_FAIL, advice,
             "libvirt's QEMUs run as %s, who may not connect to %s: it is group %s's, mode %04o",
             user->name, check->socket, owner, (unsigned)status->st_mode & 07777);
}

void host_check_socket(HostCheck *check)
{
    QemuUser user = {.n_groups = 0};
    struct stat status;

    if (g_str_has_suffix(check->uri, "/session") || stat(check->socket, &status))
        return;
    if (find_qemu_user(&user))
        judge(check, &user, &status);
    else
        host_say(check, "socket", HOST_WARN, "correct it",
                 "the user that libvirt's qemu.conf names for QEMUs does not exist");
    g_free(user.name);
}
