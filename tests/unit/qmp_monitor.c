/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The QMP client against a thread that plays QEMU, line by line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "protocol/qmp/error.h"
#include "protocol/qmp/json.h"
#include "protocol/qmp/qmp.h"
#include "protocol/qmp/second_monitor.h"

static const char greeting[] =
    "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}}}}\r\n";

/* What the other side writes when a command comes; "%s" is its id. NULL ends the connection. */
typedef struct Script {
    int listener;
    char path[108];
    const char *answers[8];
    GThread *thread;
} Script;

static gboolean read_line(int fd, char *line, size_t size)
{
    size_t length = 0;

    while (length + 1 < size && read(fd, line + length, 1) == 1)
        if (line[length++] == '\n')
            break;
    line[length] = '\0';
    return length > 0;
}

static void answer(int fd, const char *format, const char *request)
{
    g_autoptr(JsonNode) node = node_parse(request, -1, NULL);
    g_auto(GStrv) parts = g_strsplit(format, "%s", -1);
    g_autofree char *text = g_strjoinv(member_string(node_object(node), "id"), parts);

    send(fd, text, strlen(text), MSG_NOSIGNAL);
}

static gpointer play(gpointer data)
{
    Script *script = data;
    char line[1024];
    int fd = accept(script->listener, NULL, NULL);

    send(fd, greeting, strlen(greeting), MSG_NOSIGNAL);
    for (guint i = 0; script->answers[i] && read_line(fd, line, sizeof line); i++)
        answer(fd, script->answers[i], line);
    close(fd);
    return NULL;
}

static void script_start(Script *script)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    snprintf(script->path, sizeof script->path, "/tmp/ctl_qmp.%d", (int)getpid());
    g_strlcpy(address.sun_path, script->path, sizeof address.sun_path);
    unlink(script->path);
    script->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(script->listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(script->listener, 1), 0);
    script->thread = g_thread_new("qemu", play, script);
}

static void script_end(Script *script)
{
    g_thread_join(script->thread);
    close(script->listener);
    unlink(script->path);
}

#define DONE "{\"return\": {}, \"id\": \"%s\"}\r\n"

static void count_stop(void *user, const char *event, JsonObject *data, gint64 time_us)
{
    guint *count = user;

    (void)data;
    if (strcmp(event, "STOP") == 0 && time_us == 5000007)
        (*count)++;
}

/* Events between, before and glued to answers; an answer to somebody else's command. */
static void test_calls(void **state)
{
    static const char event[] =
        "{\"event\": \"STOP\", \"timestamp\": {\"seconds\": 5, \"microseconds\": 7}}\r\n"
        "{\"return\": {\"status\": \"wrong\"}, \"id\": \"other\"}\r\n"
        "{\"return\": {\"status\": \"paused\"}, \"id\": \"%s\"}\r\n"
        "{\"event\": \"STOP\", \"timestamp\": {\"seconds\": 5, \"microseconds\": 7}}\r\n";
    Script script = {
        .answers = {DONE, event, "{\"error\": {\"desc\": \"no way\"}, \"id\": \"%s\"}\r\n"}};
    g_autoptr(GError) error = NULL;
    g_autofree char *status = NULL;
    guint stops = 0;
    Qmp *qmp;

    (void)state;
    script_start(&script);
    qmp = qmp_connect(script.path, "source", NULL, &error);
    assert_non_null(qmp);
    assert_int_equal(qmp_version(qmp), 7002);
    assert_int_equal(qmp_peer(qmp), getpid());
    qmp_on_event(qmp, count_stop, &stops);
    status = qmp_query_status(qmp, "query-status", NULL);
    assert_string_equal(status, "paused");
    assert_false(qmp_run(qmp, "cont", NULL, &error));
    assert_true(g_error_matches(error, CALL_ERROR, CALL_ERROR_REFUSED));
    assert_string_equal(error->message, "the source's QEMU refused cont: no way");
    assert_int_equal(stops, 2);

    g_clear_error(&error);
    assert_false(qmp_run(qmp, "quit", NULL, &error));
    assert_true(g_error_matches(error, CALL_ERROR, CALL_ERROR_CLOSED));
    assert_true(qmp_is_closed(qmp));
    qmp_free(qmp);
    script_end(&script);
}

/* After the monitor was lent, the first bytes may be the end of a line that another has read. */
static void test_lent(void **state)
{
    static const char torn[] = "2}, \"event\": \"STOP\"}\r\n{\"return\": {}, \"id\": \"%s\"}\r\n";
    Script script = {.answers = {DONE, torn, torn}};
    g_autoptr(GError) error = NULL;
    Qmp *qmp;

    (void)state;
    script_start(&script);
    qmp = qmp_connect(script.path, "source", NULL, NULL);
    assert_non_null(qmp);
    assert_true(qmp_drain(qmp, NULL));
    qmp_resume(qmp);
    assert_true(qmp_run(qmp, "migrate-continue", NULL, NULL));
    assert_false(qmp_run(qmp, "cont", NULL, &error));
    assert_non_null(strstr(error->message, "does not speak QMP"));
    qmp_free(qmp);
    script_end(&script);
}

static void test_timeout(void **state)
{
    Script script = {.answers = {DONE, "", DONE}};
    g_autoptr(GError) error = NULL;
    Qmp *qmp;

    (void)state;
    script_start(&script);
    qmp = qmp_connect(script.path, "destination", NULL, NULL);
    assert_non_null(qmp);
    qmp_set_timeout(qmp, 20);
    assert_false(qmp_run(qmp, "stop", NULL, &error));
    assert_true(g_error_matches(error, CALL_ERROR, CALL_ERROR_TIMEOUT));
    qmp_set_timeout(qmp, 10000);
    assert_true(qmp_run(qmp, "stop", NULL, NULL));
    qmp_free(qmp);
    script_end(&script);
}

static void test_nobody(void **state)
{
    g_autoptr(GError) error = NULL;

    (void)state;
    assert_null(qmp_connect("/nonexistent/qmp", "source", NULL, &error));
    assert_non_null(strstr(error->message, "/nonexistent/qmp"));
}

static void test_second(void **state)
{
    g_autofree char *there = second_monitor_path(NULL, "web1");
    g_autofree char *elsewhere = second_monitor_path("/x", "web1");

    (void)state;
    assert_string_equal(there, "/run/libvirt/qemu/dbus/postcopyd.tunnelmigrate.dest.web1");
    assert_string_equal(elsewhere, "/x/dbus/postcopyd.tunnelmigrate.dest.web1");
    assert_null(second_monitor_path(NULL, ""));
    assert_null(second_monitor_path(NULL, "../web1"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls),   cmocka_unit_test(test_lent),
        cmocka_unit_test(test_timeout), cmocka_unit_test(test_nobody),
        cmocka_unit_test(test_second),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
