/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/integration/assisted_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void must(bool holds, const char *what)
{
    if (holds)
        return;
    printf("FATAL %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

void memory_init(AssistedMemory *memory, uint64_t length)
{
    memset(memory, 0, sizeof *memory);
    for (uint32_t i = 0; i < MEMORY_REGIONS; i++) {
        memory->length[i] = i == 0 ? length : 1 << 20;
        memory->memory[i] = mmap(NULL, memory->length[i], PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        must(memory->memory[i] != MAP_FAILED, "mmap");
        madvise(memory->memory[i], memory->length[i], MADV_NOHUGEPAGE);
    }
}

bool memory_take_table(AssistedMemory *memory, int fd, uint64_t size)
{
    memory->table = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    must(memory->table != MAP_FAILED, "mmap of the table");
    close(fd);
    memory->words = (_Atomic uint64_t *)((char *)memory->table + PAGE_TABLE_HEADER_SIZE);
    return memory->table->magic == PAGE_TABLE_MAGIC && memory->table->n_regions == MEMORY_REGIONS;
}

/* --- the table ------------------------------------------------------------------------------- */

static uint64_t state_of(const AssistedMemory *memory, uint32_t region, uint64_t page)
{
    uint64_t first = memory->table->regions[region].first_word;

    return atomic_load(&memory->words[first + page / 16]) >> (page % 16 * 4) & 15;
}

/* To another state from those in from, a bit each. */
static void mark(AssistedMemory *memory, uint32_t region, uint64_t page, unsigned from, uint64_t to)
{
    unsigned shift = (unsigned)(page % 16) * 4;
    _Atomic uint64_t *word;
    uint64_t old;

    if (!memory->table)
        return; /* nobody's destination */
    word = &memory->words[memory->table->regions[region].first_word + page / 16];
    old = atomic_load(word);

    while (
        from >> (old >> shift & 15) & 1 &&
        !atomic_compare_exchange_weak(word, &old, (old & ~(UINT64_C(15) << shift)) | to << shift))
        ;
}

void memory_mark_hot(AssistedMemory *memory, uint64_t first, uint64_t count)
{
    for (uint64_t page = first; page < first + count; page++)
        mark(memory, 0, page, 1 << PAGE_HOLE, PAGE_MISSING);
}

void memory_count(const AssistedMemory *memory, uint64_t ret_counts[8])
{
    memset(ret_counts, 0, 8 * sizeof *ret_counts);
    for (uint64_t page = 0; page < memory->length[0] / MEMORY_PAGE; page++)
        ret_counts[state_of(memory, 0, page) & PAGE_STATE_MASK]++;
}

/* --- uffds ----------------------------------------------------------------------------------- */

int memory_new_uffd(int device, uint64_t features)
{
    struct uffdio_api api = {.api = UFFD_API, .features = features};
    int fd = device >= 0 ? ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK)
                         : (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

    must(fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0, "userfaultfd");
    return fd;
}

static uint64_t start_of(const AssistedMemory *memory, const ClientShard *shard)
{
    return (uint64_t)(uintptr_t)memory->memory[shard->region] + shard->start;
}

void memory_register(AssistedMemory *memory, int device)
{
    for (uint32_t i = 0; i < memory->n_shards; i++) {
        const ClientShard *shard = &memory->shards[i];
        struct uffdio_register with = {.range = {start_of(memory, shard), shard->length},
                                       .mode = UFFDIO_REGISTER_MODE_MISSING};

        memory->uffds[i] = memory_new_uffd(device, UFFD_FEATURE_THREAD_ID);
        must(ioctl(memory->uffds[i], UFFDIO_REGISTER, &with) == 0, "register");
    }
}

void memory_unregister(AssistedMemory *memory)
{
    for (uint32_t i = 0; i < memory->n_shards; i++) {
        struct uffdio_range range = {start_of(memory, &memory->shards[i]),
                                     memory->shards[i].length};
        must(ioctl(memory->uffds[i], UFFDIO_UNREGISTER, &range) == 0, "unregister");
        close(memory->uffds[i]);
    }
}

static void wake_all(AssistedMemory *memory)
{
    for (uint32_t i = 0; i < memory->n_shards; i++) {
        struct uffdio_range range = {start_of(memory, &memory->shards[i]),
                                     memory->shards[i].length};
        must(ioctl(memory->uffds[i], UFFDIO_WAKE, &range) == 0, "wake");
    }
}

/* --- QEMU ------------------------------------------------------------------------------------ */

static void fill(uint64_t *words, uint32_t region, uint64_t page)
{
    for (int i = 0; i < MEMORY_PAGE / 8; i++)
        words[i] = memory_word(region, page);
}

void memory_write(AssistedMemory *memory, uint64_t first, uint64_t count)
{
    for (uint64_t page = first; page < first + count; page++) {
        fill((uint64_t *)(void *)(memory->memory[0] + page * MEMORY_PAGE), 0, page);
        mark(memory, 0, page, 1 << PAGE_HOLE, PAGE_FOUND);
    }
}

/* As the preload has it: EEXIST is success, after a WAKE.  True if it was there. */
static bool place(AssistedMemory *memory, int uffd, uint32_t region, uint64_t page)
{
    uint64_t content[MEMORY_PAGE / 8];
    struct uffdio_copy copy = {
        .dst = (uint64_t)(uintptr_t)memory->memory[region] + page * MEMORY_PAGE,
        .src = (uint64_t)(uintptr_t)content,
        .len = MEMORY_PAGE,
    };
    struct uffdio_range range = {copy.dst, MEMORY_PAGE};
    bool there;

    fill(content, region, page);
    there = ioctl(uffd, UFFDIO_COPY, &copy) < 0;
    must(!there || errno == EEXIST, "copy");
    if (there)
        must(ioctl(uffd, UFFDIO_WAKE, &range) == 0, "wake");
    else
        mark(memory, region, page, 1 << PAGE_HOLE | 1 << PAGE_MISSING | 1 << PAGE_FOUND,
             PAGE_PRESENT);
    return there;
}

static int uffd_of(const AssistedMemory *memory, uint32_t region, uint64_t page)
{
    for (uint32_t i = 0; i < memory->n_shards; i++)
        if (memory->shards[i].region == region &&
            page * MEMORY_PAGE - memory->shards[i].start < memory->shards[i].length)
            return memory->uffds[i];
    return -1;
}

uint64_t memory_place(AssistedMemory *memory, uint64_t first, uint64_t count)
{
    uint64_t there = 0;

    for (uint64_t page = first; page < first + count; page++)
        there += place(memory, uffd_of(memory, 0, page), 0, page);
    return there;
}

/* --- the client's thread --------------------------------------------------------------------- */

static void relay_shard(AssistedMemory *memory, uint32_t index)
{
    const ClientShard *shard = &memory->shards[index];
    struct uffd_msg message;

    while (read(memory->uffds[index], &message, sizeof message) == sizeof message) {
        uint64_t address = message.arg.pagefault.address;
        uint64_t page =
            (address - (uint64_t)(uintptr_t)memory->memory[shard->region]) / MEMORY_PAGE;

        atomic_fetch_add(&memory->relayed, 1);
        place(memory, memory->uffds[index], shard->region, page);
    }
}

static void *relay(void *argument)
{
    static const struct timespec pause = {.tv_nsec = 5000000};
    AssistedMemory *memory = argument;

    __atomic_store_n(&memory->table->relaying, 1, __ATOMIC_SEQ_CST);
    wake_all(memory);
    while (atomic_load(&memory->relaying)) {
        for (uint32_t i = 0; i < memory->n_shards; i++)
            relay_shard(memory, i);
        nanosleep(&pause, NULL);
    }
    __atomic_store_n(&memory->table->relaying, 0, __ATOMIC_SEQ_CST);
    return NULL;
}

void memory_relay(AssistedMemory *memory, bool on)
{
    if (atomic_exchange(&memory->relaying, on) == on)
        return;
    if (on)
        must(pthread_create(&memory->relay, NULL, relay, memory) == 0, "thread");
    else
        pthread_join(memory->relay, NULL);
}

/* --- the guest ------------------------------------------------------------------------------- */

typedef struct Toucher {
    GuestTouch *touch;
    uint64_t first, bad, most_us;
} Toucher;

static void *touch_some(void *argument)
{
    Toucher *toucher = argument;
    const GuestTouch *touch = toucher->touch;

    for (uint64_t i = toucher->first; i < touch->count; i += touch->threads) {
        uint64_t page = touch->first + i, begin = now_us();
        const volatile uint64_t *words =
            (const uint64_t *)(const void *)(touch->memory->memory[touch->region] +
                                             page * MEMORY_PAGE);
        uint64_t first = words[0], last = words[MEMORY_PAGE / 8 - 1], took = now_us() - begin;

        if (first != (touch->zero ? 0 : memory_word(touch->region, page)) || first != last) {
            printf("BAD region=%u page=%lu %lx %lx\n", touch->region, page, first, last);
            toucher->bad++;
        }
        if (took > toucher->most_us)
            toucher->most_us = took;
    }
    return NULL;
}

void memory_touch(GuestTouch *touch)
{
    Toucher touchers[MEMORY_THREADS];
    pthread_t threads[MEMORY_THREADS];

    for (unsigned i = 0; i < touch->threads; i++) {
        touchers[i] = (Toucher){.touch = touch, .first = i};
        must(pthread_create(&threads[i], NULL, touch_some, &touchers[i]) == 0, "thread");
    }
    touch->bad = touch->most_us = 0;
    for (unsigned i = 0; i < touch->threads; i++) {
        pthread_join(threads[i], NULL);
        touch->bad += touchers[i].bad;
        if (touchers[i].most_us > touch->most_us)
            touch->most_us = touchers[i].most_us;
    }
}
