/* SPDX-License-Identifier: GPL-2.0 */
/* kselftest_harness.h with time enough for a kernel that checks itself. */
#ifndef HARNESS_H
#define HARNESS_H

#include "kselftest_harness.h"

/*
 * A test takes a second; ten times as long with KASAN and lockdep, and ten
 * times that on an emulated machine which is busy with something else.
 */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	150

#endif /* HARNESS_H */
