/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "daemon/qemu/passes.h"

bool passes_begin(Passes *passes, int pass, unsigned start)
{
    if (pass <= passes->last)
        passes->decided = false;
    passes->last = pass;
    if (passes->decided || start == 0 || pass < 0 || (unsigned)pass < start)
        return false;
    passes->decided = true;
    return true;
}
