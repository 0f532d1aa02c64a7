#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# usage: hack/vm/run.sh [options] KERNEL-FOLDER -- COMMAND [ARGUMENT...]
#
# Boots a kernel (as hack/vm/kernel.sh unpacks it) in an emulated machine with nothing but busybox
# and the programs given, runs the command in it, shows its output as it comes and returns its exit
# status. The command runs as root with proc, sys, devtmpfs, tracefs, debugfs, bpffs and cgroup2
# mounted and `lo` up.
#
#   --program FILE     put it at /bin/NAME, with the shared libraries it needs (repeatable)
#   --file FILE:PATH   put a file at a path of the guest (repeatable)
#   --module NAME      load this kernel module first, if the kernel has it (repeatable)
#   --env NAME=VALUE   for the command (repeatable)
#   --timeout SECONDS  hard limit (default 120)
#   --memory MIB       default 512
#   --cpus N           default 2
#   --append TEXT      more kernel parameters
#   --icount           one processor whose time is the count of instructions: figures that repeat
#   --console FILE     where the kernel's messages are kept
#
# Exit status: the command's; 124 if the time is over; 125 if the machine died or never ran it.
set -euo pipefail

say() { echo "run.sh: $*" >&2; }
die() { say "$*"; exit 125; }

programs=() files=() modules=() envs=()
timeout=120 memory=512 cpus=2 append='' icount='' console=''
reproduce="hack/vm/run.sh $(printf '%q ' "$@")"
while [ $# -gt 0 ]; do
	case $1 in
	--program) programs+=("$2"); shift 2 ;;
	--file) files+=("$2"); shift 2 ;;
	--module) modules+=("$2"); shift 2 ;;
	--env) envs+=("$2"); shift 2 ;;
	--timeout) timeout=$2; shift 2 ;;
	--memory) memory=$2; shift 2 ;;
	--cpus) cpus=$2; shift 2 ;;
	--append) append=$2; shift 2 ;;
	--console) console=$2; shift 2 ;;
	--icount) icount=1; shift ;;
	--) break ;;
	-*) die "unknown option $1" ;;
	*) [ -z "${kernel:-}" ] || die "two kernels given: $kernel and $1"; kernel=$1; shift ;;
	esac
done
if [ $# -lt 2 ] || [ -z "${kernel:-}" ]; then
	die "usage: hack/vm/run.sh [options] KERNEL-FOLDER -- COMMAND..."
fi
shift
[ -s "$kernel/vmlinuz" ] || die "$kernel/vmlinuz: no kernel there (hack/vm/kernel.sh fetches one)"
for tool in qemu-system-x86_64 busybox cpio ldd; do
	command -v $tool >/dev/null || die "$tool is missing (make deps installs it)"
done

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM
[ -n "$console" ] || console=$tmp/console
root=$tmp/root
mkdir -p "$root"/{bin,dev,etc,lib,mnt,proc,run,sys,tmp}
ln -s lib "$root/lib64"

# A file to the same path in the guest; the merged /usr of the host is a plain path there.
place() {
	local to=$root$2
	mkdir -p "$(dirname "$to")"
	cp -L "$1" "$to"
}

place "$(command -v busybox)" /bin/busybox
chmod 755 "$root/bin/busybox"
! ldd "$root/bin/busybox" >/dev/null 2>&1 || die "busybox is not static (install busybox-static)"
for p in ${programs[@]+"${programs[@]}"}; do
	[ -x "$p" ] || die "$p: no such program"
	place "$p" "/bin/$(basename "$p")"
	# ldd says: "libx.so => /path (0x...)", or "/lib64/ld-linux... (0x...)".
	missing=$(ldd "$p" 2>/dev/null | awk '/not found/ {print $1}')
	[ -z "$missing" ] || die "$p needs $missing"
	for lib in $(ldd "$p" 2>/dev/null | grep -oE '/[^ ]+ \(0x' | cut -d' ' -f1); do
		[ -e "$root$lib" ] || place "$lib" "$lib"
	done
done
for f in ${files[@]+"${files[@]}"}; do
	place "${f%%:*}" "${f#*:}"
done
for m in ${modules[@]+"${modules[@]}"}; do
	found=$(find "$kernel/modules" -name "$m.ko*" 2>/dev/null | head -n 1)
	case $found in
	'') continue ;;
	*.xz) mkdir -p "$root/modules" && xz -dc "$found" >"$root/modules/$m.ko" ;;
	*.zst) mkdir -p "$root/modules" && zstd -qdc "$found" >"$root/modules/$m.ko" ;;
	*) place "$found" "/modules/$m.ko" ;;
	esac
done
printf 'root:x:0:0::/:/bin/sh\n' >"$root/etc/passwd"
printf '127.0.0.1 localhost guest\n::1 localhost\n' >"$root/etc/hosts"

{
	printf '#!/bin/sh\n'
	for e in ${envs[@]+"${envs[@]}"}; do
		printf 'export %q\n' "$e"
	done
	printf 'exec %s\n' "$(printf '%q ' "$@")"
} >"$root/command"

# ttyS0 has the kernel's messages, ttyS1 the command's output, ttyS2 its exit status.
cat >"$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/ TERM=dumb
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs tmp /dev/shm
mount -t tmpfs tmp /tmp
mount -t debugfs debug /sys/kernel/debug
mount -t tracefs trace /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup
ln -s /proc/self/fd /dev/fd
hostname guest
ip link set lo up
for m in /modules/*.ko; do
	[ ! -e "$m" ] || insmod "$m"
done
stty -F /dev/ttyS1 raw -echo
sh /command </dev/null >/dev/ttyS1 2>&1
echo $? >/dev/ttyS2
stty -F /dev/ttyS1 raw -echo # waits until the output is out
stty -F /dev/ttyS2 raw -echo
reboot -f
INIT
chmod 755 "$root/init" "$root/command"
(cd "$root" && find . -print0 | cpio -0 -o -H newc -R 0:0 --quiet) >"$tmp/initramfs"

parameters="console=ttyS0 panic=-1 nosoftlockup random.trust_cpu=on mitigations=off tsc=reliable $append"
machine=(-accel "tcg,thread=single" -smp "$cpus" -cpu max -m "$memory" -nic none)
if [ -n "$icount" ]; then
	machine=(-accel tcg -icount "shift=0,sleep=off" -seed 1 -rtc "base=2024-01-01,clock=vm" -smp 1
		-cpu "max,-erms,-fsrm,-rdrand,-rdseed" -m "$memory" -nic none)
	parameters="$parameters nokaslr norandmaps"
fi

status=0
: >"$tmp/status"
timeout -k 5 "$timeout" qemu-system-x86_64 "${machine[@]}" -nodefaults -display none -monitor none \
	-no-reboot -kernel "$kernel/vmlinuz" -initrd "$tmp/initramfs" -append "$parameters" \
	-serial "file:$console" -chardev stdio,id=out,signal=off -serial chardev:out \
	-serial "file:$tmp/status" </dev/null || status=$?

result=$(tr -cd 0-9 <"$tmp/status")
complaint='BUG:|Oops|int3:|invalid opcode:|general protection fault|refcount_t:|Kernel panic'
if grep -aqE "($complaint)" "$console"; then
	say "the kernel complained:"
	grep -aE -A 40 "($complaint)" "$console" | head -n 60 | tr -d '\r' >&2
	result=125
fi
if [ -n "$result" ] && [ "$result" -eq 0 ]; then
	exit 0
fi
if [ -z "$result" ]; then
	if [ $status -eq 124 ] || [ $status -eq 137 ]; then
		say "not done after $timeout s: stopped"
		result=124
	else
		say "the machine ended without running the command to its end (qemu: $status)"
		result=125
	fi
	say "last words of the kernel:"
	tail -n 10 "$console" | tr -d '\r' >&2 || true
fi
say "exit status $result on $(cat "$kernel/version" 2>/dev/null || echo "$kernel"); to repeat:"
say "  $reproduce"
exit "$result"
