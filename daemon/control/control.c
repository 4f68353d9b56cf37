/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/control/control.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "daemon/control/admission.h"
#include "daemon/control/arrival.h"
#include "daemon/control/assist.h"
#include "daemon/control/connection.h"
#include "daemon/control/departure.h"
#include "daemon/control/departure_store.h"
#include "daemon/control/domains.h"
#include "daemon/control/expected.h"
#include "daemon/control/fd_store.h"
#include "daemon/control/limits.h"
#include "daemon/control/listener.h"
#include "daemon/control/past.h"
#include "daemon/control/peer_session.h"
#include "daemon/core/log.h"
#include "daemon/core/thread.h"
#include "daemon/fault/uffd.h"
#include "daemon/transport/address.h"

enum { TICK_MS = 50, REPORT_TICKS = 10 };

typedef struct Posted {
    ControlFunction function;
    gpointer data;
} Posted;

static gboolean fail(GError **error, int code, const char *format, ...) G_GNUC_PRINTF(3, 4);

static gboolean fail(GError **error, int code, const char *format, ...)
{
    va_list arguments;
    g_autofree char *text = NULL;

    va_start(arguments, format);
    text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    g_set_error_literal(error, g_quark_from_static_string("postcopyd"), code, text);
    return FALSE;
}

/* --- what other threads ask ---------------------------------------------------------------- */

void control_post(Control *control, ControlFunction function, gpointer data)
{
    Posted *posted = g_new(Posted, 1);
    uint64_t one = 1;

    *posted = (Posted){.function = function, .data = data};
    pthread_mutex_lock(&control->posted_lock);
    g_queue_push_tail(&control->posted, posted);
    pthread_mutex_unlock(&control->posted_lock);
    while (write(control->posted_fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

static guint count_posted(Control *control)
{
    guint n;

    pthread_mutex_lock(&control->posted_lock);
    n = g_queue_get_length(&control->posted);
    pthread_mutex_unlock(&control->posted_lock);
    return n;
}

static Posted *next_posted(Control *control)
{
    Posted *posted;

    pthread_mutex_lock(&control->posted_lock);
    posted = g_queue_pop_head(&control->posted);
    pthread_mutex_unlock(&control->posted_lock);
    return posted;
}

/*
 * Only what is there now, so that threads that post without end do not keep the loop from clients and
 * operators.  Whatever comes later makes the fd readable again: it is counted there after its entry,
 * and the count was taken before the entries are counted.
 */
static void on_posted(evutil_socket_t fd, short what, void *argument)
{
    Control *control = argument;
    uint64_t count;

    (void)what;
    if (read(fd, &count, sizeof count) < 0)
        return;
    for (guint left = count_posted(control); left > 0; left--) {
        g_autofree Posted *posted = next_posted(control);
        posted->function(control, posted->data);
    }
}

/* --- listeners ----------------------------------------------------------------------------- */

static gboolean find_group(const char *name, gid_t *ret_gid, GError **error)
{
    struct group *group = getgrnam(name);

    if (!group)
        return fail(error, ENOENT, "group '%s' does not exist: create it, or change the config",
                    name);
    *ret_gid = group->gr_gid;
    return TRUE;
}

/* Not the folders above it: one that lacks them was mistyped. */
static gboolean make_folder(const char *path, mode_t mode, GError **error)
{
    int reason = mkdir(path, mode) ? errno : 0;

    if (reason == 0 || g_file_test(path, G_FILE_TEST_IS_DIR))
        return TRUE;
    return fail(error, reason, "cannot make the folder %s: %s%s", path,
                reason == ENOENT ? "the one above it does not exist" : strerror(reason),
                reason == EACCES && geteuid() != 0
                    ? ": run as root, or set [daemon] runtime_dir and socket to where you may write"
                    : "");
}

/* A socket file may be left over; a living daemon's must not be taken away from it. */
static gboolean lock_socket(Control *control, GError **error)
{
    g_autofree char *path = g_strconcat(control->settings->socket, ".lock", NULL);
    g_autofree char *folder = g_path_get_dirname(control->settings->socket);

    if (!make_folder(folder, 0755, error))
        return FALSE;
    control->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (control->lock_fd < 0)
        return fail(error, errno, "cannot open %s: %s", path, strerror(errno));
    if (flock(control->lock_fd, LOCK_EX | LOCK_NB))
        return fail(error, errno, "another postcopyd serves %s: stop it, or use another --socket",
                    control->settings->socket);
    return TRUE;
}

/* As systemd's socket unit says: whoever may run VMs at all. */
static const char *default_group(void)
{
    return geteuid() == 0 && getgrnam("kvm") ? "kvm" : NULL;
}

static gboolean bind_client_socket(Control *control, GError **error)
{
    const char *path = control->settings->socket;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *group = control->settings->group ? control->settings->group : default_group();
    gid_t gid = (gid_t)-1;

    if (!lock_socket(control, error) || (group && !find_group(group, &gid, error)))
        return FALSE;
    g_strlcpy(address.sun_path, path, sizeof address.sun_path);
    unlink(path);
    control->client_listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (control->client_listener < 0 ||
        bind(control->client_listener, (struct sockaddr *)&address, sizeof address) ||
        chmod(path, 0660) || (gid != (gid_t)-1 && chown(path, (uid_t)-1, gid)) ||
        listen(control->client_listener, 64))
        return fail(error, errno, "cannot listen on %s: %s", path, strerror(errno));
    return TRUE;
}

/* From systemd's socket unit if it started us, else our own. */
static gboolean open_client_listener(Control *control, GError **error)
{
    int n = sd_listen_fds(0);

    for (int i = 0; i < n; i++)
        if (sd_is_socket_unix(SD_LISTEN_FDS_START + i, SOCK_SEQPACKET, 1, NULL, 0) > 0) {
            control->client_listener = SD_LISTEN_FDS_START + i;
            evutil_make_socket_nonblocking(control->client_listener);
            evutil_make_socket_closeonexec(control->client_listener);
            return TRUE;
        }
    return bind_client_socket(control, error);
}

static gboolean open_peer_listener(Control *control, GError **error)
{
    const char *text = control->settings->listen;
    Address address;
    int fd;

    if (address_parse(text, &address))
        return fail(error, EINVAL, "listen %s: must be HOST:PORT", text);
    fd = address_listen(&address);
    if (fd == -EADDRINUSE)
        return fail(error, EADDRINUSE,
                    "port %s is taken: is another postcopyd running? choose another with --listen",
                    text);
    if (fd < 0)
        return fail(error, -fd, "cannot listen on %s: %s", text, address_error(fd));
    control->peer_listener = fd;
    address_own_port(fd, control->peer_port, sizeof control->peer_port);
    if (control->settings->insecure_plaintext && !address_is_loopback(&address))
        log_warning("listening on %s without encryption (insecure_plaintext=yes): guests' memory "
                    "can be read and changed by whoever reaches that network",
                    text);
    return TRUE;
}

static gboolean open_runtime_dir(Control *control, GError **error)
{
    g_autofree char *relay = g_build_filename(control->settings->runtime_dir, "relay", NULL);

    if (!make_folder(control->settings->runtime_dir, 0755, error) ||
        !make_folder(relay, 0700, error))
        return FALSE;
    /* QEMU, whoever it runs as, makes its incoming socket there; nobody removes another's. */
    if (chmod(relay, 01733))
        return fail(error, errno, "cannot change the mode of %s: %s", relay, strerror(errno));
    return TRUE;
}

/* --- life ---------------------------------------------------------------------------------- */

static void on_tick(evutil_socket_t fd, short what, void *argument)
{
    Control *control = argument;

    (void)fd;
    (void)what;
    if (++control->ticks % REPORT_TICKS == 0)
        arrival_tick(control);
    limits_apply(control);
    departure_tick(control);
}

static void on_signal(evutil_socket_t signal_number, short what, void *argument)
{
    Control *control = argument;

    (void)what;
    if (!control->stopping && !departure_store_may_stop(control)) {
        control->stopping = TRUE;
        if (control->store)
            fd_store_ask_for_time(control->store);
        return;
    }
    log_info("stopping on signal %d; guests with missing memory wait for the next daemon",
             (int)signal_number);
    event_base_loopbreak(control->base);
}

static struct event *add_event(Control *control, int fd, short what, event_callback_fn function)
{
    struct event *event = event_new(control->base, fd, what, function, control);

    event_add(event, NULL);
    return event;
}

static void add_events(Control *control)
{
    const struct timeval tick = {.tv_usec = TICK_MS * 1000L};

    control->posted_event = add_event(control, control->posted_fd, EV_READ | EV_PERSIST, on_posted);
    listener_new(control, control->client_listener, "clients", admission_accept);
    listener_new(control, control->peer_listener, "daemons", peer_session_start);
    control->signal_events[0] = add_event(control, SIGTERM, EV_SIGNAL | EV_PERSIST, on_signal);
    control->signal_events[1] = add_event(control, SIGINT, EV_SIGNAL | EV_PERSIST, on_signal);
    control->tick_event = event_new(control->base, -1, EV_PERSIST, on_tick, control);
    event_add(control->tick_event, &tick);
}

static gboolean open_all(Control *control, GError **error)
{
    if (control->settings->operator_group) {
        if (!find_group(control->settings->operator_group, &control->operator_gid, error))
            return FALSE;
        control->has_operator_gid = TRUE;
    }
    control->uffd_device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (control->uffd_device < 0)
        log_warning("cannot open /dev/userfaultfd (%s): clients that may not call userfaultfd(2) "
                    "themselves cannot be destinations; run as root",
                    strerror(errno));
    control->uffd_features = uffd_features(control->uffd_device);
    return open_runtime_dir(control, error) && open_peer_listener(control, error) &&
           open_client_listener(control, error);
}

Control *control_new(const Settings *settings, GError **error)
{
    Control *control = g_new0(Control, 1);

    signal(SIGPIPE, SIG_IGN);
    thread_catch_signal();
    control->settings = settings;
    control->limit = settings->limit;
    control->rdma_budget.most = settings->rdma_pinned;
    control->client_listener = control->peer_listener = control->lock_fd = -1;
    control->base = event_base_new();
    pthread_mutex_init(&control->posted_lock, NULL);
    g_queue_init(&control->posted);
    control->posted_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    control->connections = g_ptr_array_new();
    control->refusals = g_hash_table_new_full(NULL, NULL, NULL, g_free);
    control->arrivals = g_ptr_array_new();
    control->departures = g_ptr_array_new();
    control->awaited = g_ptr_array_new();
    control->expected = g_ptr_array_new();
    control->assists = g_ptr_array_new();
    g_queue_init(&control->past);
    control->guests = guests_new();
    peer_crowd_init(&control->peers);
    control->message = g_new0(ClientMessage, 1);
    control->reply = g_new0(ClientMessage, 1);
    control->started_us = g_get_monotonic_time();
    control->next_id = 1;
    if (!open_all(control, error))
        return NULL; /* the process ends: nothing of it is worth taking apart */
    control->store = fd_store_new();
    departure_store_restore(control);
    add_events(control);
    domains_start(control);
    return control;
}

gboolean control_run(Control *control, GError **error)
{
    sd_notify(0, "READY=1");
    log_info("serving clients on %s, daemons on %s", control->settings->socket,
             control->settings->listen);
    if (control->settings->import.busy_poll_us > 0)
        log_info("where cores are spare, resolvers look for work for %u us before they sleep",
                 control->settings->import.busy_poll_us);
    if (event_base_dispatch(control->base) < 0)
        return fail(error, EIO, "the event loop failed");
    sd_notify(0, "STOPPING=1");
    return TRUE;
}

/*
 * Armed clients are left as they are: they hold all that the next daemon needs.  What was only being
 * prepared is undone.  The struct itself stays: threads of peers may still post to it until exit.
 */
void control_free(Control *control)
{
    fd_store_close(control->store); /* first: what lies there is the next daemon's */
    while (control->assists->len > 0)
        assist_free(control->assists->pdata[0]);
    while (control->expected->len > 0)
        expected_free(control->expected->pdata[0]);
    domains_stop(control);
    while (control->arrivals->len > 0)
        arrival_free(control->arrivals->pdata[0]);
    while (control->connections->len > 0)
        connection_close(control->connections->pdata[0]);
    while (control->departures->len > 0)
        departure_free(control->departures->pdata[0]);
    past_clear(&control->past);
    if (control->client_listener >= 0 && control->lock_fd >= 0)
        unlink(control->settings->socket);
}
