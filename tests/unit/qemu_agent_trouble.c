/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The agent with a libvirt that fails, hangs and is written to by others.  The test driver does none of
 * it, so its calls are made by way of functions of this file, which take the place of the libraries'; and
 * so does the clock, which can be put forward and back.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <libvirt/virterror.h>

#include "protocol/qmp/error.h"
#include "tests/unit/qemu_agent_world.h"

typedef struct Trouble {
    pthread_t tester;      /* whose own calls are left alone */
    atomic_llong ahead_us; /* of the true time */
    atomic_bool reads_fail, reads_hang, writes_fail, busy;
    atomic_int reads;
    _Atomic(void *)
        writes_before; /* a World: its user says no just before the agent's next write */
} Trouble;

static Trouble trouble;

gint64 g_get_monotonic_time(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * G_USEC_PER_SEC + now.tv_nsec / 1000 + atomic_load(&trouble.ahead_us);
}

static gboolean is_left_alone(virDomainPtr domain)
{
    return pthread_equal(pthread_self(), trouble.tester) ||
           strcmp(virDomainGetName(domain), "test") != 0;
}

char *virDomainGetMetadata(virDomainPtr domain, int type, const char *uri, unsigned int flags)
{
    char *(*next)(virDomainPtr, int, const char *, unsigned int) =
        (char *(*)(virDomainPtr, int, const char *, unsigned int))dlsym(RTLD_NEXT,
                                                                        "virDomainGetMetadata");

    if (is_left_alone(domain))
        return next(domain, type, uri, flags);
    atomic_fetch_add(&trouble.reads, 1);
    while (atomic_load(&trouble.reads_hang))
        usleep(1000);
    if (!atomic_load(&trouble.reads_fail))
        return next(domain, type, uri, flags);
    virResetLastError();
    return NULL;
}

int virDomainSetMetadata(virDomainPtr domain, int type, const char *metadata, const char *key,
                         const char *uri, unsigned int flags)
{
    int (*next)(virDomainPtr, int, const char *, const char *, const char *, unsigned int) =
        (int (*)(virDomainPtr, int, const char *, const char *, const char *, unsigned int))dlsym(
            RTLD_NEXT, "virDomainSetMetadata");
    gboolean alone = is_left_alone(domain);
    World *world = alone ? NULL : atomic_exchange(&trouble.writes_before, NULL);

    if (!alone && atomic_load(&trouble.writes_fail))
        return next(domain, VIR_DOMAIN_METADATA_ELEMENT, metadata, key, NULL, flags);
    if (world)
        for (unsigned part = VIR_DOMAIN_AFFECT_LIVE; part <= VIR_DOMAIN_AFFECT_CONFIG; part++)
            next(world->domain, VIR_DOMAIN_METADATA_ELEMENT, "<migration enabled='no'/>",
                 MARK_PREFIX, MARK_NAMESPACE, part);
    return next(domain, type, metadata, key, uri, flags);
}

int virDomainGetJobInfo(virDomainPtr domain, virDomainJobInfoPtr info)
{
    (void)domain;
    memset(info, 0, sizeof *info);
    info->type = atomic_load(&trouble.busy) ? VIR_DOMAIN_JOB_UNBOUNDED : VIR_DOMAIN_JOB_NONE;
    return 0;
}

static int begin(void **state)
{
    memset(&trouble, 0, sizeof trouble);
    trouble.tester = pthread_self();
    return world_set_up(state);
}

static int end(void **state)
{
    atomic_store(&trouble.ahead_us, 0);
    atomic_store(&trouble.reads_hang, FALSE);
    return world_tear_down(state);
}

/* What the agent waits for is over at once: it tries again whatever there is to be tried. */
static void hurry(void)
{
    atomic_store(&trouble.ahead_us, -60 * G_USEC_PER_SEC);
}

/* --- all questions together ------------------------------------------------------------------ */

static void a_guest_has_its_time(void **state)
{
    World *world = *state;
    g_autoptr(GError) error = NULL;
    Guest *guest;

    world_write_mark(world, "<migration enabled='yes'/>");
    world_start(world, FALSE);
    guest = world_wait_guest(world);
    assert_non_null(guest);
    for (int i = 0; i < 2; i++) {
        assert_null(monitor_call(&guest->monitor, "query-status", NULL, &error));
        assert_true(g_error_matches(error, CALL_ERROR, CALL_ERROR_FAILED));
        g_clear_error(&error);
        atomic_fetch_add(&trouble.ahead_us, (GUEST_ALL_QUESTIONS_MS - 1000) * 1000);
    }
    assert_null(monitor_call(&guest->monitor, "query-status", NULL, &error));
    assert_true(g_error_matches(error, CALL_ERROR, CALL_ERROR_TIMEOUT));
    guest->close(guest);
}

/* --- tokens ---------------------------------------------------------------------------------- */

static const char foreign[] =
    "<migration enabled='yes' "
    "token='0102030405060708090a0b0c0d0e0f100102030405060708090a0b0c0d0e0f10'/>";

static gboolean has_token(World *world, const Mark *wanted)
{
    Guest *guest = world_wait_guest(world);
    gboolean same;

    assert_non_null(guest);
    same = memcmp(guest->token, wanted->token, LIMIT_TOKEN) == 0;
    guest->close(guest);
    return same;
}

/* One that a daemon before us, or another host, has given it is good as long as it is needed. */
static void a_foreign_token_is_renewed(void **state)
{
    World *world = *state;
    Mark theirs, now;

    assert_true(mark_parse(foreign, &theirs));
    world_write_mark(world, foreign);
    atomic_store(&trouble.busy, TRUE);
    world_start(world, FALSE);
    assert_true(has_token(world, &theirs));
    hurry();
    usleep(100000);
    assert_true(has_token(world, &theirs));
    atomic_store(&trouble.busy, FALSE);
    for (int i = 0; i < 5000 && has_token(world, &theirs); i++)
        usleep(1000);
    assert_false(has_token(world, &theirs));
    assert_true(world_read_mark(world, &now) && now.has_token);
    assert_true(has_token(world, &now));
}

/* --- reading and writing --------------------------------------------------------------------- */

static void a_failed_read_forgets_nothing(void **state)
{
    World *world = *state;
    int before;

    world_write_mark(world, "<migration enabled='yes'/>");
    world_start(world, FALSE);
    world_wait_known(world);
    world_let_looks_pass(world);
    atomic_store(&trouble.reads_fail, TRUE);
    before = atomic_load(&trouble.reads);
    world_write_mark(world, "<migration enabled='no'/>");
    for (int i = 0; i < 5000 && atomic_load(&trouble.reads) == before; i++)
        usleep(1000);
    world_let_looks_pass(world);
    assert_true(agent_is_enabled(world->agent, world->uuid));
    assert_true(world_has_guest(world));
    atomic_store(&trouble.reads_fail, FALSE);
    hurry();
    world_wait_no_guest(world);
}

/* Somebody says no between our look and our write. */
static void a_no_in_between_is_kept(void **state)
{
    World *world = *state;
    Mark mark;

    for (unsigned part = VIR_DOMAIN_AFFECT_LIVE; part <= VIR_DOMAIN_AFFECT_CONFIG; part++)
        assert_int_equal(virDomainSetMetadata(world->domain, VIR_DOMAIN_METADATA_ELEMENT,
                                              "<migration enabled='yes'/>", MARK_PREFIX,
                                              MARK_NAMESPACE, part),
                         0);
    atomic_store(&trouble.writes_before, world);
    world_start(world, FALSE);
    for (int i = 0; i < 5000 && atomic_load(&trouble.writes_before); i++)
        usleep(1000);
    assert_null(atomic_load(&trouble.writes_before));
    world_let_looks_pass(world);
    world_wait_no_guest(world);
    assert_true(world_read_mark(world, &mark));
    assert_int_equal(mark.enabled, MARK_NO);
}

/* What is logged while a test runs goes there. */
typedef struct Log {
    int file, stderr_before;
} Log;

static Log log_begin(void)
{
    Log log = {.file = memfd_create("log", MFD_CLOEXEC), .stderr_before = dup(STDERR_FILENO)};

    assert_true(log.file >= 0 && log.stderr_before >= 0);
    assert_int_equal(dup2(log.file, STDERR_FILENO), STDERR_FILENO);
    return log;
}

static gboolean log_has(const Log *log, const char *line)
{
    char text[8192];
    ssize_t n = pread(log->file, text, sizeof text - 1, 0);

    text[n > 0 ? n : 0] = '\0';
    return strstr(text, line) != NULL;
}

static void log_end(Log *log)
{
    dup2(log->stderr_before, STDERR_FILENO);
    close(log->stderr_before);
    close(log->file);
}

/* In libvirt's own words, which each of its calls forgets. */
static void why_a_write_fails_is_told(void **state)
{
    static const char why[] = "domain test: uri in virDomainSetMetadata must not be NULL";
    World *world = *state;
    Log log = log_begin();
    gboolean told;

    atomic_store(&trouble.writes_fail, TRUE);
    world_write_mark(world, "<migration enabled='yes'/>");
    world_start(world, FALSE);
    for (int i = 0; i < 5000 && !log_has(&log, why); i++)
        usleep(1000);
    told = log_has(&log, why);
    log_end(&log);
    assert_true(told);
    atomic_store(&trouble.writes_fail, FALSE);
    hurry();
    world_wait_known(world);
}

/* --- what waits behind a call that hangs ----------------------------------------------------- */

static void tries_do_not_pile_up(void **state)
{
    World *world = *state;
    int before;

    world_write_mark(world, "<migration enabled='yes'/>");
    world_start(world, FALSE);
    world_wait_known(world);
    world_let_looks_pass(world);
    atomic_store(&trouble.reads_fail, TRUE);
    world_write_mark(world, "<migration enabled='yes'/>");
    world_let_looks_pass(world);
    atomic_store(&trouble.reads_hang, TRUE);
    before = atomic_load(&trouble.reads);
    hurry();
    for (int i = 0; i < 10000 && atomic_load(&trouble.reads) == before; i++)
        usleep(1000);
    usleep(200000);
    atomic_store(&trouble.ahead_us, 0);
    atomic_store(&trouble.reads_hang, FALSE);
    world_let_looks_pass(world);
    assert_in_range(atomic_load(&trouble.reads) - before, 1, 12);
}

#define WITH_TROUBLE(test) cmocka_unit_test_setup_teardown(test, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_TROUBLE(a_guest_has_its_time),          WITH_TROUBLE(a_foreign_token_is_renewed),
        WITH_TROUBLE(a_failed_read_forgets_nothing), WITH_TROUBLE(a_no_in_between_is_kept),
        WITH_TROUBLE(why_a_write_fails_is_told),     WITH_TROUBLE(tries_do_not_pile_up),
    };

    /* A connection has events only if there was an event loop before it. */
    virEventRegisterDefaultImpl();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
