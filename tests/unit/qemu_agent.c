/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The agent with the domains of libvirt's own test driver, which lives in this process: they have metadata and
 * tell of events, but no QEMU.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/qemu_agent_world.h"

static int process_of(const Guest *guest, const char *written)
{
    g_autofree char *path = g_build_filename(g_getenv("POSTCOPYD_LIBVIRT_RUN"), "test.pid", NULL);
    char text[LIMIT_TEXT + 1] = "";
    int pid = 0, pidfd;

    if (written)
        assert_true(g_file_set_contents(path, written, -1, NULL));
    pidfd = guest->open_process(guest, &pid, text);
    if (written)
        assert_int_equal(unlink(path), 0);
    if (pidfd >= 0)
        assert_int_equal(close(pidfd), 0);
    else
        assert_true(text[0] != '\0');
    return pidfd < 0 ? pidfd : pid;
}

static void its_process_is_the_one_that_libvirt_started(void **state)
{
    g_autofree char *folder = g_dir_make_tmp("agent.XXXXXX", NULL);
    g_autofree char *own = g_strdup_printf("%d", (int)getpid());
    g_autofree char *line = g_strdup_printf("%d\n", (int)getpid());
    static const char *const wrong[] = {"",   "x",   "0",           "-1",
                                        "1x", "1 1", "99999999999", "2147483647"};
    World *world = *state;
    Guest *guest;

    g_setenv("POSTCOPYD_LIBVIRT_RUN", folder, TRUE);
    world_start(world, TRUE);
    guest = world_wait_guest(world);
    assert_non_null(guest);
    assert_int_equal(process_of(guest, own), getpid());
    assert_int_equal(process_of(guest, line), getpid());
    assert_true(process_of(guest, NULL) < 0);
    for (guint i = 0; i < G_N_ELEMENTS(wrong); i++)
        assert_true(process_of(guest, wrong[i]) < 0);
    guest->close(guest);
    assert_int_equal(rmdir(folder), 0);
}

static void gets_a_token(void **state)
{
    World *world = *state;
    GByteArray *enabled;
    Guest *guest;
    Mark mark;

    world_write_mark(world, "<migration enabled='yes'/>");
    world_start(world, FALSE);
    guest = world_wait_guest(world);
    assert_non_null(guest);
    assert_true(guest->has_token);
    assert_string_equal(guest->name, "test");
    assert_true(world_read_mark(world, &mark));
    assert_int_equal(mark.enabled, MARK_YES);
    assert_true(mark.has_token);
    assert_memory_equal(mark.token, guest->token, LIMIT_TOKEN);
    assert_true(agent_is_enabled(world->agent, world->uuid));
    enabled = agent_enabled(world->agent);
    assert_int_equal(enabled->len, LIMIT_UUID);
    assert_memory_equal(enabled->data, world->uuid, LIMIT_UUID);
    g_byte_array_free(enabled, TRUE);
    guest->close(guest);
}

static void another_daemon_makes_another_token(void **state)
{
    World *world = *state;
    Mark first, second;

    world_write_mark(world, "<migration enabled='yes'/>");
    world_start(world, FALSE);
    world_wait_known(world);
    assert_true(world_read_mark(world, &first) && first.has_token);
    world_stop(world);
    world_start(world, FALSE);
    world_wait_known(world);
    assert_true(world_read_mark(world, &second) && second.has_token);
    assert_memory_not_equal(first.token, second.token, LIMIT_TOKEN);
}

static void enabled_and_disabled_while_it_runs(void **state)
{
    World *world = *state;
    Guest *guest;
    Mark mark;

    world_start(world, FALSE);
    world_let_looks_pass(world);
    assert_false(world_has_guest(world));
    assert_false(world_read_mark(world, &mark));
    world_write_mark(world, "<migration enabled='yes'/>");
    guest = world_wait_guest(world);
    assert_non_null(guest);
    guest->close(guest);
    world_write_mark(world, "<migration enabled='no'/>");
    world_wait_no_guest(world);
    assert_false(agent_is_enabled(world->agent, world->uuid));
    world_let_looks_pass(world);
    assert_true(world_read_mark(world, &mark));
    assert_int_equal(mark.enabled, MARK_NO);
    assert_false(mark.has_token);
}

/* Somebody wrote the word again, without the token. */
static void a_lost_token_comes_back(void **state)
{
    World *world = *state;
    Mark first, second;

    world_start(world, FALSE);
    world_write_mark(world, "<migration enabled='yes'/>");
    world_wait_known(world);
    assert_true(world_read_mark(world, &first) && first.has_token);
    world_write_mark(world, "<migration enabled='yes'/>");
    for (int i = 0; i < 5000 && world_read_mark(world, &second) && !second.has_token; i++)
        usleep(1000);
    assert_memory_equal(first.token, second.token, LIMIT_TOKEN);
}

/* Two who write in turns would never end. */
static void anothers_token_stays(void **state)
{
    World *world = *state;
    Mark theirs = {.enabled = MARK_YES, .has_token = TRUE, .token = {1, 2, 3}}, mark;
    char *xml = mark_write(&theirs, NULL);
    Guest *guest;

    world_start(world, FALSE);
    world_write_mark(world, "<migration enabled='yes'/>");
    world_wait_known(world);
    world_let_looks_pass(world);
    world_write_mark(world, xml);
    world_let_looks_pass(world);
    assert_true(world_read_mark(world, &mark));
    assert_memory_equal(&mark, &theirs, sizeof mark);
    guest = world_wait_guest(world);
    assert_memory_equal(guest->token, theirs.token, LIMIT_TOKEN);
    guest->close(guest);
    g_free(xml);
}

static void all_but_who_says_no(void **state)
{
    World *world = *state;
    Mark mark;

    world_start(world, TRUE);
    world_wait_known(world);
    assert_true(world_read_mark(world, &mark));
    assert_int_equal(mark.enabled, MARK_UNSET);
    assert_true(mark.has_token);
    world_stop(world);
    world_write_mark(world, "<migration enabled='no'/>");
    world_start(world, TRUE);
    world_let_looks_pass(world);
    assert_false(world_has_guest(world));
    assert_true(world_read_mark(world, &mark));
    assert_false(mark.has_token);
}

static void not_understood_is_left_alone(void **state)
{
    World *world = *state;
    char *xml;

    world_write_mark(world, "<migration enabled='sometimes'/>");
    world_start(world, TRUE);
    world_let_looks_pass(world);
    assert_false(world_has_guest(world));
    xml = virDomainGetMetadata(world->domain, VIR_DOMAIN_METADATA_ELEMENT, MARK_NAMESPACE,
                               VIR_DOMAIN_AFFECT_LIVE);
    assert_non_null(strstr(xml, "sometimes"));
    free(xml);
}

/* A new run, a new token. */
static void stopped_and_started(void **state)
{
    World *world = *state;
    Mark first, second;

    world_write_mark(world, "<migration enabled='yes'/>");
    assert_int_equal(virDomainSetMetadata(world->domain, VIR_DOMAIN_METADATA_ELEMENT,
                                          "<migration enabled='yes'/>", MARK_PREFIX, MARK_NAMESPACE,
                                          VIR_DOMAIN_AFFECT_CONFIG),
                     0);
    world_start(world, FALSE);
    world_wait_known(world);
    assert_true(world_read_mark(world, &first) && first.has_token);
    assert_int_equal(virDomainDestroy(world->domain), 0);
    world_wait_no_guest(world);
    assert_int_equal(virDomainCreate(world->domain), 0);
    world_wait_known(world);
    assert_true(world_read_mark(world, &second) && second.has_token);
    assert_memory_not_equal(first.token, second.token, LIMIT_TOKEN);
}

/* There is no QEMU: libvirt says so, in one line. */
static void a_monitor_that_is_none(void **state)
{
    World *world = *state;
    GError *error = NULL;
    Guest *guest;

    world_write_mark(world, "<migration enabled='yes'/>");
    world_start(world, FALSE);
    guest = world_wait_guest(world);
    assert_null(monitor_call(&guest->monitor, "query-status", NULL, &error));
    assert_non_null(strstr(error->message, "libvirt: "));
    assert_null(strchr(error->message, '\n'));
    g_clear_error(&error);
    agent_stop(world->agent);
    assert_null(monitor_call(&guest->monitor, "query-status", NULL, &error));
    assert_non_null(strstr(error->message, "stopping"));
    g_clear_error(&error);
    guest->close(guest);
    agent_free(world->agent);
    world->agent = NULL;
}

typedef struct Said {
    atomic_int times;
    gboolean failed;
} Said;

static void on_done(void *user, const guint8 *uuid, const char *problem)
{
    Said *said = user;

    (void)uuid;
    said->failed = problem != NULL;
    atomic_fetch_add(&said->times, 1);
}

static void wait_said(Said *said)
{
    for (int i = 0; i < 5000 && atomic_load(&said->times) == 0; i++)
        usleep(1000);
    assert_int_equal(atomic_load(&said->times), 1);
}

/* Without a QEMU it fails, but that it may be on is noted before. */
static void capability_is_noted_first(void **state)
{
    World *world = *state;
    guint8 nobody[LIMIT_UUID] = {1};
    Said set = {0}, gone = {0}, cleared = {0};
    Mark mark;

    world_start(world, FALSE);
    agent_set_ignore_shared(world->agent, nobody, on_done, &gone);
    wait_said(&gone);
    assert_true(gone.failed);
    agent_set_ignore_shared(world->agent, world->uuid, on_done, &set);
    wait_said(&set);
    assert_true(set.failed);
    assert_true(world_read_mark(world, &mark));
    assert_true(mark.ignore_shared);
    agent_clear_ignore_shared(world->agent, nobody, on_done, &cleared);
    wait_said(&cleared);
    assert_false(cleared.failed);
}

/* Requests that nobody comes for are answered as well, and nothing hangs. */
static void stopped_at_once(void **state)
{
    World *world = *state;
    Said said[50] = {0};
    int answered = 0;

    world_start(world, FALSE);
    for (int i = 0; i < 50; i++)
        agent_clear_ignore_shared(world->agent, world->uuid, on_done, &said[i]);
    world_stop(world);
    for (int i = 0; i < 50; i++)
        answered += atomic_load(&said[i].times);
    assert_int_equal(answered, 50);
}

/* A host without libvirt. */
static void nobody_there(void **state)
{
    Agent *agent = agent_start(&(AgentConfig){.uri = "test+unix:///default?socket=/none/such"});
    guint8 uuid[LIMIT_UUID] = {1};
    GuestProvider provider = agent_provider(agent);
    Said said = {0};
    char text[LIMIT_TEXT + 1];
    Guest *guest = NULL;

    (void)state;
    agent_clear_ignore_shared(agent, uuid, on_done, &said);
    wait_said(&said);
    assert_true(said.failed);
    assert_int_equal(provider.open(provider.user, uuid, &guest, text), -ENOENT);
    assert_false(agent_is_connected(agent));
    agent_stop(agent);
    agent_free(agent);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_DOMAIN(its_process_is_the_one_that_libvirt_started),
        WITH_DOMAIN(gets_a_token),
        WITH_DOMAIN(another_daemon_makes_another_token),
        WITH_DOMAIN(enabled_and_disabled_while_it_runs),
        WITH_DOMAIN(a_lost_token_comes_back),
        WITH_DOMAIN(anothers_token_stays),
        WITH_DOMAIN(all_but_who_says_no),
        WITH_DOMAIN(not_understood_is_left_alone),
        WITH_DOMAIN(stopped_and_started),
        WITH_DOMAIN(a_monitor_that_is_none),
        WITH_DOMAIN(capability_is_noted_first),
        WITH_DOMAIN(stopped_at_once),
        cmocka_unit_test(nobody_there),
    };

    /* A connection has events only if there was an event loop before it. */
    virEventRegisterDefaultImpl();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
