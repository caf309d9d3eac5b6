/* SPDX-License-Identifier: MIT
 *
 * ofi_load.h - libfabric is loaded when it is first needed, see ofi_load.c. Loading it takes 200 ms
 * and its first use 100 ms more; both block.
 */
#ifndef FABRIC_OFI_LOAD_H
#define FABRIC_OFI_LOAD_H

/* 0, or -ENODEV with a message that says what to install. */
int ofi_load(void) __attribute__((warn_unused_result));
/* Loads it and lets it look for its providers, so that a later domain_open() is quick. For a thread
 * of its own, while others do something else. */
void ofi_warm(void);

#endif
