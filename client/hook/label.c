/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/hook/label.h"

#include <string.h>

#include "client/operator/xml.h"
#include "protocol/qmp/error.h"

/* SELinux lets whatever runs a guest make its sockets there, whichever label it was given. */
static gboolean is_foreign(const xmlNode *label)
{
    g_autofree char *type = xml_attribute(label, "type");
    g_autofree char *model = xml_attribute(label, "model");

    return strcmp(type, "static") == 0 && strcmp(model, "selinux") != 0;
}

gboolean label_check(const xmlNode *domain, GError **error)
{
    for (xmlNode *label = xml_child(domain, "seclabel", NULL); label;
         label = xml_next(label, "seclabel", NULL)) {
        g_autofree char *model = NULL;

        if (!is_foreign(label))
            continue;
        model = xml_attribute(label, "model");
        g_set_error(error, CALL_ERROR, CALL_ERROR_FAILED,
                    "the domain has a static seclabel (%s): a QEMU that is not confined as usual "
                    "may not make its second monitor",
                    *model ? model : "no model");
        return FALSE;
    }
    return TRUE;
}
