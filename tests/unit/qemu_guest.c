/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Guests that were lent, whose monitor is a thread of this test. */
#include <errno.h>
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

#include "daemon/core/process.h"
#include "daemon/qemu/guest.h"
#include "protocol/qmp/json.h"

/* A command and what is returned for it, until the one without. */
typedef struct Answer {
    const char *command;
    const char *returned;
} Answer;

typedef struct Qemu {
    int listener;
    char path[108];
    const Answer *answers;
    GThread *thread;
} Qemu;

static const char *find_answer(const Qemu *qemu, const char *command)
{
    for (const Answer *answer = qemu->answers; answer->command; answer++)
        if (strcmp(answer->command, command) == 0)
            return answer->returned;
    return NULL;
}

static void reply(const Qemu *qemu, FILE *stream, const char *line)
{
    g_autoptr(JsonNode) node = node_parse(line, -1, NULL);
    JsonObject *request = node_object(node);
    const char *command = member_string(request, "execute");
    const char *returned = find_answer(qemu, command);

    if (strcmp(command, "qmp_capabilities") == 0)
        returned = "{}";
    fprintf(stream, "{\"%s\": %s, \"id\": \"%s\"}\r\n", returned ? "return" : "error",
            returned ? returned : "{\"desc\": \"unknown\"}", member_string(request, "id"));
    fflush(stream);
}

static gpointer play(gpointer data)
{
    const Qemu *qemu = data;
    int fd;

    while ((fd = accept(qemu->listener, NULL, NULL)) >= 0) {
        FILE *stream = fdopen(fd, "r+");
        char line[1024];

        fprintf(stream, "{\"QMP\": {\"version\": {\"qemu\": {\"minor\": 2, \"major\": 7}}}}\r\n");
        fflush(stream);
        while (fgets(line, sizeof line, stream))
            reply(qemu, stream, line);
        fclose(stream);
    }
    return NULL;
}

static void start(Qemu *qemu, const Answer *answers)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    g_snprintf(qemu->path, sizeof qemu->path, "/tmp/qemu_guest.%d", (int)getpid());
    g_strlcpy(address.sun_path, qemu->path, sizeof address.sun_path);
    unlink(qemu->path);
    qemu->answers = answers;
    qemu->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(qemu->listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(qemu->listener, 1), 0);
    qemu->thread = g_thread_new("qemu", play, qemu);
}

static void stop(Qemu *qemu)
{
    shutdown(qemu->listener, SHUT_RDWR);
    g_thread_join(qemu->thread);
    close(qemu->listener);
    unlink(qemu->path);
}

static const guint8 uuid[LIMIT_UUID] = {1, 2, 3};
static const guint8 token[LIMIT_TOKEN] = {9, 8, 7};

typedef int (*Question)(const Guest *guest, char *ret_text);

/* The result of a question when QEMU answers so; the reason holds the words. */
static int ask(const Answer *answers, Question question, const char *words)
{
    g_autoptr(Guests) guests = guests_new();
    char text[LIMIT_TEXT + 1] = "";
    Guest *guest = NULL;
    Qemu qemu;
    int result;

    start(&qemu, answers);
    assert_int_equal(guests_lend(guests, uuid, "vm", qemu.path, token, text), 0);
    assert_int_equal(guests_open(guests, uuid, &guest, text), 0);
    result = question(guest, text);
    guest_close(guest);
    stop(&qemu);
    if (result && !strstr(text, words))
        fail_msg("no '%s' in: %s", words, text);
    return result;
}

#define CAPABILITIES(postcopy, release)                        \
    "[{\"capability\": \"postcopy-ram\", \"state\": " postcopy \
    "}, {\"capability\": \"release-ram\", \"state\": " release "}]"

static int leaving(const char *migration, const char *capabilities, const char *words)
{
    const Answer answers[] = {
        {"query-migrate", migration}, {"query-migrate-capabilities", capabilities}, {NULL, NULL}};

    return ask(answers, guest_check_leaving, words);
}

static void a_vm_that_leaves(void **state)
{
    static const char *const good[] = {"setup", "active", "postcopy-active", "postcopy-paused",
                                       "postcopy-recover"};
    static const char *const bad[] = {"none", "completed", "failed", "cancelled", "cancelling"};
    const char *on = CAPABILITIES("true", "false");

    (void)state;
    for (guint i = 0; i < G_N_ELEMENTS(good); i++) {
        g_autofree char *status = g_strdup_printf("{\"status\": \"%s\"}", good[i]);
        assert_int_equal(leaving(status, on, ""), 0);
    }
    for (guint i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autofree char *status = g_strdup_printf("{\"status\": \"%s\"}", bad[i]);
        assert_int_not_equal(leaving(status, on, "not being migrated"), 0);
    }
    assert_int_not_equal(leaving("{}", on, "not being migrated"), 0);
    assert_int_not_equal(
        leaving("{\"status\": \"active\"}", CAPABILITIES("false", "false"), "postcopy-ram"), 0);
    assert_int_not_equal(
        leaving("{\"status\": \"active\"}", CAPABILITIES("true", "true"), "release-ram"), 0);
    assert_int_not_equal(leaving("{\"status\": \"active\"}", "[]", "postcopy-ram"), 0);
    assert_int_equal(leaving(NULL, on, "refused query-migrate"), -EIO);
}

static int limited(const Guest *guest, char *ret_text)
{
    (void)ret_text;
    return guest_postcopy_is_limited(guest) ? 1 : 0;
}

static void a_limit_of_post_copy(void **state)
{
    static const struct {
        const char *answer;
        int limited;
    } cases[] = {
        {"{\"max-postcopy-bandwidth\": 0}", 0},
        {"{\"max-postcopy-bandwidth\": 1}", 1},
        {"{\"max-bandwidth\": 0}", 1},
        {"[]", 1},
        {NULL, 1},
    };

    (void)state;
    for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
        const Answer answers[] = {{"query-migrate-parameters", cases[i].answer}, {NULL, NULL}};
        assert_int_equal(ask(answers, limited, ""), cases[i].limited);
    }
}

static int stopped(Question question, const char *running, const char *status,
                   const char *migration)
{
    g_autofree char *state =
        g_strdup_printf("{\"running\": %s, \"status\": \"%s\"}", running, status);
    g_autofree char *move = g_strdup_printf("{\"status\": \"%s\"}", migration);
    const Answer answers[] = {{"query-status", state},
                              {"query-migrate", move},
                              {"query-migrate-capabilities", CAPABILITIES("true", "false")},
                              {NULL, NULL}};

    return ask(answers, question, "");
}

static void a_vm_that_stands_still(void **state)
{
    const Answer nothing[] = {{"query-status", "7"},
                              {"query-migrate", "{}"},
                              {"query-migrate-capabilities", CAPABILITIES("true", "false")},
                              {NULL, NULL}};
    const Answer precopy[] = {{"query-status", "{\"running\": false}"},
                              {"query-migrate", "{\"status\": \"completed\"}"},
                              {"query-migrate-capabilities", CAPABILITIES("false", "false")},
                              {NULL, NULL}};

    (void)state;
    assert_int_equal(ask(precopy, guest_check_postcopy, "postcopy-ram"), -EINVAL);
    assert_int_equal(stopped(guest_check_postcopy, "false", "finish-migrate", "postcopy-active"),
                     0);
    assert_int_equal(stopped(guest_check_postcopy, "false", "postmigrate", "completed"), 0);
    assert_int_equal(stopped(guest_check_postcopy, "false", "finish-migrate", "postcopy-device"),
                     0);
    assert_int_equal(stopped(guest_check_postcopy, "false", "paused", "active"), -EBUSY);
    assert_int_equal(stopped(guest_check_postcopy, "true", "running", "postcopy-active"), -EBUSY);
    assert_int_equal(stopped(guest_check_stopped, "false", "finish-migrate", "active"), 0);
    assert_int_equal(stopped(guest_check_stopped, "false", "postmigrate", "completed"), 0);
    assert_int_equal(stopped(guest_check_stopped, "false", "paused", "device"), 0);
    /* Somebody paused it, before its migration began, or while that goes on. */
    assert_int_equal(stopped(guest_check_stopped, "false", "paused", "none"), -EBUSY);
    assert_int_equal(stopped(guest_check_stopped, "false", "paused", "active"), -EBUSY);
    assert_int_equal(stopped(guest_check_stopped, "false", "paused", "completed"), -EBUSY);
    assert_int_equal(stopped(guest_check_stopped, "false", "postmigrate", "active"), -EBUSY);
    assert_int_equal(stopped(guest_check_stopped, "false", "suspended", ""), -EBUSY);
    assert_int_equal(stopped(guest_check_stopped, "true", "running", ""), -EBUSY);
    /* What says nothing does not say that it stopped. */
    assert_int_not_equal(ask(nothing, guest_check_stopped, "not stopped"), 0);
    assert_int_not_equal(ask(nothing, guest_check_postcopy, "still runs"), 0);
}

static int find_process(const Guest *guest, char *ret_text)
{
    GuestProcess process;
    int error = guest_process(guest, &process, ret_text);

    if (error)
        return error;
    assert_int_equal(process.pid, getpid());
    assert_false(process_has_ended(process.pidfd));
    assert_int_equal(process.vcpus[0], getpid());
    guest_process_clear(&process);
    return 0;
}

static int process_of(const int *tids, guint n, const char *words)
{
    g_autoptr(GString) text = g_string_new("[");

    for (guint i = 0; i < n; i++)
        g_string_append_printf(text, "%s{\"thread-id\": %d}", i ? ", " : "", tids[i]);
    g_string_append(text, "]");
    return ask((Answer[]){{"query-cpus-fast", text->str}, {NULL, NULL}}, find_process, words);
}

static void the_process_of_its_vcpus(void **state)
{
    const int own[] = {getpid(), getpid()}, mixed[] = {getpid(), 1}, gone[] = {1 << 30};
    const int other[] = {getppid(), getppid()};

    (void)state;
    assert_int_equal(process_of(own, 2, ""), 0);
    assert_int_equal(process_of(mixed, 2, "not of its process"), -ESRCH);
    assert_int_equal(process_of(gone, 1, "not of its process"), -ESRCH);
    assert_int_equal(process_of(own, 0, "not of its process"), -ESRCH);
    /* What is one process, but not that which answers. */
    assert_int_equal(process_of(other, 2, "not of its process"), -ESRCH);
}

static void what_is_lent(void **state)
{
    g_autoptr(Guests) guests = guests_new();
    char text[LIMIT_TEXT + 1];
    guint8 found[LIMIT_UUID];
    Guest *guest = NULL;

    (void)state;
    assert_int_equal(guests_open(guests, uuid, &guest, text), -ENOENT);
    assert_int_equal(guests_lend(guests, uuid, "vm", "relative", token, text), -EINVAL);
    assert_int_equal(guests_lend(guests, uuid, "vm", "/a", token, text), 0);
    assert_int_equal(guests_lend(guests, uuid, "other", "/b", token, text), 0);
    assert_false(guests_find_lent(guests, "vm", found));
    assert_true(guests_find_lent(guests, "other", found));
    assert_memory_equal(found, uuid, sizeof uuid);
    assert_int_equal(guests_open(guests, uuid, &guest, text), 0);
    assert_string_equal(guest->name, "other");
    assert_true(guest->has_token);
    assert_memory_equal(guest->token, token, sizeof token);
    /* One that is open stays what it is. */
    assert_true(guests_unlend(guests, uuid));
    assert_false(guests_unlend(guests, uuid));
    assert_int_not_equal(guest_check_stopped(guest, text), 0);
    assert_non_null(strstr(text, "/b"));
    guest_close(guest);
}

static int provide(void *user, const guint8 *wanted, Guest **ret_guest, char *ret_text)
{
    (void)ret_guest;
    if (memcmp(wanted, uuid, sizeof uuid) != 0)
        return -ENOENT;
    g_strlcpy(ret_text, user, LIMIT_TEXT + 1);
    return -EIO;
}

static void a_provider_is_asked_second(void **state)
{
    g_autoptr(Guests) guests = guests_new();
    const GuestProvider provider = {.open = provide, .user = (void *)"libvirt is away"};
    const guint8 other[LIMIT_UUID] = {5};
    char text[LIMIT_TEXT + 1];
    Guest *guest = NULL;

    (void)state;
    guests_provide(guests, &provider);
    assert_int_equal(guests_open(guests, uuid, &guest, text), -EIO);
    assert_string_equal(text, "libvirt is away");
    assert_int_equal(guests_open(guests, other, &guest, text), -ENOENT);
    assert_true(text[0] != '\0');
    assert_int_equal(guests_lend(guests, uuid, "vm", "/a", token, text), 0);
    assert_int_equal(guests_open(guests, uuid, &guest, text), 0);
    guest_close(guest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_vm_that_leaves),       cmocka_unit_test(a_limit_of_post_copy),
        cmocka_unit_test(a_vm_that_stands_still), cmocka_unit_test(the_process_of_its_vcpus),
        cmocka_unit_test(what_is_lent),           cmocka_unit_test(a_provider_is_asked_second),
    };

    alarm(60);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
