/*
 * record.h - finding the pages of the guest's arena (tests/guests/numa.c) in a process, without asking umbra.
 */
#ifndef TESTS_NUMA_RECORD_H
#define TESTS_NUMA_RECORD_H

#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

/*
 * Prints one JSON object: where the host has page 0..pages-1. A page is known by its first word, its node by move_pages(2).
 *   runs: [first, count, nodes, places]...   masks: the nodes that hold a copy, and the places, which are the equal distances
 *                                            between a page's number and its address, numbered by address
 *   missing: pages that are nowhere          copies: pages that are at more than one address
 * 0 or -errno.
 */
int where_print(FILE *to, pid_t pid, uint32_t pages);

#endif
