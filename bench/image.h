/*
 * image.h - an initrd made from another one and a command to run in it.
 */
#ifndef UMBRA_BENCH_IMAGE_H
#define UMBRA_BENCH_IMAGE_H

/*
 * Makes a temporary file: `base`, then an archive with `command` as /command (tests/workload's init runs that for
 * umbra.run=command) and, unless `dir` is NULL, what lies in that folder below /work. Linux unpacks both. Says what is
 * wrong on stderr. 0 with the file's name in made[512], or -errno with made[0] = 0.
 */
int image_with_command(const char *base, const char *command, const char *dir, char made[512]);

#endif
