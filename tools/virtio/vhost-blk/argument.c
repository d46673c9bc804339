// SPDX-License-Identifier: GPL-2.0
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

void fail(const char *format, ...)
{
	va_list args;

	fputs("bench: error: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

bool number(const char *arg, const char *name, unsigned int *value)
{
	size_t len = strlen(name);
	char *end;

	if (strncmp(arg, name, len) || arg[len] != '=')
		return false;
	*value = strtoul(arg + len + 1, &end, 10);
	if (*end || end == arg + len + 1)
		fail("'%s' has no number", arg);
	return true;
}
