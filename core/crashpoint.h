/* SPDX-License-Identifier: MIT
 *
 * crashpoint.h - named places where a test may kill the process.
 *
 * CRASH_POINT("claim.leased") stands between two steps of a protocol. In a normal build it is
 * nothing. In the build of the crash tests (FABRIC_CRASH_POINTS, tests/crash/crashpoint.c) a
 * process that was told so ends there by SIGKILL, at its n-th visit.
 *
 * Names are FILE.WHAT, where WHAT says what has just been done.
 */
#ifndef FABRIC_CRASHPOINT_H
#define FABRIC_CRASHPOINT_H

#ifdef FABRIC_CRASH_POINTS

struct crash_site {
    _Alignas(16) const char *name;
};

void crash_hit(const struct crash_site *site);

#define CRASH_POINT(text)                                                                          \
    do {                                                                                           \
        static const struct crash_site site_                                                       \
            __attribute__((used, section("crash_sites"))) = {text};                                \
        crash_hit(&site_);                                                                         \
    } while (0)

#else

#define CRASH_POINT(text) ((void)0)

#endif
#endif
