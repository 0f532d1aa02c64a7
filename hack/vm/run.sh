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
#   --sysroot FOLDER   the machine is an arm64 one: busybox and libraries are this folder's (hack/sysroot.sh)
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

programs=() files=() modules=() envs=() sysroot=''
timeout=120 memory=512 cpus=2 append='' icount='' console=''
reproduce="hack/vm/run.sh $(printf '%q ' "$@")"
while [ $# -gt 0 ]; do
	case $1 in
	--program) programs+=("$2"); shift 2 ;;
	--file) files+=("$2"); shift 2 ;;
	--module) modules+=("$2"); shift 2 ;;
	--env) envs+=("$2"); shift 2 ;;
	--sysroot) sysroot=$2; shift 2 ;;
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
# the kernel's messages, the command's output, its exit status: a serial line each
qemu=qemu-system-x86_64 console_tty=ttyS0 out_tty=ttyS1 status_tty=ttyS2 busybox=$(command -v busybox || true)
if [ -n "$sysroot" ]; then
	qemu=qemu-system-aarch64 console_tty=ttyAMA0 out_tty=ttyS0 status_tty=ttyS1 busybox=$sysroot/usr/bin/busybox
fi
for tool in $qemu cpio ldd readelf; do
	command -v "$tool" >/dev/null || die "$tool is missing (make deps installs it)"
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

[ -x "$busybox" ] || die "busybox is missing (hack/deps.sh test installs it)"
place "$busybox" /bin/busybox
chmod 755 "$root/bin/busybox"
! readelf -lW "$root/bin/busybox" | grep -q INTERP || die "busybox is not static (install busybox-static)"

# The shared libraries that a program needs, a path a line; and `NAME not found`.
libraries() {
	if [ -z "$sysroot" ]; then
		# "libx.so => /path (0x...)", or "/lib64/ld-linux... (0x...)"
		ldd "$1" 2>/dev/null | sed -nE 's/^.*(not found).*$/\0/p; s/^.*[[:space:]](\/[^ ]+) \(0x.*$/\1/p'
		return
	fi
	# Another architecture's loader does not run here: what the files say, again for each library.
	local name found queue=("$1") known=' ld-linux-aarch64.so.1 '
	echo /lib/ld-linux-aarch64.so.1
	while [ ${#queue[@]} -gt 0 ]; do
		for name in $(readelf -dW "${queue[0]}" | sed -nE 's/.*\(NEEDED\).*\[(.*)\]/\1/p'); do
			case $known in *" $name "*) continue ;; esac
			known="$known$name "
			found=/usr/lib/aarch64-linux-gnu/$name
			[ -e "$sysroot$found" ] || { echo "$name not found"; continue; }
			echo "$found"
			queue+=("$sysroot$found")
		done
		queue=("${queue[@]:1}")
	done
}
for p in ${programs[@]+"${programs[@]}"}; do
	[ -x "$p" ] || die "$p: no such program"
	place "$p" "/bin/$(basename "$p")"
	libraries "$p" >"$tmp/libraries"
	missing=$(awk '/not found/ {print $1}' "$tmp/libraries")
	[ -z "$missing" ] || die "$p needs $missing"
	while read -r lib; do
		[ -e "$root$lib" ] || place "$sysroot$lib" "$lib"
	done <"$tmp/libraries"
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

sed "s/OUT_TTY/$out_tty/; s/STATUS_TTY/$status_tty/" >"$root/init" <<'INIT'
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
stty -F /dev/OUT_TTY raw -echo
sh /command </dev/null >/dev/OUT_TTY 2>&1
echo $? >/dev/STATUS_TTY
stty -F /dev/OUT_TTY raw -echo # waits until the output is out
stty -F /dev/STATUS_TTY raw -echo
reboot -f
INIT
chmod 755 "$root/init" "$root/command"
(cd "$root" && find . -print0 | cpio -0 -o -H newc -R 0:0 --quiet) >"$tmp/initramfs"

parameters="console=$console_tty panic=-1 nosoftlockup random.trust_cpu=on mitigations=off tsc=reliable $append"
machine=(-accel "tcg,thread=single" -smp "$cpus" -cpu max -m "$memory" -nic none)
lines=(-serial "file:$console" -chardev "stdio,id=out,signal=off" -serial chardev:out -serial "file:$tmp/status")
if [ -n "$sysroot" ]; then
	# pauth-impdef: pointer authentication as costly as on real processors, not as in software
	machine=(-machine virt -accel "tcg,thread=multi" -smp "$cpus" -cpu "max,pauth-impdef=on" -m "$memory" -nic none)
	lines=(-serial "file:$console" -chardev "stdio,id=out,signal=off" -device "pci-serial,chardev=out"
		-chardev "file,id=status,path=$tmp/status" -device "pci-serial,chardev=status")
fi
if [ -n "$icount" ]; then
	machine=(-accel tcg -icount "shift=0,sleep=off" -seed 1 -rtc "base=2024-01-01,clock=vm" -smp 1
		-cpu "max,-erms,-fsrm,-rdrand,-rdseed" -m "$memory" -nic none)
	parameters="$parameters nokaslr norandmaps"
fi

status=0
: >"$tmp/status"
timeout -k 5 "$timeout" $qemu "${machine[@]}" -nodefaults -display none -monitor none \
	-no-reboot -kernel "$kernel/vmlinuz" -initrd "$tmp/initramfs" -append "$parameters" \
	"${lines[@]}" </dev/null || status=$?

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
