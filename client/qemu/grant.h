/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * /dev/userfaultfd as the daemon lends it, for a QEMU that may not open it and to which the kernel
 * refuses the system call (vm.unprivileged_userfaultfd = 0).
 */
#ifndef POSTCOPY_QEMU_GRANT_H
#define POSTCOPY_QEMU_GRANT_H

/*
 * The device's fd, asked for at most once a time that it is refused and then kept; or -1.  Takes a
 * second at most; a daemon that let that pass is not asked again for half a minute.  Any thread.
 */
int grant_device(void);

/* The device's fd if it was granted by now, or -1.  It stays ours. */
int grant_known(void);

#endif
