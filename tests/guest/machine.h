/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The few instructions C has no word for. */
#ifndef GUEST_MACHINE_H
#define GUEST_MACHINE_H

#include <stddef.h>
#include <stdint.h>

static inline void outb(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t inb(uint16_t port)
{
    uint8_t value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

/* One exit to the hypervisor for all n bytes. */
static inline void outsb(uint16_t port, const char *bytes, size_t n)
{
    __asm__ volatile("rep outsb" : "+S"(bytes), "+c"(n) : "d"(port) : "memory");
}

/* The fences keep the loads around it from moving across. */
static inline uint64_t rdtsc(void)
{
    uint32_t low, high;

    __asm__ volatile("lfence; rdtsc; lfence" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

static inline void pause(void)
{
    __asm__ volatile("pause" : : : "memory");
}

#endif
