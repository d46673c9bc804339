// SPDX-License-Identifier: GPL-2.0
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "fail_nth.h"
#include "kselftest.h"
#include "text_file.h"

bool fail_nth_setup(void)
{
	static const char * const dir[] = {
		"failslab", "fail_page_alloc", "fail_usercopy",
		"fail_make_request",
	};
	char path[128];
	unsigned int i;

	mount("none", "/sys/kernel/debug", "debugfs", 0, NULL);
	if (access("/proc/self/fail-nth", F_OK) ||
	    access("/sys/kernel/debug/failslab", F_OK))
		return false;
	for (i = 0; i < ARRAY_SIZE(dir); i++) {
		snprintf(path, sizeof(path), "/sys/kernel/debug/%s/verbose",
			 dir[i]);
		put_text(path, "0");
		snprintf(path, sizeof(path),
			 "/sys/kernel/debug/%s/ignore-gfp-wait", dir[i]);
		put_text(path, "N");
		snprintf(path, sizeof(path),
			 "/sys/kernel/debug/%s/ignore-gfp-highmem", dir[i]);
		put_text(path, "N");
		snprintf(path, sizeof(path),
			 "/sys/kernel/debug/%s/min-order", dir[i]);
		put_text(path, "0");
	}
	return true;
}

bool fail_nth_set(int fd, unsigned int nth)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", nth);

	return pwrite(fd, text, len, 0) == len;
}

bool fail_nth_hit(int fd)
{
	char text[16] = "";

	/* This may fail for the same reason, after all else has not. */
	return pread(fd, text, sizeof(text) - 1, 0) > 0 && !atoi(text);
}
