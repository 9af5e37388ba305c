/* What glibc has under new names since 2.38, by the names that it has had since the machine's beginning: so a library that is built there
 * loads into programs with an older one. Include it last. */
#ifndef LEAKLINE_OLD_NAMES_H
#define LEAKLINE_OLD_NAMES_H

#include <stdio.h>
#include <stdlib.h>

#ifdef __GLIBC__
int leakline_sscanf(const char *text, const char *format, ...) __asm__("__isoc99_sscanf") __attribute__((format(scanf, 2, 3)));
unsigned long long leakline_strtoull(const char *text, char **end, int base) __asm__("strtoull");
int leakline_atoi(const char *text) __asm__("atoi"); /* the headers' one is strtol, inlined */
#define atoi leakline_atoi
#define sscanf leakline_sscanf
#define strtoull leakline_strtoull
#endif

#endif
