/* SPDX-License-Identifier: MIT
 *
 * error.h - the thread's last error message.
 *
 * Functions of this project return 0 or a positive count, or -errno. Where the
 * number alone would leave a user guessing, the function that finds the fault
 * writes one sentence that names the thing at fault and the remedy. The text is
 * thread-local and is overwritten by the next fault: a caller that wants to keep
 * it copies it. Nothing here allocates, blocks or prints.
 */
#ifndef FABRIC_ERROR_H
#define FABRIC_ERROR_H

/* Sets the thread's message and returns code, so that it can be written as
 * "return err_set(-EINVAL, ...)". */
int err_set(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Puts "fmt: " in front of the message there is already; returns code. */
int err_prefix(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The message for code: the thread's own when it was set for that code by the last failure,
 * else the system's text. Never NULL; valid until the thread's next call into the library. */
const char *err_text(int code);

#endif
