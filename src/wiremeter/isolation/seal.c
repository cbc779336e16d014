/* What a process gives up before it reads hostile bytes. Numbers of system calls are the headers' of the architecture
 * that this is compiled for. */
#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

#ifdef ARCHITECTURE
/* To compute, to take and give messages on descriptors that are there, and to end. No path is opened, no socket made,
 * no process or thread started, looked at or signalled. */
static const unsigned int ALLOWED[] = {
	__NR_read,	   __NR_write,		 __NR_brk,	     __NR_munmap,     __NR_mremap,
	__NR_madvise,	   __NR_futex,		 __NR_clock_gettime, __NR_getrandom,  __NR_getpid,
	__NR_rt_sigreturn, __NR_restart_syscall, __NR_exit,	     __NR_exit_group,
};

#define COUNT(array) (sizeof(array) / sizeof(*(array)))
#endif

/* No program that is executed can gain a capability. It wants CAP_SETPCAP; who lacks that has no_new_privs. */
void wm_empty_bounding_set(void)
{
	for (int capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; capability++)
		(void)prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
}

/* Takes all capabilities away. Returns 0 or an error number. */
int wm_drop_capabilities(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};

	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) || syscall(SYS_capset, &head, none))
		return errno;
	return 0;
}

/* Gains nothing by programs or files any more, and is no other process's to look into. */
int wm_renounce(void)
{
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) ? errno : 0;
}

/* From now on any other system call ends this process by SIGSYS; so does memory that could be run. Returns 0 or an
 * error number: ENOTSUP where the architecture is not known here. */
int wm_forbid_calls(void)
{
#ifdef ARCHITECTURE
	struct sock_filter filter[4 + 2 * COUNT(ALLOWED) + 6];
	struct sock_fprog program = {.filter = filter};
	unsigned short at = 0;

#define ADD(...) filter[at++] = (struct sock_filter)__VA_ARGS__
	ADD(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)));
	ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0));
	ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
	ADD(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)));
	for (size_t i = 0; i < COUNT(ALLOWED); i++) {
		ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ALLOWED[i], 0, 1));
		ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
	}
	/* Memory, but none that could be run. The third argument of both; both architectures are little-endian. */
	ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_mmap, 1, 0));
	ADD(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_mprotect, 0, 3));
	ADD(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])));
	ADD(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 1, 0));
	ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
	ADD(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
#undef ADD
	program.len = at;
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) ? errno : 0;
#else
	return ENOTSUP;
#endif
}
