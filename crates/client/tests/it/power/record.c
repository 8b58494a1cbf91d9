/*
 * Records, in order and with their data, all changes that one process makes to the files below one folder.
 *
 * Loaded by LD_PRELOAD. It interposes no library function: part of the store speaks to the kernel directly. Instead the
 * kernel is asked (seccomp) to refuse each call that may change a file and to raise SIGSYS; the handler makes the call
 * itself, from the one address that is exempt, and writes down what came of it. So nothing can be missed, whoever calls;
 * a way to change a file that is not understood is recorded as such, and the test that reads the record fails on it.
 *
 *   RECORD_ROOT   the folder; what happens elsewhere is done and not recorded
 *   RECORD_LOG    the record, appended to
 *   RECORD_KILL   the process is killed when it is about to make this change, counted from 1
 *
 * Not seen: changes by ioctl (cloned ranges), permissions, and what programs do that the process starts (it must start
 * none: they would inherit the refusal without the handler). x86-64 only.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <limits.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

/* One system call; what the kernel sees as its address is `exempt`. */
long call(long number, long a, long b, long c, long d, long e, long f);
extern char exempt[];
__asm__(".text\n"
        ".globl call\n.hidden call\n.type call,@function\n"
        "call:\n"
        "  mov %rdi, %rax\n  mov %rsi, %rdi\n  mov %rdx, %rsi\n  mov %rcx, %rdx\n"
        "  mov %r8, %r10\n  mov %r9, %r8\n  mov 8(%rsp), %r9\n"
        "  syscall\n"
        ".globl exempt\n.hidden exempt\n"
        "exempt:\n  ret\n");

enum kind { CREATE = 1, MKDIR, WRITE, TRUNCATE, SYNC, RENAME, LINK, UNLINK, OTHER };

struct head {
  uint32_t kind, path, path2;
  uint32_t flags; /* of a rename; the number of the call for OTHER */
  uint64_t inode, offset, length;
};

static char root[PATH_MAX];
static size_t root_length;
static int log_fd = -1;
static long changes, kill_at;
static int busy;

static void die(const char *why) {
  call(SYS_write, 2, (long)why, (long)strlen(why), 0, 0, 0);
  call(SYS_exit_group, 97, 0, 0, 0, 0, 0);
}

static void append(const void *bytes, size_t length) {
  const char *from = bytes;
  while (length > 0) {
    long n = call(SYS_write, log_fd, (long)from, (long)length, 0, 0, 0);
    if (n <= 0) die("record: the record cannot be written\n");
    from += n;
    length -= (size_t)n;
  }
}

/* Whether a path is recorded. The index of the log (-shm) is not: its content is rebuilt by whoever opens the store. */
static int ours(const char *path) {
  size_t length = strlen(path);
  if (strncmp(path, root, root_length) != 0 || (path[root_length] != '/' && path[root_length] != 0)) return 0;
  return length < 4 || strcmp(path + length - 4, "-shm") != 0;
}

static int path_of_fd(int fd, char *path) {
  char name[64];
  snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
  long n = call(SYS_readlink, (long)name, (long)path, PATH_MAX - 1, 0, 0, 0);
  path[n < 0 ? 0 : n] = 0;
  return n > 0 && ours(path);
}

/* Where a path leads, seen from a folder. */
static int path_at(int fd, const char *name, char *path) {
  if (name[0] == '/') {
    if (strlen(name) >= PATH_MAX) return 0;
    strcpy(path, name);
    return ours(path);
  }
  char above[PATH_MAX];
  if (fd == AT_FDCWD) {
    if (call(SYS_getcwd, (long)above, PATH_MAX, 0, 0, 0, 0) < 0) return 0;
  } else {
    path_of_fd(fd, above);
  }
  if (strlen(above) + strlen(name) + 2 > PATH_MAX) return 0;
  strcpy(path, above);
  strcat(path, "/");
  strcat(path, name);
  return ours(path);
}

static uint64_t inode_of(int fd, uint64_t *size) {
  struct stat about;
  if (call(SYS_fstat, fd, (long)&about, 0, 0, 0, 0) != 0) die("record: a file cannot be looked at\n");
  if (size) *size = (uint64_t)about.st_size;
  return about.st_ino;
}

static void note(enum kind kind, const char *path, const char *path2, uint32_t flags, uint64_t inode, uint64_t offset,
                 uint64_t length) {
  path += root_length;
  if (path2) path2 += root_length;
  struct head head = {kind, (uint32_t)strlen(path), path2 ? (uint32_t)strlen(path2) : 0, flags, inode, offset, length};
  append(&head, sizeof head);
  append(path, head.path);
  if (path2) append(path2, head.path2);
}

/* Before a recorded change: whether it happens at all. */
static void about_to_change(void) {
  if (++changes == kill_at) {
    call(SYS_kill, call(SYS_getpid, 0, 0, 0, 0, 0, 0), SIGKILL, 0, 0, 0, 0);
    for (;;) {}
  }
}

static long do_write(long nr, long *a) {
  char path[PATH_MAX];
  int fd = (int)a[0];
  if (fd == log_fd || !path_of_fd(fd, path)) return call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
  about_to_change();
  uint64_t size, offset, inode = inode_of(fd, &size);
  if (nr == SYS_write || nr == SYS_writev)
    offset = call(SYS_fcntl, fd, F_GETFL, 0, 0, 0, 0) & O_APPEND ? size : (uint64_t)call(SYS_lseek, fd, 0, SEEK_CUR, 0, 0, 0);
  else
    offset = (uint64_t)a[3];
  long n = call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
  if (n <= 0) return n;
  note(WRITE, path, NULL, 0, inode, offset, (uint64_t)n);
  if (nr == SYS_write || nr == SYS_pwrite64) {
    append((void *)a[1], (size_t)n);
  } else {
    size_t left = (size_t)n;
    for (struct iovec *part = (void *)a[1]; left > 0; part++) {
      size_t some = part->iov_len < left ? part->iov_len : left;
      append(part->iov_base, some);
      left -= some;
    }
  }
  return n;
}

static long do_open(long nr, long *a) {
  char path[PATH_MAX];
  int at = nr == SYS_openat ? (int)a[0] : AT_FDCWD;
  const char *name = (const char *)(nr == SYS_openat ? a[1] : a[0]);
  long flags = nr == SYS_creat ? O_CREAT | O_TRUNC | O_WRONLY : nr == SYS_openat ? a[2] : a[1];
  if (!path_at(at, name, path)) return call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
  if ((flags & O_TMPFILE) == O_TMPFILE) {
    note(OTHER, path, NULL, (uint32_t)nr, 0, 0, 0);
    return call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
  }
  struct stat about;
  int existed = call(SYS_newfstatat, AT_FDCWD, (long)path, (long)&about, AT_SYMLINK_NOFOLLOW, 0, 0) == 0;
  if (!existed || (flags & O_TRUNC)) about_to_change();
  long fd = call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
  if (fd < 0) return fd;
  if (!existed)
    note(CREATE, path, NULL, 0, inode_of((int)fd, NULL), 0, 0);
  else if (flags & O_TRUNC)
    note(TRUNCATE, path, NULL, 0, inode_of((int)fd, NULL), 0, 0);
  return fd;
}

/* A change of names. */
static long do_name(long nr, long *a, enum kind kind, int at, const char *name, int at2, const char *name2, uint32_t flags) {
  char path[PATH_MAX], path2[PATH_MAX];
  int recorded = path_at(at, name, path);
  if (name2) {
    int second = path_at(at2, name2, path2);
    if (recorded != second) { /* into the folder, or out of it */
      if (!recorded) strcpy(path, path2);
      kind = OTHER;
      flags = (uint32_t)nr;
      recorded = 1;
    }
  }
  if (!recorded) return call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
  about_to_change();
  long done = call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
  if (done != 0) return done;
  struct stat made = {0};
  if (kind == MKDIR && call(SYS_newfstatat, AT_FDCWD, (long)path, (long)&made, AT_SYMLINK_NOFOLLOW, 0, 0) != 0)
    die("record: a new folder cannot be looked at\n");
  note(kind, path, kind == OTHER ? NULL : name2 ? path2 : NULL, flags, made.st_ino, 0, 0);
  return done;
}

/* A call on a descriptor that is not understood, if it is on a file of ours. */
static long do_other(long nr, long *a, int fd) {
  char path[PATH_MAX];
  if (fd >= 0 && path_of_fd(fd, path)) note(OTHER, path, NULL, (uint32_t)nr, 0, 0, 0);
  return call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static long perform(long nr, long *a) {
  char path[PATH_MAX];
  long done;
  switch (nr) {
  case SYS_write: case SYS_pwrite64: case SYS_writev: case SYS_pwritev: case SYS_pwritev2:
    return do_write(nr, a);
  case SYS_open: case SYS_openat: case SYS_creat:
    return do_open(nr, a);
  case SYS_ftruncate:
    if (!path_of_fd((int)a[0], path)) break;
    about_to_change();
    done = call(nr, a[0], a[1], 0, 0, 0, 0);
    if (done == 0) note(TRUNCATE, path, NULL, 0, inode_of((int)a[0], NULL), (uint64_t)a[1], 0);
    return done;
  case SYS_fsync: case SYS_fdatasync:
    if (!path_of_fd((int)a[0], path)) break;
    about_to_change();
    done = call(nr, a[0], 0, 0, 0, 0, 0);
    if (done == 0) note(SYNC, path, NULL, nr == SYS_fdatasync, inode_of((int)a[0], NULL), 0, 0);
    return done;
  case SYS_mkdir: return do_name(nr, a, MKDIR, AT_FDCWD, (char *)a[0], 0, NULL, 0);
  case SYS_mkdirat: return do_name(nr, a, MKDIR, (int)a[0], (char *)a[1], 0, NULL, 0);
  case SYS_unlink: case SYS_rmdir: return do_name(nr, a, UNLINK, AT_FDCWD, (char *)a[0], 0, NULL, 0);
  case SYS_unlinkat: return do_name(nr, a, UNLINK, (int)a[0], (char *)a[1], 0, NULL, 0);
  case SYS_rename: return do_name(nr, a, RENAME, AT_FDCWD, (char *)a[0], AT_FDCWD, (char *)a[1], 0);
  case SYS_renameat: return do_name(nr, a, RENAME, (int)a[0], (char *)a[1], (int)a[2], (char *)a[3], 0);
  case SYS_renameat2: return do_name(nr, a, RENAME, (int)a[0], (char *)a[1], (int)a[2], (char *)a[3], (uint32_t)a[4]);
  case SYS_link: return do_name(nr, a, LINK, AT_FDCWD, (char *)a[0], AT_FDCWD, (char *)a[1], 0);
  case SYS_linkat: return do_name(nr, a, LINK, (int)a[0], (char *)a[1], (int)a[2], (char *)a[3], 0);
  case SYS_symlink: return do_name(nr, a, OTHER, AT_FDCWD, (char *)a[1], 0, NULL, (uint32_t)nr);
  case SYS_symlinkat: case SYS_mknodat: return do_name(nr, a, OTHER, (int)a[1], (char *)a[2], 0, NULL, (uint32_t)nr);
  case SYS_truncate: case SYS_mknod: return do_name(nr, a, OTHER, AT_FDCWD, (char *)a[0], 0, NULL, (uint32_t)nr);
  case SYS_fallocate: return do_other(nr, a, (int)a[0]);
  case SYS_sendfile: return do_other(nr, a, (int)a[0]);
  case SYS_copy_file_range: case SYS_splice: return do_other(nr, a, (int)a[2]);
  case SYS_mmap: return do_other(nr, a, (int)a[4]);
  case SYS_io_uring_setup:
    note(OTHER, root, NULL, (uint32_t)nr, 0, 0, 0);
    break;
  }
  return call(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static void on_refused(int signal, siginfo_t *info, void *context) {
  (void)signal;
  int before = errno;
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  long a[6] = {registers[REG_RDI], registers[REG_RSI], registers[REG_RDX],
               registers[REG_R10], registers[REG_R8],  registers[REG_R9]};
  /* One at a time, so that the record has the order in which things happened. */
  while (__atomic_exchange_n(&busy, 1, __ATOMIC_ACQUIRE)) call(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
  registers[REG_RAX] = perform(info->si_syscall, a);
  __atomic_store_n(&busy, 0, __ATOMIC_RELEASE);
  errno = before;
}

#define ALWAYS(nr) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP)
/* Only where one of these bits is set in an argument. */
#define WHERE(nr, arg, bits)                                                                 \
  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 4),                                             \
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[arg])),          \
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, bits, 0, 1),                                      \
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

__attribute__((constructor)) static void start(void) {
  const char *folder = getenv("RECORD_ROOT"), *file = getenv("RECORD_LOG"), *kill = getenv("RECORD_KILL");
  if (!folder || !file || !realpath(folder, root)) die("record: RECORD_ROOT and RECORD_LOG are needed\n");
  root_length = strlen(root);
  kill_at = kill ? atol(kill) : 0;
  int fd = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  log_fd = fcntl(fd, F_DUPFD_CLOEXEC, 500);
  if (log_fd < 0) die("record: the record cannot be opened\n");
  close(fd);

  struct sigaction action = {.sa_sigaction = on_refused, .sa_flags = SA_SIGINFO | SA_NODEFER};
  if (sigaction(SIGSYS, &action, NULL) != 0) die("record: no handler\n");

  uint64_t here = (uint64_t)(uintptr_t)exempt;
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)here, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(here >> 32), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      ALWAYS(SYS_write), ALWAYS(SYS_pwrite64), ALWAYS(SYS_writev), ALWAYS(SYS_pwritev), ALWAYS(SYS_pwritev2),
      ALWAYS(SYS_creat), ALWAYS(SYS_ftruncate), ALWAYS(SYS_truncate), ALWAYS(SYS_fallocate),
      ALWAYS(SYS_fsync), ALWAYS(SYS_fdatasync),
      ALWAYS(SYS_mkdir), ALWAYS(SYS_mkdirat), ALWAYS(SYS_rmdir), ALWAYS(SYS_unlink), ALWAYS(SYS_unlinkat),
      ALWAYS(SYS_rename), ALWAYS(SYS_renameat), ALWAYS(SYS_renameat2), ALWAYS(SYS_link), ALWAYS(SYS_linkat),
      ALWAYS(SYS_symlink), ALWAYS(SYS_symlinkat), ALWAYS(SYS_mknod), ALWAYS(SYS_mknodat),
      ALWAYS(SYS_sendfile), ALWAYS(SYS_copy_file_range), ALWAYS(SYS_splice), ALWAYS(SYS_io_uring_setup),
      WHERE(SYS_open, 1, O_CREAT | O_TRUNC | __O_TMPFILE), WHERE(SYS_openat, 2, O_CREAT | O_TRUNC | __O_TMPFILE),
      WHERE(SYS_mmap, 3, MAP_SHARED),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
    die("record: the kernel grants no seccomp filter here\n");
}
