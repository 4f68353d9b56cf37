/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What compilers call for even without a C library. */
#include <stddef.h>

void *memset(void *to, int value, size_t n);
void *memcpy(void *to, const void *from, size_t n);

void *memset(void *to, int value, size_t n)
{
    void *at = to;

    __asm__ volatile("rep stosb" : "+D"(at), "+c"(n) : "a"(value) : "memory");
    return to;
}

void *memcpy(void *to, const void *from, size_t n)
{
    void *at = to;

    __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(n) : : "memory");
    return to;
}
