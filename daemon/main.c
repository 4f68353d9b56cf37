/* SPDX-License-Identifier: GPL-2.0-or-later */
/* postcopyd: the daemon of a hypervisor host, source and destination at once. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "daemon/config.h"
#include "daemon/control/control.h"
#include "daemon/core/log.h"
#include "daemon/core/spin.h"
#include "daemon/core/wake_cost.h"
#include "paths.h"
#include "version.h"

static int fail(const GError *error)
{
    fprintf(stderr, "postcopyd: %s\n", error->message);
    /* As postcopyctl's: 2 is a call that makes no sense. */
    return error->domain == G_OPTION_ERROR ? 2 : EXIT_FAILURE;
}

/* Each VM brings several: what the administrator allows at most is meant for us. */
static void raise_file_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) || limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static int say_sound(const CommandLine *command)
{
    g_autofree char *file = command->file, *warning = command->warning;

    if (warning)
        fprintf(stderr, "postcopyd: warning: %s\n", warning);
    if (file)
        printf("postcopyd: %s: the configuration is sound\n", file);
    else
        puts("postcopyd: the configuration is sound: built-in values, as there is "
             "no " POSTCOPYD_CONFIG_FILE);
    return EXIT_SUCCESS;
}

/* What depends on the host, and nobody has said. */
static void measure(ImportConfig *config)
{
    if (config->busy_poll_us == SETTINGS_MEASURED)
        config->busy_poll_us = spin_worth_us(wake_cost_ns());
}

int main(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    CommandLine command;
    static Settings settings; /* until the process ends: threads of peers still look at it then */
    Control *control;
    gboolean served;

    if (!config_load(&argc, &argv, &settings, &command, &error))
        return fail(error);
    if (command.show_version) {
        puts("postcopyd " POSTCOPYD_VERSION);
        return EXIT_SUCCESS;
    }
    if (command.check_only)
        return say_sound(&command);
    if (command.warning)
        log_warning("%s", command.warning);
    g_free(command.warning);
    raise_file_limit();
    measure(&settings.import);
    control = control_new(&settings, &error);
    if (!control)
        return fail(error);
    served = control_run(control, &error);
    control_free(control);
    return served ? EXIT_SUCCESS : fail(error);
}
