/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/stress/world.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/source/memory.h"

int __wrap_memory_read(const Memory *memory, uint32_t region, uint64_t page, uint32_t count,
                       void *ret_data);
int __real_memory_read(const Memory *memory, uint32_t region, uint64_t page, uint32_t count,
                       void *ret_data);

/* Of the world that is there now; only one is at a time. */
static uint16_t *counted;

/* Controls that ended: threads of their peers may still post to them, so they stay. */
static GSList *kept;

int __wrap_memory_read(const Memory *memory, uint32_t region, uint64_t page, uint32_t count,
                       void *ret_data)
{
    for (uint32_t i = 0; i < count; i++)
        __atomic_fetch_add(&counted[page + i], 1, __ATOMIC_RELAXED);
    return __real_memory_read(memory, region, page, count, ret_data);
}

/* --- daemons ------------------------------------------------------------------------------- */

static void *run_control(void *argument)
{
    g_autoptr(GError) error = NULL;

    if (!control_run(argument, &error))
        abort();
    return NULL;
}

static void start_side(World *world, WorldSide *side, const char *name)
{
    g_autoptr(GError) error = NULL;

    side->settings = g_new(Settings, 1);
    *side->settings = (Settings){
        .socket = g_strdup_printf("%s/%s.sock", world->folder, name),
        .runtime_dir = g_strdup_printf("%s/%s", world->folder, name),
        .listen = g_strdup("127.0.0.1:0"),
        .import =
            {
                .resolvers = world->shape.resolvers,
                .dispatch = world->shape.dispatch,
                .shards = world->shape.shards,
                .bulk_channels = world->shape.bulk_channels,
                .around = world->shape.around,
                .chunk = 64 * 1024,
                .window = 1 << 20,
                .ping_ms = 5000,
                .stream_delay_ms =
                    world->shape.stream_delay_ms ? world->shape.stream_delay_ms : 60000,
                .preallocate = TRUE,
            },
    };
    side->control = control_new(side->settings, &error);
    if (!side->control)
        fail_msg("%s", error->message);
    assert_int_equal(pthread_create(&side->thread, NULL, run_control, side->control), 0);
}

static void end_loop(Control *control, gpointer data)
{
    (void)data;
    event_base_loopbreak(control->base);
}

static void stop_side(WorldSide *side)
{
    control_post(side->control, end_loop, NULL);
    pthread_join(side->thread, NULL);
    control_free(side->control);
    kept = g_slist_prepend(kept, side->control);
    rmdir(side->settings->runtime_dir);
}

/* --- memory -------------------------------------------------------------------------------- */

static void map_region(const World *world, WorldSide *side)
{
    uint64_t length = world->shape.n_pages * WORLD_PAGE;
    int fd = world->shape.shared ? memfd_create("ram", MFD_CLOEXEC | MFD_ALLOW_SEALING) : -1;
    int flags = world->shape.shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;

    if (world->shape.shared)
        assert_int_equal(ftruncate(fd, (off_t)length), 0);
    if (world->shape.sealed)
        assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    side->region = (struct postcopy_region){
        .id = "ram",
        .address = mmap(NULL, length, PROT_READ | PROT_WRITE, flags | MAP_NORESERVE, fd, 0),
        .length = length,
        .page_size = WORLD_PAGE,
        .backing = world->shape.shared ? POSTCOPY_SHARED : POSTCOPY_ANONYMOUS,
        .fd = fd,
    };
    assert_ptr_not_equal(side->region.address, MAP_FAILED);
    /* Pages of their own: a large one would bring neighbours that were never filled. */
    madvise(side->region.address, length, MADV_NOHUGEPAGE);
}

static void fill(const World *world)
{
    uint64_t *words = world->source.region.address;

    for (uint64_t page = 0; page < world->shape.n_pages; page += world->shape.stride)
        for (unsigned i = 0; i < WORLD_WORDS; i++)
            words[page * WORLD_WORDS + i] = world_word(page, i);
}

/* --- both ---------------------------------------------------------------------------------- */

static void connect_side(WorldSide *side, enum postcopy_role role)
{
    const struct postcopy_config config = {
        .size = sizeof config,
        .socket = side->settings->socket,
        .role = role,
        .name = "vm",
        .regions = &side->region,
        .n_regions = 1,
    };

    if (postcopy_connect(&config, POSTCOPY_WAIT, WORLD_CALL_MS, &side->pc))
        fail_msg("%s", postcopy_error(NULL));
}

static void switch_over(World *world)
{
    char address[64];

    snprintf(address, sizeof address, "127.0.0.1:%s", world->destination.control->peer_port);
    if (postcopy_offer(world->source.pc, address, WORLD_CALL_MS) ||
        postcopy_seal(world->source.pc, WORLD_CALL_MS))
        fail_msg("%s", postcopy_error(world->source.pc));
    assert_int_equal(postcopy_wait(world->destination.pc, POSTCOPY_RUNNING, WORLD_CALL_MS),
                     POSTCOPY_RUNNING);
}

World *world_new(const WorldShape *shape)
{
    World *world = calloc(1, sizeof *world);

    world->shape = *shape;
    world->reads = counted = calloc(shape->n_pages, sizeof *world->reads);
    strcpy(world->folder, "/tmp/postcopy-stress-XXXXXX");
    assert_non_null(mkdtemp(world->folder));
    map_region(world, &world->source);
    map_region(world, &world->destination);
    fill(world);
    start_side(world, &world->source, "a");
    start_side(world, &world->destination, "b");
    connect_side(&world->source, POSTCOPY_SOURCE);
    connect_side(&world->destination, POSTCOPY_DESTINATION);
    switch_over(world);
    return world;
}

void world_stream(World *world)
{
    if (postcopy_running(world->destination.pc, WORLD_CALL_MS))
        fail_msg("%s", postcopy_error(world->destination.pc));
}

void world_complete(World *world)
{
    assert_int_equal(postcopy_wait(world->destination.pc, POSTCOPY_RELEASED, WORLD_CALL_MS),
                     POSTCOPY_RELEASED);
    assert_int_equal(postcopy_wait(world->source.pc, POSTCOPY_DONE, WORLD_CALL_MS), POSTCOPY_DONE);
}

static void free_side(const World *world, WorldSide *side, const char *name)
{
    g_autofree char *lock = g_strdup_printf("%s/%s.sock.lock", world->folder, name);
    g_autofree char *relay = g_strdup_printf("%s/%s/relay", world->folder, name);

    assert_int_equal(postcopy_free(side->pc), 0);
    rmdir(relay);
    stop_side(side);
    unlink(lock);
    munmap(side->region.address, side->region.length);
    if (side->region.fd >= 0)
        close(side->region.fd);
}

void world_free(World *world)
{
    free_side(world, &world->destination, "b");
    free_side(world, &world->source, "a");
    rmdir(world->folder);
    free(world->reads);
    free(world);
}
