/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tests/integration/vmm_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { HUGE_PAGE = 2 << 20, RUN_PAGES = 8 };

uint64_t vmm_mix(uint64_t x)
{
    x = (x ^ x >> 32) * UINT64_C(0xd6e8feb86659fd93);
    x = (x ^ x >> 32) * UINT64_C(0xd6e8feb86659fd93);
    return x ^ x >> 32;
}

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

uint64_t vmm_permutation_factor(uint64_t n, uint64_t seed)
{
    uint64_t factor = vmm_mix(seed) % n | 1;

    while (common_divisor(factor, n) != 1)
        factor += 2;
    return factor;
}

uint64_t vmm_permute(uint64_t i, uint64_t n, uint64_t factor, uint64_t shift)
{
    return (uint64_t)(((unsigned __int128)i * factor + shift) % n);
}

static int open_backing(const char *backing, uint64_t size)
{
    int fd;

    if (strncmp(backing, "file:", 5) == 0)
        fd = open(backing + 5, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    else if (strcmp(backing, "hugetlb") == 0)
        fd = memfd_create("vmm", MFD_CLOEXEC | MFD_HUGETLB);
    else
        fd = memfd_create("vmm", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd >= 0 && ftruncate(fd, (off_t)size) < 0) {
        close(fd);
        fd = -1;
    }
    /* As QEMU's memory-backend-memfd does it. */
    if (fd >= 0 && strcmp(backing, "memfd") == 0)
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    return fd;
}

static enum postcopy_backing kind_of(const char *backing)
{
    if (strcmp(backing, "anonymous") == 0)
        return POSTCOPY_ANONYMOUS;
    return strcmp(backing, "private") == 0 ? POSTCOPY_PRIVATE : POSTCOPY_SHARED;
}

static bool map_region(VmmMemory *memory, unsigned index, int fd)
{
    struct postcopy_region *region = &memory->regions[index];
    enum postcopy_backing kind = kind_of(memory->shape.backing);
    int flags = kind == POSTCOPY_SHARED ? MAP_SHARED : MAP_PRIVATE;

    *region = (struct postcopy_region){
        .id = memory->ids[index],
        .length = memory->region_pages * VMM_PAGE,
        .page_size = strcmp(memory->shape.backing, "hugetlb") ? VMM_PAGE : HUGE_PAGE,
        .backing = kind,
        .fd = fd,
        .flags = memory->shape.removable && index == memory->shape.n_regions - 1
                     ? POSTCOPY_REGION_REMOVABLE
                     : 0,
    };
    snprintf(memory->ids[index], sizeof memory->ids[index], "region%u", index);
    region->guest_address = index * (region->length + (UINT64_C(1) << 30));
    region->fd_offset = fd >= 0 ? index * region->length : 0;
    region->address =
        mmap(NULL, region->length, PROT_READ | PROT_WRITE,
             flags | MAP_NORESERVE | (fd < 0 ? MAP_ANONYMOUS : 0), fd, (off_t)region->fd_offset);
    if (region->address == MAP_FAILED)
        region->address = NULL;
    return region->address != NULL;
}

bool vmm_memory_init(VmmMemory *memory, const VmmShape *shape)
{
    bool huge = strcmp(shape->backing, "hugetlb") == 0;
    int fd = -1;

    memset(memory, 0, sizeof *memory);
    memory->shape = *shape;
    memory->region_pages = shape->n_pages / shape->n_regions;
    memory->kept_pages =
        shape->n_pages - (shape->removable || shape->pluggable ? memory->region_pages : 0);
    memory->run_pages = huge ? HUGE_PAGE / VMM_PAGE : RUN_PAGES;
    if (memory->region_pages * shape->n_regions != shape->n_pages ||
        memory->region_pages % memory->run_pages || shape->n_filled % memory->run_pages ||
        shape->n_filled > shape->n_pages) {
        fprintf(stderr, "vmm: the memory cannot be divided so\n");
        return false;
    }
    uint64_t runs = shape->n_pages / memory->run_pages;
    memory->factor = vmm_permutation_factor(runs, shape->seed);
    memory->shift = vmm_mix(shape->seed + 1) % runs;

    if (kind_of(shape->backing) != POSTCOPY_ANONYMOUS)
        fd = open_backing(shape->backing, shape->n_pages * VMM_PAGE);
    bool good = fd >= 0 || kind_of(shape->backing) == POSTCOPY_ANONYMOUS;
    for (unsigned i = 0; good && i < shape->n_regions; i++)
        good = map_region(memory, i, fd);
    if (!good)
        fprintf(stderr, "vmm: memory: %s\n", strerror(errno));
    return good;
}

void vmm_memory_deinit(VmmMemory *memory)
{
    for (unsigned i = 0; i < memory->shape.n_regions; i++)
        munmap(memory->regions[i].address, memory->regions[i].length);
    if (memory->regions[0].fd >= 0)
        close(memory->regions[0].fd);
}

uint64_t vmm_memory_page(const VmmMemory *memory, uint64_t place)
{
    uint64_t runs = memory->shape.n_pages / memory->run_pages;
    uint64_t run = vmm_permute(place / memory->run_pages, runs, memory->factor, memory->shift);

    return run * memory->run_pages + place % memory->run_pages;
}

uint64_t *vmm_memory_words(const VmmMemory *memory, uint64_t page)
{
    uint8_t *start = memory->regions[page / memory->region_pages].address;

    return (uint64_t *)(start + page % memory->region_pages * VMM_PAGE);
}

void vmm_memory_write(const VmmMemory *memory, uint64_t page, uint32_t generation)
{
    uint64_t *words = vmm_memory_words(memory, page);
    uint64_t key = vmm_key(memory, page, generation);

    for (unsigned i = 0; i < VMM_WORDS; i++)
        __atomic_store_n(&words[i], vmm_word(key, i), __ATOMIC_RELAXED);
}

void vmm_memory_fill(const VmmMemory *memory, uint64_t n_zeroed)
{
    const uint64_t n_filled = memory->shape.n_filled;

    for (uint64_t place = 0; place < n_filled; place++)
        vmm_memory_write(memory, vmm_memory_page(memory, place), 0);
    for (uint64_t place = n_filled; place < n_filled + n_zeroed; place++)
        memset(vmm_memory_words(memory, vmm_memory_page(memory, place)), 0, VMM_PAGE);
}
