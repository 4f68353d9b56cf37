/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Process 1 of the soft-RoCE guest until the host's files are in place: loads the modules of the initramfs,
 * puts a tmpfs over the host's root (9p, read-only), and becomes /bin/bash /run/guest/main.sh, where
 * /run/guest is a folder of the host that both write to.
 *
 * Whatever goes wrong is one line on the console, and the end of the guest.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ROOT "/root"
#define HOST "/host"
#define OVER "/over"
#define P9   "trans=virtio,version=9p2000.L,msize=1048576"

static void __attribute__((noreturn)) fatal(const char *what)
{
    printf("GUEST INIT: %s: %s\n", what, strerror(errno));
    fflush(stdout);
    sleep(1);
    reboot(RB_POWER_OFF);
    _exit(1);
}

static void make(const char *path)
{
    if (mkdir(path, 0755) != 0 && errno != EEXIST)
        fatal(path);
}

static void mount_at(const char *what, const char *where, const char *type, unsigned long flags,
                     const char *options)
{
    make(where);
    if (mount(what, where, type, flags, options) != 0)
        fatal(where);
}

/* The build puts them here in the order in which they can be loaded. */
static void load_modules(void)
{
    char path[32];

    for (int i = 0;; i++) {
        int fd;

        snprintf(path, sizeof path, "/module%d", i);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return;
        if (syscall(SYS_finit_module, fd, "", 0) != 0)
            fatal(path);
        close(fd);
        unlink(path);
    }
}

static void mount_root(void)
{
    mount_at("hostroot", HOST, "9p", MS_RDONLY, P9 ",cache=loose");
    mount_at("tmpfs", OVER, "tmpfs", 0, NULL);
    make(OVER "/upper");
    make(OVER "/work");
    mount_at("overlay", ROOT, "overlay", 0,
             "lowerdir=" HOST ",upperdir=" OVER "/upper,workdir=" OVER "/work");
}

/* What a program takes for granted, and what is of no use of the host's. */
static void mount_system(void)
{
    mount_at("proc", ROOT "/proc", "proc", 0, NULL);
    mount_at("sysfs", ROOT "/sys", "sysfs", 0, NULL);
    mount_at("tracefs", ROOT "/sys/kernel/tracing", "tracefs", 0, NULL);
    mount_at("devtmpfs", ROOT "/dev", "devtmpfs", 0, NULL);
    mount_at("devpts", ROOT "/dev/pts", "devpts", 0, NULL);
    mount_at("tmpfs", ROOT "/dev/shm", "tmpfs", 0, "mode=1777");
    mount_at("tmpfs", ROOT "/run", "tmpfs", 0, "mode=755");
    mount_at("guest", ROOT "/run/guest", "9p", 0, P9 ",cache=none");
    if (symlink("/proc/self/fd", ROOT "/dev/fd") != 0 && errno != EEXIST)
        fatal("/dev/fd");
}

/* As switch_root(8) does it. */
static void enter_root(void)
{
    if (chdir(ROOT) != 0 || mount(".", "/", NULL, MS_MOVE, NULL) != 0 || chroot(".") != 0 ||
        chdir("/") != 0)
        fatal(ROOT);
}

int main(void)
{
    char *const words[] = {"/bin/bash", "/run/guest/main.sh", NULL};
    char *const environment[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", NULL};

    load_modules();
    mount_root();
    mount_system();
    enter_root();
    execve(words[0], words, environment);
    fatal(words[0]);
}
