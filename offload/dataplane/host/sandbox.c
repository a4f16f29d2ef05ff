#include "offload/dataplane/host/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define OUR_ABI AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OUR_ABI AUDIT_ARCH_AARCH64
#else
#error "sandbox.c: which AUDIT_ARCH_ is this?"
#endif

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

/* For starting a program: it inherits the filter, so it may do no more than we may. */
static const uint16_t of_programs[] = {
    SYS_execve,
#ifdef __x86_64__
    SYS_vfork,   SYS_fork,
#endif
    SYS_chdir,   SYS_wait4,   SYS_waitid,      SYS_setsid,        SYS_getsid,
    SYS_getpgid, SYS_setpgid, SYS_close_range, SYS_rt_sigsuspend,
};

static const uint16_t needed[] = {
    /* descriptors and files */
    SYS_read,
    SYS_write,
    SYS_readv,
    SYS_writev,
    SYS_pread64,
    SYS_pwrite64,
    SYS_close,
    SYS_lseek,
    SYS_fstat,
    SYS_newfstatat,
    SYS_statx,
    SYS_statfs,
    SYS_fstatfs,
    SYS_readlinkat,
    SYS_getdents64,
    SYS_getcwd,
    SYS_fcntl,
    SYS_flock,
    SYS_fsync,
    SYS_fdatasync,
    SYS_ftruncate,
    SYS_fallocate,
    SYS_fadvise64,
    SYS_dup,
    SYS_dup3,
    SYS_pipe2,
    SYS_faccessat,
    SYS_faccessat2,
    SYS_unlinkat,
    SYS_renameat,
    SYS_renameat2,
    SYS_mkdirat,
    SYS_umask,
    SYS_utimensat,
#ifdef __x86_64__ /* which also has the older forms */
    SYS_stat,
    SYS_lstat,
    SYS_readlink,
    SYS_access,
    SYS_unlink,
    SYS_rename,
    SYS_mkdir,
    SYS_rmdir,
    SYS_dup2,
    SYS_pipe,
    SYS_poll,
    SYS_select,
    SYS_epoll_wait,
    SYS_epoll_create,
    SYS_eventfd,
    SYS_inotify_init,
    SYS_time,
    SYS_arch_prctl,
    SYS_getpgrp,
#endif
    /* waiting */
    SYS_ppoll,
    SYS_pselect6,
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_epoll_pwait2,
    SYS_eventfd2,
    SYS_timerfd_create,
    SYS_timerfd_settime,
    SYS_timerfd_gettime,
    SYS_inotify_init1,
    SYS_inotify_add_watch,
    SYS_inotify_rm_watch,
    SYS_futex,
    SYS_nanosleep,
    SYS_clock_nanosleep,
    SYS_restart_syscall,
    /* sockets: families and addresses are left to the network's rules */
    SYS_socket,
    SYS_socketpair,
    SYS_bind,
    SYS_listen,
    SYS_accept,
    SYS_accept4,
    SYS_connect,
    SYS_getsockname,
    SYS_getpeername,
    SYS_getsockopt,
    SYS_setsockopt,
    SYS_sendto,
    SYS_recvfrom,
    SYS_sendmsg,
    SYS_recvmsg,
    SYS_sendmmsg,
    SYS_recvmmsg,
    SYS_shutdown,
    /* memory */
    SYS_munmap,
    SYS_mremap,
    SYS_madvise,
    SYS_mincore,
    SYS_brk,
    SYS_mlock,
    SYS_mlock2,
    SYS_munlock,
    SYS_memfd_secret,
    SYS_membarrier,
    /* threads; for clone, clone3 and prctl see below */
    SYS_exit,
    SYS_exit_group,
    SYS_set_robust_list,
    SYS_get_robust_list,
    SYS_set_tid_address,
    SYS_rseq,
    SYS_gettid,
    SYS_tgkill,
    SYS_sched_yield,
    SYS_sched_getaffinity,
    SYS_sched_setaffinity,
    SYS_getcpu,
    SYS_sched_getparam,
    SYS_sched_getscheduler,
    SYS_sched_get_priority_max,
    SYS_sched_get_priority_min,
    /* signals, and ending by one */
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_rt_sigpending,
    SYS_rt_sigtimedwait,
    SYS_sigaltstack,
    SYS_kill,
    SYS_pidfd_open,
    /* who and what we are, and the time */
    SYS_getpid,
    SYS_getppid,
    SYS_getuid,
    SYS_geteuid,
    SYS_getgid,
    SYS_getegid,
    SYS_getresuid,
    SYS_getresgid,
    SYS_getgroups,
    SYS_capget,
    SYS_uname,
    SYS_sysinfo,
    SYS_getrlimit,
    SYS_getrusage,
    SYS_times,
    SYS_clock_gettime,
    SYS_clock_getres,
    SYS_gettimeofday,
    SYS_getrandom,
};

enum { NEEDED = sizeof needed / sizeof *needed, PROGRAMS = sizeof of_programs / sizeof *of_programs };

/* ---- calls with bounds ---- */

#define NEW_NAMESPACES \
  (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET)
#define SET_ID_BITS (S_ISUID | S_ISGID)
#define ALL 0xffffffffu

/* A condition on the lower half of an argument: the kernel reads these as int, or they have no flags in the upper
 * half. */
typedef struct condition {
  uint8_t argument;
  uint32_t mask;
  uint32_t value; /* (argument & mask) == value */
  bool differs;   /* != in place of == */
} condition;

enum { CONDITIONS_MAX = 2 };

typedef enum when { ALWAYS, WITH_PROGRAMS, WITHOUT_PROGRAMS } when;

/* A call that is allowed when all of the conditions hold. */
typedef struct bound {
  uint16_t call;
  when when;
  uint8_t count;
  condition conditions[CONDITIONS_MAX];
} bound;

static const bound bounds[] = {
    /* No new namespaces, in which we would have capabilities again. */
    {SYS_clone, ALWAYS, 1, {{0, NEW_NAMESPACES, 0, false}}},
    /* Only to name threads; not PR_SET_DUMPABLE, for example. */
    {SYS_prctl, ALWAYS, 1, {{0, ALL, PR_SET_NAME, false}}},
    /* No file that gives its users our user's rights (set-user-id). */
    {SYS_openat, ALWAYS, 1, {{3, SET_ID_BITS, 0, false}}},
#ifdef SYS_open
    {SYS_open, ALWAYS, 1, {{2, SET_ID_BITS, 0, false}}},
#endif
    /* By descriptor, for files that programs make; the daemon itself sets the mode of its sockets by the umask. */
    {SYS_fchmod, WITH_PROGRAMS, 1, {{1, SET_ID_BITS, 0, false}}},
    /* For the group of a socket that is made again; its descriptor is opened with O_PATH, which fchown does not accept.
     * The owner cannot change, and a symlink in the last component is not followed. A filter cannot see that the path
     * is empty: without CAP_CHOWN, an attacker's code can give files that our user owns to groups that we are in, also
     * by path, and no others. */
    {SYS_fchownat, ALWAYS, 2, {{2, ALL, ALL, false}, {4, ALL, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, false}}},
    /* Only our own limits. */
    {SYS_prlimit64, ALWAYS, 1, {{0, ALL, 0, false}}},
    /* No forged input for the terminal that we were started from. */
    {SYS_ioctl, ALWAYS, 2, {{1, ALL, TIOCSTI, true}, {1, ALL, TIOCLINUX, true}}},
    /* No new code: all libraries are loaded by now. Programs load their own. */
    {SYS_mmap, WITHOUT_PROGRAMS, 1, {{2, PROT_EXEC, 0, false}}},
    {SYS_mprotect, WITHOUT_PROGRAMS, 1, {{2, PROT_EXEC, 0, false}}},
    {SYS_mmap, WITH_PROGRAMS, 0, {{0, 0, 0, false}}},
    {SYS_mprotect, WITH_PROGRAMS, 0, {{0, 0, 0, false}}},
};

enum { BOUNDS = sizeof bounds / sizeof *bounds };

static bool counts(const bound *it, bool programs) {
  return it->when == ALWAYS || (it->when == WITH_PROGRAMS) == programs;
}

bool sandbox_allows(long call, bool programs) {
  for (size_t i = 0; i < BOUNDS; i++) {
    if (bounds[i].call == call && counts(&bounds[i], programs)) return true;
  }
  for (size_t i = 0; i < NEEDED; i++) {
    if (needed[i] == call) return true;
  }
  for (size_t i = 0; programs && i < PROGRAMS; i++) {
    if (of_programs[i] == call) return true;
  }
  return false;
}

/* ---- privileges ---- */

bool sandbox_drop_privileges(void) {
  for (unsigned long capability = 0;; capability++) {
    int there = prctl(PR_CAPBSET_READ, capability, 0, 0, 0);
    if (there < 0) break; /* the kernel knows no further ones */
    /* Without CAP_SETPCAP the bounding set stays; it has no effect after no_new_privs. */
    if (there > 0 && prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 && errno != EPERM) return false;
  }
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0) return false;
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0, 0, 0}};
  return syscall(SYS_capset, &header, none) == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
}

/* ---- the filter ---- */

enum { BEFORE_LIST = 6, BOUND_SIZE = 4 + 4 * CONDITIONS_MAX, AFTER_LIST = 3 };

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "sandbox.c: the lower half of an argument is elsewhere"
#endif

static struct sock_filter statement(uint16_t code, uint32_t value) {
  return (struct sock_filter){.code = code, .k = value};
}

/* Skips `if_true` or `if_false` instructions. */
static struct sock_filter jump(uint16_t code, uint32_t value, uint8_t if_true, uint8_t if_false) {
  return (struct sock_filter){.code = code, .jt = if_true, .jf = if_false, .k = value};
}

static struct sock_filter load(size_t offset) {
  return statement(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset);
}

static struct sock_filter answer(uint32_t with) {
  return statement(BPF_RET | BPF_K, with);
}

static size_t allow(struct sock_filter *to, const uint16_t *calls, size_t count) {
  for (size_t i = 0; i < count; i++) {
    to[2 * i] = jump(BPF_JMP | BPF_JEQ | BPF_K, calls[i], 0, 1);
    to[2 * i + 1] = answer(SECCOMP_RET_ALLOW);
  }
  return 2 * count;
}

static size_t allow_within(struct sock_filter *to, const bound *it) {
  size_t size = 0;
  to[size++] = load(offsetof(struct seccomp_data, nr));
  to[size++] = jump(BPF_JMP | BPF_JEQ | BPF_K, it->call, 0, (uint8_t)(4 * it->count + 1));
  for (size_t i = 0; i < it->count; i++) {
    const condition *one = &it->conditions[i];
    to[size++] = load(offsetof(struct seccomp_data, args) + sizeof(uint64_t) * one->argument);
    to[size++] = statement(BPF_ALU | BPF_AND | BPF_K, one->mask);
    to[size++] = jump(BPF_JMP | BPF_JEQ | BPF_K, one->value, one->differs ? 0 : 1, one->differs ? 1 : 0);
    to[size++] = answer(SECCOMP_RET_ERRNO | EPERM);
  }
  to[size++] = answer(SECCOMP_RET_ALLOW);
  return size;
}

bool sandbox_filter_calls(bool programs) {
  struct sock_filter filter[BEFORE_LIST + BOUND_SIZE * BOUNDS + 1 + 2 * (NEEDED + PROGRAMS) + AFTER_LIST];
  size_t size = 0;
  filter[size++] = load(offsetof(struct seccomp_data, arch));
  filter[size++] = jump(BPF_JMP | BPF_JEQ | BPF_K, OUR_ABI, 1, 0);
  filter[size++] = answer(SECCOMP_RET_KILL_PROCESS);
  filter[size++] = load(offsetof(struct seccomp_data, nr));
  /* x32 calls have this bit set, and are not used here. */
  filter[size++] = jump(BPF_JMP | BPF_JGE | BPF_K, 0x40000000u, 0, 1);
  filter[size++] = answer(SECCOMP_RET_KILL_PROCESS);
  for (size_t i = 0; i < BOUNDS; i++) {
    if (counts(&bounds[i], programs)) size += allow_within(filter + size, &bounds[i]);
  }
  filter[size++] = load(offsetof(struct seccomp_data, nr));
  size += allow(filter + size, needed, NEEDED);
  if (programs) size += allow(filter + size, of_programs, PROGRAMS);
  /* clone3 has its flags in memory, where no filter can look; glibc falls back to clone when clone3 is missing. */
  filter[size++] = jump(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1);
  filter[size++] = answer(SECCOMP_RET_ERRNO | ENOSYS);
  filter[size++] = answer(SECCOMP_RET_ERRNO | EPERM);
  struct sock_fprog program = {.len = (unsigned short)size, .filter = filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return false;
  long failed = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
  if (failed > 0) errno = EBUSY; /* a thread has a filter of its own */
  return failed == 0;
}
