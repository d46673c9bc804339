/* SPDX-License-Identifier: GPL-2.0 */
/* The kernel's small files of text: sysfs, procfs and the like. */
#ifndef TEXT_FILE_H
#define TEXT_FILE_H

#include <stdbool.h>

/* All of @text at once, to a file that is there. */
bool put_text(const char *path, const char *text);

#endif /* TEXT_FILE_H */
