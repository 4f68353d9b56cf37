/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From the 32-bit PVH entry, or a processor's start-up vector, to guest_main() in ring 3.
 *
 * The workload runs in ring 3 with IOPL 3 and interrupts off: some hypervisors run only ring 3
 * natively and emulate ring 0 one instruction at a time.  No code here needs a stack before it
 * has its own, so that all processors may come through at once.
 */
#include "tests/guest/layout.h"

#define CR0_PE_MP_NE_PG 0x80000023
#define CR0_EM 0x4
#define CR4_PAE_OSFXSR 0x220
#define MSR_EFER 0xc0000080
#define EFER_LME 0x100
#define RFLAGS_IOPL3 0x3002
#define XEN_ELFNOTE_PHYS32_ENTRY 18

#define PTE_USER_TABLE 0x7
#define PTE_USER_2M 0x87

    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 8, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_entry

    .text
    .code32
    .globl pvh_entry
pvh_entry:
    cli
    cld
    mov %ebx, pvh_start_info
    lgdtl gdt_pointer
    ljmp $SELECTOR_CODE32, $protected_mode

/* Every processor, in flat 32-bit mode. */
protected_mode:
    mov $SELECTOR_DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov %cr4, %eax
    or $CR4_PAE_OSFXSR, %eax
    mov %eax, %cr4
    mov $boot_pml4, %eax
    mov %eax, %cr3
    mov $MSR_EFER, %ecx
    rdmsr
    or $EFER_LME, %eax
    wrmsr
    mov %cr0, %eax
    and $~CR0_EM, %eax
    or $CR0_PE_MP_NE_PG, %eax
    mov %eax, %cr0
    ljmp $SELECTOR_CODE64, $long_mode

    .code64
long_mode:
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    mov $1, %edi
    lock xadd %edi, cpus_started        /* our number: the boot processor gets 0 */
    cmp cpus_wanted, %edi
    jae park
    mov %edi, %eax
    inc %eax
    imul $STACK_SIZE, %eax, %eax
    lea stacks(%rax), %rsi
    mov %rsi, %rsp
    pushq $0                            /* guest_main() has no caller */
    mov %rsp, %rsi
    pushq $SELECTOR_USER_DATA
    pushq %rsi
    pushq $RFLAGS_IOPL3
    pushq $SELECTOR_USER_CODE64
    pushq $guest_main
    mov $SELECTOR_USER_DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    iretq

/* Processors the workload has no use for. */
park:
    hlt
    jmp park

/* Copied to AP_TRAMPOLINE, where a start-up IPI lets a processor begin in real mode. */
    .code16
    .globl ap_trampoline, ap_trampoline_end
ap_trampoline:
    cli
    xor %ax, %ax
    mov %ax, %ds
    lgdtl AP_TRAMPOLINE + (trampoline_gdt_pointer - ap_trampoline)
    mov %cr0, %eax
    or $1, %eax
    mov %eax, %cr0
    ljmpl $SELECTOR_CODE32, $protected_mode
trampoline_gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
ap_trampoline_end:

    .data
    .balign 16
gdt:
    .quad 0
    .quad 0x00af9b000000ffff            /* SELECTOR_CODE64 */
    .quad 0x00cf93000000ffff            /* SELECTOR_DATA */
    .quad 0x00affb000000ffff            /* SELECTOR_USER_CODE64 */
    .quad 0x00cff3000000ffff            /* SELECTOR_USER_DATA */
    .quad 0x00cf9b000000ffff            /* SELECTOR_CODE32 */
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt

    .globl pvh_start_info, cpus_started, cpus_wanted
pvh_start_info:
    .long 0
cpus_started:
    .long 0
cpus_wanted:
    .long 1

/* The low 4 GiB one to one, open to ring 3: devices, start info, this program. */
    .balign 4096
    .globl boot_pml4
boot_pml4:
    .quad boot_pdpt + PTE_USER_TABLE
    .zero 4096 - 8
boot_pdpt:
    .quad boot_pd + PTE_USER_TABLE
    .quad boot_pd + 4096 + PTE_USER_TABLE
    .quad boot_pd + 8192 + PTE_USER_TABLE
    .quad boot_pd + 12288 + PTE_USER_TABLE
    .zero 4096 - 32
boot_pd:
    .set address, 0
    .rept 2048
    .quad address + PTE_USER_2M
    .set address, address + 0x200000
    .endr

    .bss
    .balign 4096
stacks:
    .skip STACK_SIZE * MAX_CPUS

    .section .note.GNU-stack, "", @progbits
