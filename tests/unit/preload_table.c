/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/preload_plan.h"

static ClientMessage message;

static int set_up(void **state)
{
    size_t size = (size_t)PLAN_ALL * PLAN_PAGE;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        return -1;
    plan_make_message(&message, memory);
    *state = memory;
    return 0;
}

static int tear_down(void **state)
{
    return munmap(*state, (size_t)PLAN_ALL * PLAN_PAGE);
}

static void no_page_of_it_can_fail_to_come(void **state)
{
    Reason reason = {0};
    struct stat st;
    Plan *plan;

    (void)state;
    plan = plan_new(&message, plan_make_table(&message, true), -1, &reason);
    if (!plan)
        fail_msg("%s", reason.text);
    assert_int_equal(fstat(plan->table.fd, &st), 0);
    assert_true((uint64_t)st.st_blocks * 512 >= plan->table.size);
    plan_free(plan);
}

/* As if there were no memory left: for this process, for good. */
static bool have_no_memory(void)
{
    struct sock_filter lines[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fallocate, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSPC),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof lines / sizeof lines[0], .filter = lines};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static void without_memory_for_it_the_plan_is_refused(void **state)
{
    int table = plan_make_table(&message, true), status;
    pid_t child = fork();

    (void)state;
    assert_true(child >= 0);
    if (child == 0) {
        Reason reason = {0};
        if (!have_no_memory())
            _exit(2);
        if (plan_new(&message, table, -1, &reason))
            _exit(3);
        _exit(strstr(reason.text, strerror(ENOSPC)) ? 0 : 4);
    }
    close(table);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(no_page_of_it_can_fail_to_come, set_up, tear_down),
        cmocka_unit_test_setup_teardown(without_memory_for_it_the_plan_is_refused, set_up,
                                        tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
