/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <libvirt/virterror.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/ctl/domain.h"
#include "client/ctl/host_check.h"
#include "client/ctl/host_qemu.h"
#include "client/operator/apparmor.h"
#include "client/operator/opt_in.h"
#include "paths.h"
#include "protocol/qmp/second_monitor.h"

/* Where libvirt looks, wherever we are installed. */
#define LIBVIRT_FOLDER "/etc/libvirt"
#define LIBVIRT_HOOK   LIBVIRT_FOLDER "/hooks/qemu.d/50-postcopyd"

/* When a process started, in seconds since the epoch; 0 if there is none. */
static gint64 started_at(gint64 pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%" G_GINT64_FORMAT "/stat", pid);
    g_autofree char *stat_text = NULL, *boot_text = NULL;
    g_auto(GStrv) fields = NULL;
    const char *behind_name, *boot;

    if (pid <= 0 || !g_file_get_contents(path, &stat_text, NULL, NULL) ||
        !g_file_get_contents("/proc/stat", &boot_text, NULL, NULL))
        return 0;
    behind_name = strrchr(stat_text, ')');
    boot = strstr(boot_text, "\nbtime ");
    fields = g_strsplit(behind_name ? behind_name + 1 : "", " ", -1);
    /* The 22nd field; the third is the first behind the name, and a space before it. */
    if (!boot || g_strv_length(fields) < 21)
        return 0;
    return g_ascii_strtoll(boot + strlen("\nbtime "), NULL, 10) +
           g_ascii_strtoll(fields[20], NULL, 10) / sysconf(_SC_CLK_TCK);
}

static gint64 libvirt_started_at(void)
{
    static const char *const files[] = {"/run/virtqemud.pid", "/run/libvirtd.pid"};

    for (guint i = 0; i < G_N_ELEMENTS(files); i++) {
        g_autofree char *text = NULL;
        gint64 at = g_file_get_contents(files[i], &text, NULL, NULL)
                        ? started_at(g_ascii_strtoll(text, NULL, 10))
                        : 0;

        if (at)
            return at;
    }
    return 0;
}

static void check_hook(HostCheck *check)
{
    gint64 libvirt = libvirt_started_at();
    struct stat status;

    if (stat(LIBVIRT_HOOK, &status)) {
        host_say(check, "hook", HOST_FAIL,
                 access(POSTCOPYD_HOOK, X_OK) == 0
                     ? "link " POSTCOPYD_HOOK " there, and restart libvirtd"
                     : "install postcopyd's hook there, and restart libvirtd",
                 "libvirt's hook %s: %s", LIBVIRT_HOOK, g_strerror(errno));
        return;
    }
    if (!(status.st_mode & 0111))
        host_say(check, "hook", HOST_FAIL, "chmod 755 " LIBVIRT_HOOK,
                 "libvirt does not run %s: it is not executable", LIBVIRT_HOOK);
    else if (libvirt && status.st_ctim.tv_sec > libvirt)
        host_say(check, "hook", HOST_WARN, "restart libvirtd (guests go on meanwhile)",
                 "libvirtd is older than %s, and looks for hooks when it starts", LIBVIRT_HOOK);
    else
        host_say(check, "hook", HOST_OK, NULL, "libvirt's hook is %s", LIBVIRT_HOOK);
}

static void check_preload(HostCheck *check)
{
    if (access(POSTCOPYD_PRELOAD, R_OK))
        host_say(check, "preload", HOST_FAIL, "install postcopyd anew",
                 "the library for QEMU, %s: %s", POSTCOPYD_PRELOAD, g_strerror(errno));
    else
        host_say(check, "preload", HOST_OK, NULL, "the library for QEMU is %s", POSTCOPYD_PRELOAD);
}

/* libvirt gives it to the user whom its QEMUs run as. */
static void check_monitors(HostCheck *check)
{
    g_autofree char *folder = second_monitor_folder(g_getenv("POSTCOPYD_LIBVIRT_RUN"));

    if (g_file_test(folder, G_FILE_TEST_IS_DIR))
        host_say(check, "monitors", HOST_OK, NULL,
                 "arriving guests make their second monitors in %s", folder);
    else
        host_say(check, "monitors", HOST_FAIL, "start libvirtd; 6.0 and newer make it",
                 "there is no folder %s for the second monitors of arriving guests", folder);
}

static void check_apparmor(HostCheck *check)
{
    switch (apparmor_state("")) {
    case APPARMOR_ABSENT:
        host_say(check, "apparmor", HOST_OK, NULL, "AppArmor does not confine libvirt's QEMUs");
        break;
    case APPARMOR_ALLOWS:
        host_say(check, "apparmor", HOST_OK, NULL,
                 "AppArmor lets libvirt's QEMUs have our library and sockets");
        break;
    case APPARMOR_FORBIDS:
        host_say(check, "apparmor", HOST_FAIL,
                 "append " POSTCOPYD_APPARMOR_RULES
                 " to /etc/apparmor.d/local/abstractions/libvirt-qemu",
                 "AppArmor keeps libvirt's QEMUs from our library and sockets");
    }
}

/* libvirt may have made the definition from a guest that had arrived; it would start with our additions. */
static void check_definition(HostCheck *check, virDomain *domain)
{
    g_autofree char *text = virDomainIsPersistent(domain) == 1
                                ? virDomainGetXMLDesc(domain, VIR_DOMAIN_XML_INACTIVE)
                                : NULL;

    if (text && strstr(text, "chardev=postcopyd,id=postcopyd"))
        host_say(check, "definition", HOST_WARN,
                 "remove LD_PRELOAD, POSTCOPY_SOCKET, and -chardev and -mon with id=postcopyd by "
                 "virsh edit",
                 "the definition of domain %s has what only a guest that arrives needs",
                 virDomainGetName(domain));
}

static void check_domains(HostCheck *check, virConnect *connection)
{
    virDomain **domains = NULL;
    int n = virConnectListAllDomains(connection, &domains, 0);
    guint on = 0;

    for (int i = 0; i < n; i++) {
        g_autofree char *text =
            virDomainGetMetadata(domains[i], VIR_DOMAIN_METADATA_ELEMENT, OPT_IN_NAMESPACE, 0);
        OptIn opt_in = opt_in_of_element(text);

        on += opt_in_is_on(&opt_in, check->config->enable_all) ? 1 : 0;
        check_definition(check, domains[i]);
        virDomainFree(domains[i]);
    }
    g_free(domains);
    if (n > 0 && on == 0)
        host_say(check, "domains", HOST_WARN,
                 "postcopyctl enable DOM, or [libvirt] enable=all for all of them",
                 "none of %d domains takes part", n);
    else
        host_say(check, "domains", HOST_OK, NULL, "%u of %d domains take part", on, MAX(n, 0));
}

static void check_uri(HostCheck *check, virConnect *connection)
{
    unsigned long version = 0;

    virConnectGetLibVersion(connection, &version);
    host_say(check, "libvirt", HOST_OK, NULL, "libvirt %lu.%lu.%lu answers at %s",
             version / 1000000, version / 1000 % 1000, version % 1000, check->uri);
    if (!*check->config->libvirt_uri)
        host_say(check, "libvirt-uri", HOST_WARN, "set [libvirt] uri, and restart postcopyd",
                 "the daemon uses no libvirt: no destination may ask it for a domain's memory");
    check_domains(check, connection);
}

void host_check_libvirt(HostCheck *check)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(virConnect) connection = domain_connect(check->uri, TRUE, &error);

    host_check_qemu(check);
    if (!connection && !*check->config->libvirt_uri &&
        !g_file_test(LIBVIRT_FOLDER "/qemu", G_FILE_TEST_IS_DIR)) {
        host_say(check, "libvirt", HOST_OK, NULL,
                 "no libvirt for QEMU on this host: QEMUs are driven by postcopyctl alone");
        return;
    }
    if (connection)
        check_uri(check, connection);
    else
        host_say(check, "libvirt", HOST_FAIL, NULL, "%s", error->message);
    check_hook(check);
    check_preload(check);
    check_monitors(check);
    check_apparmor(check);
}
