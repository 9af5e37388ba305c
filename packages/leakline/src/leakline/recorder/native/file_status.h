/* stat() and fstat() as the system calls that they are: as functions they are glibc's only since 2.33, and a library that is linked with those
 * cannot be loaded into an earlier one. The kernel's struct stat is libc's on both machines. */
#ifndef LEAKLINE_FILE_STATUS_H
#define LEAKLINE_FILE_STATUS_H

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static inline int leakline_fstat(int number, struct stat *status) { return (int)syscall(SYS_fstat, number, status); }

static inline int leakline_stat(const char *path, struct stat *status) { return (int)syscall(SYS_newfstatat, AT_FDCWD, path, status, 0); }

#endif
