/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The fault path allocates nothing and takes no lock: counted, by standing in for malloc and the
 * locks of the C library, in the threads of the daemon that serve faults while faults are served.
 */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/fault/placement.h"
#include "tests/stress/world.h"

enum {
    THREADS = 8,
    PAGES = 32768,
    STRIDE = 4,
    AT_THE_END = 32, /* that it is complete is said once */
};

typedef enum Kind { KIND_UNKNOWN = 0, KIND_RESOLVER, KIND_STREAM, KIND_OTHER, KINDS } Kind;

static _Atomic bool measuring;
static _Atomic uint64_t allocations[KINDS], locks[KINDS], placements[KINDS];
static _Thread_local Kind kind_of_thread;

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *memory, size_t size);

/*
 * The C library's own.  Found by whoever is first: libraries lock in their constructors, which may run before
 * any of ours, and a lock that was not taken must not be let go of.  By then there is one thread.
 */
static int (*real_mutex_lock)(pthread_mutex_t *mutex);
static int (*real_rdlock)(pthread_rwlock_t *lock);
static int (*real_wrlock)(pthread_rwlock_t *lock);

__attribute__((constructor)) static void find_real(void)
{
    *(void **)&real_mutex_lock = dlsym(RTLD_NEXT, "pthread_mutex_lock");
    *(void **)&real_rdlock = dlsym(RTLD_NEXT, "pthread_rwlock_rdlock");
    *(void **)&real_wrlock = dlsym(RTLD_NEXT, "pthread_rwlock_wrlock");
}

static Kind kind(void)
{
    char name[16] = "";

    if (kind_of_thread == KIND_UNKNOWN) {
        pthread_getname_np(pthread_self(), name, sizeof name);
        kind_of_thread = strncmp(name, "resolver", 8) == 0 ? KIND_RESOLVER
                         : strcmp(name, "stream") == 0     ? KIND_STREAM
                                                           : KIND_OTHER;
    }
    return kind_of_thread;
}

static void count(_Atomic uint64_t counts[KINDS])
{
    if (atomic_load_explicit(&measuring, memory_order_relaxed))
        atomic_fetch_add_explicit(&counts[kind()], 1, memory_order_relaxed);
}

void *malloc(size_t size)
{
    count(allocations);
    return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    count(allocations);
    return __libc_calloc(n, size);
}

void *realloc(void *memory, size_t size)
{
    count(allocations);
    return __libc_realloc(memory, size);
}

int pthread_mutex_lock(pthread_mutex_t *mutex)
{
    count(locks);
    if (!real_mutex_lock)
        find_real();
    return real_mutex_lock(mutex);
}

int pthread_rwlock_rdlock(pthread_rwlock_t *lock)
{
    count(locks);
    if (!real_rdlock)
        find_real();
    return real_rdlock(lock);
}

int pthread_rwlock_wrlock(pthread_rwlock_t *lock)
{
    count(locks);
    if (!real_wrlock)
        find_real();
    return real_wrlock(lock);
}

void __real_placement_put(Import *import, const Placement *placement);
void __wrap_placement_put(Import *import, const Placement *placement);

/* Shows that the threads that place are told apart. */
void __wrap_placement_put(Import *import, const Placement *placement)
{
    count(placements);
    __real_placement_put(import, placement);
}

/* --- the guest ----------------------------------------------------------------------------- */

typedef struct Thread {
    const World *world;
    unsigned index;
    pthread_t thread;
} Thread;

static void *touch(void *argument)
{
    const Thread *self = argument;

    for (uint64_t page = self->index; page < PAGES; page += THREADS) {
        const uint64_t *words = world_words(self->world, page);
        uint64_t seen = __atomic_load_n(&words[7], __ATOMIC_RELAXED);
        if (seen != (world_is_filled(self->world, page) ? world_word(page, 7) : 0))
            abort();
    }
    return NULL;
}

static void touch_all(const World *world)
{
    Thread threads[THREADS];

    for (unsigned i = 0; i < THREADS; i++) {
        threads[i] = (Thread){.world = world, .index = i};
        assert_int_equal(pthread_create(&threads[i].thread, NULL, touch, &threads[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i].thread, NULL);
}

static void measure(bool on)
{
    if (on) {
        memset(allocations, 0, sizeof allocations);
        memset(locks, 0, sizeof locks);
        memset(placements, 0, sizeof placements);
    }
    atomic_store(&measuring, on);
}

static void serve(const WorldShape *shape, bool stream)
{
    World *world = world_new(shape);

    if (stream)
        world_stream(world);
    measure(true);
    touch_all(world);
    measure(false);
    print_message("resolvers: %lu placements, %lu allocations, %lu locks; stream: %lu, %lu, %lu\n",
                  placements[KIND_RESOLVER], allocations[KIND_RESOLVER], locks[KIND_RESOLVER],
                  placements[KIND_STREAM], allocations[KIND_STREAM], locks[KIND_STREAM]);
    assert_true(placements[KIND_RESOLVER] > 0);
    assert_int_equal(allocations[KIND_RESOLVER], 0);
    /* A connection that comes, or goes when all is here, costs a lock; no fault does. */
    assert_in_range(locks[KIND_RESOLVER], 0, stream ? AT_THE_END : shape->resolvers);
    assert_in_range(allocations[KIND_STREAM], 0, AT_THE_END);
    assert_in_range(locks[KIND_STREAM], 0, AT_THE_END);
    if (!stream)
        world_stream(world);
    world_complete(world);
    world_free(world);
}

/* The counting itself works in any thread, whoever allocates or locks. */
static void counting_counts(void **state)
{
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

    (void)state;
    measure(true);
    free(g_strdup("x"));
    pthread_mutex_lock(&lock);
    pthread_mutex_unlock(&lock);
    measure(false);
    assert_int_equal(allocations[KIND_OTHER], 1);
    assert_int_equal(locks[KIND_OTHER], 1);
}

static const WorldShape shape = {
    .shared = true,
    .n_pages = PAGES,
    .stride = STRIDE,
    .resolvers = 2,
    .shards = 2,
    .bulk_channels = 1,
    .around = WORLD_PAGE,
};

static void faults_alone(void **state)
{
    (void)state;
    serve(&shape, false);
}

static void faults_and_stream(void **state)
{
    (void)state;
    serve(&shape, true);
}

static void faults_on_allocated_memory(void **state)
{
    WorldShape sealed = shape;

    (void)state;
    sealed.sealed = true;
    sealed.stride = 2; /* half of it: so it is allocated */
    sealed.around = 65536;
    serve(&sealed, false);
    serve(&sealed, true);
}

static void one_resolver(void **state)
{
    WorldShape single = shape;

    (void)state;
    single.sealed = true;
    single.stride = 2;
    single.resolvers = single.shards = 1;
    serve(&single, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counting_counts),   cmocka_unit_test(faults_alone),
        cmocka_unit_test(faults_and_stream), cmocka_unit_test(faults_on_allocated_memory),
        cmocka_unit_test(one_resolver),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
