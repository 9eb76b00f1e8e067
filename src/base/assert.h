// SPDX-License-Identifier: Apache-2.0
// Assertions on our own bugs, kept in release builds. Never on input: input gets a sora_status.
#ifndef BASE_ASSERT_H
#define BASE_ASSERT_H

_Noreturn void assert_failed(const char *condition, const char *file, int line);

#define ASSERT(condition) ((condition) ? (void)0 : assert_failed(#condition, __FILE__, __LINE__))

#endif
